//! The requests of `rmom doctor`: each on a connection of its own and with a deadline of its own, so that each succeeds or
//! fails alone.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Collected, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rmom_client::{
    Connector as _, Io, TcpConnector,
    rustls::{self, ClientConfig, InvalidMessage, pki_types::ServerName},
};
use rmom_proto::messages::{HeartbeatRequest, message_stream_client::MessageStreamClient};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::{Service as _, ServiceExt as _};

use super::{
    super::session::{deepest, plain},
    seen::{Cause, Fault, printable},
};
use crate::service::routers::VERSION_PATH;

/// The client library's default. Clients fail where a connection takes longer, and so does this check.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit on the bytes of the answers of `/version` and `/readyz`.
pub(super) const MAX_SMALL_ANSWER_BYTES: usize = 64 << 10;

/// Any failure; only its text and its cause matter.
type Failure = Box<dyn Error + Send + Sync>;

/// An answer over HTTP, with the time of this machine's clock before the request and after the answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) asked_millis: i64,
    pub(super) answered_millis: i64,
    pub(super) at: Instant,
}

/// A broker's answer over gRPC, and its `/version`.
pub(super) struct Called {
    pub(super) at: Instant,
    pub(super) version: Result<Answer, Fault>,
}

/// Opens connections as clients do.
#[derive(Clone)]
pub(super) struct Asker {
    tls: Option<Arc<ClientConfig>>,
}

impl Asker {
    pub(super) const fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Self { tls }
    }

    /// Asks a server over HTTP/1.1, and closes the connection.
    pub(super) async fn get(&self, url: &str, path: &str, largest: usize, by: Instant) -> Result<Answer, Fault> {
        let first = First::default();
        let answer = timeout_at(by, self.exchange(url, path, largest, &first));
        match answer.await {
            Ok(answer) => answer.map_err(|error| self.fault(&*error, &first)),
            Err(_) => Err(late()),
        }
    }

    async fn exchange(&self, url: &str, path: &str, largest: usize, first: &First) -> Result<Answer, Failure> {
        let uri: Uri = url.parse()?;
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let place = format!("{}:{port}", uri.host().unwrap_or_default());
        let stream = self.dial(&place, is_tls, b"http/1.1", first).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, &place)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let asked_millis = wall_millis();
        let response = sender.send_request(request).await?;
        let (status, answered_millis) = (response.status(), wall_millis());
        let body = read(response.into_body(), largest).await?;
        Ok(Answer { status, body, asked_millis, answered_millis, at: Instant::now() })
    }

    /// Acts like a client: connects to the address that the broker gives out, and makes a call over gRPC.
    pub(super) async fn call(&self, place: &str, by: Instant) -> Result<Called, Fault> {
        let first = First::default();
        let channel = match timeout_at(by, self.channel(place, &first)).await {
            Ok(channel) => channel.map_err(|error| self.fault(&*error, &first))?,
            Err(_) => return Err(late()),
        };
        let alive = async {
            let mut client = MessageStreamClient::new(channel.clone());
            let answer = timeout_at(by, client.get_heartbeat(HeartbeatRequest {})).await;
            (answer, Instant::now())
        };
        let version = timeout_at(by, version(channel.clone()));
        let ((answer, at), version) = tokio::join!(alive, version);
        match answer {
            Ok(Ok(_)) => {}
            // Without a source, the status is the server's.
            Ok(Err(status)) if status.source().is_none() => return Err(no_answer(status.message(), Cause::Other)),
            Ok(Err(status)) => return Err(self.fault(&status, &first)),
            Err(_) => return Err(late()),
        }
        let version = match version {
            Ok(answer) => answer.map_err(|error| self.fault(&*error, &first)),
            Err(_) => Err(late()),
        };
        Ok(Called { at, version })
    }

    async fn channel(&self, place: &str, first: &First) -> Result<Channel, Failure> {
        // The connector handles TLS; the scheme is only a header.
        let endpoint = Endpoint::from_shared(format!("http://{place}"))?;
        let (asker, to, first) = (self.clone(), place.to_owned(), first.clone());
        let connector = tower::service_fn(move |_| {
            let (asker, to, first) = (asker.clone(), to.clone(), first.clone());
            async move { asker.dial(&to, asker.tls.is_some(), b"h2", &first).await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector(connector).await?)
    }

    async fn dial(&self, place: &str, is_tls: bool, protocol: &[u8], first: &First) -> io::Result<Watched> {
        let connect = async {
            let stream = TcpConnector.connect(place).await?;
            match &self.tls {
                Some(config) if is_tls => handshake(config, place, protocol, stream).await,
                _ => Ok(stream),
            }
        };
        let connected = timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT_TIMEOUT:?}")))
        });
        let shows_none = self.tls.as_ref().is_some_and(|tls| is_tls && !tls.client_auth_cert_resolver.has_certs());
        match connected {
            Ok(io) => Ok(Watched { io, first: first.clone(), shows_none }),
            Err(error) => {
                first.note(&error, shows_none);
                Err(error)
            }
        }
    }

    /// The connection's own failure, if there was one: HTTP reports it as a channel that is closed.
    fn fault(&self, error: &(dyn Error + 'static), first: &First) -> Fault {
        if let Some(fault) = first.0.get() {
            return fault.clone();
        }
        no_answer(&deepest(error).to_string(), Cause::Other)
    }
}

