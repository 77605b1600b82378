//! `rmom doctor`: checks whether this machine can use the cluster, and prints the next step where it cannot.

mod ask;
mod checks;
mod look;
mod seen;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use self::checks::{Finding, Level};
use super::{
    admin::Printer,
    args::{DoctorArgs, TlsArgs},
    error::CliError,
    output::plural,
    session::{Session, tls_config},
};

/// Makes the checks, and prints a line for each.
pub(super) async fn run(
    session: &Session,
    tls: &TlsArgs,
    args: &DoctorArgs,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let tls = tls_config(tls)?.map(Into::into);
    let findings = checks::all(&look::look(session.managers(), tls, args.timeout).await);
    printer.print(|| document(&findings), |out| lines(&findings).into_iter().try_for_each(|line| out.line(line)))?;
    match problems(&findings) {
        0 => Ok(()),
        count => Err(CliError::unavailable(format_args!("not all is well: {}", plural(count, "problem")))),
    }
}

/// Number of problems. Warnings do not count, since the things they name work.
fn problems(findings: &[Finding]) -> u64 {
    findings.iter().filter(|finding| finding.level == Level::Problem).count() as u64
}

fn document(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| json!({ "check": finding.check, "state": finding.level.name(), "what": finding.what, "next": finding.next });
    json!({ "healthy": problems(findings) == 0, "checks": findings.iter().map(one).collect::<Vec<_>>() })
}

fn lines(findings: &[Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in findings {
        lines.push(format!("{:<8} {:<11} {}", finding.level.name(), finding.check, finding.what));
        lines.extend(finding.next.as_ref().map(|next| format!("{:21}{next}", "")));
    }
    lines
}
