//! Broken promises, in readable form.

use rmom_sim::history::Record;
use rmom_sim_lab::{
    check::Violation,
    report::{self, Emphasis, Line, Verdict},
};

use crate::{
    error::Error,
    output::{Colour, Out},
};

/// The number of records shown for each violation: the last ones.
const SHOWN_RECORDS: usize = 12;

/// Prints a line of a report.
pub(crate) fn print_line(out: &mut Out, line: &Line) -> Result<(), Error> {
    let time = match line.until {
        Some(until) => format!("{} – {until}", line.at),
        None => line.at.to_string(),
    };
    let host = format!("{:<12}", line.host);
    let (time, host) = (out.paint(Colour::Dim, format!("{time:<21}")), out.paint(Colour::Dim, host));
    match colour(line.emphasis) {
        Some(colour) => out.line(format_args!("{time}  {host}  {}", out.paint(colour, &line.text))),
        None => out.line(format_args!("{time}  {host}  {}", line.text)),
    }
}

fn colour(emphasis: Emphasis) -> Option<Colour> {
    match emphasis {
        Emphasis::Broken => Some(Colour::Red),
        Emphasis::Fault => Some(Colour::Yellow),
        Emphasis::Transition => Some(Colour::Bold),
        Emphasis::Plain => None,
        Emphasis::Traffic => Some(Colour::Dim),
    }
}

/// Prints the violations with the records that show them.
pub(crate) fn print_violations(out: &mut Out, history: &[Record], violations: &[Violation]) -> Result<(), Error> {
    for violation in violations {
        let promise = format!("{} is broken: {}", report::promise(violation.promise), violation.what);
        out.line("")?;
        out.line(out.paint(Colour::Red, promise))?;
        let evidence = report::evidence(history, violation);
        let hidden = evidence.len().saturating_sub(SHOWN_RECORDS);
        if hidden > 0 {
            out.line(format_args!("  … {hidden} more records"))?;
        }
        for (index, line) in &evidence[hidden..] {
            out.line(format_args!("  #{index:<6} {}  {:<12}  {}", line.at, line.host, line.text))?;
        }
    }
    Ok(())
}

/// Prints the verdict of a run.
pub(crate) fn print_verdict(out: &mut Out, verdict: &Verdict) -> Result<(), Error> {
    let colour = match verdict {
        Verdict::Passed => Colour::Green,
        Verdict::Vacuous(_) => Colour::Yellow,
        Verdict::Safety | Verdict::Liveness | Verdict::Crashed(_) => Colour::Red,
    };
    out.line("")?;
    out.line(out.paint(colour, verdict))
}

/// The verdict of a history that was not run just now.
pub(crate) fn verdict(violations: &[Violation]) -> Verdict {
    match violations {
        [] => Verdict::Passed,
        some if some.iter().all(|violation| violation.promise.is_liveness()) => Verdict::Liveness,
        _ => Verdict::Safety,
    }
}
