//! HTTP/1.1 and HTTP/2 on one port, over any transport.

mod activity;
mod admission;
mod opening;
mod reserve;
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

pub(crate) use activity::Lasting;
pub use admission::{
    HTTP2_LARGEST_WINDOW_BYTES, HTTP2_SMALLEST_WINDOW_BYTES, HTTP2_STREAM_WINDOW_BYTES, RESERVED_CONNECTIONS,
    RESERVED_CONNECTIONS_PER_PEER,
};
use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
pub use reserve::{RESERVED_IDLE_TIMEOUT, RESERVED_OPENING_TIMEOUT, RESERVED_PATHS};
use rmom_core::{
    access::Caller,
    model::Origin,
    ports::{BoxIo, Listener},
};
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use self::{
    activity::Activity,
    admission::{Admission, Limit, Place, Slot},
};
use crate::metrics::Lane;

/// Default limit on the number of connections.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
/// Default limit on the connections from one address.
pub const DEFAULT_MAX_CONNECTIONS_PER_PEER: usize = 4_096;
/// Default limit on the bytes that all clients together may send before they are read.
pub const DEFAULT_MAX_RECEIVE_BYTES: usize = 256 << 20;
/// Default time after which an HTTP/2 connection without requests is closed.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Default time that requests in flight may take to finish after a shutdown has begun.
pub const DEFAULT_SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a new connection may take to say which HTTP it speaks.
pub const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 connection may take to send a request's head, idle time before it included.
pub const HTTP1_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest head of an HTTP/1.1 request, in bytes.
pub const HTTP1_MAX_HEAD_BYTES: usize = 64 << 10;
/// Limit on the headers of an HTTP/1.1 request.
pub const HTTP1_MAX_HEADERS: usize = 100;
/// Largest header list of an HTTP/2 request, in bytes.
pub const HTTP2_MAX_HEADER_LIST_BYTES: u32 = 32 << 10;
/// Default interval at which an HTTP/2 peer is asked whether it is there, even when idle. A client that has gone costs the
/// server little, and a client that is stopped in a debugger for a while should not lose its connection.
pub const DEFAULT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Default time that the peer may take to answer before the connection is closed.
pub const DEFAULT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit on the concurrent requests of one HTTP/2 connection.
pub const HTTP2_MAX_STREAMS: u32 = 1_024;
/// Largest frame that a client may send.
pub const HTTP2_MAX_FRAME_BYTES: u32 = 64 << 10;
/// Bytes that a stream holds ready for sending, beyond one chunk of its body.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 512 << 10;
/// First and longest pause after the listener has failed, usually for lack of file descriptors.
pub const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Settings of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServeSettings {
    /// Limit on connections. Beyond it there is a reserve of [`RESERVED_CONNECTIONS`] for managers, health and metrics.
    pub max_connections: usize,
    /// Limit on connections from one address (for IPv6: one /64 network). 0 means that addresses tell nothing here, as
    /// behind a proxy, so that no limit counts by address; see [`Peer::origin`].
    pub max_connections_per_peer: usize,
    /// Limit on the bytes that all clients together may send before they are read, beyond [`HTTP2_SMALLEST_WINDOW_BYTES`]
    /// for each connection. The more connections are open, the smaller the share of a new one.
    pub max_receive_bytes: usize,
    /// An HTTP/2 connection without requests for this time is closed in order; its client opens another when it needs one.
    pub idle_timeout: Duration,
    /// Interval at which an HTTP/2 peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// Time that the peer may take to answer.
    pub keepalive_timeout: Duration,
    /// Time that requests in flight may take to finish after a shutdown has begun; then they are cut off.
    pub shutdown_deadline: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_connections_per_peer: DEFAULT_MAX_CONNECTIONS_PER_PEER,
            max_receive_bytes: DEFAULT_MAX_RECEIVE_BYTES,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            keepalive_interval: DEFAULT_KEEPALIVE_INTERVAL,
            keepalive_timeout: DEFAULT_KEEPALIVE_TIMEOUT,
            shutdown_deadline: DEFAULT_SHUTDOWN_DEADLINE,
        }
    }
}

/// Counters of a server since its start, for metrics.
#[derive(Debug, Default)]
pub struct ServeStats {
    open: AtomicUsize,
    reserved: AtomicUsize,
    limit: AtomicUsize,
    windows: AtomicUsize,
    accepted: AtomicU64,
    refused: [AtomicU64; 3],
    turned_away: [AtomicU64; 3],
    closed_idle: AtomicU64,
    accept_errors: AtomicU64,
    store: OnceLock<Vec<Arc<Lane>>>,
}

impl ServeStats {
    /// Adds to the metrics how long calls of this process' store wait. Has an effect once.
    pub fn watch_store(&self, lanes: &[Arc<Lane>]) {
        let _ = self.store.set(lanes.to_vec());
    }

    /// The lanes given to [`ServeStats::watch_store`].
    pub fn store(&self) -> &[Arc<Lane>] {
        self.store.get().map_or(&[], Vec::as_slice)
    }

