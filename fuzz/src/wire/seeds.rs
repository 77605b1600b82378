//! Initial inputs: `cargo run -p rmom-fuzz --example seeds` writes them to `corpus/wire`.

use super::http2::PREFACE;

const RAW: u8 = 0;
const HTTP1: u8 = 1;
const HTTP2: u8 = 2;
const GRPC: u8 = 3;
const REST: u8 = 4;
const BROKER: u8 = 0;
const MANAGER: u8 = 1;
/// The client stays until the servers' deadlines have passed.
const LONG: u8 = 1;
/// All in one piece.
const WHOLE: u8 = 0;

fn raw(port: u8, stays: u8, piece: u8, bytes: &[u8]) -> Vec<u8> {
    [&[RAW, port, stays, piece], bytes].concat()
}

/// An HTTP/2 frame with its correct length.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("seeds are small");
    [&[kind, flags, stream, payload_kind::BYTES, length], payload, &[0]].concat()
}

/// The fields of a call to one of the methods, by its number in `http2::FIELDS`.
fn call(stream: u8, path: u16) -> Vec<u8> {
    let chosen = (0b11_1011 | path).to_le_bytes();
    [&[1, 4, stream, payload_kind::FIELDS][..], &chosen, &[0]].concat()
}

mod payload_kind {
    pub(super) const FIELDS: u8 = 0;
    pub(super) const BYTES: u8 = 3;
}

fn http2(frames: &[Vec<u8>]) -> Vec<u8> {
    [&[HTTP2, BROKER, LONG, WHOLE], &frames.concat()[..]].concat()
}

/// A push by producer 1: its sequence, lowest unacknowledged one, and lifetime.
fn push(sequence: u8, lowest: u8, ttl: u8) -> Vec<u8> {
    vec![0, 1, 3, 0, 1, 1, 0, lowest, sequence, 0, ttl, 0, 0]
}

fn grpc(calls: &[&[u8]]) -> Vec<u8> {
    [&[GRPC], &calls.concat()[..]].concat()
}

/// The name and content of each.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let settings = frame(4, 0, 0, b"");
    let subscription = *b"\0\0\0\0\x26\x0a\x2400000000-0000-4000-8000-000000000000";
    let subscribe = [0, 0, 0, 0, 38].into_iter().chain(subscription[5..].iter().copied()).collect::<Vec<u8>>();
    let data = frame(0, 1, 1, &subscribe);
    let stream = grpc(&[&[1, 3, 0, 0, 1, 1, 0, 1, 0, 3, 1, 0, 2, 1, 0, 0, 0, 3, 3, 0, 2, 1, 0, 0, 0, 0]]);
    vec![
        ("nothing", raw(BROKER, LONG, WHOLE, b"")),
        ("http1-get", raw(MANAGER, 0, WHOLE, b"GET /v1/queues HTTP/1.1\r\nhost: m\r\n\r\n")),
        ("http1-chunked-in-pieces", raw(
            MANAGER,
            0,
            3,
            b"POST /v1/queues HTTP/1.1\r\nhost: m\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
              f\r\n{\"label\": \"new\"}\r\n0\r\n\r\n",
        )),
        ("http1-unfinished", raw(BROKER, LONG, 1, b"POST /messages.MessageStream/PushToQueue HTTP/1.1\r\nhos")),
        ("http2-preface-only", raw(BROKER, LONG, WHOLE, PREFACE)),
        ("http1-many", vec![HTTP1, MANAGER, 0, WHOLE, 0, 0, 1, 0, 0, 0, 3, 1, 0, 0, 1, 2, 5, 2, b'{', b'}', 3]),
        ("http1-grpc-without-end", vec![HTTP1, BROKER, LONG, WHOLE, 1, 9, 3, 5, 0, 0, 0, 0, 0, 1, 200]),
        ("http2-subscribe", http2(&[settings.clone(), call(1, 1 << 6), data])),
        ("http2-push-stream-left-open", http2(&[settings.clone(), call(1, 1 << 2)])),
        ("http2-reset", http2(&[settings.clone(), call(1, 1 << 2), frame(3, 0, 1, &[0, 0, 0, 8])])),
        ("http2-ping-and-window", http2(&[settings, frame(6, 0, 0, &[7; 8]), frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])])),
        ("grpc-push-and-retry", grpc(&[&push(1, 1, 0), &push(1, 1, 0), &push(2, 1, 9), &push(9, 1, 0)])),
        ("grpc-push-stream", stream),
        ("grpc-subscribe", grpc(&[&[2, 0, 0, 0], &[2, 0, 1, 1, 1, 1, 0], &[2, 0, 1, 1, 1, 250, 0]])),
        ("grpc-queues", grpc(&[&[6, 2, 0], &[9, 2, 0], &[8, 2, 0], &[4, 2, 10, 0], &[7, 2, 0]])),
        ("grpc-producer", grpc(&[&[3, 0, 1, 0], &[3, 0, 200, 0], &[10, 0], &[11, 0], &[5, 0, 0]])),
        ("rest-queues", vec![REST, 1, 2, 2, 0, 0, 0, 2, 2, 0, 0, 2, 5, 2, 10, 0, 0, 3, 2, 2, 0, 0]),
        ("rest-v1", vec![REST, 1, 8, 1, 2, 0, 1, 10, 0, 2, 10, 1, 0, 0, 9, 0, 0, 0, 1, 14, 0, 1, 0, 0]),
        ("rest-other", vec![REST, 0, 16, 0, 0, 0, 17, 0, 0, 0, 18, 0, 0, 5, 20, 0, 0]),
    ]
}
