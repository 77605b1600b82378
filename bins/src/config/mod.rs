//! The configuration files: a broker's YAML and a manager's TOML, as in the original system, with keys of ours added.
//! Environment variables override both.
//!
//! The variable for a setting is `RMOM_` and the key in capitals, with `__` between the parts of a path: `RMOM_PORT`,
//! `RMOM_DATABASE__HOST`. An unknown key, or a value of the wrong type, is an error that names its place and the expected
//! value. Keys of the original's that have no meaning here are accepted with a warning.

mod broker;
mod connections;
mod database;
mod log;
mod manager;
mod profiles;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod tree;

use std::{
    ffi::OsStr,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

pub use broker::BrokerConfig;
pub use connections::ConnectionsConfig;
pub use database::{DatabaseConfig, DatabaseUrl};
pub use log::{LogConfig, LogFormat};
pub use manager::{DEFAULT_FILE, ManagerConfig};
pub use table::Row;
pub use tls::TlsConfig;

/// Largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Prefix of our environment variables.
const PREFIX: &str = "RMOM_";

/// Variables with our prefix that are not settings of a broker or manager, but of the command line, the tests and the build.
const NOT_SETTINGS: &[&str] =
    &["RMOM_MANAGER", "RMOM_CA", "RMOM_CERT", "RMOM_KEY", "RMOM_TEST_DATABASE_URL", "RMOM_COMMIT"];

/// True if an environment variable of this name configures a server.
#[must_use]
pub fn configures_servers(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name.starts_with(PREFIX) || name.starts_with("ROCKET_") || name == "RUST_LOG"
}

/// A fault in a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist or is not readable.
    #[error("{}: cannot be read: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The file is not YAML, or not TOML.
    #[error("{}: {reason}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The place and the reason.
        reason: String,
    },
    /// The profile is not in the file.
    #[error("{}: there is no profile {profile:?}; known: {}", file.display(), known.join(", "))]
    UnknownProfile {
        /// The file.
        file: PathBuf,
        /// The requested profile.
        profile: String,
        /// The profiles in the file.
        known: Vec<String>,
    },
    /// Unknown, ill-typed, missing or contradictory settings; all of them are listed.
    #[error("{}", one_per_line(file, problems))]
    Settings {
        /// The file.
        file: PathBuf,
        /// One for each mistake.
        problems: Vec<Problem>,
    },
}

/// A mistake in a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key, such as `database.port`.
    pub place: String,
    /// The fault, and the expected value.
    pub reason: String,
}

fn one_per_line(file: &Path, problems: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{}: {}: {}", file.display(), problem.place, problem.reason);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A configuration with its warnings.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub config: T,
    /// Settings that were accepted but deserve a look.
    pub warnings: Vec<String>,
}

/// The environment variables, as returned by `std::env::vars`; a parameter so that tests need no separate process.
pub type Environment = Vec<(String, String)>;

/// The variables of this process, without those that are not Unicode.
#[must_use]
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A text that is never shown: not in errors, logs, `Debug` output, or the effective configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd)]
pub struct Secret(String);

impl Secret {
    /// Shown in its place.
    const SHOWN: &str = "(hidden)";

    /// Hides `text`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The text itself, for connecting.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::SHOWN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::SHOWN)
    }
}

