//! docs/configuration.md has the tables of settings.

use std::collections::BTreeMap;

use super::{BrokerConfig, ManagerConfig, Row};

const PAGE: &str = include_str!("../../../docs/configuration.md");
const HEAD: &str = "| setting | variable | type, unit | default | from, to | meaning |";

/// The rows of both programs. The page has those once that are the same for both.
fn rows() -> Vec<Row> {
    let mut all = BrokerConfig::rows();
    for row in ManagerConfig::rows() {
        if !all.contains(&row) {
            all.push(row);
        }
    }
    all
}

fn line(row: &Row) -> String {
    let (variable, Row { path, unit, default, limits, meaning, .. }) = (row.variable(), row);
    format!("| `{path}` | `{variable}` | {unit} | {default} | {limits} | {meaning} |")
}

#[test]
fn the_page_has_the_tables_of_settings() {
    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for row in rows() {
        expected.entry(row.heading).or_default().push(line(&row));
    }
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut heading, mut in_table) = ("", false);
    for text in PAGE.lines() {
        heading = text.strip_prefix('#').map_or(heading, |rest| rest.trim_start_matches('#').trim());
        in_table = text == HEAD || (in_table && text.starts_with('|'));
        if in_table && text.starts_with("| `") {
            found.entry(heading).or_default().push(text.to_owned());
        }
    }
    for (heading, lines) in &expected {
        let has = found.get(heading).cloned().unwrap_or_default();
        assert_eq!(has, *lines, "the table below {heading:?} has to be:\n{}\n", lines.join("\n"));
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
}

#[test]
fn a_setting_stands_once_in_each_program() {
    for rows in [BrokerConfig::rows(), ManagerConfig::rows()] {
        let mut paths: Vec<&str> = rows.iter().map(|row| row.path.as_str()).collect();
        paths.sort_unstable();
        let all = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), all);
    }
}
