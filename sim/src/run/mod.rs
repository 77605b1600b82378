//! A scenario becomes a run: the workload under faults, healing, liveness, drain, audit, judgement.

mod actors;
mod fate;
mod hand;
mod panics;
mod phases;
mod settings;
mod stage;
mod wire;

use std::{collections::BTreeMap, time::Instant};

use rmom_core::marks;

pub use self::hand::Hand;
use self::stage::Stage;
use crate::{
    SimError, Trace,
    check::{Floors, Violation, check, vacuous},
    isolated,
    report::{Counts, Report, Verdict},
    scenario::Scenario,
    traced,
};

/// Runs a scenario, on a thread of its own, and judges it. A panic within is a verdict, not a panic here.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    run_scripted(scenario, follow)
}

/// As [`run`], but it is `script` that decides what happens while the workload goes on, and when: it waits until something
/// is in the history, and then does something about it. So it brings about what a scenario's timed steps only may. When the
/// script is done, the run goes on as any other: whatever it began ends, and the cluster has to converge.
///
/// An error of the script is the verdict [`Verdict::Crashed`]. What it does is not in the report's scenario.
///
/// ```no_run
/// use rmom_sim::{history::Event, report::Verdict, run::run_scripted, scenario::{Action, Scenario}};
///
/// let report = run_scripted(&Scenario::from_seed(1), |hand| {
///     let owner = hand.owner(1);
///     hand.wait_for("something stored", |event| matches!(event, Event::Stored { .. }))?;
///     hand.begin(Action::Crash(owner));
///     hand.wait_for("another owner", |event| matches!(event, Event::Claimed { .. }))?;
///     Ok(())
/// });
/// assert_eq!(report.verdict, Verdict::Passed);
/// ```
#[must_use]
pub fn run_scripted(scenario: &Scenario, script: impl FnOnce(&mut Hand<'_>) -> Result<(), SimError> + Send) -> Report {
    let began = Instant::now();
    let stage = Stage::new(scenario);
    let played = panics::caught(|| isolated(|| play(&stage, script)));
    judge(&stage, played, began)
}

/// As [`run`], with a trace of everything that happened.
#[must_use]
pub fn run_traced(scenario: &Scenario, keep_lines: bool) -> (Report, Trace) {
    let began = Instant::now();
    let stage = Stage::new(scenario);
    // A panic must not take the trace with it.
    let (played, trace) = traced(keep_lines, || panics::caught(|| play(&stage, follow)));
    (judge(&stage, played, began), trace)
}

/// The script of a run without a script: the scenario's own steps.
fn follow(hand: &mut Hand<'_>) -> Result<(), SimError> {
    hand.follow()
}

/// Why the run ended too early, if it did, and the marks that were reached.
type Played = (Option<String>, BTreeMap<String, u64>);

fn play(stage: &Stage, script: impl FnOnce(&mut Hand<'_>) -> Result<(), SimError>) -> Played {
    // What ran on this thread before is not meant.
    drop(marks::take());
    let played = panics::quietly(|| phases::play(stage, script));
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
