//! The observations of `rmom doctor`: asks every manager of the command line, and every broker that they name.

use std::{fs, sync::Arc, time::Duration};

use axum::http::StatusCode;
use futures_util::{StreamExt as _, future::join_all, stream};
use rmom_client::{Broker, Status, rustls::ClientConfig};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    ask::{Answer, Asker, MAX_SMALL_ANSWER_BYTES},
    seen::{About, BrokerAnswer, BrokerSeen, Fault, ManagerSeen, Readiness, Seen, printable},
};
use crate::service::{
    STARTING, authority,
    routers::{Kind, VERSION_PATH},
};

/// Number of brokers that are asked at once.
const BROKERS_AT_ONCE: usize = 64;
/// Limit on the time of one broker: a second to connect, and two to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(3);
/// Limit on the bytes of a cluster's state. That of a cluster with thousands of brokers is smaller.
const MAX_STATUS_BYTES: usize = 16 << 20;
/// The file in which Linux lists the limits of a process.
const LIMITS: &str = "/proc/self/limits";

/// Asks all of them. The managers get half of the time, so that the brokers have the other half.
pub(super) async fn look(managers: &[String], tls: Option<Arc<ClientConfig>>, time: Duration) -> Seen {
    let begun = Instant::now();
    let asker = Asker::new(tls);
    let managers = join_all(managers.iter().map(|url| look_at_manager(url, &asker, begun + time / 2))).await;
    let brokers = in_order(brokers(&managers), |broker| look_at_broker(broker, &asker, begun + time)).await;
    let limits = fs::read_to_string(LIMITS).unwrap_or_default();
    Seen { version: crate::VERSION.to_owned(), open_files: open_files(&limits), managers, brokers }
}

/// The brokers named by the managers. A broker is alive if any manager counts it as alive.
fn brokers(managers: &[ManagerSeen]) -> Vec<Broker> {
    let statuses =
        managers.iter().filter(|manager| manager.is_a_manager()).filter_map(|manager| manager.status.as_ref().ok());
    let mut all: Vec<Broker> = Vec::new();
    for broker in statuses.flat_map(|status| &status.brokers) {
        match all.iter_mut().find(|known| (&known.host, known.port) == (&broker.host, broker.port)) {
            Some(known) if broker.live && !known.live => known.clone_from(broker),
            Some(_) => {}
            None => all.push(broker.clone()),
        }
    }
    all.sort_by_key(|broker| broker.id.unwrap_or(u64::MAX));
    all
}

/// The soft limit in Linux's table. `None` means unlimited, or another system.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

async fn look_at_manager(url: &str, asker: &Asker, by: Instant) -> ManagerSeen {
    let begun = Instant::now();
    let (version, ready, status) = tokio::join!(
        asker.get(url, VERSION_PATH, MAX_SMALL_ANSWER_BYTES, by),
        asker.get(url, "/readyz", MAX_SMALL_ANSWER_BYTES, by),
        asker.get(url, "/v1/status", MAX_STATUS_BYTES, by),
    );
    let answers = [&version, &ready, &status].into_iter().flatten();
    ManagerSeen {
        url: url.to_owned(),
        took: answers.map(|answer| answer.at - begun).min(),
        about: version.and_then(|answer| about(&answer)),
        readiness: ready.and_then(|answer| readiness(&answer)),
        status: status.and_then(|answer| status_of(&answer)),
    }
}

/// Asks [`BROKERS_AT_ONCE`] at once, and returns the answers in the order of `items`. A slow one holds up no other.
async fn in_order<T, F: Future>(items: Vec<T>, ask: impl Fn(T) -> F) -> Vec<F::Output> {
    let asked = stream::iter(items.into_iter().enumerate()).map(|(place, item)| {
        let answer = ask(item);
        async move { (place, answer.await) }
    });
    let mut answers: Vec<_> = asked.buffer_unordered(BROKERS_AT_ONCE).collect().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

async fn look_at_broker(broker: Broker, asker: &Asker, by: Instant) -> BrokerSeen {
    if !broker.live {
        return BrokerSeen { broker, connection: None };
    }
    let begun = Instant::now();
    let called = asker.call(&authority(&broker.host, broker.port), by.min(begun + BROKER_TIMEOUT)).await;
    let connection = called.map(|called| BrokerAnswer {
        took: called.at - begun,
        about: called.version.and_then(|answer| about(&answer)),
    });
    BrokerSeen { broker, connection: Some(connection) }
}

/// Reads the answer of `/version`. Older servers have no such page.
fn about(answer: &Answer) -> Result<About, Fault> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(About::default()),
        _ => return Err(not_ours(answer)),
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(|_| not_ours(answer))?;
    let ahead_millis =
        body["unix_millis"].as_i64().map(|told| ahead(told, answer.asked_millis, answer.answered_millis));
    let kind = body["server"]
        .as_str()
        .and_then(|name| [Kind::Broker, Kind::Manager].into_iter().find(|kind| kind.name() == name));
    Ok(About { kind, version: body["version"].as_str().map(printable), ahead_millis })
}

