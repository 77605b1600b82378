//! `rmom-sim bugs`: planted bugs, and the promises that catch them.

use std::{env, io::Write as _, num::NonZeroUsize};

use rmom_sim_lab::bugs::{self, Bug, BugError, Sandbox, Sweep, Trial, TrialOutcome};

use crate::{
    args::BugsArgs,
    commit::commit,
    error::Error,
    exit::Exit,
    files,
    output::{Out, duration, eprint, plural},
};

pub(crate) fn run(args: &BugsArgs) -> Result<Exit, Error> {
    let here = env::current_dir().map_err(|error| Error::Usage(format!("there is no current folder: {error}")))?;
    let workspace = bugs::workspace(&here)?;
    let bugs = chosen(bugs::catalogue(workspace)?, &args.only)?;
    let mut out = Out::new();
    if args.list {
        for Bug { name, rule, mistake, .. } in &bugs {
            out.line(format_args!("{name:<32}  {mistake} [{rule}]"))?;
        }
        out.flush()?;
        return Ok(Exit::Passed);
    }
    eprint(format_args!("{}, each searched for in {}", plural(bugs.len() as u64, "bug"), plural(args.seeds, "seed")));
    let sandbox = Sandbox::open(workspace)?;
    let sweep = Sweep { seeds: args.seeds, jobs: args.jobs.map(NonZeroUsize::get) };
    // The first trial plants no bug and must find none; otherwise its failure would be attributed to every bug.
    let none = (!args.no_control).then_some(None);
    let mut trials = Vec::new();
    for bug in none.into_iter().chain(bugs.iter().map(Some)) {
        let trial = sandbox.try_bug(bug, sweep)?;
        eprint(in_one_line(&trial));
        trials.push(trial);
        // Written after each bug, since all of them together take long.
        if let Some(file) = &args.markdown {
            files::write(file, |out| out.write_all(document(&trials, sweep).as_bytes()))?;
        }
    }
    out.line(bugs::markdown(&trials).trim_end())?;
    out.flush()?;
    Ok(exit(&trials))
}

fn chosen(bugs: Vec<Bug>, only: &[String]) -> Result<Vec<Bug>, Error> {
    if let Some(unknown) = only.iter().find(|name| bugs.iter().all(|bug| bug.name != **name)) {
        return Err(BugError::Unknown(unknown.clone()).into());
    }
    Ok(bugs.into_iter().filter(|bug| only.is_empty() || only.contains(&bug.name)).collect())
}

fn in_one_line(Trial { bug, outcome, building, sweeping }: &Trial) -> String {
    let name = bug.as_ref().map_or("no bug", |bug| &bug.name);
    let outcome = match outcome {
        TrialOutcome::Caught { seed, seeds, promises, what } => {
            let by = if promises.is_empty() { "a crash".to_owned() } else { format!("{promises:?}") };
            format!("caught by {by} in seed {seed}, after {}: {what}", plural(*seeds, "seed"))
        }
        TrialOutcome::Missed { seeds } if bug.is_none() => format!("nothing found in {}", plural(*seeds, "seed")),
        TrialOutcome::Missed { seeds } => format!("MISSED in {}", plural(*seeds, "seed")),
        TrialOutcome::NotBuilt { errors } => format!("does not build:\n{errors}"),
    };
    format!("{name}: {outcome} ({} to build, {} to sweep)", duration(*building), duration(*sweeping))
}

/// The document with the sections that bugs name.
const SECTIONS: &str = "\
The column *rule* names the broken rule with its section of the design:

| section | described in |
| --- | --- |
| 2, words | the glossary of [ARCHITECTURE.md](../ARCHITECTURE.md#glossary) |
| 3, promises | [README.md](../README.md#what-it-promises) |
| 6, the store | the invariants of [ARCHITECTURE.md](../ARCHITECTURE.md#code-map-and-invariants) and the [decisions](decisions/README.md) |
| 7 and 8, broker and manager | [ARCHITECTURE.md](../ARCHITECTURE.md) |
| 10, mistakes of the original | [original-mistakes.md](original-mistakes.md) |
";

fn document(trials: &[Trial], sweep: Sweep) -> String {
    format!(
        "# Planted bugs\n\n\
         A planted bug is a realistic mistake that the simulation has to find. `rmom-sim bugs` makes each of\n\
         the mistakes in `sim/lab/bugs` in a copy of the sources and sweeps at most {} until one fails.\n\n\
         This is its output at commit {}.\n\n{}\n{}\n{}",
        plural(sweep.seeds, "seed"),
        commit(),
        SECTIONS,
        bugs::markdown(trials),
        bugs::UNSEEN,
    )
}

/// All bugs must be caught, and the trial without a bug must pass.
fn exit(trials: &[Trial]) -> Exit {
    let fails = |trial: &Trial| match &trial.outcome {
        TrialOutcome::Caught { .. } => trial.bug.is_none().then_some(Exit::Safety),
        TrialOutcome::Missed { .. } => trial.bug.is_some().then_some(Exit::TooLittle),
        TrialOutcome::NotBuilt { .. } => Some(Exit::Error),
    };
    trials.iter().find_map(fails).unwrap_or(Exit::Passed)
}
