//! A broker whose store does not answer, with clients that keep pushing: its memory stays within a bound.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Request, header::CONTENT_TYPE},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use rmom_net::{
    serve::RESERVED_CONNECTIONS,
    testing::{PgServer, TestDatabase},
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

use crate::support::{Cluster, ClusterOptions, eventually, get, rmom};

const MIB: usize = 1 << 20;

/// The amount that is pushed, and the broker's limits.
struct Sizes {
    connections: usize,
    pushes: usize,
    message: usize,
    pending: usize,
    receive: usize,
}

impl Sizes {
    /// Small sizes, in proportion to the large ones, take seconds; with `RMOM_TEST_SIZES=large` clients send gigabytes to
    /// the broker.
    fn chosen() -> Self {
        let large = std::env::var("RMOM_TEST_SIZES").is_ok_and(|sizes| sizes == "large");
        match large {
            true => {
                Self { connections: 10, pushes: 1_024, message: 4 * MIB - 64, pending: 64 * MIB, receive: 256 * MIB }
            }
            // A connection gets a small share of `receive`, which has to hold some waiting streams.
            false => Self { connections: 10, pushes: 64, message: MIB, pending: 8 * MIB, receive: 64 * MIB },
        }
    }

    /// The bound in docs/operations.md; the broker's base memory comes on top.
    fn bound(&self) -> usize {
        2 * self.pending + 32 * MIB + self.receive + (self.connections + RESERVED_CONNECTIONS) * 64 * 1024
    }
}

/// A single push of this many bytes, which takes no memory here.
fn push(bytes: usize) -> Request<tonic::body::Body> {
    let mut head = BytesMut::new();
    // Field 3, the queue's label, followed by field 1, the content.
    head.put_slice(&[0x1A, 1, b'q', 0x0A]);
    let mut length = bytes;
    while length >= 0x80 {
        head.put_u8(u8::try_from(length & 0x7F).unwrap() | 0x80);
        length >>= 7;
    }
    head.put_u8(u8::try_from(length).unwrap());
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(u32::try_from(head.len() + bytes).unwrap());
    prefix.unsplit(head);
    let piece = Bytes::from_static(&[0; 16 << 10]);
    let pieces = stream::unfold(bytes, move |left| {
        let piece = piece.slice(..left.min(piece.len()));
        async move { (left > 0).then(|| (piece.clone(), left - piece.len())) }
    });
    let body = stream::once(async move { prefix.freeze() }).chain(pieces).map(Ok::<_, std::convert::Infallible>);
    Request::post("/messages.MessageStream/PushToQueue")
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Body::from_stream(body)))
        .unwrap()
}

async fn pushes(mut channel: Channel, count: usize, bytes: usize) -> usize {
    let mut answers = JoinSet::new();
    for _ in 0..count {
        let request = push(bytes);
        let answer = channel.ready().await.unwrap().call(request);
        answers.spawn(async move { answer.await.is_ok() });
    }
    answers.join_all().await.into_iter().filter(|answered| *answered).count()
}

/// The peak memory of a process, in bytes.
fn peak(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn database(runtime: &tokio::runtime::Runtime) -> TestDatabase {
    runtime.block_on(PgServer::shared().create_database())
}

#[test]
#[expect(clippy::print_stdout, reason = "how much it was, beside the bound")]
fn memory_has_a_bound_whatever_is_pushed_into_a_store_that_stalls() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let sizes = Sizes::chosen();
    let database = database(&runtime);
    let mut options = ClusterOptions::new(database.url());
    (options.brokers, options.managers) = (1, 1);
    options.broker_settings = format!("max_pending_bytes: {}\nmax_receive_bytes: {}\n", sizes.pending, sizes.receive);
    let cluster = Cluster::start(&options);
    rmom(&cluster.manager_urls()[0], &["push", "--create", "q", "first"], "").success();
    let broker = &cluster.brokers[0];
    let process = broker.process.as_ref().unwrap().id();
    let before = peak(process);

    // Appends wait for the queue's row, and the store's deadline cuts them off repeatedly.
    let stalled = runtime.block_on(async {
        let mut stalled = database.connect().await;
        sqlx::raw_sql("BEGIN; SELECT * FROM log FOR UPDATE").execute(&mut stalled).await.unwrap();
        stalled
    });
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.authority)).unwrap();
    let pushing = runtime.block_on(async {
        let mut pushing = JoinSet::new();
        for _ in 0..sizes.connections {
            pushing.spawn(pushes(endpoint.connect_lazy(), sizes.pushes, sizes.message));
        }
        pushing
    });
    eventually("pushes find no room", || {
        let (_, metrics) = get(&broker.authority, "/metrics")?;
        let refused = metrics.lines().find_map(|line| line.strip_prefix("rmom_broker_pushes_overloaded_total "))?;
        (refused.parse::<usize>().ok()? >= sizes.pushes).then_some(())
    });
    let answered = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), pushing.join_all()).await });
    let answered: usize = answered.expect("all are answered, stored or refused").into_iter().sum();
    assert_eq!(answered, sizes.connections * sizes.pushes);
    drop(stalled);
    let taken = peak(process) - before;
    println!(
        "{} MiB pushed, {} MiB taken, {} MiB allowed",
        sizes.connections * sizes.pushes * sizes.message / MIB,
        taken / MIB,
        sizes.bound() / MIB
    );
    assert!(taken <= sizes.bound(), "{} MiB were taken, the bound is {} MiB", taken / MIB, sizes.bound() / MIB);
    eventually("pushes are stored again", || {
        rmom(&cluster.manager_urls()[0], &["push", "q", "last"], "").success();
        Some(())
    });
}
