//! HTTP/1.1 and HTTP/2 on one port, over any transport.

mod opening;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use rmom_core::ports::{BoxIo, Listener};
use tokio::{
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::metrics::Lane;

/// Connections at once, unless set otherwise.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
/// How long requests in flight may take to finish after shutdown was asked for, unless set otherwise.
pub const DEFAULT_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a new connection may take to say which HTTP it speaks.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 connection may take to send a request's head, or stay idle before it.
pub const HTTP1_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of an HTTP/1.1 request, in bytes.
pub const HTTP1_MAX_HEAD_BYTES: usize = 64 << 10;
/// Most headers of an HTTP/1.1 request.
pub const HTTP1_MAX_HEADERS: usize = 100;
/// Largest header list of an HTTP/2 request, in bytes.
pub const HTTP2_MAX_HEADER_LIST_BYTES: u32 = 32 << 10;
/// How often an HTTP/2 peer is asked whether it is there, also while idle.
pub const HTTP2_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to answer before the connection is closed.
pub const HTTP2_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests at once on one HTTP/2 connection.
pub const HTTP2_MAX_STREAMS: u32 = 1_024;
/// What a client may send on a stream before it is read: a push of the largest size, or many small ones.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// What a client may send on a connection before it is read.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest frame that a client may send.
pub const HTTP2_MAX_FRAME_BYTES: u32 = 64 << 10;
/// What a stream holds ready to be sent, beyond one chunk of its body.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 512 << 10;
/// First and longest pause after the listener failed, for lack of file descriptors as a rule.
pub const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What can be set on a server.
#[derive(Clone, Copy, Debug)]
pub struct ServeSettings {
    /// Connections at once; one more is closed as soon as it is accepted.
    pub max_connections: usize,
    /// How long requests in flight may take to finish after shutdown was asked for; then they are cut off.
    pub shutdown_deadline: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self { max_connections: DEFAULT_MAX_CONNECTIONS, shutdown_deadline: DEFAULT_SHUTDOWN_DEADLINE }
    }
}

/// What a server did since it started, for metrics.
#[derive(Debug, Default)]
pub struct ServeStats {
    open: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
    store: OnceLock<Vec<Arc<Lane>>>,
}

impl ServeStats {
    /// From now on its metrics tell how long calls of this process' store wait; once.
    pub fn watch_store(&self, lanes: &[Arc<Lane>]) {
        let _ = self.store.set(lanes.to_vec());
    }

    /// Those that [`ServeStats::watch_store`] was given.
    pub fn store(&self) -> &[Arc<Lane>] {
        self.store.get().map_or(&[], Vec::as_slice)
    }

    /// Connections now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Connections accepted, those refused for their number included.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections closed at once because of [`ServeSettings::max_connections`].
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Failures of the listener.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
    }
}

/// The other end of the connection that a request came in on; an extension of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(pub Arc<str>);

/// Serves until `shutdown` is cancelled, then stops accepting, lets requests in flight finish, and returns.
///
/// Connections belong to this future, and requests to their connections: dropping it ends them all at once, which is what
/// a crash looks like from outside.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    router: Router,
    settings: ServeSettings,
    stats: Arc<ServeStats>,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let mut backoff = ACCEPT_BACKOFF.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(done) = connections.join_next() => {
                report(done);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, peer)) => {
                backoff = ACCEPT_BACKOFF.0;
                stats.accepted.fetch_add(1, Relaxed);
                if connections.len() >= settings.max_connections {
                    stats.refused.fetch_add(1, Relaxed);
                    tracing::warn!(peer, limit = settings.max_connections, "connection refused: max_connections");
                    continue;
                }
                let open = Open::new(stats.clone());
                let connection = serve_connection(io, Peer(peer.into()), router.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(open);
                });
            }
            // The connection's own failure: it is gone, and the next is no worse for it.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
                stats.accept_errors.fetch_add(1, Relaxed);
            }
            Err(error) => {
                stats.accept_errors.fetch_add(1, Relaxed);
                tracing::error!(%error, ?backoff, "cannot accept connections; trying again");
                let _ = timeout(backoff, shutdown.cancelled()).await;
                backoff = ACCEPT_BACKOFF.1.min(backoff * 2);
            }
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = async { while let Some(done) = connections.join_next().await { report(done) } } => {}
        () = sleep(settings.shutdown_deadline) => {
            tracing::warn!(connections = connections.len(), deadline = ?settings.shutdown_deadline, "cutting off connections");
        }
    }
}

/// A panic in a handler is a defect; it took its connection along and nothing else.
fn report(done: Result<(), JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}

/// Counts a connection for as long as it lives.
struct Open(Arc<ServeStats>);

impl Open {
    fn new(stats: Arc<ServeStats>) -> Self {
        stats.open.fetch_add(1, Relaxed);
        Self(stats)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

async fn serve_connection(io: BoxIo, peer: Peer, router: Router, shutdown: CancellationToken) {
    let builder = builder();
    let name = peer.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let response = router.clone().call(request.map(Body::new));
        async move { Ok::<_, Infallible>(response.await.unwrap_or_else(|never| match never {})) }
    });
    let io = TokioIo::new(opening::Opening::new(io, OPENING_TIMEOUT));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let result = tokio::select! {
        biased;
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        result = connection.as_mut() => result,
    };
    if let Err(error) = result {
        // The other end's doing, as a rule: it went away or spoke no HTTP.
        tracing::debug!(peer = %name.0, error, "connection ended");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    // HTTP/2 runs each request as a task of its own, which ends when its connection does.
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The `Date` header reads the wall clock, which a simulation does not control; no client of ours reads it.
    builder
        .http1()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .header_read_timeout(HTTP1_HEAD_TIMEOUT)
        .max_buf_size(HTTP1_MAX_HEAD_BYTES)
        .max_headers(HTTP1_MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .keep_alive_interval(HTTP2_KEEPALIVE_INTERVAL)
        .keep_alive_timeout(HTTP2_KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(HTTP2_MAX_STREAMS)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_MAX_FRAME_BYTES)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_header_list_size(HTTP2_MAX_HEADER_LIST_BYTES);
    builder
}
