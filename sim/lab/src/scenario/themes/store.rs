//! Themes about the store.

use rmom_sim::DatabaseFault;

use super::{QUICK, brokers, step};
use crate::scenario::{
    Action, ConsumerKind, ConsumerPlan, Host, ProducerKind, ProducerPlan, Scenario, Step, generate::Draw,
};

pub(super) fn shared_appends(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    scenario.topology.brokers = draw.one_of(&[1, 1, 2]);
    let workload = &mut scenario.workload;
    // A broker sends at most two appends at once, so only the ready batches of further queues share one.
    workload.queues = 5;
    let like = workload.producers[0].clone();
    workload.producers = (1..=workload.queues)
        .map(|queue| {
            let kind = draw.one_of(&[ProducerKind::Library, ProducerKind::Library, ProducerKind::Named]);
            ProducerPlan { kind, queue, pushes: 80, pace_millis: draw.between(40, 90), burst: 1, ..like.clone() }
        })
        .collect();
    let begin = draw.between(500, 3_000);
    let mut steps = vec![step(begin, 4_000, Action::Database(DatabaseFault::Slow { millis: draw.between(80, 400) }))];
    for nth in 0..4 {
        let at = begin + 300 + 900 * nth + draw.between(0, 400);
        steps.push(step(at, draw.between(100, 600), Action::RecreateQueue(draw.number(5))));
    }
    steps
}

pub(super) fn late_answers(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    scenario.topology.latency_millis = QUICK;
    scenario.topology.brokers = scenario.topology.brokers.max(3);
    let (from, to) = (brokers(scenario), vec![Host::Database]);
    let begin = draw.between(1_500, 3_000);
    let mut steps = Vec::new();
    for at in [begin, begin + 7_000] {
        // A renewal takes two round trips, and almost all the time that it may take.
        let slow = Action::Slow { between: from.clone(), and: to.clone(), latency_millis: draw.between(130, 155) };
        steps.push(step(at, 2_000, slow));
        let cut = Action::CutOneway { from: from.clone(), to: to.clone() };
        steps.push(step(at + draw.between(1_000, 1_800), draw.between(2_900, 3_500), cut));
    }
    steps
}

pub(super) fn failing_appends(draw: &mut Draw) -> Vec<Step> {
    // Longer than an append is retried.
    let fails = Action::Database(DatabaseFault::AbortAppends);
    vec![step(draw.between(1_500, 3_500), draw.between(7_500, 9_000), fails)]
}

pub(super) fn clock_set(scenario: &mut Scenario, draw: &mut Draw) -> Vec<Step> {
    let (topology, workload) = (&mut scenario.topology, &mut scenario.workload);
    (topology.message_ttl_millis, topology.queue_buffer_messages) = (Some(10_000), 1_000);
    workload.producers.iter_mut().for_each(|plan| plan.ttl_millis = None);
    // A consumer that asks for all live messages, again and again.
    let first = &workload.consumers[0];
    workload.consumers[0] = ConsumerPlan { kind: ConsumerKind::RawOriginal, work_millis: 0, ..first.clone() };
    let mut jump = |from, to, sign: i64| {
        let millis = i64::try_from(draw.between(from, to)).unwrap_or(0) * sign;
        Action::ClockJump { host: Host::Database, millis }
    };
    // Messages arrive all the while, and none may be older than the one before.
    let (forward, back) = (jump(12_000, 20_000, 1), jump(500, 8_000, -1));
    let begin = draw.between(1_000, 2_500);
    let mut steps = vec![step(begin, 0, forward), step(begin + draw.between(5_500, 6_500), 0, back)];
    for nth in 0..3 {
        steps.push(step(begin + 3_700 + 700 * nth, 150, Action::LeaveConsumer(1)));
    }
    steps
}
