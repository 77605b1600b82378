use axum::{Extension, routing::get};
use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use rmom_core::model::Code;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::*;
use crate::testing::Pipes;

const AT: &str = "server:1";
/// Longer than anything here takes, on the paused clock; a test that waits this long fails.
const PATIENCE: Duration = Duration::from_secs(600);

struct Server {
    pipes: Pipes,
    stats: Arc<ServeStats>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn start(router: Router, settings: ServeSettings) -> Server {
    let (pipes, stats, shutdown) = (Pipes::default(), Arc::<ServeStats>::default(), CancellationToken::new());
    let task = tokio::spawn(serve(pipes.listen(AT), router, settings, stats.clone(), shutdown.clone()));
    Server { pipes, stats, shutdown, task }
}

async fn until(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, holds).await.expect("the condition holds in time");
}

fn hello() -> Router {
    Router::new()
        .route("/", get(|Extension(peer): Extension<Peer>| async move { format!("hello {}", peer.caller.peer()) }))
}

fn request() -> Request<Empty<Bytes>> {
    Request::get("http://server:1/").header("host", "server").body(Empty::new()).unwrap()
}

async fn http2_client(io: DuplexStream) -> http2::SendRequest<Empty<Bytes>> {
    let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn http1_client(io: DuplexStream) -> http1::SendRequest<Empty<Bytes>> {
    let (client, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn check_hello(response: Response<Incoming>, version: Version) {
    assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
    assert_eq!(response.headers().get("date"), None);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello peer of server:1");
}

#[tokio::test(start_paused = true)]
async fn both_protocols_share_a_port_and_handlers_know_the_peer() {
    let server = start(hello(), ServeSettings::default());
    let mut http1 = http1_client(server.pipes.dial(AT).unwrap()).await;
    check_hello(http1.send_request(request()).await.unwrap(), Version::HTTP_11).await;
    let mut http2 = http2_client(server.pipes.dial(AT).unwrap()).await;
    check_hello(http2.send_request(request()).await.unwrap(), Version::HTTP_2).await;
    assert_eq!((server.stats.open(), server.stats.accepted()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn behind_a_proxy_an_address_has_no_share() {
    let told = |Extension(peer): Extension<Peer>| async move { peer.origin().is_some().to_string() };
    for (max_connections_per_peer, expected) in [(1, "true"), (0, "false")] {
        let router = Router::new().route("/", get(told));
        let server = start(router, ServeSettings { max_connections_per_peer, ..ServeSettings::default() });
        let answer = http2_client(server.pipes.dial(AT).unwrap()).await.send_request(request()).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), expected);
    }
}

fn ask(path: &str) -> Request<Empty<Bytes>> {
    Request::post(format!("http://server:1{path}"))
        .header("content-type", "application/grpc")
        .body(Empty::new())
        .unwrap()
}

/// The part of a server's router that matters to the reserve.
fn with_health() -> Router {
    hello()
        .route("/healthz", get(|| async { "alive" }))
        .route("/messages.MessageStream/GetHeartbeat", axum::routing::post(|| async { "alive" }))
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_connections_do_what_keeps_the_cluster_alive_and_nothing_else() {
    let server = start(with_health(), ServeSettings { max_connections: 1, ..ServeSettings::default() });
    let mut first = http2_client(server.pipes.dial(AT).unwrap()).await;
    first.send_request(request()).await.unwrap();
    assert!(server.stats.exhausted());

    // A manager that begins to lead gets a place, and keeps it.
    let mut manager = http2_client(server.pipes.dial(AT).unwrap()).await;
    for _ in 0..3 {
        let answer = manager.send_request(ask("/messages.MessageStream/GetHeartbeat")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let mut probe = http1_client(server.pipes.dial(AT).unwrap()).await;
    let healthz = Request::get("/healthz").header("host", "server").body(Empty::new()).unwrap();
    assert_eq!(probe.send_request(healthz).await.unwrap().status(), StatusCode::OK);
    assert_eq!((server.stats.open(), server.stats.reserved(), server.stats.refused()), (3, 2, 0));

    // Clients get the reason in the protocol that they speak, and the connection ends.
    let mut second = http2_client(server.pipes.dial(AT).unwrap()).await;
    let refusal = second.send_request(ask("/messages.MessageStream/PushToQueue")).await.unwrap();
    let status = tonic::Status::from_header_map(refusal.headers()).unwrap();
    assert_eq!(crate::grpc::stable_code(&status), Some(Code::TooManyConnections));
    assert_eq!(status.code(), tonic::Code::Unavailable);
    drop(refusal);
    until(|| server.stats.reserved() == 2).await;
    assert!(second.is_closed());
    let mut third = http1_client(server.pipes.dial(AT).unwrap()).await;
    let refusal = third.send_request(request()).await.unwrap();
    assert_eq!(refusal.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refusal.headers()["retry-after"], "1");
    let body = String::from_utf8(refusal.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(body.contains("TOO_MANY_CONNECTIONS") && body.contains("max_connections"), "{body}");
    until(|| server.stats.reserved() == 2).await;
    assert_eq!(server.stats.refusals()[0], ("max_connections", 0, 2));

    drop(first);
    until(|| !server.stats.exhausted()).await;
    let mut again = http2_client(server.pipes.dial(AT).unwrap()).await;
    check_hello(again.send_request(request()).await.unwrap(), Version::HTTP_2).await;
}

#[tokio::test(start_paused = true)]
async fn beyond_the_reserve_connections_are_closed_and_counted() {
    let server = start(hello(), ServeSettings { max_connections_per_peer: 1, ..ServeSettings::default() });
    let taken: Vec<_> = (0..1 + RESERVED_CONNECTIONS_PER_PEER).map(|_| server.pipes.dial(AT).unwrap()).collect();
    until(|| server.stats.open() == taken.len()).await;
    let mut more = server.pipes.dial(AT).unwrap();
    assert_eq!(more.read(&mut [0; 8]).await.unwrap(), 0, "closed without a word");
    assert_eq!(
        server.stats.refusals(),
        [("max_connections", 0, 0), ("max_connections_per_peer", 1, 0), ("handshakes_per_peer", 0, 0)]
    );
    // A silent connection leaves the reserve soon.
    let begun = Instant::now();
    until(|| server.stats.reserved() == 0).await;
    assert!(begun.elapsed() <= RESERVED_OPENING_TIMEOUT + Duration::from_millis(10), "{:?}", begun.elapsed());
    assert_eq!(server.stats.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_closed_in_order_and_one_with_a_stream_is_not() {
    let (router, mut requests) = slow();
    let idle_timeout = Duration::from_secs(100);
    let server = start(router.merge(with_health_only()), ServeSettings { idle_timeout, ..ServeSettings::default() });
    let mut idle = http2_client(server.pipes.dial(AT).unwrap()).await;
    let mut busy = http2_client(server.pipes.dial(AT).unwrap()).await;
    let answer = tokio::spawn(busy.send_request(request()));
    let (go, _dropped) = requests.recv().await.unwrap();
    for _ in 0..3 {
        sleep(idle_timeout / 2).await;
        idle.send_request(ask("/healthz")).await.unwrap();
    }
    let begun = Instant::now();
    until(|| server.stats.open() == 1).await;
    assert!(begun.elapsed().abs_diff(idle_timeout) < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(idle.is_closed());
    assert_eq!(server.stats.closed_idle(), 1);
    sleep(idle_timeout * 3).await;
    assert_eq!(server.stats.open(), 1, "a request is under way");
    go.send(()).unwrap();
    answer.await.unwrap().unwrap();
    until(|| server.stats.open() == 0).await;
}

fn with_health_only() -> Router {
    Router::new().route("/healthz", axum::routing::post(|| async { "alive" }))
}

/// A request that a slow handler has begun: a sender that lets it answer, and a receiver that notices when it is dropped.
type Begun = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// A handler that reports that it has begun, and waits for a signal before it answers.
fn slow() -> (Router, mpsc::Receiver<Begun>) {
    let (begun, requests) = mpsc::channel(1);
    let handler = || async move {
        let (go, wait) = oneshot::channel();
        let (alive, dropped) = oneshot::channel();
        begun.send((go, dropped)).await.unwrap();
        wait.await.unwrap();
        alive.send(()).unwrap();
        "done"
    };
    (Router::new().route("/", get(handler)), requests)
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_requests_in_flight_finish() {
    let (router, mut requests) = slow();
    let server = start(router, ServeSettings::default());
    let idle = http1_client(server.pipes.dial(AT).unwrap()).await;
    let silent = server.pipes.dial(AT).unwrap();
    let mut client = http2_client(server.pipes.dial(AT).unwrap()).await;
    let answer = tokio::spawn(client.send_request(request()));
    let (go, _dropped) = requests.recv().await.unwrap();

    let asked = Instant::now();
    server.shutdown.cancel();
    until(|| server.pipes.dial(AT).is_err()).await;
    assert!(!server.task.is_finished());
    go.send(()).unwrap();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "done");
    server.task.await.unwrap();
    assert_eq!(server.stats.open(), 0);
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    drop((idle, silent));
}

#[tokio::test(start_paused = true)]
async fn shutdown_cuts_off_at_its_deadline() {
    let (router, mut requests) = slow();
    let deadline = Duration::from_secs(3);
    let server = start(router, ServeSettings { shutdown_deadline: deadline, ..ServeSettings::default() });
    let mut client = http2_client(server.pipes.dial(AT).unwrap()).await;
    let answer = tokio::spawn(client.send_request(request()));
    let (_go, dropped) = requests.recv().await.unwrap();
    let asked = Instant::now();
    server.shutdown.cancel();
    server.task.await.unwrap();
    assert_eq!(asked.elapsed(), deadline);
    answer.await.unwrap().unwrap_err();
    dropped.await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_server_drops_every_handler() {
    for connect_http2 in [true, false] {
        let (router, mut requests) = slow();
        let server = start(router, ServeSettings::default());
        let io = server.pipes.dial(AT).unwrap();
        let answer = if connect_http2 {
            let mut client = http2_client(io).await;
            tokio::spawn(async move { client.send_request(request()).await })
        } else {
            let mut client = http1_client(io).await;
            tokio::spawn(async move { client.send_request(request()).await })
        };
        let (_go, dropped) = requests.recv().await.unwrap();
        server.task.abort();
        timeout(PATIENCE, dropped).await.expect("the handler is dropped").unwrap_err();
        answer.await.unwrap().unwrap_err();
        assert_eq!(server.stats.open(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_server_drops_every_body() {
    let (alive, dropped) = oneshot::channel::<()>();
    let alive = Arc::new(parking_lot::Mutex::new(Some(alive)));
    let endless = move || {
        let mut alive = alive.lock().take();
        let body = futures_util::stream::poll_fn(move |_| {
            let _held = &mut alive;
            std::task::Poll::<Option<Result<Bytes, Infallible>>>::Pending
        });
        async { Body::from_stream(body) }
    };
    let server = start(Router::new().route("/", get(endless)), ServeSettings::default());
    let mut client = http2_client(server.pipes.dial(AT).unwrap()).await;
    let answer = client.send_request(request()).await.unwrap();
    server.task.abort();
    timeout(PATIENCE, dropped).await.expect("the body is dropped").unwrap_err();
    answer.into_body().collect().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn silence_is_not_waited_for() {
    let server = start(hello(), ServeSettings::default());
    let begun = Instant::now();
    let mut silent = server.pipes.dial(AT).unwrap();
    assert_eq!(timeout(PATIENCE, silent.read(&mut [0; 8])).await.expect("it is closed").unwrap(), 0);
    assert_eq!(begun.elapsed(), OPENING_TIMEOUT);

    let begun = Instant::now();
    let mut idle = http1_client(server.pipes.dial(AT).unwrap()).await;
    check_hello(idle.send_request(request()).await.unwrap(), Version::HTTP_11).await;
    until(|| server.stats.open() == 0).await;
    assert!(begun.elapsed() <= HTTP1_HEAD_TIMEOUT + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_http2_peer_that_vanished_is_noticed() {
    let server = start(hello(), ServeSettings::default());
    let mut peer = server.pipes.dial(AT).unwrap();
    // The preface and an empty SETTINGS frame; after that, the peer answers nothing and closes nothing.
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    until(|| server.stats.open() > 0).await;
    let begun = Instant::now();
    until(|| server.stats.open() == 0).await;
    let limit = DEFAULT_KEEPALIVE_INTERVAL + DEFAULT_KEEPALIVE_TIMEOUT + Duration::from_millis(200);
    assert!(begun.elapsed() <= limit, "{:?}", begun.elapsed());
    drop(peer);
}

/// Fails a given number of times, as a listener does when the process has no file descriptor left.
struct Exhausted {
    failures: u32,
    then: Box<dyn Listener>,
}

#[async_trait::async_trait]
impl Listener for Exhausted {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        if self.failures > 0 {
            self.failures -= 1;
            return Err(io::Error::other("too many open files"));
        }
        self.then.accept().await
    }

    fn local_addr(&self) -> String {
        self.then.local_addr()
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_listener_is_tried_again_with_pauses() {
    let (pipes, stats, shutdown) = (Pipes::default(), Arc::<ServeStats>::default(), CancellationToken::new());
    let listener = Box::new(Exhausted { failures: 9, then: pipes.listen(AT) });
    let task = tokio::spawn(serve(listener, hello(), ServeSettings::default(), stats.clone(), shutdown.clone()));
    let begun = Instant::now();
    let mut client = http2_client(pipes.dial(AT).unwrap()).await;
    check_hello(client.send_request(request()).await.unwrap(), Version::HTTP_2).await;
    // 10 + 20 + … + 640 ms, then twice the longest pause.
    assert_eq!(begun.elapsed().as_millis(), 1_270 + 2_000);
    assert_eq!(stats.accept_errors(), 9);
    drop(client);
    shutdown.cancel();
    task.await.unwrap();
}
