//! A manager's TOML, in Rocket's form: a table per profile.

use std::{path::Path, time::Duration};

use rmom_core::{
    manager::ManagerSettings,
    model::{BrokerAddr, limits::MAX_ASSIGNED_QUEUES},
};
use rmom_net::serve::DEFAULT_SHUTDOWN_DEADLINE;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    ConfigError, ConnectionsConfig, DatabaseConfig, Environment, Loaded, LogConfig, TlsConfig, apply_environment,
    check_store_timeout, millis, parse_toml,
    profiles::{DEFAULT, ROCKETS_OWN, apply_rockets_environment, merge_profiles},
    read_file,
    table::{Limits, Row, settings},
    tree::{Reader, Section, Setting},
};

/// The file that is read if none is named, the same as Rocket's.
pub const DEFAULT_FILE: &str = "Rocket.toml";
/// Limit on the brokers in the list.
const MAX_MOMS: usize = 10_000;

settings! {
    /// Settings of `rmom-manager`.
    pub struct ManagerConfig = read_all(root, file: &Path, core: &ManagerSettings, cycle_millis: u64);

    == "Where it listens, and administration"
    address: String ["text"] = "127.0.0.1".to_owned(), "" => "Address to listen on.";
    port: u16 ["number"] = 8082, 0..=u16::MAX => "Port to listen on; 0 takes a free one.";
    create_timeout_millis: u64 ["ms"] = millis(core.create_deadline), 100..=600_000 =>
        "How long the creation of a queue waits until a broker serves it.";
    admin_timeout_millis: u64 ["ms"] = millis(core.admin_deadline), 100..=600_000 =>
        "Deadline of other administrative operations.";
    max_admin_calls: u32 ["number"] = core.max_admin_calls, 1..=100_000 =>
        "Administrative operations at once. Further ones get `OVERLOADED`.";
    describe_timeout_millis: u64 ["ms"] = millis(core.describe_deadline), 10..=60_000 =>
        "How long a broker may take to describe a queue, its queues of a page, or its own state.";
    shutdown_timeout_secs: u64 ["s"] = DEFAULT_SHUTDOWN_DEADLINE.as_secs(), 1..=600 =>
        "How long a stop in good order may take.";

    == "Leading: probes, moves, deletions"
    manager_cycle_millis: u64 ["ms"] = cycle_millis, 10..=3_600_000 =>
        "How often the leading manager probes the brokers and compares the assignments. The original's `manager_cycle_secs` (1 to 3600) sets it too; this one wins.";
    life_probe_timeout_millis: u64 ["ms"] = millis(core.probe_deadline), 10..=60_000 => "Deadline of one life probe.";
    life_probe_max_retries: u32 ["number"] = core.life_probe_max_retries, 0..=100 =>
        "Number of retries of a failed life probe before the broker counts as dead.";
    life_probe_retry_delay_millis: u64 ["ms"] = millis(core.life_probe_retry_delay), 0..=60_000 =>
        "Pause before each retry.";
    max_concurrent_probes: usize ["number"] = core.max_concurrent_probes, 1..=10_000 => "Life probes at once.";
    lease_millis: u64 ["ms"] = millis(core.lease), 300..=600_000 =>
        "How long the leading manager may be silent before another one leads. It renews three times as often.";
    store_timeout_millis: u64 ["ms"] = lease_millis * 2 / 3,
        Limits::from(50..=600_000).default_says("2/3 of `lease_millis`: `2000`") =>
        "Deadline of one call of the database; less than `lease_millis`.";
    max_moves_per_cycle: usize ["number"] = core.max_moves_per_cycle, 1..=1_000_000 =>
        "Queues that a cycle moves from dead brokers before it probes again.";
    drain_moves_per_cycle: usize ["number"] = core.drain_moves_per_cycle, 1..=MAX_ASSIGNED_QUEUES =>
        "Queues that a cycle moves from draining brokers.";
    rebalance: bool ["yes/no"] = core.rebalance, "" =>
        "Whether queues are moved from brokers with many to brokers with few.";
    rebalance_after_secs: u64 ["s"] = core.rebalance_after.as_secs(), 0..=86_400 =>
        "How long all brokers must be healthy before rebalancing begins.";
    rebalance_tolerance: u64 ["number"] = core.rebalance_tolerance, 0..=1_000_000 =>
        "Difference in queues between two brokers that is left alone; at least a tenth of the average is.";
    rebalance_moves_per_cycle: usize ["number"] = core.rebalance_moves_per_cycle, 1..=MAX_ASSIGNED_QUEUES =>
        "Queues that a cycle moves to rebalance.";
    nudge_timeout_millis: u64 ["ms"] = millis(core.nudge_deadline), 10..=60_000 =>
        "How long a broker may take to serve a queue when the manager nudges it.";
    max_concurrent_nudges: usize ["number"] = core.max_concurrent_nudges, 1..=10_000 => "Such calls at once.";
    max_pending_nudges: usize ["number"] = core.max_pending_nudges, 1..=1_000_000 =>
        "Such calls that wait. Beyond that, brokers find out on their own.";
    purge_batches: u32 ["number"] = core.purge_batches, 1..=100_000 =>
        "Batches of deleted queues that the leading manager removes in one step.";

    == "Known brokers"
    moms: Vec<BrokerAddr> ["list"] = core.moms.clone(), Limits::from("10000 entries").default_says("empty") =>
        "Brokers that are probed and reported before they have registered: `{ host = \"…\", port = … }`. Others register themselves. As a variable: `host:port,host:port`.";

    + parts
    /// Connections.
    #[serde(flatten)]
    connections: ConnectionsConfig = ConnectionsConfig::read(root);
    /// The store.
    databases: Databases = Databases::read(root.section("databases"), file);
    /// Certificates.
    #[serde(skip_serializing_if = "TlsConfig::is_empty")]
    tls: TlsConfig = TlsConfig::read(root.section("tls"), file);
    /// Logging.
    log: LogConfig = LogConfig::read(root.section("log"));
}

