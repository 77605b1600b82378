//! Turns a scenario into a run: the workload under faults, healing, liveness, drain, audit, judgement.

mod actors;
mod driver;
mod fault_injector;
pub mod marks;
mod panics;
mod phases;
mod run_state;
mod settings;
mod wire;

use std::{collections::BTreeMap, time::Instant};

use rmom_core::marks::take as take_marks;
use rmom_sim::{SimError, Trace, isolated, traced};

pub use self::driver::Driver;
use self::run_state::RunState;
use crate::{
    check::{Floors, Violation, check, vacuous},
    report::{Counts, Report, Verdict},
    scenario::Scenario,
};

/// Runs a scenario on a thread of its own and judges it. A panic in the simulation becomes a verdict, not a panic here.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    run_scripted(scenario, follow)
}

/// Like [`run`], but `script` decides which faults happen during the workload, and when: it waits for an event in the
/// history and then acts. So it can force a sequence of events that the timed steps of a scenario only make possible. When the
/// script is done, the run continues like any other: all its actions end, and the cluster has to converge.
///
/// An error of the script is the verdict [`Verdict::Crashed`]. The report's scenario does not contain the script's actions.
///
/// ```no_run
/// use rmom_sim::history::Event;
/// use rmom_sim_lab::{report::Verdict, run::run_scripted, scenario::{Action, Scenario}};
///
/// let report = run_scripted(&Scenario::from_seed(1), |driver| {
///     let owner = driver.owner(1);
///     driver.wait_for("something stored", |event| matches!(event, Event::Stored { .. }))?;
///     driver.begin(Action::Crash(owner));
///     driver.wait_for("another owner", |event| matches!(event, Event::Claimed { .. }))?;
///     Ok(())
/// });
/// assert_eq!(report.verdict, Verdict::Passed);
/// ```
#[must_use]
pub fn run_scripted(
    scenario: &Scenario,
    script: impl FnOnce(&mut Driver<'_>) -> Result<(), SimError> + Send,
) -> Report {
    let began = Instant::now();
    let run = RunState::new(scenario);
    let executed = panics::caught(|| isolated(|| execute(&run, script)));
    report_of(&run, executed, began)
}

/// Like [`run`], with a trace of everything that happened.
#[must_use]
pub fn run_traced(scenario: &Scenario, keep_lines: bool) -> (Report, Trace) {
    let began = Instant::now();
    let run = RunState::new(scenario);
    // A panic must not discard the trace.
    let (executed, trace) = traced(keep_lines, || panics::caught(|| execute(&run, follow)));
    (report_of(&run, executed, began), trace)
}

/// The script of a run without a script: the scenario's own steps.
fn follow(driver: &mut Driver<'_>) -> Result<(), SimError> {
    driver.follow()
}

/// The reason why the run ended too early, if it did, and the marks that were reached.
type Executed = (Option<String>, BTreeMap<String, u64>);

fn execute(run: &RunState, script: impl FnOnce(&mut Driver<'_>) -> Result<(), SimError>) -> Executed {
    // Discards the marks of earlier runs on this thread.
    drop(take_marks());
    let executed = panics::quietly(|| phases::execute(run, script));
    let marks = take_marks().into_iter().map(|(name, times)| (name.to_owned(), times)).collect();
    (executed.and_then(|executed| executed).err(), marks)
}

fn report_of(run: &RunState, executed: Result<Executed, String>, began: Instant) -> Report {
    let (crashed, marks) = executed.unwrap_or_else(|panic| (Some(panic), BTreeMap::new()));
    let scenario = (*run.scenario).clone();
    let history = run.history.records();
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

/// The floors of a sweep, unless the scenario itself is too small to reach them.
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
