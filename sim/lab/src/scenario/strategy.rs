//! Scenarios for property tests.

use proptest::{collection::vec, option, prelude::*};
use rmom_sim::DatabaseFault;

use super::{Action, ConsumerKind, ConsumerPlan, Host, ProducerKind, ProducerPlan, Scenario, Step, Topology, Workload};

/// Times are multiples of this, in milliseconds.
const GRAIN_MILLIS: u64 = 100;
/// The greatest number of steps.
const STEPS: usize = 8;
/// The latest beginning of a step, in grains. [`LONGEST`] is the longest duration.
const LATEST: u64 = 30;
/// See [`LATEST`].
const LONGEST: u64 = 40;
/// Seeds are below this, so that they are short enough to be read out.
const SEEDS: u64 = 1_000_000_000;

/// Scenarios small enough for a test: a few seconds of a small cluster, some dozen pushes, up to eight faults. They shrink
/// by their parts: to fewer steps, clients and hosts, shorter times, plainer settings; the seed stays.
/// [`shrink`](crate::shrink::shrink) gets further with fewer attempts; the two can be combined.
pub fn strategy() -> impl Strategy<Value = Scenario> {
    let seed = (0..SEEDS).no_shrink();
    let steps = vec(step(), 1..=STEPS);
    let (producers, consumers) = (vec(producer(), 1..=3), vec(consumer(), 1..=3));
    // The first parts shrink first.
    (seed, steps, consumers, producers, 1..=2_u8, topology()).prop_map(
        |(seed, steps, consumers, producers, queues, topology)| {
            let workload = Workload { queues, producers, consumers, delivery_millis: None, linger_millis: 0 };
            fitting(Scenario { about: String::new(), seed, topology, workload, steps })
        },
    )
}

/// The scenario with all numbers changed to ones that exist.
fn fitting(mut scenario: Scenario) -> Scenario {
    let Scenario { topology, workload, steps, .. } = &mut scenario;
    let fit = |number: u8, count: usize| (number - 1) % u8::try_from(count).unwrap_or(u8::MAX).max(1) + 1;
    let queues = usize::from(workload.queues);
    workload.producers.iter_mut().for_each(|plan| plan.queue = fit(plan.queue, queues));
    workload.consumers.iter_mut().for_each(|plan| plan.queue = fit(plan.queue, queues));
    let host = |host: Host| {
        Some(match host {
            Host::Manager(number) => Host::Manager(fit(number, topology.managers.into())),
            Host::Broker(number) => Host::Broker(fit(number, topology.brokers.into())),
            Host::Producer(number) => Host::Producer(fit(number, workload.producers.len())),
            Host::Consumer(number) => Host::Consumer(fit(number, workload.consumers.len())),
            Host::Database | Host::Operator => host,
        })
    };
    for step in steps.iter_mut() {
        let action = step.action.renumbered(host, |number| Some(fit(number, queues)));
        step.action = action.expect("every host and every queue becomes another");
    }
    steps.sort_by_key(|step| step.at_millis);
    scenario
}

fn topology() -> impl Strategy<Value = Topology> {
    let latency = prop_oneof![3 => Just((1, 5)), 1 => Just((2, 20)), 1 => Just((5, 40))];
    let ttl = prop_oneof![3 => Just(None), 1 => Just(Some(1_500)), 1 => Just(Some(4_000))];
    let buffer = prop_oneof![2 => Just(1_000), 1 => Just(10), 1 => Just(1)];
    let batch = prop_oneof![3 => Just(8_192), 1 => Just(3), 1 => Just(1)];
    (1..=2_u8, 1..=4_u8, latency, ttl, buffer, batch).prop_map(
        |(managers, brokers, latency_millis, message_ttl_millis, queue_buffer_messages, batch_messages)| Topology {
            managers,
            brokers,
            latency_millis,
            message_ttl_millis,
            queue_buffer_messages,
            batch_messages,
            channel_idle_millis: None,
            limits: None,
        },
    )
}

fn producer() -> impl Strategy<Value = ProducerPlan> {
    use ProducerKind::{Library, Named, RawPipelined, RawPlain, RawStamped};
    let kind = prop_oneof![
        3 => Just(Library),
        1 => Just(Named),
        1 => Just(RawStamped),
        1 => Just(RawPipelined),
        1 => Just(RawPlain),
    ];
    let ttl = option::weighted(0.15, 300..5_000_u64);
    let bytes = prop_oneof![3 => Just(16_u32), 1 => Just(2_000)];
    let burst = prop_oneof![3 => Just(1_u32), 1 => Just(8)];
    (kind, 1..=3_u8, 20..=80_u32, 20..=100_u64, burst, 0..=3_u8, ttl, bytes).prop_map(
        |(kind, queue, pushes, pace_millis, burst, topics, ttl_millis, body_bytes)| ProducerPlan {
            kind,
            queue,
            pushes,
            pace_millis,
            burst,
            topics,
            ttl_millis,
            body_bytes,
            too_large_every: 0,
        },
    )
}

fn consumer() -> impl Strategy<Value = ConsumerPlan> {
    use ConsumerKind::{Library, RawOriginal, RawResuming};
    let kind = prop_oneof![2 => Just(Library), 2 => Just(RawResuming), 1 => Just(RawOriginal)];
    let work = prop_oneof![3 => Just(0_u64), 1 => 1..20_u64];
    (kind, 1..=3_u8, option::weighted(0.2, 1..=3_u8), any::<bool>(), work)
        .prop_map(|(kind, queue, topic, latest, work_millis)| ConsumerPlan { kind, queue, topic, latest, work_millis })
}