/// The original's name for the store.
#[derive(Clone, Debug, Serialize)]
pub struct Databases {
    /// The store.
    pub rmom_manager: DatabaseConfig,
}

impl Databases {
    fn read(mut section: Section<'_>, file: &Path) -> Self {
        let rmom_manager = DatabaseConfig::read(section.section("rmom_manager"), file, false);
        section.finish();
        Self { rmom_manager }
    }
}

impl Setting for Vec<BrokerAddr> {
    const EXPECTED: &'static str = "a list of { host = \"…\", port = … }";

    fn from_value(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(|one| serde_json::from_value(one.clone()).ok()).collect()
    }

    fn shown(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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

    /// The tables of the settings. The database's have the paths that they have in a broker's file, as in variables.
    #[must_use]
    pub fn rows() -> Vec<Row> {
        let reader = Reader::new(Path::new(""));
        Self::read(reader.section("", Map::new()), Path::new(""));
        let renamed = |row: Row| Row { path: row.path.replace("databases.rmom_manager.", "database."), ..row };
        reader.rows().into_iter().map(renamed).collect()
    }

    fn read(mut root: Section<'_>, file: &Path) -> Self {
        for key in ROCKETS_OWN {
            root.ignore(key);
        }
        let core = ManagerSettings::default();
        let cycle_millis = match root.has("manager_cycle_secs") {
            true => root.number("manager_cycle_secs", 1, 1..=3_600) * 1_000,
            false => {
                root.skip("manager_cycle_secs");
                millis(core.cycle)
            }
        };
        let config = Self::read_all(&mut root, file, &core, cycle_millis);
        config.check(&root);
        root.finish();
        config
    }

    /// Settings that depend on each other, and the list.
    fn check(&self, root: &Section<'_>) {
        check_store_timeout(root, self.store_timeout_millis, self.lease_millis);
        let moms = &self.moms;
        if moms.len() > MAX_MOMS {
            root.problem("moms", format!("there are {}; the limit is {MAX_MOMS}", moms.len()));
        }
        if let Some(bad) = moms.iter().find(|mom| mom.host.is_empty() || mom.port == 0) {
            root.problem("moms", format!("found host {:?}, port {}, expected both", bad.host, bad.port));
        }
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

#[cfg(test)]
mod tests;
