//! A cluster with applications and many faults.

use std::{cell::Cell, rc::Rc, time::Duration};

use rmom_client::{Client, Start};
use rmom_core::ports::Entropy as _;
use rmom_sim::{
    Cluster, DATABASE_HOST, DatabaseFault, SeededEntropy, SimError, broker_host,
    history::{Event, Recorder},
    manager_host,
};
use tokio::time::{sleep, timeout};

use crate::sources::{Source, dropped_at_a_crash};

const LABEL: &str = "orders";
const MESSAGES: u64 = 300;
const PRODUCER: &str = "producer";
const CONSUMER: &str = "consumer";
/// The host that reads every source of randomness.
const RANDOM_READER: &str = "random-reader";
/// The number of faults, one after the other.
const FAULTS: usize = 12;

/// Runs to the end.
pub(crate) fn simulate(seed: u64) -> Result<(), SimError> {
    let mut cluster = Cluster::builder(seed).managers(2).brokers(3).limit(Duration::from_secs(120)).build();
    let recorder = cluster.recorder().clone();
    let events = recorder.clone();
    cluster.service(RANDOM_READER, move |_| read_sources(events.clone()));
    let (events, ready) = (recorder.clone(), Rc::new(Cell::new(false)));
    let is_ready = ready.clone();
    cluster.client(CONSUMER, |client| consume(client, events, is_ready));
    cluster.run_until(|_| ready.get())?;
    let events = recorder.clone();
    cluster.client(PRODUCER, |client| produce(client, events));
    let entropy = cluster.entropy();
    for _ in 0..FAULTS {
        cluster.run_for(Duration::from_millis(entropy.below(500)))?;
        inject_fault(&mut cluster, &entropy)?;
    }
    cluster.run()
}

/// Injects a fault for a while.
fn inject_fault(cluster: &mut Cluster, entropy: &SeededEntropy) -> Result<(), SimError> {
    let hosts = [&*broker_host(1), &broker_host(2), &broker_host(3), &manager_host(1), DATABASE_HOST, RANDOM_READER];
    let host = hosts[usize::try_from(entropy.below(6)).unwrap_or(0)];
    let other = if host == DATABASE_HOST { hosts[0] } else { DATABASE_HOST };
    let lasts = Duration::from_millis(100 + entropy.below(1_500));
    let database = cluster.database().clone();
    match entropy.below(8) {
        0 => {
            cluster.crash(host);
            cluster.run_for(lasts)?;
            cluster.restart(host);
        }
        1 => {
            cluster.power_loss(host);
            cluster.run_for(lasts)?;
            cluster.restart(host);
        }
        2 => {
            cluster.cut(host, other);
            cluster.run_for(lasts)?;
            cluster.repair(host, other);
        }
        3 => {
            cluster.cut_oneway(other, host);
            cluster.run_for(lasts)?;
            cluster.repair_oneway(other, host);
        }
        4 => {
            cluster.freeze(host);
            cluster.run_for(lasts)?;
            cluster.thaw(host);
        }
        5 => {
            cluster.slow(host, other, Duration::from_millis(80));
            cluster.run_for(lasts)?;
            cluster.unslow(host, other);
        }
        6 => cluster.set_clock(host, 700),
        _ => {
            let faults = [
                DatabaseFault::Slow { millis: 300 },
                DatabaseFault::Full,
                DatabaseFault::Refuse,
                DatabaseFault::LoseReplies,
                DatabaseFault::AbortWrites,
                DatabaseFault::StallWrites,
            ];
            let fault = faults[usize::try_from(entropy.below(6)).unwrap_or(0)];
            database.begin_fault(fault);
            cluster.run_for(lasts)?;
            database.end_fault(fault);
        }
    }
    Ok(())
}

async fn read_sources(recorder: Recorder) -> turmoil::Result {
    let at_a_crash = recorder.clone();
    let _tasks = dropped_at_a_crash(move |number| {
        at_a_crash.record(RANDOM_READER, Event::Note { text: format!("task {number} is dropped") });
    });
    loop {
        for source in Source::ALL {
            let text = format!("{source:?} {}", source.ask().await);
            recorder.record(RANDOM_READER, Event::Note { text });
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn consume(client: Client, recorder: Recorder, ready: Rc<Cell<bool>>) -> turmoil::Result {
    let admin = client.admin();
    while !admin.brokers().await.is_ok_and(|brokers| brokers.iter().any(|broker| broker.live)) {
        sleep(Duration::from_millis(100)).await;
    }
    admin.create_queue(LABEL).await?;
    let channel = admin.create_channel(LABEL, None, Start::Earliest).await?;
    ready.set(true);
    let mut consumer = client.subscribe(channel.id).build();
    // Other tests check that everything arrives.
    while let Ok(Ok(message)) = timeout(Duration::from_secs(20), consumer.next()).await {
        recorder.record(
            CONSUMER,
            Event::Delivered {
                consumer: CONSUMER.into(),
                id: message.id,
                offset: message.offset,
                topic: String::new(),
                body: String::from_utf8_lossy(&message.content).into_owned(),
                position: None,
            },
        );
        if message.offset >= MESSAGES {
            break;
        }
    }
    Ok(())
}

async fn produce(client: Client, recorder: Recorder) -> turmoil::Result {
    let producer = client.producer(LABEL).open().await?;
    for number in 1..=MESSAGES {
        let delivery = producer.send(number.to_string()).await?;
        let recorder = recorder.clone();
        tokio::spawn(async move {
            let text = format!("{number}: {:?}", delivery.await);
            recorder.record(PRODUCER, Event::Note { text });
        });
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
