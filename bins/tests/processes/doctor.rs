//! `rmom doctor` with clusters that are healthy, ill, or missing.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::dev::{Dev, EPHEMERAL};
use crate::support::{Output, eventually, rmom};

/// The lines of one check, as (state, text).
fn lines(output: &Output, check: &str) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(output.text()).unwrap();
    let of_check = document["checks"].as_array().unwrap().iter().filter(|line| line["check"] == check);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    of_check.map(|line| (text(&line["state"]), text(&line["what"]))).collect()
}

#[test]
fn a_cluster_that_is_well_is_told_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    let output = dev.rmom(&["doctor", "--json"], "").success();
    let counts = [
        ("manager", 1),
        ("readiness", 1),
        ("database", 1),
        ("leader", 1),
        ("broker", 3),
        ("connection", 3),
        ("complaints", 1),
        ("clock", 1),
        ("version", 1),
    ];
    for (check, count) in counts {
        let found = lines(&output, check);
        assert!(found.len() == count && found.iter().all(|(state, _)| state == "ok"), "{check}: {found:?}");
    }
    assert!(lines(&output, "clock")[0].1.contains(" 4 servers "), "{output:?}");
    assert_eq!(lines(&output, "open-files").len(), 1);
    // The readable output.
    let output = dev.rmom(&["doctor"], "").success();
    assert!(output.text().contains("ok       connection  broker 1 at "), "{}", output.text());
}

#[test]
fn a_broker_that_died_is_told_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    dev.rmom(&["dev-broker", "crash", "2"], "").success();
    let output = eventually("the manager notices", || {
        let output = dev.rmom(&["doctor"], "");
        output.text().contains("problem  broker ").then_some(output)
    });
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert_eq!(output.stderr, "rmom: not all is well: 1 problem\n");
    assert!(output.text().contains("remove it for good with: rmom broker forget 2"), "{}", output.text());
}

#[test]
fn a_manager_that_says_nothing_does_not_hold_it_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    let output = rmom(&url, &["doctor", "--json", "--timeout", "1s"], "");
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    let expected = format!("{url} cannot be reached: it did not answer in time");
    assert_eq!(lines(&output, "manager"), [("problem".to_owned(), expected)]);
}
