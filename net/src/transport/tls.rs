//! TLS over TCP.
//!
//! The services speak the same HTTP over both and need not know about encryption.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use rmom_core::{
    model::Origin,
    ports::{BoxIo, Listener, Transport},
};
use tokio::{
    net::TcpStream,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self, ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem, pem::PemObject as _},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};

use super::tcp::{Tcp, TcpAccept};

/// How long a handshake may take, at either end.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may stay silent after connecting: clients speak first.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client is left alone before its silence counts against it: a distant client needs a round trip before it can
/// speak.
pub const PATIENCE_WITH_SILENCE: Duration = Duration::from_millis(200);
/// How long a client that has spoken may take while others wait for its place; a normal handshake is finished by then.
const PATIENCE_WITH_SPEECH: Duration = Duration::from_secs(1);
/// Limit on concurrent handshakes. One more replaces the client that has been silent longest, if that is at least
/// [`PATIENCE_WITH_SILENCE`]; otherwise the oldest handshake, if that has taken [`PATIENCE_WITH_SPEECH`]. Until then,
/// further connections wait in the kernel's queue.
pub const MAX_HANDSHAKES: usize = 256;
/// Limit on the handshakes from one address (for IPv6: one /64 network); more are closed at once.
pub const MAX_HANDSHAKES_PER_PEER: usize = 32;

/// Protocols offered, best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate (chain) and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PEM file with the certificate, followed by those that sign it.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// The files that TLS needs. Which of them are required depends on whether the process connects or listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of this process. Required to listen; shown to servers that ask for it.
    pub identity: Option<Identity>,
    /// PEM file with the authorities that this process trusts to sign servers' certificates. Required to connect.
    pub server_ca: Option<PathBuf>,
    /// PEM file with the authorities that sign clients' certificates. If set, clients without such a certificate are refused
    /// (mutual TLS).
    pub client_ca: Option<PathBuf>,
}

/// The reason why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: pem::Error,
    },
    /// A PEM file without a certificate.
    #[error("{}: there is no certificate in it", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate that cannot be used.
    #[error("{}: {source}", path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// The fault.
        source: rustls::Error,
    },
    /// The client CA cannot be used.
    #[error("{}: {source}", path.display())]
    ClientCa {
        /// Its file.
        path: PathBuf,
        /// The fault.
        source: VerifierBuilderError,
    },
}

/// TLS 1.2 and 1.3 over [`Tcp`].
#[derive(Clone)]
pub struct Tls {
    acceptor: Option<TlsAcceptor>,
    connector: Option<TlsConnector>,
    handshakes_per_peer: usize,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("listens", &self.acceptor.is_some())
            .field("connects", &self.connector.is_some())
            .finish()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn from_files(files: &TlsFiles) -> Result<Self, TlsError> {
        let identity = files.identity.as_ref().map(load_identity).transpose()?;
        let acceptor = match (&files.identity, &identity) {
            (Some(paths), Some((chain, key))) => {
                let builder = server_builder();
                let builder = match &files.client_ca {
                    None => builder.with_no_client_auth(),
                    Some(path) => builder.with_client_cert_verifier(
                        WebPkiClientVerifier::builder_with_provider(Arc::new(load_roots(path)?), provider())
                            .build()
                            .map_err(|source| TlsError::ClientCa { path: path.clone(), source })?,
                    ),
                };
                let mut config = builder
                    .with_single_cert(chain.clone(), key.clone_key())
                    .map_err(|source| TlsError::Certificate { path: paths.certificate.clone(), source })?;
                config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
                Some(TlsAcceptor::from(Arc::new(config)))
            }
            _ => None,
        };
        let connector = match &files.server_ca {
            None => None,
            Some(path) => {
                let builder = client_builder().with_root_certificates(load_roots(path)?);
                let mut config = match (&files.identity, identity) {
                    (Some(paths), Some((chain, key))) => builder
                        .with_client_auth_cert(chain, key)
                        .map_err(|source| TlsError::Certificate { path: paths.certificate.clone(), source })?,
                    _ => builder.with_no_client_auth(),
                };
                config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
                Some(TlsConnector::from(Arc::new(config)))
            }
        };
        Ok(Self { acceptor, connector, handshakes_per_peer: MAX_HANDSHAKES_PER_PEER })
    }

