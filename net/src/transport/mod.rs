//! Byte streams in production: plain TCP, and TLS over it.

mod tcp;
mod tls;

pub use tcp::{
    CONNECT_TIMEOUT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_RETRIES, RESOLVE_TIMEOUT, Tcp,
    UNACKNOWLEDGED_TIMEOUT,
};
pub use tls::{
    HANDSHAKE_TIMEOUT, Identity, MAX_HANDSHAKES, MAX_HANDSHAKES_PER_PEER, PATIENCE_WITH_SILENCE, SILENCE_TIMEOUT, Tls,
    TlsError, TlsFiles,
};
