//! What a run of pushed messages costs from the bytes of a gRPC message to what the broker takes.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use rmom_net::grpc::{parse_run, tally_run};
use rmom_proto::messages::{Header, PushMessage, PushStreamMessages, PushStreamRequest, push_stream_request::Request};

/// Messages of a run.
const MESSAGES: usize = 100;

fn run(message: &PushMessage) -> PushStreamMessages {
    PushStreamMessages { first_sequence: 1_001, messages: vec![message.clone(); MESSAGES], lowest_unacknowledged: 901 }
}

fn wire(c: &mut Criterion) {
    let plain = PushMessage { content: Bytes::from(vec![b'x'; 100]), ..PushMessage::default() };
    let with_topic = PushMessage { topic: "News".into(), ..plain.clone() };
    let header = Header { name: "trace-id".into(), value: Bytes::from_static(b"0123456789abcdef") };
    let with_all = PushMessage { headers: vec![header.clone(), header], ttl_millis: 60_000, ..with_topic.clone() };

    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, message) in [("plain", plain), ("topic", with_topic), ("topic-lifetime-headers", with_all)] {
        let run = run(&message);
        let bytes = Bytes::from(PushStreamRequest { request: Some(Request::Messages(run.clone())) }.encode_to_vec());
        group.bench_function(format!("decode-{name}"), |b| {
            b.iter(|| PushStreamRequest::decode(black_box(&bytes).clone()).expect("it was encoded above"));
        });
        group.bench_function(format!("tally-{name}"), |b| {
            b.iter(|| tally_run(black_box(&bytes)).expect("it is within the limits"));
        });
        group.bench_function(format!("parse-{name}"), |b| {
            b.iter_batched(
                || run.clone(),
                |run| parse_run(black_box(run)).expect("it is in order"),
                BatchSize::LargeInput,
            );
        });
    }
}

criterion_group!(benches, wire);
criterion_main!(benches);
