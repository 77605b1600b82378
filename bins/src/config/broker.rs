//! A broker's YAML.

use std::{path::Path, time::Duration};

use rmom_core::{
    broker::{BrokerSettings, MAX_ROOM_BYTES, Tuning},
    model::{BrokerAddr, limits},
};
use rmom_net::serve::DEFAULT_SHUTDOWN_DEADLINE;
use serde_json::Map;

use super::{
    ConfigError, ConnectionsConfig, DatabaseConfig, Environment, Loaded, LogConfig, TlsConfig, apply_environment,
    check_store_timeout, millis, parse_yaml, read_file,
    table::{Limits, Row, settings},
    tree::{Reader, Section},
};

/// The original's port.
const DEFAULT_PORT: u16 = 50_051;
/// Long enough for a client that reconnects after a failover to find its channel.
const MIN_IDLE_EXPIRY_SECS: u64 = 60;

settings! {
    /// Settings of `rmom-broker`.
    pub struct BrokerConfig = read_all(root, file: &Path, core: &BrokerSettings);

    == "Where it listens"
    host: String ["text"] = core.addr.host.clone(), "" => "Address to listen on.";
    port: u16 ["number"] = core.addr.port, 0..=u16::MAX => "Port to listen on; 0 takes a free one.";
    external_host: String ["text"] = host.clone(),
        Limits::from("a name or address, not `0.0.0.0`").default_says("`host`") =>
        "Where clients and managers reach the broker. With `external_port` it is the broker's identity.";
    external_port: u16 ["number"] = port, Limits::from(0..=u16::MAX).default_says("`port`") =>
        "The port there; 0 means the one that the broker listens on.";

    == "Queues, messages and room"
    message_ttl: u64 ["s"] = core.message_ttl.map_or(0, |ttl| ttl.as_secs()), 0..=limits::MAX_TTL.as_secs() =>
        "Default lifetime of messages; 0 means unlimited.";
    max_message_bytes: usize ["bytes"] = core.max_message_bytes, 1_024..=256 << 20 =>
        "Largest message as it is delivered, framing included (4 MiB less 4 KiB). Consumers have a setting of the same name: raise theirs first.";
    queue_buffer_size: usize ["messages"] = core.queue_buffer_messages, 1..=100_000_000 =>
        "Number of a queue's newest messages that stay in memory. Subscribers that are further behind read from the database.";
    queue_buffer_bytes: usize ["bytes"] = core.queue_buffer_bytes, 64 << 10..=64 << 30 =>
        "The same in bytes (16 MiB).";
    max_pending_bytes: usize ["bytes"] = core.max_pending_bytes, 64 << 10..=MAX_ROOM_BYTES =>
        "Room for pushes that are being read, or accepted and not stored yet (64 MiB); a queue has a quarter of it. At least `max_message_bytes`; better 16 times that.";
    max_subscriptions: usize ["number"] = core.max_subscriptions, 1..=10_000_000 =>
        "Subscriptions at once. Further ones get `OVERLOADED`.";
    max_store_reads: usize ["number"] = core.max_store_reads, 1..=1_000 =>
        "Reads of the database at once for subscribers that are behind.";
    max_producers_per_queue: usize ["number"] = core.max_producers_per_queue, 1..=200_000 =>
        "Producers that a queue remembers at once. Further ones get `TOO_MANY_PRODUCERS`.";
    max_named_producers_per_queue: usize ["number"] = core.max_named_producers_per_queue, 1..=100_000 =>
        "Producers of a queue that ever had a name.";
    producer_retention_secs: u64 ["s"] = core.producer_retention.as_secs(),
        limits::MAX_DELIVERY_TIMEOUT.as_secs()..=limits::MAX_TTL.as_secs() =>
        "How long a producer is remembered after its last push. Clients retry for 600 s at most.";
    channel_idle_expiry_secs: u64 ["s"] = core.channel_idle_expiry.map_or(0, |expiry| expiry.as_secs()),
        Limits::from(0..=limits::MAX_TTL.as_secs()).says("0, or 60 to 3153600000") =>
        "A channel created by the original's route or method is deleted after this time without a subscription; 0 means never. Use the same value on all brokers.";
    trim_interval_millis: u64 ["ms"] = millis(core.trim_interval), 10..=3_600_000 =>
        "How often expired messages are removed.";
    max_trims: usize ["number"] = core.max_trims, 1..=1_000 =>
        "Queues at once from which expired messages are removed.";
    max_activations: usize ["number"] = core.max_activations, 1..=1_000 =>
        "Queues that the broker takes over at once; the others wait. Keep it, and `max_trims`, below `database.max_connections`.";
    max_lookups_per_second: u32 ["number"] = core.max_lookups_per_second, 1..=1_000_000 =>
        "Look-ups in the database of queues that are not hosted here and of unknown channels; a quarter of them for one address.";

    == "Time"
    lease_millis: u64 ["ms"] = millis(core.lease), 300..=600_000 =>
        "How long the broker may go without the database before it counts as dead. It renews three times as often.";
    store_timeout_millis: u64 ["ms"] = lease_millis * 2 / 3,
        Limits::from(50..=600_000).default_says("2/3 of `lease_millis`: `2000`") =>
        "Deadline of one call of the database; less than `lease_millis`.";
    recovery_timeout_millis: u64 ["ms"] = millis(core.recovery_timeout), 100..=600_000 =>
        "How long a push waits while the broker determines its outcome; then the answer is `OUTCOME_UNKNOWN`.";
    activation_timeout_millis: u64 ["ms"] = millis(core.activation_timeout), 100..=600_000 =>
        "How long a push or subscription waits for its queue to be taken over; then the answer is `NOT_HOSTED`.";
    shutdown_timeout_secs: u64 ["s"] = DEFAULT_SHUTDOWN_DEADLINE.as_secs(), 1..=600 =>
        "How long a stop in good order may take.";

    + parts
    /// Connections.
    #[serde(flatten)]
    connections: ConnectionsConfig = ConnectionsConfig::read(root);
    /// The store.
    database: DatabaseConfig = DatabaseConfig::read(root.section("database"), file, true);
    /// Certificates.
    #[serde(skip_serializing_if = "TlsConfig::is_empty")]
    tls: TlsConfig = TlsConfig::read(root.section("tls"), file);
    /// Logging.
    log: LogConfig = LogConfig::read(root.section("log"));
}

