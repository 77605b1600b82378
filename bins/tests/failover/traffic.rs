//! Producers and a consumer that keep records, and the comparison of the records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use rmom_client::{Client, Start, Uuid};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::support::PATIENCE;

/// Limit on the messages that the pipelined producer has in flight.
const IN_FLIGHT: usize = 256;

/// One producer's record of its messages: their numbers, and whether they were acknowledged.
struct Pushed {
    acknowledged: Vec<u64>,
    failed: Vec<u64>,
    /// The longest time between two acknowledgements.
    longest_gap: Duration,
}

/// Two producers on one queue, one that waits for each acknowledgement and one that does not, and a consumer.
pub(super) struct Traffic {
    client: Client,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    one_by_one: JoinHandle<Pushed>,
    pipelined: JoinHandle<Pushed>,
    consumer: JoinHandle<()>,
    delivered: mpsc::UnboundedReceiver<String>,
    queue: String,
    channel: Uuid,
}

/// The effects of a fault.
pub(super) struct Report {
    pub(super) unavailable: Duration,
    pub(super) acknowledged: usize,
    pub(super) delivered: usize,
    pub(super) duplicates: usize,
    /// Pushes that the producers gave up; expected to be 0.
    pub(super) failed: usize,
}

impl Traffic {
    pub(super) async fn start(client: Client, queue: &str) -> Self {
        client.admin().create_queue(queue).await.unwrap();
        let channel = client.admin().create_channel(queue, None, Start::Earliest).await.unwrap().id;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let one_by_one =
            tokio::spawn(push_one_by_one(client.clone(), queue.to_owned(), stop.clone(), acknowledged.clone()));
        let pipelined = tokio::spawn(push_pipelined(client.clone(), queue.to_owned(), stop.clone()));
        let (sender, delivered) = mpsc::unbounded_channel();
        let mut subscription = client.subscribe(channel).build();
        let consumer = tokio::spawn(async move {
            loop {
                let message = subscription.next().await.expect("the consumer goes on whatever happens");
                let content = String::from_utf8(message.content.to_vec()).unwrap();
                if sender.send(content).is_err() {
                    return;
                }
            }
        });
        let queue = queue.to_owned();
        Self { client, stop, acknowledged, one_by_one, pipelined, consumer, delivered, queue, channel }
    }

    /// Waits until this many more pushes of the producer that waits for each were acknowledged.
    pub(super) async fn progress(&self, pushes: u64) {
        let goal = self.acknowledged.load(SeqCst) + pushes;
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged.load(SeqCst) < goal {
            assert!(Instant::now() < deadline, "no progress within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the traffic and compares the delivered messages with the acknowledged ones.
    pub(super) async fn finish(mut self) -> Report {
        self.stop.store(true, SeqCst);
        let pushed = [
            ("one", timeout(PATIENCE, self.one_by_one).await.unwrap().unwrap()),
            ("all", timeout(PATIENCE, self.pipelined).await.unwrap().unwrap()),
        ];
        let expected: usize = pushed.iter().map(|(_, pushed)| pushed.acknowledged.len()).sum();
        let (mut live, mut distinct) = (Vec::new(), BTreeSet::new());
        while distinct.len() < expected {
            let next = timeout(PATIENCE, self.delivered.recv()).await;
            let content = next.expect("everything acknowledged is delivered").expect("the consumer runs");
            distinct.insert(content.clone());
            live.push(content);
        }
        self.consumer.abort();
        // A reader from the beginning finds the same messages, and no more.
        let audit = read_all(&self.client, &self.queue).await;
        let duplicates = check(&live, &pushed) + check(&audit, &pushed);
        let _ = self.client.admin().delete_channel(self.channel).await;
        Report {
            unavailable: pushed.iter().map(|(_, pushed)| pushed.longest_gap).max().unwrap_or_default(),
            acknowledged: expected,
            delivered: live.len(),
            duplicates,
            failed: pushed.iter().map(|(_, pushed)| pushed.failed.len()).sum(),
        }
    }
}

/// Checks that every acknowledged message is there once, and each producer's are in order. Returns the number of messages
/// that came twice.
fn check(delivered: &[String], pushed: &[(&str, Pushed)]) -> usize {
    let mut seen: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for content in delivered {
        let (producer, number) = content.split_once(' ').unwrap();
        seen.entry(producer).or_default().push(number.parse().unwrap());
    }
    let mut duplicates = 0;
    for (producer, pushed) in pushed {
        let numbers = &seen[producer];
        assert!(numbers.is_sorted(), "messages of {producer} out of order");
        duplicates += numbers.windows(2).filter(|pair| pair[0] == pair[1]).count();
        for number in &pushed.acknowledged {
            assert!(numbers.binary_search(number).is_ok(), "{producer} {number} was acknowledged and is lost");
        }
    }
    duplicates
}

async fn push_one_by_one(client: Client, queue: String, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Pushed {
    let producer = client.producer(queue).open().await.unwrap();
    let mut pushed = Pushed { acknowledged: Vec::new(), failed: Vec::new(), longest_gap: Duration::ZERO };
    let mut last = Instant::now();
    for number in 0.. {
        if stop.load(SeqCst) {
            break;
        }
        match producer.push(format!("one {number}")).await {
            Ok(_) => {
                pushed.longest_gap = pushed.longest_gap.max(last.elapsed());
                last = Instant::now();
                pushed.acknowledged.push(number);
                count.fetch_add(1, SeqCst);
            }
            Err(_) => pushed.failed.push(number),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    producer.close().await.unwrap();
    pushed
}

async fn push_pipelined(client: Client, queue: String, stop: Arc<AtomicBool>) -> Pushed {
    let producer = client.producer(queue).max_in_flight(IN_FLIGHT, 1 << 20).open().await.unwrap();
    let (sender, mut deliveries) = mpsc::channel(IN_FLIGHT);
    let collecting = tokio::spawn(async move {
        let mut pushed = Pushed { acknowledged: Vec::new(), failed: Vec::new(), longest_gap: Duration::ZERO };
        while let Some((number, delivery)) = deliveries.recv().await {
            let delivery: rmom_client::Delivery = delivery;
            match delivery.await {
                Ok(_) => pushed.acknowledged.push(number),
                Err(_) => pushed.failed.push(number),
            }
        }
        pushed
    });
    for number in 0_u64.. {
        if stop.load(SeqCst) {
            break;
        }
        if let Ok(delivery) = producer.send(format!("all {number}")).await {
            sender.send((number, delivery)).await.unwrap();
        }
        if number % 16 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    producer.close().await.unwrap();
    drop(sender);
    collecting.await.unwrap()
}

/// All messages in the queue now, read from its beginning through a new channel.
async fn read_all(client: &Client, queue: &str) -> Vec<String> {
    let end = client.admin().queue(queue).await.unwrap().live.expect("it is served").last_offset;
    let channel = client.admin().create_channel(queue, None, Start::Earliest).await.unwrap().id;
    let mut consumer = client.subscribe(channel).build();
    let mut contents = Vec::new();
    loop {
        let message = timeout(PATIENCE, consumer.next()).await.unwrap().unwrap();
        contents.push(String::from_utf8(message.content.to_vec()).unwrap());
        if message.offset >= end {
            return contents;
        }
    }
}
