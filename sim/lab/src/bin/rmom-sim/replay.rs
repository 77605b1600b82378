//! `rmom-sim replay`: lists or draws the events of a run.

use std::io::Write as _;

use rmom_sim::history::Record;
use rmom_sim_lab::{
    check,
    diagram::{self, Picture},
    report::{self, Verdict},
    run,
};

use crate::{
    args::ReplayArgs,
    commit::{command, commit},
    error::Error,
    exit::Exit,
    files,
    output::{Out, eprint},
    scenario, violations,
};

pub(crate) fn run(args: &ReplayArgs) -> Result<Exit, Error> {
    let replayed = replay(args)?;
    write_files(args, &replayed)?;
    let mut out = Out::new();
    if let Some(scenario) = &replayed.scenario {
        out.line(format_args!("seed {} at commit {}: {}", scenario.seed, commit(), scenario::outline(scenario)))?;
        if !scenario.about.is_empty() {
            out.line(&scenario.about)?;
        }
        out.line("")?;
    }
    let lines = if args.all { report::all_lines } else { report::summary };
    for line in lines(&replayed.history, &replayed.violations) {
        violations::print_line(&mut out, &line)?;
    }
    violations::print_violations(&mut out, &replayed.history, &replayed.violations)?;
    violations::print_verdict(&mut out, &replayed.verdict)?;
    out.flush()?;
    Ok(Exit::of(&replayed.verdict))
}

/// The run or history to be listed.
struct Replayed {
    scenario: Option<rmom_sim_lab::scenario::Scenario>,
    verdict: Verdict,
    violations: Vec<check::Violation>,
    history: Vec<Record>,
}

fn replay(args: &ReplayArgs) -> Result<Replayed, Error> {
    let scenario = match (args.seed, &args.scenario, &args.history) {
        (Some(seed), _, _) => scenario::of_seed(seed, &args.faults),
        (None, Some(path), _) => scenario::from_file(path, &args.faults)?,
        (None, None, Some(path)) => {
            let history = files::read_history(path)?;
            let violations = check::check(&history);
            return Ok(Replayed { scenario: None, verdict: violations::verdict(&violations), violations, history });
        }
        (None, None, None) => return Err(Error::Usage("a seed, a scenario or a history is needed".into())),
    };
    if args.trace.is_some() {
        return Err(Error::Usage("this build writes no network trace; --jsonl writes the history".into()));
    }
    let report = run::run(&scenario);
    Ok(Replayed {
        scenario: Some(scenario),
        verdict: report.verdict,
        violations: report.violations,
        history: report.history,
    })
}

fn write_files(args: &ReplayArgs, replayed: &Replayed) -> Result<(), Error> {
    if let Some(path) = &args.jsonl {
        files::write_history(path, &replayed.history)?;
        eprint(format_args!("the history is in {}", path.display()));
    }
    if let Some(path) = &args.html {
        let picture = Picture {
            history: &replayed.history,
            scenario: replayed.scenario.as_ref(),
            verdict: Some(&replayed.verdict),
            violations: &replayed.violations,
            commit: commit(),
            replay: &replay_command(args),
        };
        files::write(path, |out| out.write_all(diagram::html(&picture).as_bytes()))?;
        eprint(format_args!("the diagram is in {}: open it in a browser", path.display()));
    }
    Ok(())
}

fn replay_command(args: &ReplayArgs) -> String {
    let what = match (args.seed, &args.scenario, &args.history) {
        (Some(seed), _, _) => seed.to_string(),
        (None, Some(path), _) => format!("--scenario {}", file_name(path)),
        (None, None, Some(path)) => format!("--history {}", file_name(path)),
        (None, None, None) => String::new(),
    };
    command(&format!("replay {what}{}", scenario::fault_arguments(&args.faults)))
}

/// The file's name only: diagrams are passed on and should not reveal directories.
fn file_name(path: &std::path::Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
