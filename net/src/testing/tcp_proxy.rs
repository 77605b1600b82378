//! A TCP proxy that loses the traffic that a test chooses.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

const BUFFER_BYTES: usize = 64 << 10;

/// The fault that a request matched by [`TcpProxy::when`] meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks, and the server does not see the request.
    LoseRequest,
    /// The server sees the request; when it answers, the connection breaks before the client sees the answer.
    LoseAnswer,
    /// From then on nothing passes on any connection until [`TcpProxy::heal`].
    Stall,
}

/// Stands between clients and a server. Everything passes until a test says otherwise. Dropping it breaks all connections.
#[derive(Debug)]
pub struct TcpProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    server: Mutex<String>,
    stalled: watch::Sender<bool>,
    refusing: AtomicBool,
    rule: Mutex<Option<(Vec<u8>, Fault)>>,
    /// Cancelled to break the connections that are open now, and then replaced.
    open: Mutex<CancellationToken>,
    accepted: AtomicUsize,
    delay_micros: AtomicU64,
}

impl TcpProxy {
    /// Listens on a free port of the loopback interface, and forwards to `server`, which is a host and port.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start(server: impl Into<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            server: Mutex::new(server.into()),
            stalled: watch::Sender::new(false),
            refusing: AtomicBool::new(false),
            rule: Mutex::new(None),
            open: Mutex::new(CancellationToken::new()),
            accepted: AtomicUsize::new(0),
            delay_micros: AtomicU64::new(0),
        });
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, acceptor }
    }

    /// The address on which it listens.
    pub fn authority(&self) -> String {
        self.addr.to_string()
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// From now on, new connections lead to another server, like those to a name whose address has changed.
    pub fn lead_to(&self, server: impl Into<String>) {
        *self.shared.server.lock() = server.into();
    }

    /// Applies the fault to the next request that contains `pattern`, once. An empty pattern matches every request.
    pub fn when(&self, pattern: &[u8], fault: Fault) {
        *self.shared.rule.lock() = Some((pattern.to_vec(), fault));
    }

    /// True if the request of [`TcpProxy::when`] has not come yet.
    pub fn is_waiting(&self) -> bool {
        self.shared.rule.lock().is_some()
    }

    /// Holds back every answer for this time from now on, as if the server were further away. The timer rounds it up to
    /// whole milliseconds.
    pub fn delay(&self, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.shared.delay_micros.store(micros, Ordering::SeqCst);
    }

    /// From now on nothing passes. Traffic under way arrives after [`TcpProxy::heal`].
    pub fn stall(&self) {
        self.shared.stalled.send_replace(true);
    }

    /// Breaks all connections, including new ones.
    pub fn refuse(&self) {
        self.shared.refusing.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Breaks the connections that are open.
    pub fn cut(&self) {
        std::mem::take(&mut *self.shared.open.lock()).cancel();
    }

    /// Everything passes again.
    pub fn heal(&self) {
        *self.shared.rule.lock() = None;
        self.shared.refusing.store(false, Ordering::SeqCst);
        self.shared.stalled.send_replace(false);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut();
    }
}

impl Shared {
    /// The fault that this request meets.
    fn fault(&self, request: &[u8]) -> Option<Fault> {
        let holds = |pattern: &[u8]| pattern.is_empty() || request.windows(pattern.len()).any(|part| part == pattern);
        self.rule.lock().take_if(|(pattern, _)| holds(pattern)).map(|(_, fault)| fault)
    }

    async fn until_it_passes(&self) {
        // The sender lives as long as `self`.
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled).await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        if shared.refusing.load(Ordering::SeqCst) {
            continue;
        }
        let broken = shared.open.lock().clone();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let server = shared.server.lock().clone();
            let Ok(server) = TcpStream::connect(server).await else { return };
            let (client_reader, client_writer) = client.into_split();
            let (server_reader, server_writer) = server.into_split();
            let deaf = AtomicBool::new(false);
            tokio::select! {
                biased;
                () = broken.cancelled() => {}
                () = requests(client_reader, server_writer, &shared, &deaf) => {}
                () = answers(server_reader, client_writer, &shared, &deaf) => {}
            }
        });
    }
}

/// Copies from client to server. While everything stalls, the close of a client is noticed only after its earlier bytes have
/// passed, as on a network that delays.
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, deaf: &AtomicBool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        match shared.fault(&buffer[..read]) {
            Some(Fault::LoseRequest) => return,
            Some(Fault::LoseAnswer) => deaf.store(true, Ordering::SeqCst),
            Some(Fault::Stall) => {
                shared.stalled.send_replace(true);
            }
            None => {}
        }
        shared.until_it_passes().await;
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Copies from server to client, until an answer has to be lost.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, deaf: &AtomicBool) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        shared.until_it_passes().await;
        let delay = shared.delay_micros.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
        if read == 0 || deaf.load(Ordering::SeqCst) || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