async fn handshake(
    config: &ClientConfig,
    place: &str,
    protocol: &[u8],
    stream: Box<dyn Io>,
) -> io::Result<Box<dyn Io>> {
    let mut config = config.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host).trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

async fn version(mut channel: Channel) -> Result<Answer, Failure> {
    let request = Request::get(VERSION_PATH).body(tonic::body::Body::empty())?;
    let asked_millis = wall_millis();
    let response = channel.ready().await?.call(request).await?;
    let (status, answered_millis) = (response.status(), wall_millis());
    let body = read(response.into_body(), MAX_SMALL_ANSWER_BYTES).await?;
    Ok(Answer { status, body, asked_millis, answered_millis, at: Instant::now() })
}

async fn read<B>(body: B, largest: usize) -> Result<Bytes, Failure>
where
    B: axum::body::HttpBody<Data = Bytes>,
    B::Error: Into<Failure>,
{
    let body = Limited::new(body, largest).collect().await;
    body.map(Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() { format!("the answer has more than {largest} bytes").into() } else { error }
    })
}

fn late() -> Fault {
    no_answer("it did not answer in time", Cause::Other)
}

fn no_answer(reason: &str, cause: Cause) -> Fault {
    Fault::NoAnswer { reason: printable(&plain(reason)), cause }
}

fn wall_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The first failure of a connection.
#[derive(Clone, Default)]
struct First(Arc<OnceLock<Fault>>);

impl First {
    fn note(&self, error: &io::Error, shows_none: bool) {
        // A later failure follows from the first.
        let _ = self.0.set(no_answer(&error.to_string(), cause(error, shows_none)));
    }
}

/// The cause of a connection's failure. `shows_none` means that TLS is used, and that this client has no certificate.
fn cause(error: &io::Error, shows_none: bool) -> Cause {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Cause::Certificate,
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Cause::NoTls,
        Some(rustls::Error::AlertReceived(_)) if shows_none => Cause::NoClientCertificate,
        _ if shows_none && matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof) => {
            Cause::NoClientCertificate
        }
        _ => Cause::Other,
    }
}

/// A connection that remembers its first failure. The end of what the server sends counts as one: it only matters if the
/// request fails.
struct Watched {
    io: Box<dyn Io>,
    first: First,
    shows_none: bool,
}

impl Watched {
    fn note<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        if let Err(error) = &result {
            self.first.note(error, self.shows_none);
        }
        Poll::Ready(result)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if result.is_ok() && buf.filled().len() == before && buf.remaining() > 0 {
            let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection");
            self.first.note(&ended, self.shows_none);
        }
        self.note(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.io).poll_flush(cx));
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, CertificateError};

    use super::*;

    #[test]
    fn failures_of_tls_have_causes() {
        let of_tls = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let invalid = of_tls(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!([cause(&invalid, true), cause(&invalid, false)], [Cause::Certificate; 2]);
        let other = of_tls(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType));
        assert_eq!(cause(&other, true), Cause::NoTls);
        let alert = of_tls(rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
        for closed in [alert, io::ErrorKind::UnexpectedEof.into(), io::ErrorKind::ConnectionReset.into()] {
            assert_eq!((cause(&closed, true), cause(&closed, false)), (Cause::NoClientCertificate, Cause::Other));
        }
        assert_eq!(cause(&io::ErrorKind::ConnectionRefused.into(), true), Cause::Other);
    }

    #[tokio::test]
    async fn the_first_failure_of_a_connection_is_kept() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (near, far) = tokio::io::duplex(64);
        let first = First::default();
        let mut watched = Watched { io: Box::new(near), first: first.clone(), shows_none: true };
        drop(far);
        assert_eq!(watched.read(&mut [0; 8]).await.unwrap(), 0);
        watched.write_all(b"x").await.unwrap_err();
        let fault = Asker::new(None).fault(&io::Error::other("channel closed"), &first);
        assert_eq!(fault, no_answer("the server closed the connection", Cause::NoClientCertificate));
    }
}
