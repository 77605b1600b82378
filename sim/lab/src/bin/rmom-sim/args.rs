//! The command line.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

/// How long a seed may take before it counts as a failure, in seconds of real time.
const SEED_DEADLINE_SECS: u64 = 120;
/// The most scenarios that `shrink` runs.
const SHRINK_ATTEMPTS: usize = 500;

const AFTER_HELP: &str = "\
Examples:
  rmom-sim run --seeds 1000             try a thousand seeds, on all cores
  rmom-sim replay 17                    list the events of seed 17
  rmom-sim replay 17 --html 17.html     draw it
  rmom-sim shrink 17 --out 17.scenario  find the smallest scenario that fails like it

Exit codes:
  0  all promises were kept
  1  wrong usage, or the program itself failed
  2  a promise of safety was broken
  3  a promise of liveness was broken (promise 10)
  4  a run crashed: a panic, an abort, a seed that never ended
  5  too many runs were vacuous, or, with --require-marks, a mark was never reached
Where several apply it is the first of 2, 4, 3, 5. A sweep that is interrupted and found nothing ends with 130.";

/// Run rmom in a simulated cluster; a single seed replays any failure.
#[derive(Debug, Parser)]
#[command(name = "rmom-sim", version, after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run many seeds and report which of them broke a promise.
    Run(RunArgs),
    /// Replay a seed or a scenario and list its events, or list those of a saved history.
    Replay(ReplayArgs),
    /// Find the smallest scenario that fails like the given one.
    Shrink(ShrinkArgs),
    /// Check a history (JSON lines) against the promises.
    Check(CheckArgs),
    /// Print the scenario of a seed.
    Scenario(ScenarioArgs),
    /// Plant bugs, one after the other, and report which ones the simulation finds.
    Bugs(BugsArgs),
    /// Run jobs from standard input, one per line, and print one line for each.
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

Each worker is a process, because a process can run only one simulation at a time.")]
pub(crate) struct RunArgs {
    /// Number of seeds.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// First seed.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) from: u64,
    /// Start with a random seed, which is printed.
    #[arg(long, conflicts_with = "from")]
    pub(crate) fresh: bool,
    /// Concurrent runs [default: one per core].
    #[arg(long, value_name = "J")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Stop at the first seed that fails.
    #[arg(long)]
    pub(crate) until_first_failure: bool,
    /// Print JSON: one line per seed, then one line with the summary.
    #[arg(long)]
    pub(crate) json: bool,
    /// Write scenario, history, report and diagram of every seed that fails to this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Fail if a mark was not reached.
    #[arg(long)]
    pub(crate) require_marks: bool,
    /// Time limit per seed, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = SEED_DEADLINE_SECS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) deadline: u64,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
}

impl RunArgs {
    /// The time limit per seed.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

/// The faults that may occur in a seed's run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct FaultArgs {
    /// Kinds of the seed's faults to keep [default: all].
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub(crate) faults: Vec<FaultKind>,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultKind {
    /// No faults.
    None,
    /// A host is killed.
    Crash,
    /// A host loses its power.
    PowerLoss,
    /// A broker or manager does not come back.
    Loss,
    /// Links are cut, in both directions or one.
    Cut,
    /// Messages arrive late.
    Hold,
    /// Links are slow.
    Slow,
    /// A broker is frozen.
    Freeze,
    /// A clock is set.
    Clock,
    /// The database has a fault.
    Database,
    /// A broker is drained.
    Drain,
    /// A second process starts under a broker's address.
    Twin,
    /// Queues and channels are created and deleted.
    Churn,
    /// Consumers stall, leave and come back.
    Consumers,
}

/// A scenario: from a seed or from a file.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(crate) struct WhatArgs {
    /// Seed.
    #[arg(group = "what")]
    pub(crate) seed: Option<u64>,
    /// Scenario file; `-` for standard input.
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
    /// Seed.
    #[arg(group = "which")]
    pub(crate) seed: Option<u64>,
    /// Scenario file; `-` for standard input.
    #[arg(long, value_name = "FILE", group = "which")]
    pub(crate) scenario: Option<PathBuf>,
    /// List and check this history (JSON lines) instead of running a scenario; `-` for standard input.
    #[arg(long, value_name = "FILE", group = "which", conflicts_with_all = ["faults", "jsonl", "trace"])]
    pub(crate) history: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) faults: FaultArgs,
    /// List every event instead of summarizing the traffic.
    #[arg(long)]
    pub(crate) all: bool,
    /// Write the history to this file, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) jsonl: Option<PathBuf>,
    /// Write a space-time diagram to this file, as HTML for any browser.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the traffic of the simulated network to this file, one event per line.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
}

/// `rmom-sim shrink`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  rmom-sim shrink 17
  rmom-sim shrink --scenario 17.scenario --out sim/lab/regressions/acknowledged-and-lost.json")]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    /// File for the result [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Maximum number of smaller scenarios to try.
    #[arg(long, value_name = "N", default_value_t = SHRINK_ATTEMPTS)]
    pub(crate) attempts: usize,
    /// Time limit per run, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = SEED_DEADLINE_SECS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) deadline: u64,
}

/// `rmom-sim check`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  rmom-sim check 17.jsonl")]
pub(crate) struct CheckArgs {
    /// History as JSON lines; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Print each broken promise as a line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `rmom-sim scenario`
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  rmom-sim scenario 17 > 17.scenario")]
pub(crate) struct ScenarioArgs {
    /// Seed.
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
Exit codes: 0 if all were caught; 5 if one was missed; 2 if a run without a planted bug failed.")]
pub(crate) struct BugsArgs {
    /// Bugs to plant [default: all].
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) only: Vec<String>,
    /// List the bugs without planting any.
    #[arg(long)]
    pub(crate) list: bool,
    /// Maximum number of seeds per bug.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// Concurrent runs [default: one per core].
    #[arg(long, value_name = "J")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Skip the control run without a planted bug.
    #[arg(long)]
    pub(crate) no_control: bool,
    /// Also write the table to this file, after each bug.
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
}

/// `rmom-sim worker`
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Write scenario, history, report and diagram of every failure to this directory.
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