impl BrokerConfig {
    /// Reads `file`; `environment` overrides it.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or settings are wrong; the error then names all of them.
    pub fn load(file: &Path, environment: &Environment) -> Result<Loaded<Self>, ConfigError> {
        Self::parse(file, &read_file(file)?, environment)
    }

    /// Like [`BrokerConfig::load`], but from text; `file` is for messages and relative paths.
    ///
    /// # Errors
    /// As for [`BrokerConfig::load`].
    pub fn parse(file: &Path, text: &str, environment: &Environment) -> Result<Loaded<Self>, ConfigError> {
        let reader = Reader::new(file);
        apply_environment(&reader, environment);
        let config = Self::read(reader.section("", parse_yaml(file, text)?), file);
        let warnings = reader.finish()?;
        Ok(Loaded { config, warnings })
    }

    /// The tables of the settings.
    #[must_use]
    pub fn rows() -> Vec<Row> {
        let reader = Reader::new(Path::new(""));
        Self::read(reader.section("", Map::new()), Path::new(""));
        reader.rows()
    }

    fn read(mut root: Section<'_>, file: &Path) -> Self {
        let core = BrokerSettings::new(BrokerAddr { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT });
        let config = Self::read_all(&mut root, file, &core);
        config.check(&root);
        root.finish();
        config
    }

