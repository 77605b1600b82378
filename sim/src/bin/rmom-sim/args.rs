//! The command line.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

/// How long a seed may take before it counts as a failure, in seconds of real time.
const SEED_DEADLINE_SECS: u64 = 120;
/// How often `shrink` runs a scenario, at most.
const SHRINK_ATTEMPTS: usize = 500;

const AFTER_HELP: &str = "\
Examples:
  rmom-sim run --seeds 1000             try a thousand seeds, on all cores
  rmom-sim replay 17                    tell the story of seed 17
  rmom-sim replay 17 --html 17.html     draw it
  rmom-sim shrink 17 --out 17.scenario  find the smallest scenario that fails like it

Exit codes:
  0  all promises were kept
  1  wrong usage, or the program itself failed
  2  a promise of safety was broken
  3  something did not proceed in time (promise 10)
  4  something crashed: a panic, an abort, a seed that never ended
  5  too many runs were vacuous, or, with --require-marks, a mark was never reached
Where several apply it is the first of 2, 4, 3, 5. A sweep that is interrupted and found nothing ends with 130.";

/// Run rmom in a simulated world: any failure is a seed.
#[derive(Debug, Parser)]
#[command(name = "rmom-sim", version, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run many seeds, and say which of them broke a promise.
    Run(RunArgs),
    /// Run a seed or a scenario again and tell what happened; or tell a history that was written down.
    Replay(ReplayArgs),
    /// Find the smallest scenario that fails as a given one does.
    Shrink(ShrinkArgs),
    /// Hold a history, as JSON lines, against the promises.
    Check(CheckArgs),
    /// Print the scenario of a seed.
    Scenario(ScenarioArgs),
    /// Plant bugs, one after the other, and see which of them the simulation finds.
    Bugs(BugsArgs),
    /// Run what comes on standard input, a job a line; answer with a line each.
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// `rmom-sim run`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  rmom-sim run --seeds 1000
  rmom-sim run --seeds 10000 --fresh --jobs 8 --keep failures
  rmom-sim run --seeds 200 --faults crash,database --until-first-failure

A worker is a process of its own, since only one simulation at a time can run in one.")]
pub(crate) struct RunArgs {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// The first of them; the others follow it.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) from: u64,
    /// Start with a seed drawn by chance, which is printed.
    #[arg(long, conflicts_with = "from")]
    pub(crate) fresh: bool,
    /// How many at a time [default: one per core].
    #[arg(long, value_name = "J")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Stop at the first seed that fails.
    #[arg(long)]
    pub(crate) until_first_failure: bool,
    /// Print JSON: a line for each seed as it ends, and a last one with the summary.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write scenario, history, story and diagram of every seed that fails to this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Fail if a mark was never reached.
    #[arg(long)]
    pub(crate) require_marks: bool,
    /// How long a seed may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = SEED_DEADLINE_SECS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

impl RunArgs {
    /// How long a seed may take.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

/// Which faults befall a seed's world.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FaultArgs {
    /// Of a seed's faults, let only these kinds happen.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub(crate) faults: Vec<FaultKind>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultKind {
    /// None at all.
    None,
    /// A host is killed.
    Crash,
    /// A host loses its power.
    PowerLoss,
    /// A broker or manager does not come back.
    Loss,
    /// Links are cut, in both directions or one.
    Cut,
    /// What is sent arrives late.
    Hold,
    /// Links are slow.
    Slow,
    /// A broker stands still.
    Freeze,
    /// A clock is set.
    Clock,
    /// The database misbehaves.
    Database,
    /// A broker is drained.
    Drain,
    /// A second process starts under a broker's address.
    Twin,
    /// Queues and channels come and go.
    Churn,
    /// Consumers stall, leave and come back.
    Consumers,
}

/// A scenario: a seed's, or one from a file.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(crate) struct WhatArgs {
    /// The seed.
    #[arg(group = "what")]
    pub(crate) seed: Option<u64>,
    /// A scenario that was written to a file; `-` for standard input.
    #[arg(long, value_name = "FILE", group = "what")]
    pub(crate) scenario: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

/// `rmom-sim replay`
#[derive(Clone, Debug, Args)]
#[command(
    group = ArgGroup::new("which").required(true),
    after_help = "\
Examples:
  rmom-sim replay 17
  rmom-sim replay 17 --all | less
  rmom-sim replay --scenario 17.scenario --html 17.html
  rmom-sim replay --history 17.jsonl --html 17.html

Times are simulated ones, mm:ss.mmm since the start. The exit codes are those of `rmom-sim --help`."
)]
pub(crate) struct ReplayArgs {
    /// The seed.
    #[arg(group = "which")]
    pub(crate) seed: Option<u64>,
    /// A scenario that was written to a file; `-` for standard input.
    #[arg(long, value_name = "FILE", group = "which")]
    pub(crate) scenario: Option<PathBuf>,
    /// Run nothing: tell and check this history, as JSON lines; `-` for standard input.
    #[arg(long, value_name = "FILE", group = "which", conflicts_with_all = ["faults", "jsonl", "trace"])]
    pub(crate) history: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
    /// Tell every single event, instead of summing up the traffic.
    #[arg(long)]
    pub(crate) all: bool,
    /// Write the history, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Draw a space-time diagram: one HTML file for any browser.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write what went over the simulated network, a line for each event.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
}