    /// The number of connections now, including those in the reserve.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// The number of connections in the reserve now.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Relaxed)
    }

    /// [`ServeSettings::max_connections`], once the server runs.
    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// True while a new connection can only get a place in the reserve.
    pub fn exhausted(&self) -> bool {
        let limit = self.limit();
        limit > 0 && self.open() - self.reserved().min(self.open()) >= limit
    }

    /// The faults of this server that its counters show; `/readyz` reports them.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.exhausted() {
            let limit = self.limit();
            complaints.push(format!("all {limit} connections are taken (max_connections); new clients are refused"));
        }
        for lane in self.store().iter().filter(|lane| lane.waits_in_vain()) {
            let name = lane.name();
            complaints.push(format!(
                "calls gave up waiting for a connection to the database ({name}): it is slow or hangs, or it needs more than \
                 its max_connections"
            ));
        }
        complaints
    }

    /// The bytes that clients may send at this moment before they are read, over all connections.
    pub fn windows(&self) -> usize {
        self.windows.load(Relaxed)
    }

    /// The number of connections accepted, including those then refused by a limit.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// The number of connections closed at once because there were too many, in the reserve as well.
    pub fn refused(&self) -> u64 {
        self.refused.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Refusals by each limit: its setting, the number of connections closed at once, and the number of requests refused on
    /// connections in the reserve.
    pub fn refusals(&self) -> [(&'static str, u64, u64); 3] {
        [Limit::All, Limit::Peer, Limit::Handshakes].map(|limit| {
            let at = limit as usize;
            (limit.setting(), self.refused[at].load(Relaxed), self.turned_away[at].load(Relaxed))
        })
    }

    /// The number of connections closed for lack of requests.
    pub fn closed_idle(&self) -> u64 {
        self.closed_idle.load(Relaxed)
    }

    /// The number of failures of the listener.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
    }
}

/// The other end of the connection on which a request arrived; an extension of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client, named by its address and port, or by another name that the transport gives it.
    pub caller: Caller,
    /// Permits for requests of this connection that wait before they are read.
    pub waits: Arc<Semaphore>,
    /// The total number of those permits.
    pub max_waits: usize,
}

impl Peer {
    /// The origin whose share of look-ups, announced pushes and open streams its requests take. `None` means that only the
    /// total limits apply.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.caller.origin()
    }
}

/// Serves until `shutdown` is cancelled, then stops accepting, lets requests in flight finish, and returns.
///
/// This future owns the connections, and they own their requests: dropping it ends them all at once, which looks like a
/// crash from outside.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    router: Router,
    settings: ServeSettings,
    stats: Arc<ServeStats>,
    shutdown: CancellationToken,
) {
    let admission = Admission::new(settings, stats.clone());
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
                let Some(slot) = admission.admit(&peer) else { continue };
                let max_waits = slot.waiting_streams();
                let counts = settings.max_connections_per_peer > 0;
                let caller = Caller::anonymous(&peer.into(), counts);
                let peer = Peer { caller, waits: Arc::new(Semaphore::new(max_waits)), max_waits };
                let connection = Connection { io, peer, slot, router: router.clone(), settings, stats: stats.clone() };
                let shutdown = shutdown.clone();
                connections.spawn(async move { connection.run(&shutdown).await });
            }
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                stats.accepted.fetch_add(1, Relaxed);
                admission.refused(Limit::Handshakes, &error);
            }
            // The failure of one connection, which is gone; it says nothing about the next.
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

/// A panic in a handler is a defect. It ended its connection and nothing else.
fn report(done: Result<(), JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}

/// An accepted connection.
struct Connection {
    io: BoxIo,
    peer: Peer,
    slot: Slot,
    router: Router,
    settings: ServeSettings,
    stats: Arc<ServeStats>,
}

impl Connection {
    async fn run(self, shutdown: &CancellationToken) {
        let Self { io, peer, slot, router, settings, stats } = self;
        let builder = builder(&settings, &slot);
        let (opening, idle) = match slot.beyond {
            None => (OPENING_TIMEOUT, settings.idle_timeout),
            Some(_) => (RESERVED_OPENING_TIMEOUT, RESERVED_IDLE_TIMEOUT.min(settings.idle_timeout)),
        };
        let (name, beyond, place) = (peer.caller.peer().clone(), slot.beyond, slot.place.clone());
        let activity = Activity::new();
        let service = service_fn(|mut request: Request<Incoming>| {
            let busy = activity.request();
            let response = match beyond.filter(|_| !reserve::may(request.uri().path())) {
                Some(limit) => {
                    stats.turned_away[limit as usize].fetch_add(1, Relaxed);
                    // The client reconnects, and may find a free place by then.
                    activity.close();
                    Err(reserve::refusal(limit, request.headers()))
                }
                None => {
                    request.extensions_mut().insert(peer.clone());
                    Ok(router.clone().call(request.map(Body::new)))
                }
            };
            let place = place.clone();
            async move {
                let response = match response {
                    Ok(response) => {
                        let response = response.await.unwrap_or_else(|never| match never {});
                        if let Some(place) = place {
                            place.prove();
                        }
                        response
                    }
                    Err(refusal) => refusal,
                };
                Ok::<_, Infallible>(response.map(|body| Lasting::new(body, busy)))
            }
        });
        let io = TokioIo::new(opening::Opening::new(io, opening));
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let result = tokio::select! {
            biased;
            result = connection.as_mut() => result,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = activity.closing() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = displaced(slot.place.as_ref()) => return,
            () = activity.idle(idle) => {
                stats.closed_idle.fetch_add(1, Relaxed);
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            // Usually caused by the other end: it went away or did not speak HTTP.
            tracing::debug!(peer = %name, error, "connection ended");
        }
    }
}

/// Waits until another connection took this place in the reserve.
async fn displaced(place: Option<&Place>) {
    match place {
        Some(place) => place.displaced().await,
        None => std::future::pending().await,
    }
}

fn builder(settings: &ServeSettings, slot: &Slot) -> auto::Builder<TokioExecutor> {
    // HTTP/2 runs each request as a task of its own, which ends with its connection.
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
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .max_concurrent_streams(HTTP2_MAX_STREAMS)
        .initial_stream_window_size(slot.stream_window())
        .initial_connection_window_size(slot.window)
        .max_frame_size(HTTP2_MAX_FRAME_BYTES)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_header_list_size(HTTP2_MAX_HEADER_LIST_BYTES);
    builder
}
