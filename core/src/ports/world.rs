//! The rest of the world: byte streams, wall time and chance.

use std::{fmt, io, time::Duration};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

use crate::model::StoreTime;

/// A byte stream: TCP, TLS, or simulated.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Some byte stream.
pub type BoxIo = Box<dyn Io>;

/// Opens byte streams and listens for them.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// Connects to `host:port`. May take for ever: callers set a deadline.
    async fn connect(&self, authority: &str) -> io::Result<BoxIo>;

    /// Listens on `host:port`; port 0 takes a free one.
    async fn bind(&self, authority: &str) -> io::Result<Box<dyn Listener>>;
}

/// Accepts byte streams.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The next stream, and a name for its other end.
    async fn accept(&mut self) -> io::Result<(BoxIo, String)>;

    /// The `host:port` it listens on.
    fn local_addr(&self) -> String;
}

/// Wall time. Only an embedded store needs it; everything else goes by the store's clock or by durations.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Now.
    fn now(&self) -> StoreTime;
}

/// Time that goes on while the machine is suspended, as tokio's clock does not.
pub trait Uptime: Send + Sync + fmt::Debug + 'static {
    /// How long the machine has been on. Only differences count.
    fn uptime(&self) -> Duration;
}

/// Of a machine that is never suspended, as those in tests are not.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverSuspended;

impl Uptime for NeverSuspended {
    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

/// Chance: ids, jitter, random choice.
pub trait Entropy: Send + Sync + fmt::Debug + 'static {
    /// 128 random bits.
    fn bits(&self) -> u128;

    /// A random (version 4) UUID.
    fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bits().to_ne_bytes()).into_uuid()
    }

    /// A number in `0..bound`, or 0 if `bound` is 0.
    fn below(&self, bound: u64) -> u64 {
        // The bias of the remainder is below 2^-64.
        u64::try_from(self.bits() % u128::from(bound.max(1))).unwrap_or(0)
    }
}