fn read_file(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { file: file.to_owned(), reason };
    let metadata = std::fs::metadata(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => unreadable("there is no such file".to_owned()),
        _ => unreadable(error.to_string()),
    })?;
    if metadata.is_dir() {
        return Err(unreadable("it is a directory".to_owned()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(unreadable(format!("it has {} bytes; the limit is {MAX_FILE_BYTES}", metadata.len())));
    }
    let bytes = std::fs::read(file).map_err(|error| unreadable(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| unreadable(format!("it is not UTF-8: {error}")))
}

fn parse_yaml(file: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let syntax = |reason: String| ConfigError::Syntax { file: file.to_owned(), reason };
    // Through YAML's own value, which refuses a duplicate key.
    let mut yaml: serde_norway::Value = serde_norway::from_str(text).map_err(|error| syntax(error.to_string()))?;
    yaml.apply_merge().map_err(|error| syntax(error.to_string()))?;
    let mut endless = Vec::new();
    endless_in_yaml("", &yaml, &mut endless);
    refuse_endless(file, endless)?;
    match serde_json::to_value(yaml).map_err(|error| syntax(error.to_string()))? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(syntax("it holds no settings; write one `key: value` per line".to_owned())),
    }
}

fn parse_toml(file: &Path, text: &str) -> Result<Map<String, Value>, ConfigError> {
    let syntax = |reason: String| ConfigError::Syntax { file: file.to_owned(), reason };
    let table: toml::Table = toml::from_str(text).map_err(|error| syntax(toml_reason(text, &error)))?;
    let mut endless = Vec::new();
    endless_in_toml("", &table, &mut endless);
    refuse_endless(file, endless)?;
    match serde_json::to_value(table).map_err(|error| syntax(error.to_string()))? {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// The place and the reason, without the line itself, which may contain a password.
fn toml_reason(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|&c| c != '\n').count() + 1);
    format!("{} at line {line} column {column}", error.message())
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Finds numbers that JSON does not have (`.nan`, `.inf`); conversion to JSON would make them look like missing settings.
fn endless_in_yaml(path: &str, value: &serde_norway::Value, found: &mut Vec<String>) {
    match value {
        serde_norway::Value::Number(number) if number.is_nan() || number.is_infinite() => found.push(path.to_owned()),
        serde_norway::Value::Sequence(items) => items.iter().for_each(|item| endless_in_yaml(path, item, found)),
        serde_norway::Value::Mapping(map) => {
            for (key, value) in map {
                endless_in_yaml(&below(path, key.as_str().unwrap_or("?")), value, found);
            }
        }
        serde_norway::Value::Tagged(tagged) => endless_in_yaml(path, &tagged.value, found),
        _ => {}
    }
}

/// Like [`endless_in_yaml`], for `nan` and `inf`.
fn endless_in_toml(path: &str, table: &toml::Table, found: &mut Vec<String>) {
    for (key, value) in table {
        let path = below(path, key);
        let mut values = vec![value];
        while let Some(value) = values.pop() {
            match value {
                toml::Value::Float(number) if !number.is_finite() => found.push(path.clone()),
                toml::Value::Array(items) => values.extend(items),
                toml::Value::Table(table) => endless_in_toml(&path, table, found),
                _ => {}
            }
        }
    }
}

fn refuse_endless(file: &Path, places: Vec<String>) -> Result<(), ConfigError> {
    if places.is_empty() {
        return Ok(());
    }
    let problem = |place| Problem { place, reason: "found a number that is infinite or none at all".to_owned() };
    Err(ConfigError::Settings { file: file.to_owned(), problems: places.into_iter().map(problem).collect() })
}

/// Lets each `RMOM_` variable override the setting that it names.
fn apply_environment(reader: &tree::Reader, environment: &Environment) {
    for (name, text) in environment {
        if NOT_SETTINGS.contains(&name.as_str()) {
            continue;
        }
        if let Some(path) = name.strip_prefix(PREFIX) {
            reader.override_with(path.to_lowercase().replace("__", "."), name, text);
        }
    }
}

/// Calls of the store have to fail before the lease does.
fn check_store_timeout(root: &tree::Section<'_>, timeout_millis: u64, lease_millis: u64) {
    if timeout_millis >= lease_millis {
        let reason = format!("found {timeout_millis}, expected less than lease_millis, which is {lease_millis}");
        root.problem("store_timeout_millis", reason);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A path in a configuration file is relative to that file.
fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().map_or_else(|| path.to_owned(), |parent| parent.join(path))
}