    /// For a listener behind a proxy, where addresses tell nothing: one address may have all handshakes.
    #[must_use]
    pub const fn behind_a_proxy(mut self) -> Self {
        self.handshakes_per_peer = MAX_HANDSHAKES;
        self
    }
}

/// Named explicitly: rustls' own choice depends on the features that other crates switch on.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_builder() -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
}

fn client_builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
}

type Chain = Vec<CertificateDer<'static>>;

fn load_identity(identity: &Identity) -> Result<(Chain, PrivateKeyDer<'static>), TlsError> {
    let chain = load_chain(&identity.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&identity.key)
        .map_err(|source| TlsError::File { path: identity.key.clone(), source })?;
    Ok((chain, key))
}

fn load_chain(path: &Path) -> Result<Chain, TlsError> {
    let chain: Chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

fn load_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_chain(path)? {
        roots.add(certificate).map_err(|source| TlsError::Certificate { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

fn unusable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[async_trait]
impl Transport for Tls {
    async fn connect(&self, authority: &str) -> io::Result<BoxIo> {
        let connector = self.connector.as_ref().ok_or_else(|| unusable("TLS: connecting takes a server CA file"))?;
        let authority = authority
            .parse::<http::uri::Authority>()
            .map_err(|error| unusable(&format!("{authority:?} is not host:port: {error}")))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unusable(&format!("{host:?}: {error}")))?;
        let stream = Tcp::stream(authority.as_str()).await?;
        let stream = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("{authority} did not finish the TLS handshake"))
        })??;
        Ok(Box::new(stream))
    }

    async fn bind(&self, authority: &str) -> io::Result<Box<dyn Listener>> {
        let acceptor =
            self.acceptor.clone().ok_or_else(|| unusable("TLS: listening takes a certificate and a key file"))?;
        Ok(Box::new(TlsAccept {
            tcp: Tcp::listener(authority).await?,
            acceptor,
            handshakes: Handshakes::new(self.handshakes_per_peer),
        }))
    }
}

/// Accepts, and handshakes with several clients at once, so that a slow one does not delay the others.
struct TlsAccept {
    tcp: TcpAccept,
    acceptor: TlsAcceptor,
    handshakes: Handshakes,
}

type Shaken = io::Result<(TlsStream<TcpStream>, String)>;

/// Handshakes under way, in the order in which they began.
struct Handshakes {
    /// Limit on the handshakes of one address.
    per_peer: usize,
    tasks: JoinSet<(u64, Shaken)>,
    begun: u64,
    under_way: BTreeMap<u64, Handshake>,
    /// The number of handshakes of each origin.
    origins: BTreeMap<Origin, usize>,
}

