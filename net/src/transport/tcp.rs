//! TCP.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use rmom_core::ports::{BoxIo, Listener, Transport};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

/// Limit on connections that wait to be accepted. The kernel refuses further ones, whose clients try again after a second.
/// It allows at most `net.core.somaxconn`. The standard library's 128 are too few when all clients of a restarted broker
/// come back at once.
const LISTEN_BACKLOG: u32 = 4_096;
/// How long the resolution of the other end's name may take.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one address of the other end may take to answer.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After this time without traffic the kernel asks whether the other end is there. HTTP/2 asks sooner; this is for HTTP/1.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// The interval between the kernel's probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The number of probes that may go unanswered.
pub const KEEPALIVE_RETRIES: u32 = 3;
/// The connection breaks if the other end leaves bytes unacknowledged for this time.
pub const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(10);

/// Plain TCP, IPv4 and IPv6.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Tcp {
    /// Like [`Transport::connect`], without the box.
    pub(super) async fn stream(authority: &str) -> io::Result<TcpStream> {
        let resolved = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(authority)).await;
        let addresses = resolved.map_err(|_| timed_out("resolve", authority, RESOLVE_TIMEOUT))??;
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{authority} has no address"));
        for address in addresses {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    tune(&stream)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = timed_out("connect to", &address.to_string(), CONNECT_TIMEOUT),
            }
        }
        Err(last)
    }

    /// Like [`Transport::bind`], without the box.
    pub(super) async fn listener(authority: &str) -> io::Result<TcpAccept> {
        let cannot = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {authority}: {error}"));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        for address in tokio::net::lookup_host(authority).await.map_err(cannot)? {
            match listen(address) {
                Ok(listener) => return Ok(TcpAccept { local: listener.local_addr()?, listener }),
                Err(error) => last = error,
            }
        }
        Err(cannot(last))
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // On Windows, this option would let another process take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

fn timed_out(what: &str, whom: &str, limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("could not {what} {whom} within {limit:?}"))
}

/// Small frames go out at once; a peer that vanished is noticed.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    let socket = SockRef::from(stream);
    // Otherwise a connection with unsent bytes outlives its peer by the kernel's many retransmissions.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_TIMEOUT))?;
    socket.set_tcp_keepalive(&keepalive)
}

#[async_trait]
impl Transport for Tcp {
    async fn connect(&self, authority: &str) -> io::Result<BoxIo> {
        Ok(Box::new(Self::stream(authority).await?))
    }

    async fn bind(&self, authority: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(Self::listener(authority).await?))
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct TcpAccept {
    listener: TcpListener,
    local: SocketAddr,
}

impl TcpAccept {
    /// The next stream. Cancel-safe.
    pub(super) async fn stream(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        tune(&stream)?;
        Ok((stream, canonical(peer)))
    }

    pub(super) fn local(&self) -> String {
        self.local.to_string()
    }
}

/// An IPv4 peer of a socket that listens on `[::]`, written as IPv4.
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().map_or(peer, |v4: Ipv4Addr| SocketAddr::from((v4, v6.port()))),
        SocketAddr::V4(_) => peer,
    }
}

#[async_trait]
impl Listener for TcpAccept {
    async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        let (stream, peer) = self.stream().await?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_addr(&self) -> String {
        self.local()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn echo_once(bind: &str) {
        let mut listener = Tcp.bind(bind).await.unwrap();
        let authority = listener.local_addr();
        let server = async {
            let (mut io, peer) = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            io.read_exact(&mut bytes).await.unwrap();
            io.write_all(&bytes).await.unwrap();
            io.shutdown().await.unwrap();
            peer
        };
        let client = async {
            let mut io = Tcp.connect(&authority).await.unwrap();
            io.write_all(b"ping").await.unwrap();
            let mut answer = Vec::new();
            io.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (peer, answer) = tokio::join!(server, client);
        assert_eq!(answer, b"ping");
        peer.parse::<SocketAddr>().unwrap();
    }

    #[tokio::test]
    async fn carries_bytes_over_both_families() {
        echo_once("127.0.0.1:0").await;
        echo_once("[::1]:0").await;
        echo_once("localhost:0").await;
    }

    #[tokio::test]
    async fn streams_are_tuned_at_both_ends() {
        let listener = Tcp::listener("127.0.0.1:0").await.unwrap();
        let authority = listener.local();
        let (accepted, connected) = tokio::join!(listener.stream(), Tcp::stream(&authority));
        for stream in [accepted.unwrap().0, connected.unwrap()] {
            assert!(stream.nodelay().unwrap());
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap());
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_TIMEOUT));
        }
    }

    /// By default, Linux lets 4,096 connections wait.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_crowd_is_let_in_before_anybody_is_accepted() {
        let listener = Tcp::listener("127.0.0.1:0").await.unwrap();
        let authority = listener.local();
        let mut crowd = Vec::new();
        for _ in 0..500 {
            crowd.push(Tcp::stream(&authority).await.unwrap());
        }
        for _ in &crowd {
            listener.stream().await.unwrap();
        }
    }

    #[tokio::test]
    async fn refused_and_taken_say_so() {
        let listener = Tcp.bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr();
        let taken = Tcp.bind(&authority).await.err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert!(taken.to_string().contains(&authority), "{taken}");
        drop(listener);
        assert_eq!(Tcp.connect(&authority).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn mapped_peers_read_as_ipv4() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:7".parse().unwrap()).to_string(), "10.0.0.1:7");
        assert_eq!(canonical("[fe80::1]:7".parse().unwrap()).to_string(), "[fe80::1]:7");
    }
}
