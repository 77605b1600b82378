//! The broker over the store in memory: all that it does itself, and nothing that a network or a disk does.

use std::{hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rmom_core::{
    access::Call,
    broker::{
        Broker, BrokerError, BrokerSettings, NewMessage, OpenPush, ProducerStamp, PushRequest, PushRun,
        SubscribeRequest, testing::Dedupe,
    },
    frame::Run,
    manager::testing::{SeededEntropy, addr},
    model::{ChannelId, Offset, ProducerEpoch, ProducerId, ProducerKey, QueueLabel, Sequence, StoreTime, Topic},
    ports::NeverSuspended,
    store::{
        MemoryStore,
        conformance::{ManualClock, START},
    },
};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Messages that a benchmark of pushes or deliveries moves, of 100 bytes each.
const MESSAGES: u64 = 10_000;
/// Messages of a run, as a stream brings them.
const RUN: usize = 100;
/// Producers that a queue remembers.
const PRODUCERS: u64 = 1_000;
/// So long that nothing needs to be renewed.
const LEASE: Duration = Duration::from_secs(24 * 3600);

/// A broker with a queue.
struct World {
    broker: Broker<Call>,
    label: QueueLabel,
    /// Drives the broker; dropped with all its tasks.
    runtime: Runtime,
}

impl World {
    fn new(change: impl FnOnce(&mut BrokerSettings)) -> Self {
        let mut settings = BrokerSettings::new(addr(1));
        settings.lease = LEASE;
        settings.message_ttl = None;
        settings.max_lookups_per_second = u32::MAX;
        change(&mut settings);
        let label = QueueLabel::parse("orders").expect("it is one");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("it can be built");
        let broker = runtime.block_on(async {
            let store = MemoryStore::new(Arc::new(ManualClock::new(START)));
            let (broker, _) = Broker::spawn(settings, store, Arc::new(SeededEntropy::new(1)), Arc::new(NeverSuspended));
            let broker = broker.on_behalf_of(Call::of_process());
            while broker.heartbeat().is_err() {
                tokio::task::yield_now().await;
            }
            broker.create_queue(&label).await.expect("there is none yet");
            broker
        });
        Self { broker, label, runtime }
    }

    fn with_messages(change: impl FnOnce(&mut BrokerSettings)) -> Self {
        let world = Self::new(change);
        world.push_runs(runs());
        world
    }

    /// Pushes runs over one stream, without waiting for one to be stored before the next.
    fn push_runs(&self, runs: Vec<PushRun>) {
        self.runtime.block_on(async {
            let open = OpenPush { label: self.label.clone(), queue: None, producer: Some(stamp(1)) };
            let mut session = self.broker.open_push(open).await.expect("it is served");
            let mut receipts = Vec::with_capacity(runs.len());
            for run in runs {
                receipts.push(session.submit(run).await.expect("it is accepted"));
            }
            for receipt in receipts {
                receipt.await.expect("it is stored");
            }
        });
    }

    /// Pushes as the original's clients do, each when the one before is stored.
    fn push_one_by_one(&self, messages: Vec<NewMessage>) {
        self.runtime.block_on(async {
            for message in messages {
                let push = PushRequest { label: self.label.clone(), queue: None, producer: None, message };
                self.broker.push(push).await.expect("it is stored");
            }
        });
    }

    fn channel(&self) -> ChannelId {
        self.runtime.block_on(self.broker.create_channel(&self.label, Topic::NONE)).expect("the queue is served")
    }

    /// Has each of several new subscribers of a channel read all there is.
    fn read_all(&self, channel: ChannelId, subscribers: usize) {
        let stored = self.broker.status().queues[0].counters.pushed_bytes;
        self.runtime.block_on(async {
            for _ in 0..subscribers {
                let request = SubscribeRequest { channel, position: None };
                let mut subscription = self.broker.subscribe(request).await.expect("the channel exists");
                let mut read = 0;
                while read < stored {
                    read += black_box(subscription.next().await.expect("there is more")).len() as u64;
                }
            }
        });
    }
}

fn message() -> NewMessage {
    NewMessage { content: Bytes::from(vec![b'x'; 100]), ..NewMessage::default() }
}

fn runs() -> Vec<PushRun> {
    let run = |first| PushRun { first, messages: vec![message(); RUN], lowest_unacknowledged: None };
    (0..MESSAGES).step_by(RUN).map(|before| run(Sequence::new(before + 1))).collect()
}

fn stamp(producer: u64) -> ProducerStamp {
    // Spread like random ids, and in no order.
    let id = u128::from(producer).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let key = ProducerKey { id: ProducerId::new(Uuid::from_u128(id)), epoch: ProducerEpoch::ZERO };
    ProducerStamp { key, lowest_unacknowledged: Sequence::new(1) }
}

fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("in-runs-of-100", |b| {
        b.iter_batched(
            || (World::new(|_| {}), runs()),
            |(world, runs)| {
                world.push_runs(runs);
                world
            },
            BatchSize::PerIteration,
        );
    });
    const ONES: usize = 1_000;
    group.throughput(Throughput::Elements(ONES as u64));
    group.bench_function("one-by-one", |b| {
        b.iter_batched(
            || (World::new(|_| {}), vec![message(); ONES]),
            |(world, messages)| {
                world.push_one_by_one(messages);
                world
            },
            BatchSize::PerIteration,
        );
    });
}

