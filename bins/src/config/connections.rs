//! Limits on connections, the same for brokers and managers.

use std::time::Duration;

use rmom_net::serve::{
    DEFAULT_IDLE_TIMEOUT, DEFAULT_KEEPALIVE_INTERVAL, DEFAULT_KEEPALIVE_TIMEOUT, DEFAULT_MAX_CONNECTIONS,
    DEFAULT_MAX_CONNECTIONS_PER_PEER, DEFAULT_MAX_RECEIVE_BYTES, ServeSettings,
};
use serde::Serialize;

use super::tree::Section;

/// Settings of a server's connections. They are at the top level of the file.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionsConfig {
    /// Limit on connections; beyond it there is a reserve for managers, health checks and metrics.
    pub max_connections: usize,
    /// Limit on connections from one address; 0 means that no limit counts by address.
    pub max_connections_per_peer: usize,
    /// Limit on the bytes that all clients together may send before they are read.
    pub max_receive_bytes: usize,
    /// How long an HTTP/2 connection without requests stays open.
    pub idle_connection_secs: u64,
    /// Interval at which an HTTP/2 client is asked whether it is there.
    pub keepalive_interval_millis: u64,
    /// Time that it may take to answer.
    pub keepalive_timeout_millis: u64,
}

impl ConnectionsConfig {
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            max_connections: root.number("max_connections", DEFAULT_MAX_CONNECTIONS, 1..=1_000_000),
            max_connections_per_peer: root.number(
                "max_connections_per_peer",
                DEFAULT_MAX_CONNECTIONS_PER_PEER,
                0..=1_000_000,
            ),
            max_receive_bytes: root.number("max_receive_bytes", DEFAULT_MAX_RECEIVE_BYTES, 1 << 20..=64 << 30),
            idle_connection_secs: root.number("idle_connection_secs", DEFAULT_IDLE_TIMEOUT.as_secs(), 1..=86_400),
            keepalive_interval_millis: root.number(
                "keepalive_interval_millis",
                millis(DEFAULT_KEEPALIVE_INTERVAL),
                100..=3_600_000,
            ),
            keepalive_timeout_millis: root.number(
                "keepalive_timeout_millis",
                millis(DEFAULT_KEEPALIVE_TIMEOUT),
                100..=600_000,
            ),
        }
    }

    /// False if clients come through a proxy, so that no limit counts by address.
    #[must_use]
    pub const fn addresses_tell(&self) -> bool {
        self.max_connections_per_peer > 0
    }

    /// The server's settings.
    #[must_use]
    pub fn settings(&self, shutdown_deadline: Duration) -> ServeSettings {
        ServeSettings {
            max_connections: self.max_connections,
            max_connections_per_peer: self.max_connections_per_peer,
            max_receive_bytes: self.max_receive_bytes,
            idle_timeout: Duration::from_secs(self.idle_connection_secs),
            keepalive_interval: Duration::from_millis(self.keepalive_interval_millis),
            keepalive_timeout: Duration::from_millis(self.keepalive_timeout_millis),
            shutdown_deadline,
        }
    }
}
