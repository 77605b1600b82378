//! Compares docs/configuration.md with the programs: settings, variables, defaults and limits.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;

use crate::support::rmom_in;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md"));

/// Settings that `--check-config` prints only if they are set, or as part of the URL.
const NOT_PRINTED: [&str; 9] = [
    "database.host",
    "database.port",
    "database.user",
    "database.password",
    "database.dbname",
    "tls.cert",
    "tls.key",
    "tls.ca",
    "tls.client_ca",
];
/// Settings whose default depends on others, or that have none.
const NO_DEFAULT: [&str; 4] = ["external_host", "external_port", "database.url", "moms"];
/// Settings whose limits are those of their type, or depend on others.
const NO_LIMITS: [&str; 4] = ["port", "external_host", "external_port", "database.min_connections"];
/// More than any limit, for settings that may be 0.
const TOO_LARGE: u64 = 4_294_967_295;

struct Row<'p> {
    variable: &'p str,
    default: &'p str,
    limits: &'p str,
}

/// The settings on the page below these headings.
fn rows(headings: [&str; 2]) -> BTreeMap<&'static str, Row<'static>> {
    let mut rows = BTreeMap::new();
    let mut heading = "";
    for line in PAGE.lines() {
        heading = line.strip_prefix("## ").unwrap_or(heading);
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let [_, setting, variable, _, default, limits, _, _] = cells[..]
            && variable.starts_with("`RMOM_")
            && headings.iter().any(|wanted| heading.starts_with(wanted))
        {
            let row = Row { variable: variable.trim_matches('`'), default, limits };
            assert!(rows.insert(setting.trim_matches('`'), row).is_none(), "{setting} stands on the page twice");
        }
    }
    rows
}

/// Adds each setting below `value` with its path.
fn flatten(path: &str, value: &Value, settings: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(section) => {
            for (key, value) in section {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, settings);
            }
        }
        Value::String(text) => _ = settings.insert(path.to_owned(), text.clone()),
        other => _ = settings.insert(path.to_owned(), other.to_string()),
    }
}

/// The settings printed by `--check-config`. The name of a manager's database is replaced by the one in its variables.
fn printed(program: &str, text: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    if program == "rmom-broker" {
        flatten("", &serde_norway::from_str(text).unwrap(), &mut settings);
        return settings;
    }
    let profiles: BTreeMap<String, Value> = toml::from_str(text).unwrap();
    flatten("", &profiles["default"], &mut settings);
    settings.into_iter().map(|(path, value)| (path.replace("databases.rmom_manager.", "database."), value)).collect()
}

/// The lowest and the highest value, if they are on the page.
fn limits(cell: &str) -> Option<(u64, u64)> {
    let numbers: Vec<u64> =
        cell.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).flat_map(str::parse).collect();
    Some((*numbers.first()?, *numbers.last().filter(|_| numbers.len() > 1)?))
}

/// The differences between the page and a program.
fn differences(program: &str, file: &Path, rows: &BTreeMap<&str, Row<'_>>) -> Vec<String> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap();
    let folder = file.parent().unwrap();
    let mut found = Vec::new();
    let printed = printed(program, rmom_in(folder, program, &[name, "--check-config"], &[]).success().text());
    for (setting, value) in &printed {
        match rows.get(setting.as_str()) {
            None => found.push(format!("{program}: {setting} is not on the page")),
            Some(row) if !NO_DEFAULT.contains(&setting.as_str()) && !row.default.contains(&format!("`{value}`")) => {
                found.push(format!("{program}: {setting} is {value}, not {}", row.default));
            }
            Some(_) => {}
        }
    }
    let unknown = rows.keys().filter(|key| !printed.contains_key(**key) && !NOT_PRINTED.contains(key));
    found.extend(unknown.map(|key| format!("{program} has no setting {key}")));

    // All of them out of range at once; every error names the limits.
    let bounded: Vec<_> = rows
        .iter()
        .filter(|(setting, _)| !NO_LIMITS.contains(setting) && !NOT_PRINTED.contains(setting))
        .filter_map(|(setting, row)| Some((*setting, row.variable, limits(row.limits)?)))
        .collect();
    let values: Vec<String> =
        bounded.iter().map(|(_, _, (lowest, _))| if *lowest > 0 { 0 } else { TOO_LARGE }.to_string()).collect();
    let variables: Vec<(&str, &str)> =
        bounded.iter().zip(&values).map(|((_, variable, _), value)| (*variable, value.as_str())).collect();
    let output = rmom_in(folder, program, &[name, "--check-config"], &variables);
    for (setting, _, (lowest, highest)) in &bounded {
        let place = setting.strip_prefix("database.").filter(|_| program == "rmom-manager");
        let place = place.map_or_else(|| (*setting).to_owned(), |key| format!("databases.rmom_manager.{key}"));
        let complaint = output.stderr.lines().find(|line| line.starts_with(&format!("{name}: {place}: ")));
        if !complaint.is_some_and(|line| line.ends_with(&format!("{lowest} to {highest}"))) {
            found.push(format!("{program}: {setting} has other limits than {lowest} to {highest}: {complaint:?}"));
        }
    }
    assert!(bounded.len() > 20, "the page's tables were read: {}", bounded.len());
    found
}

#[test]
fn the_page_has_every_setting_with_its_variable_default_and_limits() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, manager) = (folder.path().join("b.yaml"), folder.path().join("m.toml"));
    fs::write(&broker, "database: {url: 'sqlite:x.db'}\n").unwrap();
    fs::write(&manager, "[default.databases.rmom_manager]\nurl = 'sqlite:x.db'\n").unwrap();
    let found: Vec<String> = [("rmom-broker", &broker, "Brokers"), ("rmom-manager", &manager, "Managers")]
        .into_iter()
        .flat_map(|(program, file, heading)| differences(program, file, &rows([heading, "Both"])))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}
