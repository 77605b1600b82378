//! `rmom-sim check`: checks a history against the promises.

use rmom_sim_lab::check;

use crate::{
    args::CheckArgs,
    error::Error,
    exit::Exit,
    files,
    output::{Out, plural},
    violations,
};

pub(crate) fn run(args: &CheckArgs) -> Result<Exit, Error> {
    let history = files::read_history(&args.file)?;
    let violations = check::check(&history);
    let verdict = violations::verdict(&violations);
    let mut out = Out::new();
    if args.json {
        for violation in &violations {
            out.line(serde_json::to_string(violation).map_err(std::io::Error::from)?)?;
        }
    } else {
        let broken = match violations.len() {
            0 => "no promise is broken".to_owned(),
            some => plural(some as u64, "violation"),
        };
        out.line(format_args!("{} in {}: {broken}", plural(history.len() as u64, "record"), args.file.display()))?;
        violations::print_violations(&mut out, &history, &violations)?;
    }
    out.flush()?;
    Ok(Exit::of(&verdict))
}
