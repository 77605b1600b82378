//! Opens byte streams: plain TCP unless the application passes a [`Connector`], with TLS on top if it is configured.
//!
//! All of the client's traffic goes through here, so that a simulation can carry it over streams of its own.

use std::{fmt, io, sync::Arc, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, pki_types::ServerName},
};
use tonic::transport::{Channel, Endpoint};

use crate::Error;

/// Default interval at which a broker is asked whether it is there, and default time for its answer. A connection whose peer
/// does not answer is dead: a peer that vanished says nothing.
pub(crate) const DEFAULT_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(1));
/// Bytes that a server may send on a stream before the application takes them. Each producer and each consumer has a
/// connection of its own, so that a slow one does not hold up the others.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for a connection; see [`STREAM_WINDOW_BYTES`].
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Limit on the bytes that a server may put into one frame, and so into one write. The default, 16 KiB, costs a system call
/// on both sides, and often a switch between them, for every hundred messages. A message that is kept keeps its frame in
/// memory.
const MAX_FRAME_BYTES: u32 = 64 << 10;

/// A byte stream: TCP, TLS, or simulated.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Opens byte streams.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Connects to `host:port` (IPv6 addresses in brackets). May take for ever: the client sets a deadline.
    ///
    /// # Errors
    /// Any error of the transport; the client tries again, or elsewhere.
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Io>>;
}

/// Plain TCP, without delays for small packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

#[async_trait]
impl Connector for TcpConnector {
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// The protocol of a connection, which TLS negotiates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC, to brokers.
    Http2,
    /// REST, to managers.
    Http1,
}

/// Opens all connections of a client: a connector, TLS over it, and a deadline.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) timeout: Duration,
    /// How often a broker is asked whether it is there, and how long it may take to answer.
    pub(crate) keepalive: (Duration, Duration),
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.tls.is_some()).field("timeout", &self.timeout).finish()
    }
}

impl Dialer {
    /// Connects to `authority`, within the connect timeout.
    pub(crate) async fn dial(&self, authority: &str, protocol: Protocol, tls: bool) -> io::Result<Box<dyn Io>> {
        let connect = async {
            let stream = self.connector.connect(authority).await?;
            match &self.tls {
                Some(config) if tls => handshake(config, authority, protocol, stream).await,
                _ => Ok(stream),
            }
        };
        tokio::time::timeout(self.timeout, connect).await.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {:?}", self.timeout)))
        })
    }

    /// A channel to the broker at `authority`: one connection, opened by the first call.
    pub(crate) fn channel(&self, authority: &str) -> Result<Channel, Error> {
        // The scheme only sets the `:scheme` header; the connector handles TLS.
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| Error::Unreachable {
            authority: authority.to_owned(),
            reason: format!("not a valid address: {error}"),
            sent: false,
        })?;
        let endpoint = endpoint
            .http2_keep_alive_interval(self.keepalive.0)
            .keep_alive_timeout(self.keepalive.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(MAX_FRAME_BYTES);
        let (dialer, authority) = (self.clone(), Arc::<str>::from(authority));
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let (dialer, authority) = (dialer.clone(), authority.clone());
            async move { dialer.dial(&authority, Protocol::Http2, dialer.tls.is_some()).await.map(TokioIo::new) }
        })))
    }
}

async fn handshake(
    config: &Arc<rustls::ClientConfig>,
    authority: &str,
    protocol: Protocol,
    stream: Box<dyn Io>,
) -> io::Result<Box<dyn Io>> {
    let mut config = rustls::ClientConfig::clone(config);
    config.alpn_protocols = vec![match protocol {
        Protocol::Http2 => b"h2".to_vec(),
        Protocol::Http1 => b"http/1.1".to_vec(),
    }];
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

#[cfg(test)]
mod tests {
    use rmom_proto::messages::{HeartbeatRequest, message_stream_client::MessageStreamClient};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    /// Connects to peers that open HTTP/2 and then stay silent.
    struct ToTheSilent;

    #[async_trait]
    impl Connector for ToTheSilent {
        async fn connect(&self, _authority: &str) -> io::Result<Box<dyn Io>> {
            let (near, mut far) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                const ACKNOWLEDGED: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
                far.write_all(&[SETTINGS, ACKNOWLEDGED].concat()).await?;
                while far.read(&mut [0; 1024]).await? > 0 {}
                Ok::<_, io::Error>(())
            });
            Ok(Box::new(near))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_broker_is_left_when_the_settings_say_so() {
        for (interval, timeout) in [DEFAULT_KEEPALIVE, (Duration::from_secs(60), Duration::from_secs(30))] {
            let dialer = Dialer {
                connector: Arc::new(ToTheSilent),
                tls: None,
                timeout: Duration::from_secs(1),
                keepalive: (interval, timeout),
            };
            let mut client = MessageStreamClient::new(dialer.channel("b1:1").unwrap());
            let begun = Instant::now();
            client.get_heartbeat(HeartbeatRequest {}).await.unwrap_err();
            let left = begun.elapsed();
            assert!(left.abs_diff(interval + timeout) < Duration::from_millis(100), "{left:?}");
        }
    }
}