    /// Settings that depend on each other, or have gaps in their limits.
    fn check(&self, root: &Section<'_>) {
        check_external_host(root, &self.external_host);
        check_store_timeout(root, self.store_timeout_millis, self.lease_millis);
        let (room, largest) = (self.max_pending_bytes, self.max_message_bytes);
        if room < largest {
            let reason = format!("found {room}, expected at least max_message_bytes, which is {largest}");
            root.problem("max_pending_bytes", reason);
        }
        let expiry = self.channel_idle_expiry_secs;
        if (1..MIN_IDLE_EXPIRY_SECS).contains(&expiry) {
            let reason = format!("found {expiry}, expected 0, which is never, or at least {MIN_IDLE_EXPIRY_SECS}");
            root.problem("channel_idle_expiry_secs", reason);
        }
    }

    /// The settings of the broker's core, once it listens on `port`.
    #[must_use]
    pub fn settings(&self, port: u16) -> BrokerSettings {
        let external_port = if self.external_port == 0 { port } else { self.external_port };
        let millis = Duration::from_millis;
        BrokerSettings {
            message_ttl: (self.message_ttl > 0).then(|| Duration::from_secs(self.message_ttl)),
            max_message_bytes: self.max_message_bytes,
            queue_buffer_messages: self.queue_buffer_size,
            queue_buffer_bytes: self.queue_buffer_bytes,
            max_batch_messages: limits::MAX_BATCH_MESSAGES,
            max_pending_bytes: self.max_pending_bytes,
            lease: millis(self.lease_millis),
            store_timeout: millis(self.store_timeout_millis),
            recovery_timeout: millis(self.recovery_timeout_millis),
            activation_timeout: millis(self.activation_timeout_millis),
            trim_interval: millis(self.trim_interval_millis),
            producer_retention: Duration::from_secs(self.producer_retention_secs),
            max_producers_per_queue: self.max_producers_per_queue,
            max_named_producers_per_queue: self.max_named_producers_per_queue,
            max_subscriptions: self.max_subscriptions,
            max_activations: self.max_activations,
            max_trims: self.max_trims,
            max_store_reads: self.max_store_reads,
            max_lookups_per_second: self.max_lookups_per_second,
            channel_idle_expiry: (self.channel_idle_expiry_secs > 0)
                .then(|| Duration::from_secs(self.channel_idle_expiry_secs)),
            tuning: Tuning::default(),
            addr: BrokerAddr { host: self.external_host.clone(), port: external_port },
        }
    }

