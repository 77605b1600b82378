//! The codec: what messages cost on their way into a batch, and a batch on its way to its subscribers.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rmom_core::{
    broker::{Header, NewMessage},
    frame::{Batch, BatchBuilder, Encoded},
    model::{Epoch, Offset, ProducerEpoch, ProducerId, ProducerKey, QueueId, Sequence, StoreTime, Topic},
    ports::{BatchHeader, StoredBatch},
};
use uuid::Uuid;

/// Messages of a batch, unless its benchmark says otherwise.
const MESSAGES: usize = 100;
const KEY: ProducerKey = ProducerKey { id: ProducerId::new(Uuid::from_u128(5)), epoch: ProducerEpoch::new(2) };
const EPOCH: Epoch = Epoch::new(3);
const STORED_AT: StoreTime = StoreTime::from_millis(1_700_000_000_000);
const TOPICS: [&str; 4] = ["news", "sport", "stocks", "weather"];
/// Lifetime of a message that has one.
const TTL: Duration = Duration::from_secs(60);

fn plain(bytes: usize) -> NewMessage {
    NewMessage { content: Bytes::from(vec![b'x'; bytes]), ..NewMessage::default() }
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).expect("it is one")
}

fn with_topics(n: usize) -> Vec<NewMessage> {
    (0..n).map(|i| NewMessage { topic: topic(TOPICS[i % TOPICS.len()]), ..plain(100) }).collect()
}

fn with_lifetime_and_headers(n: usize) -> Vec<NewMessage> {
    let header = |name: &str| Header { name: name.into(), value: Bytes::from_static(b"0123456789abcdef") };
    let headers = vec![header("trace-id"), header("content-type")];
    vec![NewMessage { headers, ttl: Some(TTL), ..plain(100) }; n]
}

/// As a queue's task does it.
fn encode(messages: &[NewMessage]) -> Encoded {
    let mut builder = BatchBuilder::new(Offset::new(1_000_001));
    let ids = KEY.message_ids(QueueId::new(1));
    let mut sequence = Sequence::new(1_000);
    for message in messages {
        sequence = sequence.next();
        builder.push(KEY, sequence, ids.at(sequence), message);
    }
    builder.finish()
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, messages) in [
        ("100-bytes", vec![plain(100); MESSAGES]),
        ("1-KiB", vec![plain(1_024); MESSAGES]),
        ("4-topics", with_topics(MESSAGES)),
        ("lifetime-and-headers", with_lifetime_and_headers(MESSAGES)),
    ] {
        group.bench_function(name, |b| b.iter(|| encode(black_box(&messages))));
    }
}

/// The same frames for everybody who takes everything.
fn fan_out(c: &mut Criterion) {
    let batch = encode(&with_topics(MESSAGES)).stored(EPOCH, STORED_AT);
    let mut group = c.benchmark_group("fan-out");
    for subscribers in [1, 10, 100] {
        group.throughput(Throughput::Elements(subscribers));
        group.bench_function(format!("{subscribers}-subscribers"), |b| {
            b.iter(|| {
                for _ in 0..subscribers {
                    black_box(black_box(&batch).chunk(Offset::ZERO, &Topic::NONE, STORED_AT));
                }
            });
        });
    }
}

/// One subscriber that does not take everything.
fn filter(c: &mut Criterion) {
    let encoded = encode(&with_topics(MESSAGES));
    let wanted = topic(TOPICS[1]);
    let mut group = c.benchmark_group("filter");
    group.bench_function("topic-first-asked-for", |b| {
        b.iter_batched_ref(
            || encoded.clone().stored(EPOCH, STORED_AT),
            |batch| batch.chunk(Offset::ZERO, &wanted, STORED_AT),
            BatchSize::SmallInput,
        );
    });
    let batch = encoded.clone().stored(EPOCH, STORED_AT);
    group.bench_function("topic-asked-for-again", |b| {
        b.iter(|| black_box(&batch).chunk(Offset::ZERO, &wanted, STORED_AT));
    });

    let mut messages = vec![plain(100); MESSAGES];
    messages.iter_mut().step_by(2).for_each(|message| message.ttl = Some(TTL));
    let batch = encode(&messages).stored(EPOCH, STORED_AT);
    let later = STORED_AT.plus_millis(100_000);
    assert_eq!(batch.chunk(Offset::ZERO, &Topic::NONE, later).messages, MESSAGES as u64 / 2);
    group.bench_function("half-expired", |b| {
        b.iter(|| black_box(&batch).chunk(Offset::ZERO, &Topic::NONE, later));
    });
}

/// What a subscriber that is behind the cache costs for each batch it reads.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, messages) in [
        ("100-messages", vec![plain(100); 100]),
        ("1000-messages", vec![plain(100); 1_000]),
        ("1000-messages-4-topics", with_topics(1_000)),
    ] {
        let encoded = encode(&messages);
        let format = encoded.format();
        let header = BatchHeader {
            first: encoded.first,
            last: encoded.last,
            epoch: EPOCH,
            stored_at: STORED_AT,
            expires_at: StoreTime::NEVER,
            format,
            index: encoded.index,
        };
        let stored = StoredBatch { header, frames: encoded.frames, checksum: encoded.checksum };
        group.throughput(Throughput::Elements(messages.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| Batch::decode(black_box(&stored)).expect("it is whole"));
        });
    }
}

criterion_group!(benches, append, fan_out, filter, decode);
criterion_main!(benches);
