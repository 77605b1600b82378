//! Themes about the places of queues.

use rmom_sim::DatabaseFault;

use super::{QUICK, brokers, managers, slow, step};
use crate::scenario::{Action, Host, ProducerKind, Scenario, Step, generate::Draw};

pub(super) fn there_and_back(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    scenario.topology.brokers = 2;
    let (home, away) = draw.one_of(&[(Host::Broker(1), Host::Broker(2)), (Host::Broker(2), Host::Broker(1))]);
    if draw.chance(30) { deaf(home, away, draw) } else { out_of_touch(home, away, scenario, draw) }
}

/// What one broker sees in the store is outdated when it arrives, but its lease does not end: a renewal takes two round
/// trips.
fn deaf(home: Host, away: Host, draw: &mut Draw) -> Vec<Step> {
    let begin = draw.between(500, 4_000);
    let mut steps = vec![step(begin, 6_000, slow(home, Host::Database, draw.between(100, 150)))];
    if draw.chance(50) {
        // An append gets lost on the way, and the broker looks for it while the queue is elsewhere.
        let fault = draw.one_of(&[DatabaseFault::LoseReplies, DatabaseFault::AbortWrites]);
        steps.push(step(begin + draw.between(0, 1_000), draw.between(2_000, 4_500), Action::Database(fault)));
    }
    let mut at = begin + 200;
    for nth in 0..6 {
        let lasts = draw.between(400, 700);
        steps.push(step(at, lasts, Action::Drain(if nth % 2 == 0 { home } else { away })));
        at += lasts;
    }
    steps
}

/// One broker loses touch with the store for a moment, in which its queues move away and come back.
fn out_of_touch(home: Host, away: Host, scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let (topology, workload) = (&mut scenario.topology, &mut scenario.workload);
    // With one manager, the one that is asked to drain leads and acts at once.
    (topology.managers, topology.latency_millis) = (1, QUICK);
    // No producer pushes to the last queue, so nothing tells its broker that the queue was elsewhere.
    workload.queues += 1;
    let begin = draw.between(500, 1_500);
    let mut steps = Vec::new();
    for nth in 0..3 {
        let at = begin + 3_200 * nth;
        steps.push(step(at, 500, Action::Drain(away)));
        let out = at + 800;
        // Longer than an append may take, and shorter than a lease.
        let hold = Action::Hold { between: vec![home], and: vec![Host::Database] };
        steps.push(step(out, draw.between(1_300, 1_700), hold));
        steps.push(step(out + 20, 350, Action::Drain(home)));
        steps.push(step(out + 370, 500, Action::Drain(away)));
    }
    steps
}

pub(super) fn still_born(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    scenario.topology.brokers = scenario.topology.brokers.max(2);
    let mut steps = Vec::new();
    // Each attempt needs some luck, so there are two.
    for begin in [draw.between(500, 3_000), draw.between(7_000, 9_000)] {
        let queue = draw.number(usize::from(scenario.workload.queues));
        let absent = draw.between(300, 1_200);
        steps.push(step(begin, absent, Action::RecreateQueue(queue)));
        let midway = draw.chance(60);
        if midway {
            // The broker takes some time to activate the queue, but not longer than a manager waits for it.
            let latency_millis = draw.between(50, 75);
            let slow = Action::Slow { between: brokers(scenario), and: vec![Host::Database], latency_millis };
            steps.push(step(begin, absent + 1_500, slow));
        }
        // All brokers but one fail: during the activation, or while the managers still believe that they are alive.
        let survivor = draw.number(usize::from(scenario.topology.brokers));
        for broker in brokers(scenario).into_iter().filter(|broker| *broker != Host::Broker(survivor)) {
            let (at, action) = if midway {
                (begin + absent + draw.between(150, 700), Action::Crash(broker))
            } else {
                let action =
                    draw.one_of::<fn(Host) -> Action>(&[Action::Crash, Action::PowerLoss, Action::Freeze])(broker);
                (begin + absent.saturating_sub(draw.between(0, 300)), action)
            };
            steps.push(step(at, draw.between(2_000, 5_000), action));
        }
    }
    steps
}

pub(super) fn rivals(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let topology = &mut scenario.topology;
    (topology.managers, topology.brokers) = (3, topology.brokers.max(3));
    // Many queues to move.
    scenario.workload.queues = 6;
    let begin = draw.between(500, 3_000);
    // Operators ask the first manager, which stays fast.
    let slowly = |number| slow(Host::Manager(number), Host::Database, draw.between(120, 280));
    let mut steps: Vec<Step> = [2, 3].map(slowly).map(|slow| step(begin, 6_000, slow)).into();
    // Now and then there is work, and queues to be moved are deleted.
    for nth in 0..4 {
        let at = begin + 1_400 * nth + draw.between(0, 600);
        let lasts = draw.between(600, 1_500);
        let broker = Host::Broker(draw.number(3));
        steps.push(step(at, lasts, if draw.chance(50) { Action::Crash(broker) } else { Action::Drain(broker) }));
        for _ in 0..2 {
            let queue = draw.number(6);
            steps.push(step(at + draw.between(200, 1_500), draw.between(100, 600), Action::RecreateQueue(queue)));
        }
    }
    steps
}

pub(super) fn reborn(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    scenario.topology.brokers = draw.one_of(&[1, 2]);
    let begin = draw.between(500, 3_000);
    // Brokers see outdated data in the store, but keep their leases.
    let latency_millis = draw.between(120, 150);
    let deaf = Action::Slow { between: brokers(scenario), and: vec![Host::Database], latency_millis };
    let mut steps = vec![step(begin, 8_500, deaf)];
    for nth in 0..6 {
        let consumer = draw.number(scenario.workload.consumers.len());
        let queue = scenario.workload.consumers[usize::from(consumer) - 1].queue;
        let at = begin + 200 + 1_300 * nth + draw.between(0, 400);
        steps.push(step(at, draw.between(1, 150), Action::RecreateQueue(queue)));
        if draw.chance(90) {
            // Nudges also arrive late, and a consumer arrives that has already learnt of the new queue.
            let hold = Action::Hold { between: managers(scenario), and: brokers(scenario) };
            steps.push(step(at, draw.between(500, 900), hold));
            steps.push(step(at - 150, draw.between(350, 600), Action::LeaveConsumer(consumer)));
        }
    }
    steps
}

pub(super) fn hand_over(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let topology = &mut scenario.topology;
    (topology.brokers, topology.latency_millis) = (2, QUICK);
    for plan in &mut scenario.workload.producers {
        plan.kind = draw.one_of(&[ProducerKind::RawStamped, ProducerKind::RawPlain]);
    }
    let begin = draw.between(500, 2_000);
    let (home, away) = draw.one_of(&[(Host::Broker(1), Host::Broker(2)), (Host::Broker(2), Host::Broker(1))]);
    // Then a push is nearly always in transit, and the new broker takes longer to claim a queue than the old one takes to
    // learn of it.
    let busy = Action::Database(DatabaseFault::Slow { millis: draw.between(40, 120) });
    let mut steps =
        vec![step(begin, 8_000, busy), step(begin, 8_000, slow(away, Host::Database, draw.between(120, 220)))];
    for nth in 0..8 {
        let drained = if nth % 2 == 0 { away } else { home };
        steps.push(step(begin + 200 + 950 * nth, 700, Action::Drain(drained)));
    }
    steps
}