struct Handshake {
    origin: Origin,
    begun: Instant,
    /// Set once the client has sent anything.
    spoke: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Handshakes {
    fn new(per_peer: usize) -> Self {
        let (tasks, under_way, origins) = (JoinSet::new(), BTreeMap::new(), BTreeMap::new());
        Self { per_peer, tasks, begun: 0, under_way, origins }
    }

    fn is_full(&self) -> bool {
        self.under_way.len() >= MAX_HANDSHAKES
    }

    fn known(&self) -> impl Iterator<Item = Known> {
        let now = Instant::now();
        self.under_way.iter().map(move |(&at, handshake)| Known {
            at,
            age: now.duration_since(handshake.begun),
            spoke: handshake.spoke.load(Relaxed),
        })
    }

    /// The least time that another handshake has to wait for a place; `None` means that it need not wait.
    fn wait(&self) -> Option<Duration> {
        if !self.is_full() {
            return None;
        }
        match place(self.known()) {
            Place::Wait(time) => Some(time),
            Place::Of(_) => None,
        }
    }

    /// Begins a handshake, unless too many of its address are under way.
    fn begin(&mut self, acceptor: TlsAcceptor, stream: TcpStream, peer: String) -> bool {
        let origin = Origin::of(&peer);
        let of_origin = self.origins.entry(origin.clone()).or_default();
        // Where one address may have all places, its next handshake replaces one of its own.
        if *of_origin >= self.per_peer && self.per_peer < MAX_HANDSHAKES {
            return false;
        }
        *of_origin += 1;
        if self.is_full()
            && let Place::Of(at) = place(self.known())
            && let Some(handshake) = self.end(at)
        {
            handshake.task.abort();
        }
        let at = self.begun;
        self.begun += 1;
        let spoke = Arc::<AtomicBool>::default();
        let task = self.tasks.spawn(shake(at, acceptor, stream, peer, spoke.clone()));
        self.under_way.insert(at, Handshake { origin, begun: Instant::now(), spoke, task });
        true
    }

    fn end(&mut self, at: u64) -> Option<Handshake> {
        let ended = self.under_way.remove(&at)?;
        if let Some(of_origin) = self.origins.get_mut(&ended.origin) {
            *of_origin -= 1;
            if *of_origin == 0 {
                self.origins.remove(&ended.origin);
            }
        }
        Some(ended)
    }

    /// The next finished handshake. Cancel-safe.
    async fn next(&mut self) -> Option<Shaken> {
        loop {
            match self.tasks.join_next().await? {
                Ok((at, shaken)) => {
                    self.end(at);
                    return Some(shaken);
                }
                // It was replaced by another handshake.
                Err(error) if error.is_cancelled() => {}
                Err(error) => {
                    tracing::error!(%error, "a TLS handshake panicked");
                    let id = error.id();
                    let at = self.under_way.iter().find(|(_, handshake)| handshake.task.id() == id).map(|(&at, _)| at);
                    at.and_then(|at| self.end(at));
                }
            }
        }
    }
}

/// The facts that decide about a handshake.
struct Known {
    at: u64,
    age: Duration,
    spoke: bool,
}

/// Where another handshake finds a place when all are taken.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// The place of this handshake, which ends.
    Of(u64),
    /// None, for this time.
    Wait(Duration),
}

/// Chooses the handshake that makes room. `under_way` lists the oldest first.
fn place(under_way: impl Iterator<Item = Known>) -> Place {
    let mut slow = None;
    let mut wait = PATIENCE_WITH_SILENCE;
    for known in under_way {
        let patience = if known.spoke { PATIENCE_WITH_SPEECH } else { PATIENCE_WITH_SILENCE };
        match patience.checked_sub(known.age).filter(|left| !left.is_zero()) {
            Some(left) => wait = wait.min(left),
            None if !known.spoke => return Place::Of(known.at),
            None => _ = slow.get_or_insert(known.at),
        }
    }
    slow.map_or(Place::Wait(wait), Place::Of)
}

async fn shake(
    at: u64,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: String,
    spoke: Arc<AtomicBool>,
) -> (u64, Shaken) {
    let shaken = async {
        timeout(SILENCE_TIMEOUT, stream.peek(&mut [0])).await.map_err(|_| silent())??;
        spoke.store(true, Relaxed);
        let stream = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
        Ok((stream, peer))
    };
    (at, shaken.await)
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("it said nothing within {SILENCE_TIMEOUT:?}"))
}