/// The least time by which a clock is ahead that was read between these two readings of this machine's clock. Negative if it
/// is behind.
fn ahead(told: i64, asked: i64, answered: i64) -> i64 {
    // This machine's clock may have been set back in between.
    let (first, last) = (asked.min(answered), asked.max(answered));
    told.saturating_sub(told.clamp(first, last))
}

/// Reads the answer of `/readyz`, if a manager gave it.
fn readiness(answer: &Answer) -> Result<Readiness, Fault> {
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match answer.status {
        // A broker does not say whether it leads.
        StatusCode::OK if document["status"] == "ready" && document["leading"].is_boolean() => Ok(Readiness::Ready),
        StatusCode::SERVICE_UNAVAILABLE => {
            // A server that opens its database answers with a line of text.
            if let Some(reason) = answer.body.strip_prefix(b"not ready: ") {
                let reason = printable(&String::from_utf8_lossy(reason));
                return Ok(if reason == STARTING { Readiness::Starting } else { Readiness::Waiting(reason) });
            }
            match document["reason"].as_str() {
                Some(reason) if document["status"] == "not ready" => Ok(Readiness::NotReady {
                    code: document["code"].as_str().map(printable),
                    reason: printable(reason),
                }),
                _ => Err(not_ours(answer)),
            }
        }
        _ => Err(not_ours(answer)),
    }
}

/// Reads the answer of `/v1/status`.
fn status_of(answer: &Answer) -> Result<Status, Fault> {
    if answer.status != StatusCode::OK {
        return Err(not_ours(answer));
    }
    let mut status: Status = serde_json::from_slice(&answer.body).map_err(|error| {
        Fault::NotOurs(format!("{}, but not as expected: {}", answer.status, printable(&error.to_string())))
    })?;
    let brokers = status.brokers.iter_mut().flat_map(|broker| [&mut broker.host, &mut broker.state]);
    let problems = status.problems.iter_mut().flat_map(|problem| [&mut problem.what, &mut problem.next]);
    for text in brokers.chain(problems).chain(&mut status.notes) {
        *text = printable(text);
    }
    Ok(status)
}

