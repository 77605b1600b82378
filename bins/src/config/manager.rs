//! A manager's TOML, in Rocket's form: a table per profile.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rmom_core::{
    manager::ManagerSettings,
    model::{BrokerAddr, limits::MAX_ASSIGNED_QUEUES},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    ConfigError, ConnectionsConfig, DatabaseConfig, Environment, Loaded, LogConfig, TlsConfig, apply_environment,
    parse_toml, read_file,
    tree::{Reader, Section, Setting, nearest},
};

/// The file that is read if none is named, the same as Rocket's.
pub const DEFAULT_FILE: &str = "Rocket.toml";
/// Every other profile overrides this one.
const DEFAULT: &str = "default";
/// This profile overrides every other.
const GLOBAL: &str = "global";
/// Rocket's own profiles, which can be chosen even if they are not in the file.
const BUILT_IN: [&str; 3] = [DEFAULT, "debug", "release"];
/// Keys of Rocket that have no meaning here.
const ROCKETS_OWN: [&str; 11] = [
    "workers",
    "max_blocking",
    "keep_alive",
    "ident",
    "ip_header",
    "limits",
    "temp_dir",
    "log_level",
    "cli_colors",
    "secret_key",
    "shutdown",
];
/// Limit on the brokers in the list.
const MAX_MOMS: usize = 10_000;

/// Settings of `rmom-manager`.
#[derive(Clone, Debug, Serialize)]
pub struct ManagerConfig {
    /// Address to listen on.
    pub address: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Milliseconds between two rounds of life probes; the original's `manager_cycle_secs` sets it too.
    pub manager_cycle_millis: u64,
    /// Milliseconds between a failed life probe and the next attempt.
    pub life_probe_retry_delay_millis: u64,
    /// Number of times that a failed life probe is repeated before the broker counts as dead.
    pub life_probe_max_retries: u32,
    /// Deadline of one life probe.
    pub life_probe_timeout_millis: u64,
    /// How long a leading manager may be silent before another takes over.
    pub lease_millis: u64,
    /// How long the creation of a queue may take before the answer is 503.
    pub create_timeout_millis: u64,
    /// How long other administrative operations may take.
    pub admin_timeout_millis: u64,
    /// Deadline of one call of the store; shorter than the lease.
    pub store_timeout_millis: u64,
    /// Limit on the administrative operations at once.
    pub max_admin_calls: u32,
    /// Whether queues are moved from brokers with many to brokers with few.
    pub rebalance: bool,
    /// How long all brokers have to be healthy before a queue is moved for that.
    pub rebalance_after_secs: u64,
    /// The difference in queues between two brokers that is tolerated.
    pub rebalance_tolerance: u64,
    /// Limit on the queues that a cycle moves to level the brokers.
    pub rebalance_moves_per_cycle: usize,
    /// Limit on the queues that a cycle moves from drained brokers.
    pub drain_moves_per_cycle: usize,
    /// Limit on the queues that a cycle moves from brokers that are gone.
    pub max_moves_per_cycle: usize,
    /// Deadline of one call that hurries a broker up.
    pub nudge_timeout_millis: u64,
    /// How long a broker may take to describe a queue.
    pub describe_timeout_millis: u64,
    /// Limit on the life probes at once.
    pub max_concurrent_probes: usize,
    /// Limit on the calls at once that hurry a broker up.
    pub max_concurrent_nudges: usize,
    /// Limit on such calls that wait for their turn.
    pub max_pending_nudges: usize,
    /// Limit on the batches of deleted queues that one step removes.
    pub purge_batches: u32,
    /// Limit on the time of a stop in good order.
    pub shutdown_timeout_secs: u64,
    /// Connections.
    #[serde(flatten)]
    pub connections: ConnectionsConfig,
    /// Brokers to probe from the start. Others register themselves, so this may be empty.
    pub moms: Vec<BrokerAddr>,
    /// The store.
    pub databases: Databases,
    /// Certificates.
    #[serde(skip_serializing_if = "TlsConfig::is_empty")]
    pub tls: TlsConfig,
    /// Logging.
    pub log: LogConfig,
}

/// The original's name for the store.
#[derive(Clone, Debug, Serialize)]
pub struct Databases {
    /// The store.
    pub rmom_manager: DatabaseConfig,
}

