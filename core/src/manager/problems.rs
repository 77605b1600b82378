//! The problems of a cluster that a manager knows of or its brokers report, and the operator's next steps.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    Inner, ManagerError,
    ask::Answer,
    status::{BrokerView, ManagerStatus},
};
use crate::{
    model::{BrokerAddr, BrokerId},
    ports::{BrokerState, ControlError},
};

/// A loop that has not completed a cycle for this many cycles is stuck; one cycle may take long while brokers do not answer.
const STUCK_AFTER_CYCLES: u32 = 10;

/// Limit on the complaints of one broker that are reported one by one.
const MAX_TOLD: usize = 10;

/// The health of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The problems, the worst first.
    pub problems: Vec<Problem>,
    /// Facts that could not be found out, though nothing is wrong.
    pub notes: Vec<String>,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A description of the problem.
    pub what: String,
    /// The operator's next step.
    pub next: String,
}

fn problem(what: impl Into<String>, next: impl Into<String>) -> Problem {
    Problem { what: what.into(), next: next.into() }
}

/// All problems that are known without asking brokers, the worst first. `cycle` is how long one turn of the loop should
/// take.
pub(super) fn problems(status: &ManagerStatus, cycle: Duration) -> Vec<Problem> {
    let mut found = Vec::new();
    if !status.running {
        found.push(problem("this manager has ended", "see its log, and start it again"));
    }
    let database = "see whether the database is up and can be reached from this manager";
    match &status.last_cycle {
        None => found.push(problem("this manager has not read the database yet", database)),
        Some(last) => {
            if let Some(error) = &last.error {
                found.push(problem(format!("this manager cannot use the database: {error}"), database));
            }
            if last.age > cycle * STUCK_AFTER_CYCLES {
                let what = format!("this manager last looked at the cluster {} s ago", last.age.as_secs());
                found.push(problem(what, database));
            }
            if last.stranded > 0 {
                let what = format!("{} without a live broker, and no broker to take them", queues(last.stranded));
                found.push(problem(what, "start a broker, or take a drained one back with: rmom broker undrain ID"));
            }
        }
    }
    let takes = |broker: &&BrokerView| {
        broker.live && broker.registered.as_ref().is_some_and(|broker| broker.state == BrokerState::Up)
    };
    if !status.brokers.iter().any(|broker| takes(&broker)) {
        found.push(problem("no live broker takes queues", "start one; see how they are with: rmom broker list"));
    }
    found.extend(status.brokers.iter().filter_map(of_broker));
    found
}

/// The problem of not having asked the brokers.
pub(super) fn unasked(error: &ManagerError) -> Problem {
    problem(format!("this manager did not ask the brokers how they are: {error}"), "ask again, or another manager")
}

fn of_broker(broker: &BrokerView) -> Option<Problem> {
    let addr = &broker.addr;
    let Some(registered) = &broker.registered else {
        let what = format!("the broker at {addr} is listed (moms) and never registered");
        return Some(problem(what, "start it, or take it off the list"));
    };
    // A broker that stopped in good order said so, and a broker that is gone no longer matters.
    if broker.live || broker.gone || registered.state == BrokerState::Stopped {
        return None;
    }
    let id = registered.id;
    let why = broker.probe.as_ref().and_then(|probe| probe.last_error.clone());
    let why = why.unwrap_or_else(|| "its lease ran out".to_owned());
    let what = format!("broker {id} at {addr} is not alive: {why}");
    Some(problem(what, format!("start it again, or remove it for good with: rmom broker forget {id}")))
}

impl Inner {
    /// The complaints of the live brokers, each asked once. This takes `describe_deadline` at most, and memory that grows
    /// with their number.
    pub(super) async fn complaints(&self, status: &ManagerStatus, by: Instant) -> Result<Health, ManagerError> {
        let live = status.brokers.iter().filter(|broker| broker.live);
        let ids: BTreeMap<_, _> = live
            .filter_map(|broker| broker.registered.as_ref().map(|registered| (broker.addr.clone(), registered.id)))
            .collect();
        let ask = |addr: BrokerAddr, _, deadline| async move { self.control.complaints(&addr, deadline).await };
        let mut answers = self.ask_all(ids.clone(), by, ask).await;
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut health = Health::default();
        for (addr, answer) in answers {
            said(&mut health, ids[&addr], &addr, answer);
        }
        Ok(health)
    }
}

