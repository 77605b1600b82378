//! A scenario becomes a run: the workload under faults, healing, liveness, drain, audit, judgement.

mod actors;
mod fate;
mod panics;
mod phases;
mod settings;
mod stage;
mod wire;

use std::{collections::BTreeMap, time::Instant};

use rmom_core::marks;

use self::stage::Stage;
use crate::{
    Trace,
    check::{Floors, Violation, check, vacuous},
    isolated,
    report::{Counts, Report, Verdict},
    scenario::Scenario,
    traced,
};

/// Runs a scenario, on a thread of its own, and judges it. A panic within is a verdict, not a panic here.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    let began = Instant::now();
    let stage = Stage::new(scenario);
    let played = panics::caught(|| isolated(|| play(&stage)));
    judge(&stage, played, began)
}

/// As [`run`], with a trace of everything that happened.
#[must_use]
pub fn run_traced(scenario: &Scenario, keep_lines: bool) -> (Report, Trace) {
    let began = Instant::now();
    let stage = Stage::new(scenario);
    // A panic must not take the trace with it.
    let (played, trace) = traced(keep_lines, || panics::caught(|| play(&stage)));
    (judge(&stage, played, began), trace)
}

/// Why the run ended too early, if it did, and the marks that were reached.
type Played = (Option<String>, BTreeMap<String, u64>);

fn play(stage: &Stage) -> Played {
    // What ran on this thread before is not meant.
    drop(marks::take());
    let played = panics::quietly(|| phases::play(stage));
    let marks = marks::take().into_iter().map(|(name, times)| (name.to_owned(), times)).collect();
    (played.and_then(|played| played).err(), marks)
}

fn judge(stage: &Stage, played: Result<Played, String>, began: Instant) -> Report {
    let (crashed, marks) = played.unwrap_or_else(|panic| (Some(panic), BTreeMap::new()));
    let scenario = (*stage.scenario).clone();
    let history = stage.history.records();
    let violations = check(&history);
    let counts = Counts::of(&history);
    let verdict = verdict(&scenario, crashed, &violations, &counts);
    Report { scenario, verdict, violations, counts, marks, history, took: began.elapsed() }
}

fn verdict(scenario: &Scenario, crashed: Option<String>, violations: &[Violation], counts: &Counts) -> Verdict {
    if let Some(message) = crashed {
        return Verdict::Crashed(message);
    }
    if violations.iter().any(|violation| !violation.promise.is_liveness()) {
        return Verdict::Safety;
    }
    if !violations.is_empty() {
        return Verdict::Liveness;
    }
    vacuous(counts, &floors(scenario)).map_or(Verdict::Passed, Verdict::Vacuous)
}

/// The floors of a sweep, unless the scenario itself is too small for them.
fn floors(scenario: &Scenario) -> Floors {
    let planned: u64 = scenario.workload.producers.iter().map(|plan| u64::from(plan.pushes)).sum();
    let usual = Floors::default();
    let consumers = u64::from(!scenario.workload.consumers.is_empty());
    Floors {
        acknowledgements: usual.acknowledgements.min(planned / 3),
        deliveries: usual.deliveries.min(planned / 3) * consumers,
        faults_in_flight: usual.faults_in_flight.min(scenario.steps.len() as u64 / 2),
    }
}