/// `rmom-sim shrink`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  rmom-sim shrink 17
  rmom-sim shrink --scenario 17.scenario --out sim/regressions/acknowledged-and-lost.json")]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    /// Where to write the result [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// How many smaller scenarios to try, at most.
    #[arg(long, value_name = "N", default_value_t = SHRINK_ATTEMPTS)]
    pub(crate) attempts: usize,
    /// How long a run may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = SEED_DEADLINE_SECS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) deadline: u64,
}

/// `rmom-sim check`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  rmom-sim check 17.jsonl")]
pub(crate) struct CheckArgs {
    /// The history, as JSON lines; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Print each broken promise as a line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rmom-sim scenario`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  rmom-sim scenario 17 > 17.scenario")]
pub(crate) struct ScenarioArgs {
    /// The seed.
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

/// `rmom-sim bugs`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  rmom-sim bugs --list
  rmom-sim bugs --only fence-check-removed dedupe-not-rebuilt
  rmom-sim bugs --markdown docs/planted-bugs.md

Run it within the sources of rmom. Each bug is built anew, so all of them take long.
Exit codes: 0 if all were caught; 5 if one was missed; 2 if something was found that is no planted bug.")]
pub(crate) struct BugsArgs {
    /// Only these.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) only: Vec<String>,
    /// Tell what bugs there are, and do nothing.
    #[arg(long)]
    pub(crate) list: bool,
    /// In how many seeds each is looked for, at most.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// How many at a time [default: one per core].
    #[arg(long, value_name = "J")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Do not try first that nothing is found where nothing is planted.
    #[arg(long)]
    pub(crate) no_control: bool,
    /// Write the table to this file, too, after each bug.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
}

/// `rmom-sim worker`
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Write what a failure leaves behind to this directory.
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("rmom-sim").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_for_people_has_an_example() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("  rmom-sim "), "{}", command.get_name());
        }
    }

    #[test]
    fn a_replay_is_of_one_thing() {
        assert!(parse("replay 17").is_ok());
        assert!(parse("replay --scenario 17.scenario --faults crash,cut").is_ok());
        assert!(parse("replay --history 17.jsonl --html 17.html").is_ok());
        for wrong in
            ["", "17 --scenario a", "17 --history a", "--scenario a --history b", "--history a --trace b", "-1"]
        {
            assert!(parse(&format!("replay {wrong}")).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_sweep_has_seeds_workers_and_time() {
        let Ok(Cli { command: Command::Run(args) }) =
            parse("run --from 7 --seeds 3 --jobs 2 --faults crash,power-loss")
        else {
            panic!("this is a valid command line")
        };
        assert_eq!((args.from, args.seeds, args.jobs.map(NonZeroUsize::get)), (7, 3, Some(2)));
        assert_eq!(args.faults.faults, [FaultKind::Crash, FaultKind::PowerLoss]);
        assert_eq!(args.deadline(), Duration::from_secs(SEED_DEADLINE_SECS));
        for wrong in ["--seeds 0", "--jobs 0", "--deadline 0", "--from 1 --fresh", "--faults earthquake"] {
            assert!(parse(&format!("run {wrong}")).is_err(), "{wrong:?}");
        }
    }
}