    /// The effective configuration as a file, without passwords.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        serde_norway::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

fn check_external_host(root: &Section<'_>, host: &str) {
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        root.problem("external_host", format!("found {host:?}, expected a host name or an IP address"));
    } else if host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified()) {
        let reason = format!("clients cannot connect to {host}; use this machine's host name or address");
        root.problem("external_host", reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Loaded<BrokerConfig>, String> {
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        BrokerConfig::parse(Path::new("b.yaml"), text, &environment).map_err(|error| error.to_string())
    }

    const ORIGINAL: [&str; 3] = [
        include_str!("../../../deploy/examples/mom1.yaml"),
        include_str!("../../../deploy/examples/mom2.yaml"),
        include_str!("../../../deploy/examples/mom3.yaml"),
    ];

    #[test]
    fn the_originals_files_are_accepted_as_they_are() {
        for (text, host) in ORIGINAL.into_iter().zip(["127.0.0.1", "127.0.0.2", "127.0.0.3"]) {
            let Loaded { config, warnings } = parse(text, &[]).unwrap();
            assert_eq!(warnings, Vec::<String>::new());
            let settings = config.settings(50_051);
            assert_eq!(settings.addr, BrokerAddr { host: host.into(), port: 50_051 });
            assert_eq!(settings.queue_buffer_messages, 10_000);
            assert_eq!(settings.message_ttl, Some(Duration::from_secs(600)));
            assert_eq!((config.database.min_connections, config.database.max_connections), (2, 20));
            let super::super::DatabaseUrl::Postgres(url) = &config.database.url else { panic!("expected PostgreSQL") };
            assert_eq!(url.reveal(), "postgres://postgres:secret@127.0.0.1:5432/rmom_manager");
        }
    }

    #[test]
    fn defaults_are_those_of_the_core_and_the_server() {
        let config = parse("database: {url: 'sqlite:x.db'}", &[]).unwrap().config;
        let server = rmom_net::serve::ServeSettings::default();
        assert_eq!(format!("{:?}", config.connections.settings(server.shutdown_deadline)), format!("{server:?}"));
        let defaults = BrokerSettings::new(BrokerAddr { host: "127.0.0.1".into(), port: DEFAULT_PORT });
        assert_eq!(format!("{:?}", config.settings(DEFAULT_PORT)), format!("{defaults:?}"));
    }

    #[test]
    fn the_effective_configuration_reads_back_and_hides_the_password() {
        let shown = parse(ORIGINAL[0], &[]).unwrap().config.to_yaml();
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(parse(&shown, &[]).unwrap().config.to_yaml(), shown);
        assert!(!format!("{:?}", parse(ORIGINAL[0], &[]).unwrap()).contains("secret"));
    }

    #[test]
    fn the_environment_overrides() {
        let variables = [
            ("RMOM_PORT", "6000"),
            ("RMOM_EXTERNAL_HOST", "broker-1.example"),
            ("RMOM_DATABASE__HOST", "::1"),
            ("RMOM_DATABASE__PASSWORD", "p@ss/1"),
            ("RMOM_LOG__FORMAT", "json"),
            ("RMOM_MANAGER", "http://ignored"),
        ];
        let Loaded { config, warnings } = parse(ORIGINAL[0], &variables).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!((config.port, config.external_port), (6000, 50_051));
        assert_eq!(config.external_host, "broker-1.example");
        assert_eq!(config.log.format, super::super::LogFormat::Json);
        let super::super::DatabaseUrl::Postgres(url) = &config.database.url else { panic!("expected PostgreSQL") };
        assert_eq!(url.reveal(), "postgres://postgres:p%40ss%2F1@[::1]:5432/rmom_manager");
    }

    #[test]
    fn a_url_from_the_environment_wins_over_the_files_parts() {
        let url = ("RMOM_DATABASE__URL", "postgres://h/d");
        assert_eq!(parse(ORIGINAL[0], &[url]).unwrap().config.database.url.redacted(), "postgres://h/d");
        let error = parse(ORIGINAL[0], &[url, ("RMOM_DATABASE__HOST", "x")]).unwrap_err();
        assert_eq!(error, "b.yaml: database.host: contradicts url; give one or the other");
    }

    #[test]
    fn a_variable_that_names_nothing_is_a_warning() {
        let warnings = parse(ORIGINAL[0], &[("RMOM_PROT", "1")]).unwrap().warnings;
        assert_eq!(warnings, ["the environment variable RMOM_PROT names no setting of this program; ignored"]);
        // The build reads this one.
        assert!(parse(ORIGINAL[0], &[("RMOM_COMMIT", "0123456789ab")]).unwrap().warnings.is_empty());
    }

    #[test]
    fn mistakes_are_named_all_of_them() {
        let database = "database: {dbname: d}\n";
        type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);
        let table: &[Case] = &[
            ("prot: 1", &[], "b.yaml: prot: there is no such setting; did you mean port?"),
            (
                "queue_bufer_size: 1",
                &[],
                "b.yaml: queue_bufer_size: there is no such setting; did you mean queue_buffer_size?",
            ),
            ("port: many", &[], "b.yaml: port: found the text \"many\", expected a whole number from 0 to 65535"),
            ("port: 65536", &[], "b.yaml: port: found the number 65536, expected a whole number from 0 to 65535"),
            (
                "max_pending_bytes: 4294967296",
                &[],
                "b.yaml: max_pending_bytes: found 4294967296, expected 65536 to 4294967295",
            ),
            ("port: -1", &[], "b.yaml: port: found the number -1, expected a whole number from 0 to 65535"),
            ("message_ttl: 1.5", &[], "b.yaml: message_ttl: found the number 1.5, expected a whole number, 0 or more"),
            ("host: [a]", &[], "b.yaml: host: found a list, expected a text"),
            ("host: 127", &[], "b.yaml: host: found the number 127, expected a text"),
            (
                "log: {level: 'a=b=c'}",
                &[],
                "b.yaml: log.level: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5; expected something like info, or warn,rmom_core=debug",
            ),
            ("log: {format: xml}", &[], "b.yaml: log.format: found the text \"xml\", expected human or json"),
            ("log: loud", &[], "b.yaml: log: found a text, expected a section"),
            (
                "host: 0.0.0.0",
                &[],
                "b.yaml: external_host: clients cannot connect to 0.0.0.0; use this machine's host name or address",
            ),
            ("lease_millis: 1", &[], "b.yaml: lease_millis: found 1, expected 300 to 600000"),
            (
                "channel_idle_expiry_secs: 59",
                &[],
                "b.yaml: channel_idle_expiry_secs: found 59, expected 0, which is never, or at least 60",
            ),
            (
                "store_timeout_millis: 5000",
                &[],
                "b.yaml: store_timeout_millis: found 5000, expected less than lease_millis, which is 3000",
            ),
            (
                "tls: {cert: nowhere.pem}",
                &[],
                "b.yaml: tls.cert: there is no file nowhere.pem\nb.yaml: tls.key: missing; a certificate and its key go together",
            ),
            (
                "prot: 1\nhost: 5",
                &[],
                "b.yaml: host: found the number 5, expected a text\nb.yaml: prot: there is no such setting; did you mean port?",
            ),
            (
                "",
                &[("RMOM_PORT", "http")],
                "b.yaml: port: the environment variable RMOM_PORT is \"http\", expected a whole number from 0 to 65535",
            ),
        ];
        for (text, environment, expected) in table {
            assert_eq!(parse(&format!("{database}{text}"), environment).unwrap_err(), *expected, "{text}");
        }
    }

    #[test]
    fn mistakes_in_the_database_section_are_named_and_reveal_nothing() {
        let table = [
            ("", "b.yaml: database.dbname: missing; name the database, or give url: sqlite:PATH"),
            (
                "database: {dbname: d, password: 12345}",
                "b.yaml: database.password: found a number without quotes, expected a text in quotes",
            ),
            (
                "database: {url: 'mysql://u:geheim@h/d'}",
                "b.yaml: database.url: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH",
            ),
            ("database: {url: 'sqlite:x', host: h}", "b.yaml: database.host: contradicts url; give one or the other"),
            (
                "database: {dbname: d, pasword: x}",
                "b.yaml: database.pasword: there is no such setting; did you mean database.password?",
            ),
            (
                "database: {dbname: d, max_connections: 3, min_connections: 4}",
                "b.yaml: database.min_connections: found 4; max_connections is 3",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text, &[]).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        let error = parse("port: [", &[]).unwrap_err();
        assert!(error.starts_with("b.yaml: ") && error.contains("line 2"), "{error}");
        let error = parse("port: 1\nport: 2\n", &[]).unwrap_err();
        assert!(error.contains("duplicate entry") && error.contains("port"), "{error}");
        assert_eq!(parse("- a", &[]).unwrap_err(), "b.yaml: it holds no settings; write one `key: value` per line");
    }

    #[test]
    fn relative_paths_are_beside_the_file() {
        let text = "database: {url: 'sqlite:data/x.db'}";
        let config = BrokerConfig::parse(Path::new("/etc/rmom/b.yaml"), text, &Vec::new()).unwrap().config;
        assert_eq!(config.database.url.redacted(), "sqlite:/etc/rmom/data/x.db");
    }
}