/// The body may be a page of HTML, and does not help.
fn not_ours(answer: &Answer) -> Fault {
    let unlike = if answer.status.is_success() { ", but not as expected" } else { "" };
    Fault::NotOurs(format!("{}{unlike}", answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &[u8]) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.to_vec().into(),
            asked_millis: 1_000,
            answered_millis: 2_000,
            at: Instant::now(),
        }
    }

    fn live_broker(id: u64) -> Broker {
        Broker {
            id: Some(id),
            host: "127.0.0.1".into(),
            port: 1,
            state: "up".into(),
            live: true,
            queues: 0,
            gone: false,
        }
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let table = "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max processes             95943                95943                processes \n\
                     Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(table), Some(1_024));
        assert_eq!(open_files(&table.replace("1024  ", "unlimited")), None);
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn a_clock_is_off_only_as_far_as_the_answers_time_does_not_explain() {
        assert_eq!(ahead(1_500, 1_000, 2_000), 0);
        assert_eq!(ahead(2_500, 1_000, 2_000), 500);
        assert_eq!(ahead(400, 1_000, 2_000), -600);
        assert_eq!(ahead(1_500, 2_000, 1_000), 0);
        assert_eq!(ahead(i64::MIN, 1, 2), i64::MIN);
    }

    #[test]
    fn a_version_comes_with_a_time_or_not_at_all() {
        let told = br#"{"server":"broker","version":"0.1.0 (0123456789ab)","unix_millis":5000}"#;
        let expected =
            About { kind: Some(Kind::Broker), version: Some("0.1.0 (0123456789ab)".into()), ahead_millis: Some(3_000) };
        assert_eq!(about(&answer(200, told)), Ok(expected));
        assert_eq!(about(&answer(200, b"{}")), Ok(About::default()), "an older server");
        assert_eq!(about(&answer(404, b"nothing here\n")), Ok(About::default()), "an older server");
        let fault = |text: &str| Err(Fault::NotOurs(text.into()));
        assert_eq!(about(&answer(502, b"<html>")), fault("502 Bad Gateway"));
        assert_eq!(about(&answer(200, b"<html>")), fault("200 OK, but not as expected"));
    }

    #[test]
    fn a_manager_that_is_not_ready_says_why() {
        let said = |status, body: &str| readiness(&answer(status, body.as_bytes()));
        let not_ready = |code: Option<&str>, reason: &str| {
            Ok(Readiness::NotReady { code: code.map(str::to_owned), reason: reason.to_owned() })
        };
        assert_eq!(said(200, r#"{"status":"ready","leading":false}"#), Ok(Readiness::Ready));
        let document = r#"{"status":"not ready","code":"STORE_UNAVAILABLE","reason":"it is\ndown"}"#;
        assert_eq!(said(503, document), not_ready(Some("STORE_UNAVAILABLE"), "it is\\ndown"));
        assert_eq!(said(503, r#"{"status":"not ready","reason":"full"}"#), not_ready(None, "full"));
        assert_eq!(said(503, "not ready: starting\n"), Ok(Readiness::Starting));
        assert_eq!(said(503, "not ready: no database\n"), Ok(Readiness::Waiting("no database".into())));
        // Other servers.
        for (status, body) in [
            (200, r#"{"status":"ready"}"#),
            (200, "<html>"),
            (302, ""),
            (401, r#"{"status":"not ready","reason":"full"}"#),
            (502, "not ready: at all"),
            (503, r#"{"status":"not ready","reasons":["a broker's"]}"#),
            (503, r#"{"reason":"full"}"#),
        ] {
            assert!(matches!(said(status, body), Err(Fault::NotOurs(_))), "{status} {body}");
        }
    }

    #[test]
    fn the_texts_of_a_status_are_printable() {
        let document = r#"{"manager_id":"00000000-0000-0000-0000-000000000001","leading":true,"leader_id":null,"term":1,
            "brokers":[{"id":1,"host":"b\u001b[2J","port":1,"state":"up\n","live":true,"queues":0,"gone":false}],
            "counters":{"failovers":0,"handovers":0,"rebalanced":0},"healthy":false,
            "problems":[{"what":"a\nb","next":"\u202e"}],"notes":["\u0007x"]}"#;
        let status = status_of(&answer(200, document.as_bytes())).unwrap();
        assert_eq!((&*status.brokers[0].host, &*status.brokers[0].state), ("b\\u{1b}[2J", "up"));
        assert_eq!((&*status.problems[0].what, &*status.problems[0].next), ("a\\nb", "\\u{202e}"));
        assert_eq!(status.notes, ["\\u{7}x"]);
        assert_eq!(status_of(&answer(401, b"")).unwrap_err(), Fault::NotOurs("401 Unauthorized".into()));
        let fault = status_of(&answer(200, b"{}")).unwrap_err().to_string();
        assert!(fault.starts_with("it answered 200 OK, but not as expected: missing field"), "{fault}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_broker_holds_up_no_other() {
        // The second slow one follows as many others as are asked at once.
        let items: Vec<usize> = (0..200).collect();
        let begun = Instant::now();
        let slow = |item| if item == 0 || item == BROKERS_AT_ONCE { BROKER_TIMEOUT } else { Duration::ZERO };
        let answers = in_order(items.clone(), async |item| {
            tokio::time::sleep(slow(item)).await;
            item
        });
        assert_eq!(answers.await, items);
        assert!(begun.elapsed() < BROKER_TIMEOUT * 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_broker_that_any_manager_counts_as_alive_is_asked() {
        let broker = |live| Broker { host: "b".into(), live, ..live_broker(1) };
        let manager = |live| ManagerSeen {
            url: String::new(),
            took: Some(Duration::ZERO),
            about: Ok(About::default()),
            readiness: Ok(Readiness::Ready),
            status: Ok(super::super::tests::status(vec![broker(live)])),
        };
        assert_eq!(brokers(&[manager(false), manager(true), manager(false)]), [broker(true)]);
        let other = |id| Broker { id, host: "c".into(), port: id.unwrap_or(2) as u16, ..broker(true) };
        let mut several = manager(true);
        several.status = Ok(super::super::tests::status(vec![other(None), other(Some(9)), broker(true)]));
        assert_eq!(brokers(&[several]), [broker(true), other(Some(9)), other(None)]);
    }
}