impl Setting for Vec<BrokerAddr> {
    const EXPECTED: &'static str = "a list of { host = \"…\", port = … }";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(|one| serde_json::from_value(one.clone()).ok()).collect()
    }

    /// `host:port,host:port`, or the list in TOML.
    fn from_text(text: &str) -> Option<Self> {
        if text.trim_start().starts_with('[') {
            let table: toml::Table = toml::from_str(&format!("v = {text}")).ok()?;
            return Self::from_value(&serde_json::to_value(table.get("v")?).ok()?);
        }
        let parse = |one: &str| {
            let (host, port) = one.trim().rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            Some(BrokerAddr { host, port: port.parse().ok()? })
        };
        text.split(',').filter(|one| !one.trim().is_empty()).map(parse).collect()
    }
}

impl ManagerConfig {
    /// Reads `file`; `environment` overrides it. Without a `profile`, the variable `ROCKET_PROFILE` chooses one; without
    /// that, only `default` applies.
    ///
    /// # Errors
    /// The file cannot be read or parsed, the profile is unknown, or settings are wrong; the error then names all of them.
    pub fn load(file: &Path, profile: Option<&str>, environment: &Environment) -> Result<Loaded<Self>, ConfigError> {
        Self::parse(file, &read_file(file)?, profile, environment)
    }

    /// Like [`ManagerConfig::load`], but from text; `file` is for messages and relative paths.
    ///
    /// # Errors
    /// As for [`ManagerConfig::load`].
    pub fn parse(
        file: &Path,
        text: &str,
        profile: Option<&str>,
        environment: &Environment,
    ) -> Result<Loaded<Self>, ConfigError> {
        let rockets = environment.iter().find(|(name, _)| name == "ROCKET_PROFILE").map(|(_, value)| value.as_str());
        let profile = profile.or(rockets).unwrap_or(DEFAULT).to_lowercase();
        let reader = Reader::new(file);
        let mut merged = merge_profiles(&reader, file, parse_toml(file, text)?, &profile)?;
        apply_rockets_environment(&reader, environment, &mut merged);
        apply_environment(&reader, environment);
        reader.rename_overrides("database.", "databases.rmom_manager.");
        let config = Self::read(reader.section("", merged), file);
        let warnings = reader.finish()?;
        Ok(Loaded { config, warnings })
    }

