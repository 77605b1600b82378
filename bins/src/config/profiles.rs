//! Rocket's profiles and variables: how a manager's file becomes one set of settings.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};

use super::{
    ConfigError, Environment,
    tree::{Reader, nearest},
};

/// Every other profile overrides this one.
pub(super) const DEFAULT: &str = "default";
/// This profile overrides every other.
const GLOBAL: &str = "global";
/// Rocket's own profiles, which can be chosen even if they are not in the file.
const BUILT_IN: [&str; 3] = [DEFAULT, "debug", "release"];
/// Keys of Rocket that have no meaning here.
pub(super) const ROCKETS_OWN: [&str; 11] = [
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

/// Merges `default`, the profile and `global`; the later ones override the earlier.
pub(super) fn merge_profiles(
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
pub(super) fn apply_rockets_environment(reader: &Reader, environment: &Environment, merged: &mut Map<String, Value>) {
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
                        "the environment variable {name} is not a TOML table such as {{rmom_manager={{url=\"…\"}}}}"
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
