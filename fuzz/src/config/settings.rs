//! The settings of both programs, as documented.

use super::Program;

/// The values that a setting takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    /// Whole numbers from the first to the last; other numbers are out of range.
    Number(u64, u64),
    Bool,
    Text,
    /// A section or a list: no plain value is valid.
    Section,
    /// Any value, with a warning.
    Anything,
}

use Takes::{Anything, Bool, Number, Section, Text};

/// A setting, by its path.
pub(super) type Setting = (&'static str, Takes);

const HUGE: u64 = u64::MAX;

const BROKER: [Setting; 28] = [
    ("port", Number(0, 65_535)),
    ("external_port", Number(0, 65_535)),
    ("queue_buffer_size", Number(1, 100_000_000)),
    ("message_ttl", Number(0, 100 * 365 * 24 * 3_600)),
    ("queue_buffer_bytes", Number(64 << 10, 64 << 30)),
    ("max_message_bytes", Number(1_024, 256 << 20)),
    ("max_pending_bytes", Number(64 << 10, u32::MAX as u64)),
    ("lease_millis", Number(300, 600_000)),
    ("store_timeout_millis", Number(50, 600_000)),
    ("recovery_timeout_millis", Number(100, 600_000)),
    ("activation_timeout_millis", Number(100, 600_000)),
    ("trim_interval_millis", Number(10, 3_600_000)),
    ("producer_retention_secs", Number(600, 100 * 365 * 24 * 3_600)),
    ("max_producers_per_queue", Number(1, 200_000)),
    ("max_named_producers_per_queue", Number(1, 100_000)),
    ("max_subscriptions", Number(1, 10_000_000)),
    ("max_activations", Number(1, 1_000)),
    ("max_trims", Number(1, 1_000)),
    ("max_store_reads", Number(1, 1_000)),
    ("max_lookups_per_second", Number(1, 1_000_000)),
    ("shutdown_timeout_secs", Number(1, 600)),
    ("host", Text),
    ("external_host", Text),
    ("tls", Section),
    ("log", Section),
    ("log.level", Text),
    ("database.port", Number(0, 65_535)),
    ("database.user", Text),
];

const MANAGER: [Setting; 32] = [
    ("address", Text),
    ("port", Number(0, 65_535)),
    ("manager_cycle_secs", Number(1, 3_600)),
    ("manager_cycle_millis", Number(10, 3_600_000)),
    ("life_probe_retry_delay_millis", Number(0, 60_000)),
    ("life_probe_max_retries", Number(0, 100)),
    ("life_probe_timeout_millis", Number(10, 60_000)),
    ("lease_millis", Number(300, 600_000)),
    ("create_timeout_millis", Number(100, 600_000)),
    ("admin_timeout_millis", Number(100, 600_000)),
    ("store_timeout_millis", Number(50, 600_000)),
    ("max_admin_calls", Number(1, 100_000)),
    ("rebalance", Bool),
    ("rebalance_after_secs", Number(0, 86_400)),
    ("rebalance_tolerance", Number(0, 1_000_000)),
    ("rebalance_moves_per_cycle", Number(1, 100)),
    ("drain_moves_per_cycle", Number(1, 100)),
    ("max_moves_per_cycle", Number(1, 1_000_000)),
    ("nudge_timeout_millis", Number(10, 60_000)),
    ("describe_timeout_millis", Number(10, 60_000)),
    ("max_concurrent_probes", Number(1, 10_000)),
    ("max_concurrent_nudges", Number(1, 10_000)),
    ("max_pending_nudges", Number(1, 1_000_000)),
    ("purge_batches", Number(1, 100_000)),
    ("shutdown_timeout_secs", Number(1, 600)),
    ("moms", Section),
    ("tls", Section),
    ("log", Section),
    ("log.level", Text),
    ("workers", Anything),
    ("limits", Anything),
    ("secret_key", Anything),
];

/// Settings of the database's section.
const DATABASE: [Setting; 6] = [
    ("min_connections", Number(0, 1_000)),
    ("max_connections", Number(1, 1_000)),
    ("idle_timeout", Number(0, 86_400)),
    ("connect_timeout", Number(1, 300)),
    ("migrate", Bool),
    ("allow_unsafe_durability", Bool),
];

/// Settings that depend on another: a problem may be reported at either.
const TOGETHER: [(&str, &str); 4] = [
    ("lease_millis", "store_timeout_millis"),
    ("max_message_bytes", "max_pending_bytes"),
    ("host", "external_host"),
    ("max_connections", "min_connections"),
];

impl Program {
    /// The section of its settings for the database.
    pub(super) const fn database(self) -> &'static str {
        match self {
            Self::Broker => "database",
            Self::Manager => "databases.rmom_manager",
        }
    }

    /// One of its settings: the path and the values that it takes.
    pub(super) fn setting(self, number: u8) -> (String, Takes) {
        let own: &[Setting] = if self == Self::Broker { &BROKER } else { &MANAGER };
        let number = usize::from(number) % (own.len() + DATABASE.len());
        match own.get(number) {
            Some(&(path, takes)) => (path.to_owned(), takes),
            None => {
                let (key, takes) = DATABASE[number - own.len()];
                (format!("{}.{key}", self.database()), takes)
            }
        }
    }

    /// True if a setting or a section has that path.
    pub(super) fn knows(self, path: &str) -> bool {
        // The remaining settings, which inputs do not change.
        const OTHERS: [&str; 24] = [
            "database",
            "url",
            "dbname",
            "password",
            "rmom_manager",
            "cert",
            "key",
            "ca",
            "client_ca",
            "format",
            "keep_alive",
            "max_blocking",
            "ident",
            "ip_header",
            "temp_dir",
            "log_level",
            "cli_colors",
            "shutdown",
            "level",
            "host",
            "port",
            "user",
            "min_connections",
            "max_connections",
        ];
        let last = path.rsplit('.').next().unwrap_or(path);
        OTHERS.contains(&last) || (0..=u8::MAX).any(|number| self.setting(number).0 == path)
    }
}

/// True if a problem with one setting may be reported at the other.
pub(super) fn belong_together(one: &str, other: &str) -> bool {
    let ends = |path: &str, key: &str| path == key || path.ends_with(&format!(".{key}"));
    TOGETHER.iter().any(|&(a, b)| (ends(one, a) && ends(other, b)) || (ends(one, b) && ends(other, a)))
}

impl Takes {
    /// True if it takes this number.
    pub(super) fn takes_number(self, number: u64) -> bool {
        match self {
            Number(from, to) => (from..=to).contains(&number) && number != HUGE,
            Anything => true,
            Bool | Text | Section => false,
        }
    }
}
