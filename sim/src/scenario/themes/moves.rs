//! Themes about where queues are.

use super::{QUICK, brokers, managers, slow, step};
use crate::scenario::{Action, DatabaseFault, Host, ProducerKind, Scenario, Step, generate::Draw};

pub(super) fn there_and_back(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    scenario.topology.brokers = 2;
    let (home, away) = draw.one_of(&[(Host::Broker(1), Host::Broker(2)), (Host::Broker(2), Host::Broker(1))]);
    if draw.chance(30) { deaf(home, away, draw) } else { out_of_touch(home, away, scenario, draw) }
}

/// What one sees in the store is out of date when it is there, but its lease does not run out: a renewal goes there and back
/// twice.
fn deaf(home: Host, away: Host, draw: &mut Draw) -> Vec<Step> {
    let begin = draw.between(500, 4_000);
    let mut steps = vec![step(begin, 6_000, slow(home, Host::Database, draw.between(100, 150)))];
    if draw.chance(50) {
        // An append gets lost on the way, and is looked for while the queue is elsewhere.
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

/// One is out of touch with the store for a moment, in which its queues go and come back.
fn out_of_touch(home: Host, away: Host, scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let (topology, workload) = (&mut scenario.topology, &mut scenario.workload);
    // The manager that is asked to drain leads, and acts at once.
    (topology.managers, topology.latency_millis) = (1, QUICK);
    // To the last queue nobody pushes: nothing tells its broker that it was elsewhere.
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
    // It takes some luck, so it is tried twice.
    for begin in [draw.between(500, 3_000), draw.between(7_000, 9_000)] {
        let queue = draw.number(usize::from(scenario.workload.queues));
        let absent = draw.between(300, 1_200);
        steps.push(step(begin, absent, Action::RecreateQueue(queue)));
        let midway = draw.chance(60);
        if midway {
            // To take it up takes a broker some time, but not longer than a manager waits for it.
            let latency_millis = draw.between(50, 75);
            let slow = Action::Slow { between: brokers(scenario), and: vec![Host::Database], latency_millis };
            steps.push(step(begin, absent + 1_500, slow));
        }
        // All but one go: on the way, or when the managers still count them in.
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
    // Much to move.
    scenario.workload.queues = 6;
    let begin = draw.between(500, 3_000);
    // The first is the one that operators ask.
    let slowly = |number| slow(Host::Manager(number), Host::Database, draw.between(120, 280));
    let mut steps: Vec<Step> = [2, 3].map(slowly).map(|slow| step(begin, 6_000, slow)).into();
    // Now and then there is something to do, and what was to be moved goes away.
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
    // What they see in the store is out of date, and they keep their leases.
    let latency_millis = draw.between(120, 150);
    let deaf = Action::Slow { between: brokers(scenario), and: vec![Host::Database], latency_millis };
    let mut steps = vec![step(begin, 8_500, deaf)];
    for nth in 0..6 {
        let consumer = draw.number(scenario.workload.consumers.len());
        let queue = scenario.workload.consumers[usize::from(consumer) - 1].queue;
        let at = begin + 200 + 1_300 * nth + draw.between(0, 400);
        steps.push(step(at, draw.between(1, 150), Action::RecreateQueue(queue)));
        if draw.chance(90) {
            // Nor does anybody hurry them up in time, and somebody comes who has heard.
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
    // A push is nearly always on its way then, and whoever gets a queue takes longer to claim it than the other to hear of it.
    let busy = Action::Database(DatabaseFault::Slow { millis: draw.between(40, 120) });
    let mut steps =
        vec![step(begin, 8_000, busy), step(begin, 8_000, slow(away, Host::Database, draw.between(120, 220)))];
    for nth in 0..8 {
        let drained = if nth % 2 == 0 { away } else { home };
        steps.push(step(begin + 200 + 950 * nth, 700, Action::Drain(drained)));
    }
    steps
}
