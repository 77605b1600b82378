//! A scenario becomes a run: the workload under faults, healing, liveness, drain, audit, judgement.

mod actors;
mod fate;
mod settings;
mod stage;
mod wire;

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rmom_core::marks;

use self::{fate::Fate, settings::Bounds, stage::Stage};
use crate::{
    Cluster, SimError,
    check::{Floors, check, vacuous},
    database::DATABASE_HOST,
    history::{Event, Phase},
    isolated,
    report::{Counts, Report, Verdict},
    scenario::Scenario,
};

/// How much simulated time passes on one host before it is the next one's turn.
const TICK: Duration = Duration::from_millis(2);
/// How much simulated time there is until everything is set up.
const SETUP: Duration = Duration::from_secs(30);
/// How much longer than all its steps the workload may take under faults; what is left then is done after they are over.
const WORKLOAD: Duration = Duration::from_secs(20);
/// How long the cluster is left alone before the audit, so that what must not happen has time to.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Runs a scenario, on a thread of its own, and judges it. A panic within is a verdict, not a panic here.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    let stage = Stage::new(scenario);
    let clock = std::time::Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        isolated(|| {
            drop(marks::take());
            let played = play(&stage);
            (played, marks::take())
        })
    }));
    let took = clock.elapsed();
    let (failure, marks) = match ended {
        Ok((Ok(()), marks)) => (None, marks),
        Ok((Err(error), marks)) => (Some(error.to_string()), marks),
        Err(panic) => (Some(words(panic.as_ref())), BTreeMap::new()),
    };
    let history = stage.history.records();
    let violations = check(&history);
    let counts = Counts::of(&history);
    let verdict = match failure {
        Some(reason) => Verdict::Crashed(reason),
        None if violations.iter().any(|violation| !violation.promise.is_liveness()) => Verdict::Safety,
        None if !violations.is_empty() => Verdict::Liveness,
        None => vacuous(&counts, &Floors::default()).map_or(Verdict::Passed, Verdict::Vacuous),
    };
    let marks = marks.into_iter().map(|(name, times)| (name.to_owned(), times)).collect();
    Report { scenario: scenario.clone(), verdict, violations, counts, marks, history, took }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked without words".into())
}

/// All of a run. What did not come about in time is in the history, and no error.
fn play(stage: &Stage) -> Result<(), SimError> {
    let scenario = stage.scenario.clone();
    let (broker, manager) = (settings::broker(&scenario.topology), settings::manager());
    let bounds = Bounds::of(&broker, &manager);
    let (from, to) = scenario.topology.latency_millis;
    let mut cluster = Cluster::builder(scenario.seed)
        .managers(usize::from(scenario.topology.managers.max(1)))
        .brokers(usize::from(scenario.topology.brokers.max(1)))
        .broker_settings(|all| *all = broker)
        .manager_settings(|all| *all = manager)
        .client_settings(settings::client)
        .latency(Duration::from_millis(from), Duration::from_millis(to.max(from)))
        .tick(TICK)
        .limit(Duration::MAX)
        .recorder(stage.history.clone())
        .build();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    stage.history.record(
        "fate",
        Event::Began {
            seed: scenario.seed,
            expiry_bound_millis: millis(bounds.expiry),
            convergence_bound_millis: millis(bounds.convergence),
            trim_bound_millis: millis(bounds.trim),
        },
    );
    actors::enter(&mut cluster, stage);

    if !within(&mut cluster, SETUP, |_| stage.with(|state| state.ready))? {
        stage.history.record("fate", Event::TimeUp { pending: "the queues, before any fault".into() });
        return Ok(());
    }
    under_faults(&mut cluster, stage)?;
    stage.enter(Phase::Healed);
    let converged = within(&mut cluster, bounds.convergence, |_| stage.unsettled().is_none())?;
    if !converged {
        let pending = stage.unsettled().unwrap_or_default();
        stage.history.record("fate", Event::TimeUp { pending });
        return Ok(());
    }
    stage.history.record("fate", Event::Converged);
    stage.enter(Phase::Drain);
    if !within(&mut cluster, bounds.convergence, |_| stage.undelivered().is_none())? {
        let pending = stage.undelivered().unwrap_or_default();
        stage.history.record("fate", Event::TimeUp { pending });
        return Ok(());
    }
    cluster.run_for(AFTERMATH)?;
    stage.enter(Phase::Audit);
    for event in cluster.database().audit() {
        stage.history.record(DATABASE_HOST, event);
    }
    Ok(())
}

/// The workload, until it is done and the faults are over, or until it takes too long.
fn under_faults(cluster: &mut Cluster, stage: &Stage) -> Result<(), SimError> {
    let mut fate = Fate::new(&stage.scenario);
    stage.enter(Phase::Faults);
    let began = cluster.elapsed();
    let last = stage.scenario.steps.iter().map(|step| step.at_millis.saturating_add(step.for_millis)).max();
    let patience = Duration::from_millis(last.unwrap_or_default()) + WORKLOAD;
    loop {
        let since = cluster.elapsed() - began;
        fate.pass(cluster, stage, since);
        if since > patience || fate.is_over() && stage.is_workload_done() {
            break;
        }
        cluster.tick()?;
    }
    fate.heal(cluster, stage);
    Ok(())
}

/// Lets time pass until `done`; false if that takes too long.
fn within(cluster: &mut Cluster, time: Duration, done: impl Fn(&Cluster) -> bool) -> Result<bool, SimError> {
    let end = cluster.elapsed() + time;
    cluster.run_until(|cluster| done(cluster) || cluster.elapsed() >= end)?;
    Ok(done(cluster))
}
