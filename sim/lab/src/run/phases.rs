//! The phases of a run, one after the other.

use std::time::Duration;

use rmom_core::ports::{BrokerRecord, BrokerState};
use rmom_sim::{
    Cluster, DATABASE_HOST, SimError, broker_host,
    history::{Event, Phase},
    manager_host,
};

use super::{
    Driver, actors,
    run_state::{RunState, State},
    settings::{self, Bounds},
};

/// How long setting up may take without any fault.
const SET_UP: Duration = Duration::from_secs(20);

/// Executes the scenario, with `script` in place of its steps. The run's history records the events even if the run fails.
pub(super) fn execute(
    run: &RunState,
    script: impl FnOnce(&mut Driver<'_>) -> Result<(), SimError>,
) -> Result<(), String> {
    let scenario = run.scenario.clone();
    let (broker, manager) = (settings::broker(&scenario), settings::manager());
    let bounds = Bounds::of(&broker, &manager);
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    run.history.record(
        "runner",
        Event::Began {
            seed: scenario.seed,
            expiry_bound_millis: millis(bounds.expiry),
            clock_bound_millis: millis(bounds.clock),
            convergence_bound_millis: millis(bounds.convergence),
            trim_bound_millis: millis(bounds.trim),
            sleep_bound_millis: millis(bounds.sleep),
            deleted_bound_millis: millis(bounds.deleted),
            answer_bound_millis: millis(bounds.answer),
            idle_bound_millis: millis(bounds.idle),
        },
    );
    let (min, max) = scenario.topology.latency_millis;
    let mut cluster = Cluster::builder(scenario.seed)
        .managers(usize::from(scenario.topology.managers.max(1)))
        .brokers(usize::from(scenario.topology.brokers.max(1)))
        .latency(Duration::from_millis(min), Duration::from_millis(max.max(min)))
        .broker_settings(|settings| *settings = broker)
        .manager_settings(|settings| *settings = manager)
        .serving(|serving| {
            if let Some(connections) = scenario.topology.limits.map(|limits| limits.connections).filter(|&n| n > 0) {
                serving.max_connections_per_peer = connections as usize;
            }
        })
        .recorder(run.history.clone())
        .limit(Duration::MAX)
        .build();
    cluster.database().set_row_cost(scenario.topology.limits.map_or(0, |limits| limits.row_micros));
    actors::start(&mut cluster, run);
    let executed = parts(run, &mut cluster, bounds, script);
    executed.map_err(|error| error.to_string())?;
    run.begin_phase(Phase::Audit);
    for event in cluster.database().audit() {
        run.history.record(DATABASE_HOST, event);
    }
    Ok(())
}

fn parts(
    run: &RunState,
    cluster: &mut Cluster,
    bounds: Bounds,
    script: impl FnOnce(&mut Driver<'_>) -> Result<(), SimError>,
) -> Result<(), SimError> {
    if !run_until(cluster, SET_UP, || run.with(|state| state.ready))? {
        run.history.record("runner", Event::TimeUp { pending: "the cluster did not come up".into() });
        return Ok(());
    }
    run.begin_phase(Phase::Faults);
    let mut driver = Driver::new(run, cluster, bounds.convergence);
    script(&mut driver)?;
    driver.heal();

    run.begin_phase(Phase::Healed);
    let healed_at = u64::try_from(cluster.elapsed().as_millis()).ok();
    run.with(|state| state.healed_at = healed_at);
    let pending: Vec<u64> = run.with(|state| state.open_pushes.keys().copied().collect());
    let topology = &run.scenario.topology;
    let managers = (1..=usize::from(topology.managers.max(1))).map(manager_host);
    let brokers = (1..=usize::from(topology.brokers.max(1))).map(broker_host);
    let hosts: Vec<String> = managers.chain(brokers).collect();
    let database = cluster.database().clone();
    let unfinished = || run.with(|state| unfinished(state, &pending, &hosts)).or_else(|| burdened(&database.brokers()));
    let converged = run_until(cluster, bounds.convergence, || unfinished().is_none())?;
    if converged {
        run.history.record("runner", Event::Converged);
        run.with(|state| state.converged = true);
        let uneven = || run.with(|state| uneven(state, &database.brokers()));
        if !run_until(cluster, bounds.level, || uneven().is_none())? {
            let pending = uneven().unwrap_or_default();
            run.history.record("runner", Event::TimeUp { pending });
        }
    } else {
        let pending = unfinished().unwrap_or_default();
        run.history.record("runner", Event::TimeUp { pending });
    }

    // Makes streams visible that should have ended by now but have not.
    let linger = Duration::from_millis(run.scenario.workload.linger_millis);
    if converged && !linger.is_zero() {
        run.with(|state| state.lingers = true);
        run_until(cluster, linger, || false)?;
    }

    // The rest of the workload is no longer needed.
    run.begin_phase(Phase::Drain);
    run_until(cluster, bounds.convergence, || run.with(|state| is_drained(state, run)))?;
    if let Some(push) = run.with(|state| state.open_pushes.keys().next().copied()) {
        let pending = format!("push {push} has no outcome at the end");
        run.history.record("runner", Event::TimeUp { pending });
    }
    run.cut_all_short("RUN_OVER");
    Ok(())
}

/// A sentence naming a condition that is missing for convergence, or `None`.
fn unfinished(state: &State, pending: &[u64], hosts: &[String]) -> Option<String> {
    if let Some(push) = pending.iter().find(|push| state.open_pushes.contains_key(push)) {
        return Some(format!("push {push} has no outcome"));
    }
    if let Some(queue) = state.queues.iter().find(|queue| !queue.is_settled()) {
        return Some(format!("the operator did not finish with {}", queue.label));
    }
    if let Some((broker, _)) = state.drains.iter().find(|(_, drain)| !drain.is_settled()) {
        return Some(format!("the operator did not finish draining broker-{broker}"));
    }
    if let Some(producer) = state.opening.first() {
        return Some(format!("producer-{producer} could not open its producer"));
    }
    if let Some(host) = hosts.iter().find(|host| !state.well.contains(*host) && !state.lost.contains(*host)) {
        return Some(format!("{host} did not report that it is healthy"));
    }
    let unprobed = state.queues.iter().find(|queue| queue.id.is_none_or(|id| !state.probed.contains(&id)));
    unprobed.map(|queue| format!("no message went through {}", queue.label))
}

/// A drained broker from which the managers have not moved all queues.
fn burdened(brokers: &[BrokerRecord]) -> Option<String> {
    let is_burdened = |broker: &&BrokerRecord| broker.state == BrokerState::Draining && broker.queues > 0;
    brokers.iter().find(is_burdened).map(|broker| format!("{} is drained, but still has queues", broker.addr.host))
}

/// Two brokers that accept queues, one of which has too many more than the other.
fn uneven(state: &State, brokers: &[BrokerRecord]) -> Option<String> {
    let takes = |broker: &&BrokerRecord| broker.state == BrokerState::Up && !state.lost.contains(&broker.addr.host);
    let most = brokers.iter().filter(takes).max_by_key(|broker| broker.queues)?;
    let fewest = brokers.iter().filter(takes).min_by_key(|broker| broker.queues)?;
    (most.queues > fewest.queues + settings::manager().rebalance_tolerance).then(|| {
        let (full, empty) = (&most.addr.host, &fewest.addr.host);
        format!("{full} has {} queues, and {empty} has {}", most.queues, fewest.queues)
    })
}

/// True if every consumer has all messages.
fn is_drained(state: &State, run: &RunState) -> bool {
    state.open_pushes.is_empty()
        && ((state.examined && state.accounted) || !state.converged)
        && state.queues.iter().all(|queue| queue.id.is_none_or(|id| state.marked.contains(&id)))
        && (1..).zip(&run.scenario.workload.consumers).all(|(number, _)| state.done.contains(&number))
}

/// Lets time pass until `done` holds, or for at most `limit`. True if `done` held.
fn run_until(cluster: &mut Cluster, limit: Duration, done: impl Fn() -> bool) -> Result<bool, SimError> {
    let end = cluster.elapsed() + limit;
    while !done() {
        if cluster.elapsed() >= end {
            return Ok(false);
        }
        cluster.tick()?;
    }
    Ok(true)
}
