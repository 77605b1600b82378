//! Bytes of a client that follows few rules or none.

use arbitrary::{Result, Unstructured};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, split},
    time::{Duration, timeout},
};

use super::{
    cluster::{Cluster, Port},
    http2::{self, PREFACE},
    values,
};

/// The largest answer, whatever was sent.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// How long the client stays connected after its last byte: briefly, or longer than the servers' deadlines for unfinished
/// requests.
const STAYS: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(45)];
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PRI"];
const TARGETS: [&str; 10] = [
    "/queues",
    "/queues/q",
    "/v1/queues",
    "/v1/status",
    "/channels",
    "/metrics",
    "/readyz",
    "/messages.MessageStream/PushToQueue",
    "/messages.MessageStream/SubscribeToChannel",
    "/messages.MessageStream/PushStream",
];
const HEADERS: [&str; 8] = [
    "host: h",
    "content-type: application/grpc",
    "content-type: application/json",
    "transfer-encoding: chunked",
    "expect: 100-continue",
    "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__",
    "grpc-timeout: 1m",
    "te: trailers",
];

fn port(input: &mut Unstructured<'_>) -> Result<Port> {
    Ok(if input.arbitrary::<u8>()? % 2 == 0 { Port::Broker } else { Port::Manager })
}

/// Arbitrary bytes.
pub(super) async fn bytes(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<()> {
    let port = port(input)?;
    let (stays, piece) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
    send(cluster, port, input.bytes(input.len())?, piece, stays).await;
    Ok(())
}

/// The head of a request with valid parts, and arbitrary bytes after it.
pub(super) async fn http1(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<()> {
    let port = port(input)?;
    let (stays, piece) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
    let mut sent = Vec::new();
    while !input.is_empty() {
        let method = METHODS[usize::from(input.arbitrary::<u8>()?) % METHODS.len()];
        let target = TARGETS[usize::from(input.arbitrary::<u8>()?) % TARGETS.len()];
        sent.extend_from_slice(format!("{method} {target} HTTP/1.1\r\n").as_bytes());
        let headers = input.arbitrary::<u8>()?;
        for (_, header) in HEADERS.iter().enumerate().filter(|(at, _)| headers & (1 << at) != 0) {
            sent.extend_from_slice(format!("{header}\r\n").as_bytes());
        }
        let body = values::bytes(input)?;
        match input.arbitrary::<u8>()? % 4 {
            0 => sent.extend_from_slice(b"\r\n"),
            1 => sent.extend_from_slice(format!("content-length: {}\r\n\r\n", values::number(input)?).as_bytes()),
            2 => sent.extend_from_slice(format!("\r\n{:x}\r\n", body.len()).as_bytes()),
            _ => sent.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes()),
        }
        sent.extend_from_slice(&body);
    }
    send(cluster, port, &sent, piece, stays).await;
    Ok(())
}

/// The HTTP/2 preface, and frames.
pub(super) async fn http2(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<()> {
    let port = port(input)?;
    let (stays, piece) = (input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
    let mut sent = PREFACE.to_vec();
    while !input.is_empty() {
        http2::frame(input, &mut sent)?;
    }
    send(cluster, port, &sent, piece, stays).await;
    Ok(())
}

/// Sends the bytes in pieces, reads the answer, stays for a while, and disconnects.
async fn send(cluster: &Cluster, port: Port, bytes: &[u8], piece: u8, stays: u8) {
    let (mut reading, mut writing) = split(cluster.dial(port));
    let piece = if piece == 0 { bytes.len().max(1) } else { usize::from(piece) };
    let write = async {
        for piece in bytes.chunks(piece) {
            if writing.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if stays & 2 != 0 {
            // A server may close the connection before everything is sent.
            let _ = writing.shutdown().await;
        }
    };
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = vec![0; 8_192];
        while let Ok(read @ 1..) = reading.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..read]);
            assert!(answer.len() <= MAX_ANSWER_BYTES, "the answer does not end");
        }
    };
    let _ = timeout(STAYS[usize::from(stays & 1)], async { tokio::join!(write, read) }).await;
    check(bytes, &answer);
}

/// The answer is HTTP, in the client's version.
fn check(sent: &[u8], answer: &[u8]) {
    if answer.is_empty() {
        return;
    }
    if sent.starts_with(PREFACE) {
        http2::check_frames(answer);
    } else {
        assert!(answer.starts_with(b"HTTP/1."), "no HTTP: {:?}", String::from_utf8_lossy(answer));
    }
}