    fn read(mut root: Section<'_>, file: &Path) -> Self {
        for key in ROCKETS_OWN {
            root.ignore(key);
        }
        let mut databases = root.section("databases");
        let database = DatabaseConfig::read(databases.section("rmom_manager"), file, false);
        databases.finish();
        let defaults = ManagerSettings::default();
        let cycle_millis = match root.has("manager_cycle_secs") {
            true => root.number("manager_cycle_secs", 1, 1..=3_600) * 1_000,
            false => {
                root.skip("manager_cycle_secs");
                millis(defaults.cycle)
            }
        };
        let lease_millis = root.number("lease_millis", millis(defaults.lease), 300..=600_000);
        // Calls of the store have to fail before the lease does.
        let store_timeout_millis = root.number("store_timeout_millis", lease_millis * 2 / 3, 50..=600_000);
        if store_timeout_millis >= lease_millis {
            root.problem(
                "store_timeout_millis",
                format!("found {store_timeout_millis}, expected less than lease_millis, which is {lease_millis}"),
            );
        }
        let moms: Vec<BrokerAddr> = root.value("moms").unwrap_or_default();
        if moms.len() > MAX_MOMS {
            root.problem("moms", format!("there are {}; the limit is {MAX_MOMS}", moms.len()));
        }
        if let Some(bad) = moms.iter().find(|mom| mom.host.is_empty() || mom.port == 0) {
            root.problem("moms", format!("found host {:?}, port {}, expected both", bad.host, bad.port));
        }
        let config = Self {
            address: root.value_or("address", "127.0.0.1".to_owned()),
            port: root.value_or("port", 8082),
            manager_cycle_millis: root.number("manager_cycle_millis", cycle_millis, 10..=3_600_000),
            life_probe_retry_delay_millis: root.number(
                "life_probe_retry_delay_millis",
                millis(defaults.life_probe_retry_delay),
                0..=60_000,
            ),
            life_probe_max_retries: root.number("life_probe_max_retries", defaults.life_probe_max_retries, 0..=100),
            life_probe_timeout_millis: root.number(
                "life_probe_timeout_millis",
                millis(defaults.probe_deadline),
                10..=60_000,
            ),
            lease_millis,
            create_timeout_millis: root.number(
                "create_timeout_millis",
                millis(defaults.create_deadline),
                100..=600_000,
            ),
            admin_timeout_millis: root.number("admin_timeout_millis", millis(defaults.admin_deadline), 100..=600_000),
            store_timeout_millis,
            max_admin_calls: root.number("max_admin_calls", defaults.max_admin_calls, 1..=100_000),
            rebalance: root.value_or("rebalance", defaults.rebalance),
            rebalance_after_secs: root.number("rebalance_after_secs", defaults.rebalance_after.as_secs(), 0..=86_400),
            rebalance_tolerance: root.number("rebalance_tolerance", defaults.rebalance_tolerance, 0..=1_000_000),
            // Each step is one transaction, which takes no more.
            rebalance_moves_per_cycle: root.number(
                "rebalance_moves_per_cycle",
                defaults.rebalance_moves_per_cycle,
                1..=MAX_ASSIGNED_QUEUES,
            ),
            drain_moves_per_cycle: root.number(
                "drain_moves_per_cycle",
                defaults.drain_moves_per_cycle,
                1..=MAX_ASSIGNED_QUEUES,
            ),
            max_moves_per_cycle: root.number("max_moves_per_cycle", defaults.max_moves_per_cycle, 1..=1_000_000),
            nudge_timeout_millis: root.number("nudge_timeout_millis", millis(defaults.nudge_deadline), 10..=60_000),
            describe_timeout_millis: root.number(
                "describe_timeout_millis",
                millis(defaults.describe_deadline),
                10..=60_000,
            ),
            max_concurrent_probes: root.number("max_concurrent_probes", defaults.max_concurrent_probes, 1..=10_000),
            max_concurrent_nudges: root.number("max_concurrent_nudges", defaults.max_concurrent_nudges, 1..=10_000),
            max_pending_nudges: root.number("max_pending_nudges", defaults.max_pending_nudges, 1..=1_000_000),
            purge_batches: root.number("purge_batches", defaults.purge_batches, 1..=100_000),
            shutdown_timeout_secs: root.number("shutdown_timeout_secs", 10, 1..=600),
            connections: ConnectionsConfig::read(&mut root),
            moms,
            tls: TlsConfig::read(root.section("tls"), file),
            log: LogConfig::read(root.section("log")),
            databases: Databases { rmom_manager: database },
        };
        root.finish();
        config
    }

    /// The settings of the manager's core.
    #[must_use]
    pub fn settings(&self) -> ManagerSettings {
        let millis = Duration::from_millis;
        ManagerSettings {
            moms: self.moms.clone(),
            cycle: millis(self.manager_cycle_millis),
            probe_deadline: millis(self.life_probe_timeout_millis),
            life_probe_retry_delay: millis(self.life_probe_retry_delay_millis),
            life_probe_max_retries: self.life_probe_max_retries,
            lease: millis(self.lease_millis),
            store_timeout: millis(self.store_timeout_millis),
            admin_deadline: millis(self.admin_timeout_millis),
            create_deadline: millis(self.create_timeout_millis),
            max_admin_calls: self.max_admin_calls,
            rebalance: self.rebalance,
            rebalance_after: Duration::from_secs(self.rebalance_after_secs),
            rebalance_tolerance: self.rebalance_tolerance,
            rebalance_moves_per_cycle: self.rebalance_moves_per_cycle,
            drain_moves_per_cycle: self.drain_moves_per_cycle,
            max_moves_per_cycle: self.max_moves_per_cycle,
            nudge_deadline: millis(self.nudge_timeout_millis),
            describe_deadline: millis(self.describe_timeout_millis),
            max_concurrent_probes: self.max_concurrent_probes,
            max_concurrent_nudges: self.max_concurrent_nudges,
            max_pending_nudges: self.max_pending_nudges,
            purge_batches: self.purge_batches,
        }
    }