#[async_trait]
impl Listener for TlsAccept {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        loop {
            let wait = self.handshakes.wait();
            tokio::select! {
                biased;
                Some(done) = self.handshakes.next() => match done {
                    Ok((stream, peer)) => return Ok((Box::new(stream), peer)),
                    // A scanner, a plain-text client, a wrong certificate: the fault of the other end, which has been told.
                    Err(error) => tracing::debug!(%error, "TLS handshake failed"),
                },
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                accepted = self.tcp.stream(), if wait.is_none() => {
                    let (stream, peer) = accepted?;
                    if !self.handshakes.begin(self.acceptor.clone(), stream, peer.to_string()) {
                        let what = format!("{peer}: more than {MAX_HANDSHAKES_PER_PEER} TLS handshakes from its address");
                        return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> String {
        self.tcp.local()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_handshake_makes_room_only_after_a_while() {
        let known = |at, millis, spoke| Known { at, age: Duration::from_millis(millis), spoke };
        let crowd = [known(1, 1_900, true), known(2, 300, false), known(3, 250, false), known(4, 10, false)];
        assert_eq!(place(crowd.into_iter()), Place::Of(2), "the longest silent");
        let slow = [known(1, 1_900, true), known(2, 1_200, true), known(3, 10, false)];
        assert_eq!(place(slow.into_iter()), Place::Of(1), "the oldest that spoke and dawdles");
        // A crowd that has just arrived is left alone: later clients wait.
        let fresh = [known(1, 150, true), known(2, 120, false), known(3, 10, false)];
        assert_eq!(place(fresh.into_iter()), Place::Wait(Duration::from_millis(80)));
        let good = [known(1, 900, true), known(2, 800, true)];
        assert_eq!(place(good.into_iter()), Place::Wait(Duration::from_millis(100)));
    }

    /// A CA and an identity that it signed, as files.
    struct Pki {
        dir: tempfile::TempDir,
        ca: CertifiedIssuer<'static, KeyPair>,
    }

    impl Pki {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let pki = Self { dir: tempfile::tempdir().unwrap(), ca };
            fs::write(pki.ca_file(), pki.ca.pem()).unwrap();
            pki
        }

        fn ca_file(&self) -> PathBuf {
            self.dir.path().join("ca.pem")
        }

        fn identity(&self, name: &str) -> Identity {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &self.ca).unwrap();
            let identity = Identity {
                certificate: self.dir.path().join(format!("{name}.pem")),
                key: self.dir.path().join(format!("{name}.key")),
            };
            fs::write(&identity.certificate, certificate.pem()).unwrap();
            fs::write(&identity.key, key.serialize_pem()).unwrap();
            identity
        }
    }

    /// Serves one echo to a client that completes a handshake, and returns the bytes that the client got.
    async fn echo(server: &Tls, client: &Tls) -> io::Result<Vec<u8>> {
        let mut listener = server.bind("127.0.0.1:0").await?;
        let authority = listener.local_addr();
        let client = async {
            let mut io = client.connect(&authority).await?;
            io.write_all(b"ping").await?;
            let mut answer = vec![0; 4];
            io.read_exact(&mut answer).await?;
            Ok(answer)
        };
        let server = async {
            let (mut io, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            io.read_exact(&mut bytes).await.unwrap();
            io.write_all(&bytes).await.unwrap();
            io.flush().await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            answer = client => answer,
            () = server => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_round_trip_and_a_stranger() {
        let pki = Pki::new();
        let server =
            Tls::from_files(&TlsFiles { identity: Some(pki.identity("server")), ..TlsFiles::default() }).unwrap();
        let client = Tls::from_files(&TlsFiles { server_ca: Some(pki.ca_file()), ..TlsFiles::default() }).unwrap();
        assert_eq!(echo(&server, &client).await.unwrap(), b"ping");

        let other = Pki::new();
        let stranger = Tls::from_files(&TlsFiles { server_ca: Some(other.ca_file()), ..TlsFiles::default() }).unwrap();
        let error = echo(&server, &stranger).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn mutual_tls_turns_clients_without_certificate_away() {
        let pki = Pki::new();
        let files = |identity| TlsFiles { identity, server_ca: Some(pki.ca_file()), client_ca: Some(pki.ca_file()) };
        let server = Tls::from_files(&files(Some(pki.identity("server")))).unwrap();
        let known = Tls::from_files(&files(Some(pki.identity("client")))).unwrap();
        assert_eq!(echo(&server, &known).await.unwrap(), b"ping");

        let unknown = Tls::from_files(&files(None)).unwrap();
        let error = echo(&server, &unknown).await.unwrap_err();
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    }

    #[tokio::test]
    async fn a_client_that_dawdles_holds_up_nobody() {
        let pki = Pki::new();
        let server =
            Tls::from_files(&TlsFiles { identity: Some(pki.identity("server")), ..TlsFiles::default() }).unwrap();
        let client = Tls::from_files(&TlsFiles { server_ca: Some(pki.ca_file()), ..TlsFiles::default() }).unwrap();
        let mut listener = server.bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr();
        let _silent = Tcp::stream(&authority).await.unwrap();
        let both = async { tokio::join!(listener.accept(), client.connect(&authority)) };
        let (accepted, connected) = timeout(HANDSHAKE_TIMEOUT / 2, both).await.expect("it does not wait for the other");
        accepted.unwrap();
        connected.unwrap();
    }

    /// Connects from an address of loopback's network, as another host would.
    async fn connect_from(address: [u8; 4], authority: &str) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::from(address), 0).into()).unwrap();
        socket.connect(authority.parse().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn silent_clients_keep_nobody_out() {
        let pki = Pki::new();
        let server =
            Tls::from_files(&TlsFiles { identity: Some(pki.identity("server")), ..TlsFiles::default() }).unwrap();
        let client = Tls::from_files(&TlsFiles { server_ca: Some(pki.ca_file()), ..TlsFiles::default() }).unwrap();
        let mut listener = server.bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr();
        let accepting = tokio::spawn(async move {
            let (mut refused, mut accepted) = (0, Vec::new());
            while accepted.len() < 2 {
                match listener.accept().await {
                    Ok(connection) => accepted.push(connection),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
                        refused += 1;
                    }
                }
            }
            refused
        });
        // 300 from one address, and then one from each of as many others as there are places.
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(connect_from([127, 0, 0, 2], &authority).await);
        }
        let begun = tokio::time::Instant::now();
        client.connect(&authority).await.expect("one address does not take all places");
        for n in 0..u8::MAX {
            silent.push(connect_from([127, 0, 1, n], &authority).await);
            silent.push(connect_from([127, 0, 2, n], &authority).await);
        }
        client.connect(&authority).await.expect("who is silent makes room");
        assert!(begun.elapsed() < HANDSHAKE_TIMEOUT, "{:?}", begun.elapsed());
        let refused = accepting.await.unwrap();
        assert!(refused >= 300 - 2 * MAX_HANDSHAKES_PER_PEER, "{refused}");
        drop(silent);
    }

    #[tokio::test]
    async fn behind_a_proxy_one_address_may_shake_hands_as_often_as_all() {
        let pki = Pki::new();
        let files = TlsFiles { identity: Some(pki.identity("server")), ..TlsFiles::default() };
        let server = Tls::from_files(&files).unwrap().behind_a_proxy();
        let client = Tls::from_files(&TlsFiles { server_ca: Some(pki.ca_file()), ..TlsFiles::default() }).unwrap();
        let mut listener = server.bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr();
        // Only the client's connection comes through: no address was refused.
        let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
        let mut silent = Vec::new();
        for _ in 0..MAX_HANDSHAKES + MAX_HANDSHAKES_PER_PEER {
            silent.push(connect_from([127, 0, 0, 2], &authority).await);
        }
        client.connect(&authority).await.expect("who is silent makes room");
        accepting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_says_nothing_is_let_go_soon() {
        let pki = Pki::new();
        let server =
            Tls::from_files(&TlsFiles { identity: Some(pki.identity("server")), ..TlsFiles::default() }).unwrap();
        let mut listener = server.bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr();
        let _accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
        let mut silent = Tcp::stream(&authority).await.unwrap();
        let closed = timeout(HANDSHAKE_TIMEOUT, silent.read(&mut [0])).await.expect("before a handshake's deadline");
        assert_eq!(closed.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn what_is_missing_or_wrong_is_named() {
        let pki = Pki::new();
        let nothing = Tls::from_files(&TlsFiles::default()).unwrap();
        let error = nothing.bind("127.0.0.1:0").await.err().unwrap();
        assert!(error.to_string().contains("a certificate and a key file"), "{error}");
        let error = nothing.connect("127.0.0.1:1").await.err().unwrap();
        assert!(error.to_string().contains("a server CA file"), "{error}");

        let absent = pki.dir.path().join("absent.pem");
        let error = Tls::from_files(&TlsFiles { server_ca: Some(absent), ..TlsFiles::default() }).unwrap_err();
        assert!(error.to_string().contains("absent.pem"), "{error}");
        let empty = pki.dir.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        let error = Tls::from_files(&TlsFiles { server_ca: Some(empty), ..TlsFiles::default() }).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
        let mixed = Identity { key: pki.identity("other").key, ..pki.identity("server") };
        let error = Tls::from_files(&TlsFiles { identity: Some(mixed), ..TlsFiles::default() }).unwrap_err();
        assert!(error.to_string().contains("server.pem"), "{error}");
    }
}
