//! Helpers of the tests.

use std::time::Duration;

use rmom_client::Client;
use rmom_core::{marks::Mark, model::QueueLabel};
use rmom_sim::{Cluster, SimError, history::Event};
use rmom_sim_lab::{
    report::{Report, Verdict},
    run::{Driver, run_scripted},
    scenario::{ConsumerKind, ConsumerPlan, Host, ProducerKind, ProducerPlan, Scenario, Topology, Workload},
};

/// Two managers, three brokers, and a queue with two producers that retry and three consumers, for as long as the script
/// takes.
pub(crate) fn scenario() -> Scenario {
    let producer = |kind| ProducerPlan {
        kind,
        queue: 1,
        pushes: u32::MAX,
        burst: 1,
        pace_millis: 20,
        topics: 2,
        ttl_millis: None,
        body_bytes: 16,
        too_large_every: 0,
    };
    let consumer = |kind, topic| ConsumerPlan { kind, queue: 1, topic, latest: false, work_millis: 0 };
    Scenario {
        about: String::new(),
        seed: 1,
        topology: Topology {
            managers: 2,
            brokers: 3,
            latency_millis: (1, 5),
            message_ttl_millis: None,
            queue_buffer_messages: 100,
            batch_messages: 8_192,
            channel_idle_millis: None,
            limits: None,
        },
        workload: Workload {
            queues: 1,
            producers: vec![producer(ProducerKind::Library), producer(ProducerKind::RawStamped)],
            consumers: vec![
                consumer(ConsumerKind::Library, None),
                consumer(ConsumerKind::RawResuming, Some(1)),
                consumer(ConsumerKind::RawOriginal, None),
            ],
            delivery_millis: None,
            linger_millis: 0,
        },
        steps: Vec::new(),
    }
}

pub(crate) fn managers() -> Vec<Host> {
    vec![Host::Manager(1), Host::Manager(2)]
}

pub(crate) fn brokers() -> Vec<Host> {
    vec![Host::Broker(1), Host::Broker(2), Host::Broker(3)]
}

pub(crate) fn producers() -> Vec<Host> {
    vec![Host::Producer(1), Host::Producer(2)]
}

/// Runs the scenario, with the script from the start of the workload. The run must keep all promises and reach all these
/// marks.
pub(crate) fn run(
    scenario: &Scenario,
    marks: &[Mark],
    script: impl FnOnce(&mut Driver<'_>) -> Result<(), SimError> + Send,
) -> Report {
    let report = run_scripted(scenario, |driver| {
        driver.run_for(Duration::from_secs(1))?;
        script(driver)
    });
    let broken: Vec<String> = report
        .violations
        .iter()
        .map(|broken| format!("promise {}: {}", broken.promise.number(), broken.what))
        .collect();
    assert_eq!(report.verdict, Verdict::Passed, "{broken:#?}");
    for mark in marks {
        assert!(report.marks.contains_key(mark.name()), "the run did not get to what it is for: {}", mark.name());
    }
    report
}

/// A broker claims a queue after the first claim, as a new owner or again.
pub(crate) fn claimed_again(event: &Event) -> bool {
    matches!(event, Event::Claimed { epoch, .. } if *epoch > 1)
}

/// A batch is committed.
pub(crate) fn stored(event: &Event) -> bool {
    matches!(event, Event::Stored { .. })
}

/// A push is acknowledged.
pub(crate) fn acknowledged(event: &Event) -> bool {
    matches!(event, Event::PushAcked { .. })
}

/// A push is acknowledged as a duplicate of an earlier attempt.
pub(crate) fn acknowledged_as_duplicate(event: &Event) -> bool {
    matches!(event, Event::PushAcked { duplicate: true, .. })
}

/// A broker's append reaches the store, whatever its result.
pub(crate) fn is_append_of(broker: Host, event: &Event) -> bool {
    matches!(event, Event::Stored { by, .. } | Event::AppendRefused { by, .. } if *by == broker.to_string())
}

/// An observer's subscription is served by an owner that claimed the queue after another one.
pub(crate) fn subscribed_again(event: &Event) -> bool {
    matches!(event, Event::StreamOpened { position: Some(at), .. } if at.epoch > 1)
}

/// The broker that hosts the queue.
pub(crate) fn owner(cluster: &Cluster, label: &str) -> String {
    cluster.hosting(&QueueLabel::parse(label).unwrap()).unwrap()
}

/// A cluster whose brokers are up.
pub(crate) fn cluster(brokers: usize) -> Cluster {
    let mut cluster = Cluster::builder(1).brokers(brokers).limit(Duration::from_secs(120)).build();
    cluster.run_for(Duration::from_secs(2)).unwrap();
    cluster
}

/// Runs the actions of an operator or an application on a host of its own, to their end.
pub(crate) fn act<F>(cluster: &mut Cluster, host: &str, application: impl FnOnce(Client) -> F + 'static)
where
    F: Future<Output = turmoil::Result> + 'static,
{
    cluster.client(host, application);
    cluster.run().unwrap();
}