fn step() -> impl Strategy<Value = Step> {
    (action(), 0..=LATEST, 1..=LONGEST).prop_map(|(action, at, lasts)| {
        // Clock jumps and channel deletions are permanent.
        let lasts = if matches!(action, Action::ClockJump { .. } | Action::DeleteChannel(_)) { 0 } else { lasts };
        Step { at_millis: at * GRAIN_MILLIS, for_millis: lasts * GRAIN_MILLIS, action }
    })
}

fn action() -> impl Strategy<Value = Action> {
    let number = 1..=3_u8;
    let broker = || (1..=4_u8).prop_map(Host::Broker);
    let server = prop_oneof![
        4 => broker(),
        2 => (1..=2_u8).prop_map(Host::Manager),
        1 => Just(Host::Database)
    ];
    let runs = prop_oneof![3 => server.clone(), 1 => client()];
    let jump = prop_oneof![-2_000..-10_i64, 10..2_000_i64];
    prop_oneof![
        6 => runs.prop_map(Action::Crash),
        1 => server.clone().prop_map(Action::PowerLoss),
        3 => (group(), group()).prop_map(|(between, and)| Action::Cut { between, and }),
        3 => (group(), group()).prop_map(|(from, to)| Action::CutOneway { from, to }),
        1 => (group(), group()).prop_map(|(between, and)| Action::Hold { between, and }),
        1 => (group(), group(), 20..400_u64)
            .prop_map(|(between, and, latency_millis)| Action::Slow { between, and, latency_millis }),
        2 => broker().prop_map(Action::Freeze),
        1 => (server, jump).prop_map(|(host, millis)| Action::ClockJump { host, millis }),
        4 => database_fault().prop_map(Action::Database),
        2 => broker().prop_map(Action::Drain),
        1 => number.clone().prop_map(Action::RecreateQueue),
        1 => (number.clone(), 1..=3_u8).prop_map(|(queue, count)| Action::ChurnChannels { queue, count }),
        1 => number.clone().prop_map(Action::StallConsumer),
        1 => number.clone().prop_map(Action::LeaveConsumer),
        1 => number.prop_map(Action::DeleteChannel),
        1 => broker().prop_map(Action::Twin),
        1 => broker().prop_map(Action::Lose),
        1 => broker().prop_map(Action::CutOff),
        1 => broker().prop_map(Action::DrainForGood),
    ]
}

fn client() -> impl Strategy<Value = Host> {
    prop_oneof![
        2 => (1..=3_u8).prop_map(Host::Producer),
        2 => (1..=3_u8).prop_map(Host::Consumer),
        1 => Just(Host::Operator),
    ]
}

/// One side of a cut.
fn group() -> impl Strategy<Value = Vec<Host>> {
    let host = prop_oneof![
        4 => (1..=4_u8).prop_map(Host::Broker),
        3 => Just(Host::Database),
        2 => (1..=2_u8).prop_map(Host::Manager),
        2 => client(),
    ];
    vec(host, 1..=3)
}

fn database_fault() -> impl Strategy<Value = DatabaseFault> {
    use DatabaseFault::{AbortAppends, AbortWrites, Full, LoseReplies, Refuse, Slow, StallWrites};
    prop_oneof![
        Just(LoseReplies),
        Just(AbortWrites),
        Just(StallWrites),
        Just(AbortAppends),
        Just(Refuse),
        Just(Full),
        (10..800_u64).prop_map(|millis| Slow { millis }),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::{strategy::ValueTree as _, test_runner::TestRunner};

    use super::*;

    #[test]
    fn numbers_mean_something() {
        proptest!(|(scenario in strategy())| {
            prop_assert_eq!(&fitting(scenario.clone()), &scenario);
            let Scenario { topology, workload, steps, .. } = scenario;
            prop_assert!(workload.producers.iter().all(|plan| plan.queue <= workload.queues));
            let there_is = |host: Host| Some(host).filter(|host| match *host {
                Host::Manager(number) => (1..=topology.managers).contains(&number),
                Host::Broker(number) => (1..=topology.brokers).contains(&number),
                Host::Producer(number) => (1..=workload.producers.len()).contains(&number.into()),
                Host::Consumer(number) => (1..=workload.consumers.len()).contains(&number.into()),
                Host::Database | Host::Operator => true,
            });
            for step in steps {
                let same = step.action.renumbered(there_is, |queue| Some(queue).filter(|queue| *queue <= workload.queues));
                prop_assert_eq!(Some(step.action), same);
            }
        });
    }

    #[test]
    fn values_shrink_to_the_smallest() {
        let mut tree = strategy().new_tree(&mut TestRunner::deterministic()).unwrap();
        while tree.simplify() {}
        let Scenario { topology, workload, steps, .. } = tree.current();
        assert_eq!((topology.managers, topology.brokers, workload.queues), (1, 1, 1));
        assert_eq!((workload.producers.len(), workload.consumers.len()), (1, 1));
        let crash = Action::Crash(Host::Broker(1));
        assert_eq!(steps, [Step { at_millis: 0, for_millis: GRAIN_MILLIS, action: crash }]);
    }
}