    /// The effective configuration as a file, without passwords.
    #[must_use]
    pub fn to_toml(&self) -> String {
        #[derive(Serialize)]
        struct File<'c> {
            default: &'c ManagerConfig,
        }
        toml::to_string(&File { default: self }).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Merges `default`, the profile and `global`; the later ones override the earlier.
fn merge_profiles(
    reader: &Reader,
    file: &Path,
    tables: Map<String, Value>,
    profile: &str,
) -> Result<Map<String, Value>, ConfigError> {
    let mut merged = Map::new();
    let mut profiles = BTreeMap::new();
    for (name, value) in tables {
        match value {
            Value::Object(table) => merge(profiles.entry(name.to_lowercase()).or_default(), table),
            _ => reader.problem(name, "stands outside of a profile; put it below the line [default]"),
        }
    }
    let known: Vec<&str> = BUILT_IN.into_iter().chain(profiles.keys().map(String::as_str)).collect();
    if !known.contains(&profile) {
        let mut known: Vec<String> = known.into_iter().map(str::to_owned).collect();
        known.sort();
        known.dedup();
        return Err(ConfigError::UnknownProfile { file: file.to_owned(), profile: profile.to_owned(), known });
    }
    refuse_sections_without_profile(reader, &profiles);
    for name in [DEFAULT, profile, GLOBAL] {
        if let Some(table) = profiles.remove(name) {
            merge(&mut merged, table);
        }
    }
    Ok(merged)
}

/// `[tls]` instead of `[default.tls]` would be a profile that is never chosen: an easy mistake without any symptom.
fn refuse_sections_without_profile(reader: &Reader, profiles: &BTreeMap<String, Map<String, Value>>) {
    for name in ["databases", "tls", "log"] {
        if profiles.contains_key(name) {
            reader.problem(name, format!("stands outside of a profile; write [default.{name}]"));
        }
    }
}

fn merge(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Object(under)), Value::Object(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Rocket's own variables: `ROCKET_PORT` and so on for settings at the top level, and `ROCKET_DATABASES` with a table in
/// TOML.
fn apply_rockets_environment(reader: &Reader, environment: &Environment, merged: &mut Map<String, Value>) {
    const KEYS: [&str; 6] =
        ["address", "port", "manager_cycle_secs", "life_probe_retry_delay_millis", "life_probe_max_retries", "moms"];
    for (name, text) in environment {
        let Some(key) = name.strip_prefix("ROCKET_").map(str::to_lowercase) else { continue };
        match key.as_str() {
            "profile" | "config" => {}
            "databases" => match toml::from_str::<toml::Table>(&format!("databases = {text}")) {
                Ok(table) => {
                    if let Ok(Value::Object(table)) = serde_json::to_value(table) {
                        merge(merged, table);
                    }
                }
                // The parser's message could contain the password.
                Err(_) => reader.problem(
                    "databases",
                    format!(
                        "the environment variable {name} is no table in TOML, such as {{rmom_manager={{url=\"…\"}}}}"
                    ),
                ),
            },
            key if KEYS.contains(&key) || ROCKETS_OWN.contains(&key) => {
                reader.override_with(key.to_owned(), name, text);
            }
            key => {
                let hint = nearest(key, &KEYS)
                    .map_or_else(String::new, |known| format!("; did you mean ROCKET_{}?", known.to_uppercase()));
                reader.warn(format!("the environment variable {name} names no setting of this program; ignored{hint}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = include_str!("../../../deploy/examples/Rocket.toml");

    fn parse(text: &str, profile: Option<&str>, environment: &[(&str, &str)]) -> Result<Loaded<ManagerConfig>, String> {
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        ManagerConfig::parse(Path::new("m.toml"), text, profile, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn the_originals_file_is_accepted_as_it_is() {
        let Loaded { config, warnings } = parse(ORIGINAL, None, &[]).unwrap();
        let ignored =
            ["workers", "max_blocking", "keep_alive"].map(|key| format!("{key}: has no meaning in rmom; ignored"));
        assert_eq!(warnings, ignored);
        assert_eq!((config.address.as_str(), config.port, config.manager_cycle_millis), ("127.0.0.1", 8082, 5_000));
        assert_eq!((config.life_probe_retry_delay_millis, config.life_probe_max_retries), (33, 3));
        let moms: Vec<String> = config.moms.iter().map(ToString::to_string).collect();
        assert_eq!(moms, ["127.0.0.1:50051", "127.0.0.2:50051", "127.0.0.3:50051", "127.0.0.4:50051"]);
        let database = &config.databases.rmom_manager;
        assert_eq!((database.min_connections, database.max_connections), (3, 5));
        assert_eq!((database.idle_timeout, database.connect_timeout), (120, 7));
        let super::super::DatabaseUrl::Postgres(url) = &database.url else { panic!("expected PostgreSQL") };
        assert_eq!(url.reveal(), "postgresql://postgres:secret@127.0.0.1:5432/rmom_manager");
    }

    #[test]
    fn defaults_are_those_of_the_core() {
        let config = parse("[default.databases.rmom_manager]\nurl = 'sqlite:x.db'", None, &[]).unwrap().config;
        assert_eq!(format!("{:?}", config.settings()), format!("{:?}", ManagerSettings::default()));
    }

    /// Finds settings of the core that a file cannot set, or sets without effect.
    #[test]
    fn each_setting_of_the_core_can_be_set() {
        let text = "[default]\nmoms = [{host='a', port=1}]\nmanager_cycle_millis = 11\n\
                    life_probe_retry_delay_millis = 12\nlife_probe_max_retries = 13\nlife_probe_timeout_millis = 14\n\
                    lease_millis = 315\nstore_timeout_millis = 116\nadmin_timeout_millis = 117\n\
                    create_timeout_millis = 118\nmax_admin_calls = 19\nrebalance = false\nrebalance_after_secs = 20\n\
                    rebalance_tolerance = 21\nrebalance_moves_per_cycle = 22\ndrain_moves_per_cycle = 23\n\
                    max_moves_per_cycle = 24\nnudge_timeout_millis = 25\ndescribe_timeout_millis = 26\n\
                    max_concurrent_probes = 27\nmax_concurrent_nudges = 28\nmax_pending_nudges = 29\n\
                    [default.databases.rmom_manager]\nurl = 'sqlite:x.db'";
        let millis = Duration::from_millis;
        let expected = ManagerSettings {
            moms: vec![BrokerAddr { host: "a".to_owned(), port: 1 }],
            cycle: millis(11),
            life_probe_retry_delay: millis(12),
            life_probe_max_retries: 13,
            probe_deadline: millis(14),
            lease: millis(315),
            store_timeout: millis(116),
            admin_deadline: millis(117),
            create_deadline: millis(118),
            max_admin_calls: 19,
            rebalance: false,
            rebalance_after: Duration::from_secs(20),
            rebalance_tolerance: 21,
            rebalance_moves_per_cycle: 22,
            drain_moves_per_cycle: 23,
            max_moves_per_cycle: 24,
            nudge_deadline: millis(25),
            describe_deadline: millis(26),
            max_concurrent_probes: 27,
            max_concurrent_nudges: 28,
            max_pending_nudges: 29,
            purge_batches: 30,
        };
        let config = parse(text, None, &[("RMOM_PURGE_BATCHES", "30")]).unwrap().config;
        assert_eq!(format!("{:?}", config.settings()), format!("{expected:?}"));
    }

    #[test]
    fn the_flag_chooses_the_profile_before_the_variable() {
        let port = |profile, environment: &[_]| parse(ORIGINAL, profile, environment).unwrap().config.port;
        assert_eq!(port(None, &[]), 8082);
        assert_eq!(port(Some("release"), &[]), 8080);
        assert_eq!(port(None, &[("ROCKET_PROFILE", "Release")]), 8080);
        assert_eq!(port(Some("debug"), &[("ROCKET_PROFILE", "release")]), 8082);
        let error = parse(ORIGINAL, Some("relese"), &[]).unwrap_err();
        assert_eq!(error, "m.toml: there is no profile \"relese\"; known: debug, default, release");
    }

    #[test]
    fn global_goes_over_the_profile_and_tables_are_merged() {
        let text = "[default.databases.rmom_manager]\nurl = 'postgres://h/d'\nmax_connections = 7\n\
                    [release]\nport = 1\n[release.databases.rmom_manager]\nurl = 'postgres://other/d'\n\
                    [global]\naddress = '::1'";
        let config = parse(text, Some("release"), &[]).unwrap().config;
        assert_eq!((config.address.as_str(), config.port), ("::1", 1));
        assert_eq!(config.databases.rmom_manager.url.redacted(), "postgres://other/d");
        assert_eq!(config.databases.rmom_manager.max_connections, 7);
    }

    #[test]
    fn the_effective_configuration_reads_back_and_hides_the_password() {
        let shown = parse(ORIGINAL, Some("release"), &[]).unwrap().config.to_toml();
        assert!(!shown.contains("secret"), "{shown}");
        let again = parse(&shown, None, &[]).unwrap();
        assert_eq!((again.config.to_toml(), again.warnings), (shown, Vec::new()));
    }

    #[test]
    fn the_environment_overrides_rockets_names_first_then_ours() {
        let variables = [
            ("RMOM_PORT", "9001"),
            ("ROCKET_PORT", "9000"),
            ("ROCKET_ADDRESS", "0.0.0.0"),
            ("ROCKET_WORKERS", "3"),
            ("ROCKET_DATABASES", "{rmom_manager={url=\"postgres://h/rockets\"}}"),
            ("RMOM_MOMS", "a:1, [::1]:2"),
            ("ROCKET_PROT", "1"),
        ];
        let Loaded { config, warnings } = parse(ORIGINAL, None, &variables).unwrap();
        assert_eq!((config.address.as_str(), config.port), ("0.0.0.0", 9001));
        assert_eq!(config.databases.rmom_manager.url.redacted(), "postgres://h/rockets");
        assert_eq!(config.databases.rmom_manager.max_connections, 5);
        assert_eq!(config.moms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "[::1]:2"]);
        let hint =
            "the environment variable ROCKET_PROT names no setting of this program; ignored; did you mean ROCKET_PORT?";
        assert!(warnings.iter().any(|warning| warning == hint), "{warnings:?}");
        let config = parse(ORIGINAL, None, &[("RMOM_DATABASE__URL", "postgres://h/short")]).unwrap().config;
        assert_eq!(config.databases.rmom_manager.url.redacted(), "postgres://h/short");
    }

    #[test]
    fn a_variable_below_a_setting_does_not_set_it() {
        let error = parse("", None, &[("RMOM_DATABASE__URL__X", "sqlite:x.db")]).unwrap_err();
        assert!(error.contains("databases.rmom_manager.url: missing"), "{error}");
    }

    #[test]
    fn mistakes_are_named() {
        let table = [
            (
                "",
                "m.toml: databases.rmom_manager.url: missing; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH",
            ),
            ("port = 1", "m.toml: port: stands outside of a profile; put it below the line [default]"),
            ("[tls]\ncert = 'x'", "m.toml: tls: stands outside of a profile; write [default.tls]"),
            (
                "[default]\nmanager_cycle_sec = 1",
                "m.toml: manager_cycle_sec: there is no such setting; did you mean manager_cycle_secs?",
            ),
            ("[default]\ndrain_moves_per_cycle = 101", "m.toml: drain_moves_per_cycle: found 101, expected 1 to 100"),
            ("[default]\nmanager_cycle_secs = 0", "m.toml: manager_cycle_secs: found 0, expected 1 to 3600"),
            (
                "[default]\nport = '8082'",
                "m.toml: port: found the text \"8082\", expected a whole number from 0 to 65535",
            ),
            ("[default]\nmoms = ['a:1']", "m.toml: moms: found a list, expected a list of { host = \"…\", port = … }"),
            ("[default]\nmoms = [{host='a', port=0}]", "m.toml: moms: found host \"a\", port 0, expected both"),
            (
                "[default.databases.other]\nurl = ''",
                "m.toml: databases.other: there is no such setting; known here: rmom_manager",
            ),
            (
                "[default.databases.rmom_manager]\nhost = 'h'",
                "m.toml: databases.rmom_manager.host: there is no such setting; known here: url, max_connections, min_connections, idle_timeout, connect_timeout, migrate, allow_unsafe_durability",
            ),
        ];
        for (text, expected) in table {
            let error = parse(text, None, &[]).unwrap_err();
            assert!(error.lines().any(|line| line == expected), "{text}:\n{error}");
        }
    }
}