/// Adds a broker's answer, or the lack of one.
fn said(health: &mut Health, id: BrokerId, addr: &BrokerAddr, answer: Answer<Vec<String>>) {
    let complaints = match answer {
        Ok(complaints) => complaints,
        Err(ControlError::Older { .. }) => {
            let note = "is of an older version and does not say how it is: see its /readyz, or upgrade it";
            health.notes.push(format!("broker {id} at {addr} {note}"));
            return;
        }
        Err(error) => {
            let what = format!("broker {id} lives and does not say how it is: {error}");
            health.problems.push(problem(what, "see its log; ask its /readyz"));
            return;
        }
    };
    let more = complaints.len().saturating_sub(MAX_TOLD);
    let next = "see the log of that broker; its /readyz says the same";
    let told = complaints.into_iter().take(MAX_TOLD);
    health.problems.extend(told.map(|complaint| problem(format!("broker {id} at {addr}: {complaint}"), next)));
    if more > 0 {
        let what = format!("broker {id} at {addr} has {more} more complaints");
        health.problems.push(problem(what, "its /readyz has them"));
    }
}

fn queues(count: usize) -> String {
    format!("{count} queue{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        manager::{CycleStatus, ManagerCounters, ProbeView, RegisteredBroker},
        model::{BrokerAddr, BrokerId, Incarnation, ManagerId, Term},
    };

    const CYCLE: Duration = Duration::from_secs(1);

    fn broker(id: u64, state: BrokerState, live: bool) -> BrokerView {
        let incarnation = Incarnation::new(Uuid::nil());
        BrokerView {
            addr: BrokerAddr { host: format!("b{id}"), port: 1 },
            configured: false,
            registered: Some(RegisteredBroker {
                id: BrokerId::new(id),
                incarnation,
                state,
                lease_current: live,
                queues: 1,
            }),
            live,
            gone: false,
            probe: None,
        }
    }

    fn well() -> ManagerStatus {
        let (duration, age) = (Duration::from_millis(5), Duration::from_millis(900));
        ManagerStatus {
            manager: ManagerId::new(Uuid::nil()),
            running: true,
            stopping: false,
            leading: true,
            leader: None,
            term: Term::new(1),
            brokers: vec![broker(1, BrokerState::Up, true), broker(2, BrokerState::Draining, true)],
            last_cycle: Some(CycleStatus {
                duration,
                age,
                led: true,
                live_brokers: 2,
                queues: 3,
                stranded: 0,
                error: None,
            }),
            calls: (0, 1),
            counters: ManagerCounters::default(),
        }
    }

    fn whats(change: impl FnOnce(&mut ManagerStatus)) -> Vec<String> {
        let mut status = well();
        change(&mut status);
        let found = problems(&status, CYCLE);
        assert!(found.iter().all(|problem| !problem.next.is_empty()));
        found.into_iter().map(|problem| problem.what).collect()
    }

    fn cycle(status: &mut ManagerStatus) -> &mut CycleStatus {
        status.last_cycle.as_mut().unwrap()
    }

    #[test]
    fn a_cluster_that_is_well_has_none() {
        assert_eq!(whats(|_| {}), [""; 0]);
        // A cluster whose brokers stopped in good order, or left long ago, has no problems either.
        let gone = BrokerView { gone: true, ..broker(4, BrokerState::Up, false) };
        assert_eq!(whats(|status| status.brokers.extend([broker(3, BrokerState::Stopped, false), gone])), [""; 0]);
    }

    #[test]
    fn each_fault_is_named() {
        let error = |status: &mut ManagerStatus| cycle(status).error = Some("it is down".into());
        assert_eq!(whats(error), ["this manager cannot use the database: it is down"]);
        let never = |status: &mut ManagerStatus| status.last_cycle = None;
        assert_eq!(whats(never), ["this manager has not read the database yet"]);
        let stuck = |status: &mut ManagerStatus| cycle(status).age = Duration::from_secs(11);
        assert_eq!(whats(stuck), ["this manager last looked at the cluster 11 s ago"]);
        let stranded = |status: &mut ManagerStatus| cycle(status).stranded = 1;
        assert_eq!(whats(stranded), ["1 queue without a live broker, and no broker to take them"]);
        assert_eq!(whats(|status| status.running = false), ["this manager has ended"]);
    }

    #[test]
    fn brokers_that_should_be_alive_are_named() {
        let dead = whats(|status| status.brokers.push(broker(3, BrokerState::Up, false)));
        assert_eq!(dead, ["broker 3 at b3:1 is not alive: its lease ran out"]);
        let refused = ProbeView { last_success_age: None, failures_in_a_row: 4, last_error: Some("refused".into()) };
        let dead = BrokerView { probe: Some(refused), ..broker(3, BrokerState::Draining, false) };
        assert_eq!(whats(|status| status.brokers.push(dead)), ["broker 3 at b3:1 is not alive: refused"]);
        let listed = BrokerView { registered: None, ..broker(3, BrokerState::Up, false) };
        let listed = whats(|status| status.brokers.push(listed));
        assert_eq!(listed, ["the broker at b3:1 is listed (moms) and never registered"]);
        assert_eq!(whats(|status| drop(status.brokers.remove(0))), ["no live broker takes queues"]);
    }
}
