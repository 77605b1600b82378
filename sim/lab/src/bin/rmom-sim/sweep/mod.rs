//! `rmom-sim run`: many seeds and their results.

mod child;
pub(crate) mod keep;
pub(crate) mod pool;
mod progress;
mod summary;
mod tally;

use std::{
    num::NonZeroUsize,
    ops::ControlFlow,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use self::{pool::Pool, progress::Progress, tally::Tally};
use crate::{
    args::RunArgs,
    commit::commit,
    error::Error,
    exit::Exit,
    output::{Out, eprint, plural},
    worker::{Job, Outcome},
};

/// Fresh sweeps start with a seed below this, which is short enough to be read out.
const FRESH_SEEDS: u64 = 1_000_000_000_000;

pub(crate) fn run(args: &RunArgs) -> Result<Exit, Error> {
    let from = if args.fresh { fresh_seed() } else { args.from };
    let last = from.checked_add(args.seeds - 1);
    let last = last.ok_or_else(|| Error::Usage(format!("there are no {} seeds from {from} on", args.seeds)))?;
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = args.jobs.map_or(cores, NonZeroUsize::get).min(usize::try_from(args.seeds).unwrap_or(usize::MAX));
    if !args.json {
        let range = if last == from { from.to_string() } else { format!("{from} … {last}") };
        let (seeds, workers) = (plural(args.seeds, "seed"), plural(workers as u64, "worker"));
        eprint(format_args!("{seeds} ({range}) at commit {}, {workers}", commit()));
    }

    let started = Instant::now();
    let mut tally = Tally::default();
    let mut progress = Progress::new(args.seeds, args.json);
    let mut out = Out::new();
    let mut pool = Pool::new(workers, args.deadline(), args.keep.clone(), args.faults.clone());
    pool.interruptible();
    pool.run((from..=last).map(Job::Seed), |news| {
        if let pool::PoolEvent::Outcome(outcome) = news {
            if args.json {
                print_json(&mut out, &outcome)?;
            } else if outcome.failed() {
                progress.interrupt(|| summary::print_failure(&outcome, &args.faults));
            }
            tally.add(outcome);
        }
        progress.show(&tally, started.elapsed());
        Ok(match args.until_first_failure && tally.failed() > 0 {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    })?;
    progress.end();

    let exit = tally.exit(args.require_marks, pool.was_interrupted());
    if args.json {
        summary::print_json(&mut out, &tally, started.elapsed(), exit)?;
    } else {
        summary::print(&mut out, &tally, started.elapsed(), args)?;
    }
    out.flush()?;
    Ok(exit)
}

fn print_json(out: &mut Out, outcome: &Outcome) -> Result<(), Error> {
    out.line(serde_json::to_string(outcome).map_err(std::io::Error::from)?)?;
    out.flush()
}

/// Random enough to select seeds that were not tried before.
fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or_default() % FRESH_SEEDS
}
