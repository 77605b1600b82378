//! A worker: reads jobs from standard input, one per line, and prints an outcome for each.
//!
//! A worker is a process of its own, since a process can run only one simulation at a time, and so that a run which aborts
//! or never ends affects no other.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    path::Path,
};

use rmom_sim_lab::{
    check::Violation,
    report::{Counts, Report, Symptom, Verdict},
    run,
    scenario::Scenario,
};
use serde::{Deserialize, Serialize};

use crate::{
    args::{FaultArgs, WorkerArgs},
    error::Error,
    exit::Exit,
    measure::cpu_time,
    scenario,
    sweep::keep,
};

/// A worker's job: `17`, or a scenario in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Job {
    /// The scenario of a seed, with only the faults that the worker's arguments select.
    Seed(u64),
    /// This scenario.
    Scenario(Box<Scenario>),
}

impl Job {
    /// Its seed.
    pub(crate) fn seed(&self) -> u64 {
        match self {
            Self::Seed(seed) => *seed,
            Self::Scenario(scenario) => scenario.seed,
        }
    }

    fn scenario(self, faults: &FaultArgs) -> Scenario {
        match self {
            Self::Seed(seed) => scenario::of_seed(seed, faults),
            Self::Scenario(scenario) => *scenario,
        }
    }
}

/// The outcome of a job: a [`Report`] without its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The seed.
    pub(crate) seed: u64,
    /// The verdict.
    pub(crate) verdict: Verdict,
    /// The broken promises.
    pub(crate) violations: Vec<Violation>,
    /// Counts of events.
    pub(crate) counts: Counts,
    /// Marks that were reached, with their counts.
    pub(crate) marks: BTreeMap<String, u64>,
    /// Its duration in real time, in microseconds.
    pub(crate) took_micros: u64,
    /// Its CPU time, in microseconds.
    pub(crate) cpu_micros: u64,
}

impl Outcome {
    fn of(report: Report, cpu_micros: u64) -> Self {
        let took_micros = u64::try_from(report.took.as_micros()).unwrap_or(u64::MAX);
        Self {
            seed: report.scenario.seed,
            verdict: report.verdict,
            violations: report.violations,
            counts: report.counts,
            marks: report.marks,
            took_micros,
            cpu_micros,
        }
    }

    /// The outcome of a job whose worker died.
    pub(crate) fn crashed(seed: u64, why: String, took_micros: u64) -> Self {
        Self {
            seed,
            verdict: Verdict::Crashed(why),
            violations: Vec::new(),
            counts: Counts::default(),
            marks: BTreeMap::new(),
            took_micros,
            cpu_micros: 0,
        }
    }

    /// The symptom of the failure, or `None` if it did not fail.
    pub(crate) fn symptom(&self) -> Option<Symptom> {
        Symptom::of(&self.verdict, &self.violations)
    }

    /// True if it broke a promise, or crashed.
    pub(crate) fn failed(&self) -> bool {
        Exit::of(&self.verdict) != Exit::Passed
    }
}

/// Works until standard input ends.
pub(crate) fn run(args: &WorkerArgs) -> Result<Exit, Error> {
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| Error::reading(Path::new("-"), error))?;
        let job: Job = serde_json::from_str(&line)
            .map_err(|error| Error::Usage(format!("{line:?} is not a job for a worker: {error}")))?;
        let scenario = job.scenario(&args.faults);
        let before = cpu_time();
        let report = run::run(&scenario);
        let cpu = cpu_time().saturating_sub(before);
        let cpu = if cpu.is_zero() { report.took } else { cpu };
        if let Some(dir) = &args.keep
            && Exit::of(&report.verdict) != Exit::Passed
        {
            keep::report(dir, &report)?;
        }
        let outcome = Outcome::of(report, u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX));
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &outcome).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(Exit::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_a_line_of_json() {
        let jobs = [Job::Seed(17), Job::Scenario(Box::new(Scenario::from_seed(u64::MAX)))];
        for job in jobs {
            let line = serde_json::to_string(&job).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Job>(&line).unwrap(), job);
        }
        assert_eq!(serde_json::from_str::<Job>("17").unwrap(), Job::Seed(17));
    }
}
