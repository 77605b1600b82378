//! `rmom doctor` with clusters that are healthy, ill, or missing.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::dev::{Dev, EPHEMERAL};
use crate::support::{Output, eventually, get, rmom};

/// The lines of one check, as (state, text).
fn lines(output: &Output, check: &str) -> Vec<(String, String)> {
    let document: Value = serde_json::from_str(output.text()).unwrap();
    let of_check = document["checks"].as_array().unwrap().iter().filter(|line| line["check"] == check);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    of_check.map(|line| (text(&line["state"]), text(&line["what"]))).collect()
}

/// Starts a server that answers each path as told, over HTTP/1.0: it closes the connection after its answer. `None` means that
/// it does not answer. Returns its URL.
pub(super) fn server(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve(stream, &*answer));
        }
    });
    url
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> Option<String>) {
    let mut head = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let request = head.next().unwrap_or_default();
    head.for_each(drop);
    // The test sees a failure to write as a missing answer.
    let _ = match answer(request.split(' ').nth(1).unwrap_or_default()) {
        Some(text) => stream.write_all(format!("HTTP/1.0 {text}").as_bytes()),
        None => stream.read_to_end(&mut Vec::new()).map(drop),
    };
}

/// The answer of another server.
fn forwarded(url: &str, path: &str) -> Option<String> {
    let (status, body) = get(url.strip_prefix("http://")?, path)?;
    Some(format!("{status} Forwarded\r\ncontent-type: application/json\r\n\r\n{body}"))
}

/// Asserts that a check has one line, in this state and with this text.
#[track_caller]
fn assert_line(output: &Output, check: &str, state: &str, text: &str) {
    let found = lines(output, check);
    assert!(found.len() == 1 && found[0].0 == state && found[0].1.contains(text), "{check}: {found:?}");
}

#[test]
fn a_proxy_may_close_each_connection_after_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    let manager = dev.manager.clone();
    let proxy = server(move |path| forwarded(&manager, path));
    let output = rmom(&proxy, &["doctor", "--json"], "").success();
    assert_line(&output, "manager", "ok", " answers in ");
    assert_line(&output, "database", "ok", " reaches the database");
}

#[test]
fn another_server_is_not_taken_for_a_manager() {
    let page = "502 Bad Gateway\r\n\r\n<html>\x1b[2J bad gateway</html>";
    let output = rmom(&server(|_| Some(page.to_owned())), &["doctor", "--json"], "");
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert_line(&output, "manager", "problem", " answered 502 Bad Gateway");
    for check in ["readiness", "database", "version"] {
        assert_eq!(lines(&output, check), [], "{check}");
    }
    assert!(output.text().contains("Is this address a proxy or another server?"), "{}", output.text());
    assert!(!output.text().contains("<html>"), "{}", output.text());

    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    let output = rmom(&format!("http://{}", dev.brokers[0]), &["doctor", "--json"], "");
    assert_line(&output, "manager", "problem", " is a broker, not a manager");
    assert_eq!(lines(&output, "database"), []);
}

#[test]
fn one_slow_answer_does_not_hide_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    for slow in ["/version", "/readyz", "/v1/status"] {
        let manager = dev.manager.clone();
        let proxy = server(move |path| if path == slow { None } else { forwarded(&manager, path) });
        let output = rmom(&proxy, &["doctor", "--json", "--timeout", "4s"], "");
        let text = output.text();
        assert!(text.contains(&format!("{slow}: it did not answer in time")), "{text}");
        assert_eq!(lines(&output, "manager")[0].0, "ok", "{text}");
        assert_eq!(lines(&output, "database").len(), usize::from(slow != "/readyz"), "{text}");
        assert_eq!(lines(&output, "connection").len(), if slow == "/v1/status" { 0 } else { 3 }, "{text}");
        assert_eq!(output.code, Some(if slow == "/version" { 0 } else { 4 }), "{text}");
    }
}

#[test]
fn text_from_servers_is_printed_without_control_characters_and_cut() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(directory.path(), EPHEMERAL);
    let manager = dev.manager.clone();
    let note = format!("\"notes\":[\"\\u001b[2J{}\"]", "x".repeat(1_000));
    let proxy = server(move |path| Some(forwarded(&manager, path)?.replace("\"notes\":[]", &note)));
    let output = rmom(&proxy, &["doctor"], "").success();
    let line = output.text().lines().find(|line| line.starts_with("warning  complaints")).unwrap();
    assert!(line.contains("complaints  \\u{1b}[2Jxxx") && line.ends_with("xx…") && line.len() < 250, "{line}");
}

/// Writes a certificate that `--ca` accepts.
fn ca(directory: &Path) -> String {
    let file = directory.join("ca.pem");
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(&file, certificate.pem()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_server_without_tls_is_told_to_be_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let output = rmom(&url, &["doctor", "--json", "--ca", &ca(directory.path())], "");
    assert_line(&output, "manager", "problem", " cannot be reached: ");
    assert!(output.text().contains("speaks no TLS"), "{}", output.text());
}

#[test]
fn a_connection_takes_no_longer_than_a_clients_may() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let output = rmom(&url, &["doctor", "--json", "--ca", &ca(directory.path()), "--timeout", "4s"], "");
    assert_line(&output, "manager", "problem", " cannot be reached: no connection within 1s");
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
    assert!(lines(&output, "clock")[0].1.ends_with(" 4 servers"), "{output:?}");
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