/// Subscriptions that read a whole queue: from the cache, and from the store because the cache reaches back too little.
fn subscribe(c: &mut Criterion) {
    let mut group = c.benchmark_group("subscribe");
    let cached = World::with_messages(|_| {});
    let channel = cached.channel();
    const SUBSCRIBERS: usize = 10;
    group.throughput(Throughput::Elements(MESSAGES * SUBSCRIBERS as u64));
    group.bench_function("from-cache-10-subscribers", |b| b.iter(|| cached.read_all(channel, SUBSCRIBERS)));
    assert_eq!(cached.broker.status().queues[0].counters.store_reads, 0);

    let behind = World::with_messages(|settings| settings.queue_buffer_messages = 1);
    let channel = behind.channel();
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("from-store", |b| b.iter(|| behind.read_all(channel, 1)));
}

fn dedupe(c: &mut Criterion) {
    const STORED: u64 = 100;
    let stamps: Vec<_> = (1..=PRODUCERS).map(stamp).collect();
    let store = |dedupe: &mut Dedupe, stamp: &ProducerStamp, sequence: u64| {
        let (first, offset) = (Sequence::new(sequence), Offset::new(sequence));
        let run = Run { key: stamp.key, first, offset, count: 1 };
        dedupe.store(&[run], StoreTime::from_millis(1));
    };
    let mut known = Dedupe::default();
    for stamp in &stamps {
        store(&mut known, stamp, STORED);
    }

    let mut group = c.benchmark_group("dedupe");
    group.throughput(Throughput::Elements(PRODUCERS));
    group.bench_function("duplicate", |b| {
        b.iter(|| {
            for stamp in &stamps {
                assert_eq!(known.judge(black_box(stamp), Sequence::new(STORED), 1), Ok(1));
            }
        });
    });
    group.bench_function("reordered", |b| {
        b.iter(|| {
            for stamp in &stamps {
                let verdict = known.judge(black_box(stamp), Sequence::new(STORED + 2), 1);
                assert!(matches!(verdict, Err(BrokerError::SequenceGap { .. })));
            }
        });
    });
    let mut next = STORED;
    group.bench_function("new", |b| {
        b.iter(|| {
            next += 1;
            for stamp in &stamps {
                assert_eq!(known.judge(black_box(stamp), Sequence::new(next), 1), Ok(0));
                known.accept(stamp.key, Sequence::new(next));
                store(&mut known, stamp, next);
            }
        });
    });
}

criterion_group!(benches, push, subscribe, dedupe);
criterion_main!(benches);
