//! Limits on connections, the same for brokers and managers.

use std::time::Duration;

use rmom_net::serve::ServeSettings;

use super::{millis, table::settings, tree::Section};

settings! {
    /// Settings of a server's connections. They are at the top level of the file.
    pub struct ConnectionsConfig = read_all(root, server: &ServeSettings);

    == "Connections of clients"
    max_connections: usize ["number"] = server.max_connections, 1..=1_000_000 =>
        "Connections of clients at once, and a reserve of 64 more for managers, health checks and metrics.";
    max_connections_per_peer: usize ["number"] = server.max_connections_per_peer, 0..=1_000_000 =>
        "The same from one IPv4 address or one /64 of IPv6; 0 disables all shares of an address, for servers behind a proxy: see [operations.md](operations.md#behind-a-proxy).";
    max_receive_bytes: usize ["bytes"] = server.max_receive_bytes, 1 << 20..=64 << 30 =>
        "Data that all clients together may send before it is read (256 MiB).";
    idle_connection_secs: u64 ["s"] = server.idle_timeout.as_secs(), 1..=86_400 =>
        "How long an HTTP/2 connection without requests stays open.";
    keepalive_interval_millis: u64 ["ms"] = millis(server.keepalive_interval), 100..=3_600_000 =>
        "Interval of pings to an HTTP/2 client.";
    keepalive_timeout_millis: u64 ["ms"] = millis(server.keepalive_timeout), 100..=600_000 =>
        "Time for the answer, after which the connection is closed.";
}

impl ConnectionsConfig {
    pub(super) fn read(root: &mut Section<'_>) -> Self {
        Self::read_all(root, &ServeSettings::default())
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
