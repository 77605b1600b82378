//! Every check, from the observations to the output.

use std::time::Duration;

use rmom_client::{Broker, Counters, Problem, Status, Uuid};

use super::{
    checks::{Finding, Level, all},
    seen::{About, BrokerAnswer, BrokerSeen, Cause, Fault, ManagerSeen, Readiness, Seen},
};
use crate::service::Kind;

pub(super) fn status(brokers: Vec<Broker>) -> Status {
    Status {
        manager_id: Uuid::from_u128(1),
        leading: true,
        leader_id: Some(Uuid::from_u128(1)),
        term: 3,
        brokers,
        counters: Counters { failovers: 0, handovers: 0, rebalanced: 0 },
        healthy: true,
        problems: Vec::new(),
        notes: Vec::new(),
    }
}

fn about() -> About {
    About { kind: None, version: Some("1 (a)".into()), ahead_millis: Some(-3) }
}

fn answering(url: &str) -> ManagerSeen {
    ManagerSeen {
        url: url.into(),
        took: Some(Duration::from_millis(2)),
        about: Ok(about()),
        readiness: Ok(Readiness::Ready),
        status: Ok(status(Vec::new())),
    }
}

fn silent(reason: &str, cause: Cause) -> Fault {
    Fault::NoAnswer { reason: reason.into(), cause }
}

/// None of the manager's requests has an answer.
fn fail(manager: &mut ManagerSeen, fault: &Fault) {
    (manager.took, manager.about, manager.readiness, manager.status) =
        (None, Err(fault.clone()), Err(fault.clone()), Err(fault.clone()));
}

fn broker(id: u64) -> BrokerSeen {
    let broker = Broker {
        id: Some(id),
        host: format!("b{id}"),
        port: 5,
        state: "up".into(),
        live: true,
        queues: 7,
        gone: false,
    };
    BrokerSeen { broker, connection: Some(Ok(BrokerAnswer { took: Duration::from_millis(4), about: Ok(about()) })) }
}

/// A dead broker, which was not contacted.
fn dead(id: u64, change: impl FnOnce(&mut Broker)) -> BrokerSeen {
    let mut dead = BrokerSeen { connection: None, ..broker(id) };
    dead.broker.live = false;
    change(&mut dead.broker);
    dead
}

/// One manager and two brokers, all of them healthy.
fn well() -> Seen {
    Seen {
        version: "1 (a)".into(),
        open_files: Some(65_536),
        managers: vec![answering("http://m:1")],
        brokers: vec![broker(1), broker(2)],
    }
}

/// The findings of one check after a change.
fn found(check: &str, change: impl FnOnce(&mut Seen)) -> Vec<Finding> {
    let mut seen = well();
    change(&mut seen);
    let found: Vec<Finding> = all(&seen).into_iter().filter(|finding| finding.check == check).collect();
    for finding in &found {
        assert_eq!(finding.next.is_some(), finding.level != Level::Ok, "{finding:?}");
    }
    found
}

/// The levels and texts of the findings.
fn told(check: &str, change: impl FnOnce(&mut Seen)) -> Vec<(Level, String)> {
    found(check, change).into_iter().map(|finding| (finding.level, finding.what)).collect()
}

fn manager(seen: &mut Seen) -> &mut ManagerSeen {
    &mut seen.managers[0]
}

/// The reports on themselves of the manager and of a broker.
fn about_manager(seen: &mut Seen) -> &mut About {
    manager(seen).about.as_mut().unwrap()
}

fn about_broker(seen: &mut Seen, index: usize) -> &mut About {
    seen.brokers[index].connection.as_mut().unwrap().as_mut().unwrap().about.as_mut().unwrap()
}

fn cluster(seen: &mut Seen) -> &mut Status {
    manager(seen).status.as_mut().unwrap()
}

fn ok(what: &str) -> (Level, String) {
    (Level::Ok, what.into())
}

fn warning(what: &str) -> (Level, String) {
    (Level::Warning, what.into())
}

fn problem(what: &str) -> (Level, String) {
    (Level::Problem, what.into())
}

#[test]
fn all_is_well() {
    let lines: Vec<String> = super::lines(&all(&well()));
    let expected = [
        "ok       manager     http://m:1 answers in 2 ms",
        "ok       readiness   http://m:1 is ready",
        "ok       database    http://m:1 reaches the database",
        "ok       leader      manager 00000000-0000-0000-0000-000000000001 leads, in term 3",
        "ok       broker      broker 1 at b1:5 is alive, with 7 queues",
        "ok       broker      broker 2 at b2:5 is alive, with 7 queues",
        "ok       connection  broker 1 at b1:5 answers over gRPC in 4 ms",
        "ok       connection  broker 2 at b2:5 answers over gRPC in 4 ms",
        "ok       complaints  the managers and the live brokers have no complaints",
        "ok       clock       no difference beyond 3 ms was found between this machine's clock and those of 3 servers",
        "ok       version     this program and the servers that answer are 1 (a)",
        "ok       open-files  a process started from here may open 65536 files",
    ];
    assert_eq!(lines, expected);
    assert_eq!(super::problems(&all(&well())), 0);
}

#[test]
fn what_to_do_next_stands_below() {
    let mut seen = well();
    seen.open_files = Some(256);
    seen.brokers.push(dead(3, |_| {}));
    let findings = all(&seen);
    let lines = super::lines(&findings);
    let line = lines.iter().position(|line| line.starts_with("problem  broker      broker 3")).unwrap();
    let next = "                     Start it again, or remove it for good with: rmom broker forget 3";
    assert_eq!(lines[line + 1], next);
    assert_eq!(super::problems(&findings), 1, "warnings do not count");
    let document = super::document(&findings);
    assert_eq!(document["healthy"], false);
    assert_eq!(document["checks"].as_array().unwrap().len(), findings.len());
    assert_eq!(document["checks"][0]["state"], "ok");
    assert_eq!(document["checks"][0]["next"], serde_json::Value::Null);
}

#[test]
fn a_manager_is_reached_or_not() {
    let away = |seen: &mut Seen| fail(manager(seen), &silent("connection refused", Cause::Other));
    assert_eq!(told("manager", away), [problem("http://m:1 cannot be reached: connection refused")]);
    // Without a manager, few other checks are possible.
    let mut seen = well();
    away(&mut seen);
    seen.brokers.clear();
    let checks: Vec<_> = all(&seen).into_iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["manager", "open-files"]);
    for (cause, next) in [
        (Cause::Certificate, "Check that --ca names"),
        (Cause::NoTls, "speaks no TLS"),
        (Cause::NoClientCertificate, "--cert FILE and --key FILE"),
        (Cause::Other, "Is it running?"),
    ] {
        let found = found("manager", |seen: &mut Seen| fail(manager(seen), &silent("it fails", cause)));
        assert!(found[0].next.as_ref().unwrap().contains(next), "{found:?}");
    }
}

#[test]
fn another_server_is_not_taken_for_a_manager() {
    let other = |seen: &mut Seen| fail(manager(seen), &Fault::NotOurs("502 Bad Gateway".into()));
    assert_eq!(told("manager", other), [problem("http://m:1 answered 502 Bad Gateway")]);
    let next = found("manager", other)[0].next.clone().unwrap();
    assert!(next.starts_with("Is this address a proxy or another server?"), "{next}");
    let broker = |seen: &mut Seen| {
        other(seen);
        (manager(seen).took, manager(seen).readiness) = (Some(Duration::ZERO), Ok(Readiness::Ready));
        manager(seen).about = Ok(About { kind: Some(Kind::Broker), ..about() });
    };
    assert_eq!(told("manager", broker), [problem("http://m:1 is a broker, not a manager")]);
    for change in [&other as &dyn Fn(&mut Seen), &broker] {
        assert_eq!((told("readiness", change), told("database", change)), (vec![], vec![]));
        let clocks = "no difference beyond 3 ms was found between this machine's clock and those of 2 servers";
        assert_eq!(told("clock", change), [ok(clocks)]);
    }
}

#[test]
fn one_missing_answer_does_not_hide_the_others() {
    let late = || silent("it did not answer in time", Cause::Other);
    let no_status = |seen: &mut Seen| manager(seen).status = Err(late());
    let expected = "http://m:1 does not tell its /v1/status: it did not answer in time";
    assert_eq!(told("manager", no_status), [ok("http://m:1 answers in 2 ms"), problem(expected)]);
    assert_eq!(told("database", no_status), [ok("http://m:1 reaches the database")]);
    let not_ready = |seen: &mut Seen| manager(seen).readiness = Err(late());
    let expected = "http://m:1 does not tell its /readyz: it did not answer in time";
    assert_eq!((told("readiness", not_ready), told("database", not_ready)), (vec![problem(expected)], vec![]));
    assert_eq!(told("manager", not_ready), [ok("http://m:1 answers in 2 ms")]);
    // Its /version alone names it as a manager.
    let only_version = |seen: &mut Seen| {
        no_status(seen);
        not_ready(seen);
        about_manager(seen).kind = Some(Kind::Manager);
    };
    assert_eq!(told("manager", only_version)[0], ok("http://m:1 answers in 2 ms"));
    assert_eq!((told("readiness", only_version).len(), told("database", only_version).len()), (1, 0));
    let no_versions = |seen: &mut Seen| {
        manager(seen).about = Err(late());
        seen.brokers[0].connection.as_mut().unwrap().as_mut().unwrap().about = Err(Fault::NotOurs("500".into()));
    };
    let expected = [
        warning("manager http://m:1 does not tell its /version: it did not answer in time"),
        warning("broker 1 at b1:5 does not tell its /version: it answered 500"),
        ok("this program and the servers that answer are 1 (a)"),
    ];
    assert_eq!(told("version", no_versions), expected);
    assert_eq!(told("connection", no_versions).len(), 2);
    // A manager that is starting does not know the cluster. Another line says that it is not ready.
    let starts = |seen: &mut Seen| {
        manager(seen).status = Err(Fault::NotOurs("503 Service Unavailable".into()));
        manager(seen).readiness = Ok(Readiness::Starting);
    };
    assert_eq!(told("manager", starts), [ok("http://m:1 answers in 2 ms")]);
    assert_eq!(told("readiness", starts), [problem("http://m:1 is not ready: it is starting")]);
    assert_eq!(told("database", starts), []);
}

#[test]
fn a_manager_says_why_it_is_not_ready() {
    let set = |readiness: Readiness| move |seen: &mut Seen| manager(seen).readiness = Ok(readiness);
    let store = || Readiness::NotReady { code: Some("STORE_UNAVAILABLE".into()), reason: "it is down".into() };
    let expected = "http://m:1 cannot use the database: it is down (STORE_UNAVAILABLE)";
    assert_eq!(told("database", set(store())), [problem(expected)]);
    let waiting = || Readiness::Waiting("cannot reach the database at d:1".into());
    let expected = "http://m:1 waits for the database: cannot reach the database at d:1";
    assert_eq!(told("database", set(waiting())), [problem(expected)]);
    // One cause is one problem.
    assert_eq!((told("readiness", set(store())), told("readiness", set(waiting()))), (vec![], vec![]));
    // The database is not the cause.
    let full = || Readiness::NotReady { code: None, reason: "all connections are taken".into() };
    assert_eq!(told("readiness", set(full())), [problem("http://m:1 is not ready: all connections are taken")]);
    assert_eq!(told("database", set(full())), [ok("http://m:1 reaches the database")]);
    let stopping = || Readiness::NotReady { code: Some("SHUTTING_DOWN".into()), reason: "it stops".into() };
    assert_eq!(told("readiness", set(stopping())), [problem("http://m:1 is not ready: it stops")]);
    assert_eq!(told("database", set(stopping())), []);
}

#[test]
fn the_managers_agree_on_a_leader_or_not() {
    let none = |seen: &mut Seen| (cluster(seen).leading, cluster(seen).leader_id) = (false, None);
    assert_eq!(told("leader", none), [problem("no manager leads: no queue moves to another broker")]);
    let second = |leader: u128| {
        move |seen: &mut Seen| {
            let mut second = status(Vec::new());
            (second.manager_id, second.leading, second.leader_id) =
                (Uuid::from_u128(2), false, Some(Uuid::from_u128(leader)));
            seen.managers.push(ManagerSeen { status: Ok(second), ..answering("http://n:1") });
        }
    };
    let agreed = "manager 00000000-0000-0000-0000-000000000001 leads, in term 3";
    assert_eq!(told("leader", second(1)), [ok(agreed)]);
    assert_eq!(told("leader", second(9)), [warning("the managers name 2 leaders")]);
}

#[test]
fn brokers_are_alive_draining_stopped_dead_or_gone() {
    let set = |broker: BrokerSeen| move |seen: &mut Seen| seen.brokers = vec![broker];
    let mut draining = broker(1);
    draining.broker.state = "draining".into();
    assert_eq!(told("broker", set(draining)), [ok("broker 1 at b1:5 is alive and draining, with 7 queues left")]);
    assert_eq!(told("broker", set(dead(1, |_| {}))), [problem("broker 1 at b1:5 is not alive, and has 7 queues")]);
    let stopped = dead(1, |broker| broker.state = "stopped".into());
    assert_eq!(told("broker", set(stopped)), [warning("broker 1 at b1:5 was stopped")]);
    let gone = || dead(1, |broker| broker.gone = true);
    assert_eq!(told("broker", set(gone())), [warning("broker 1 at b1:5 is gone")]);
    assert_eq!(
        found("broker", set(gone()))[0].next.as_deref().unwrap(),
        "Remove it for good with: rmom broker forget 1"
    );
    let listed = dead(1, |broker| (broker.id, broker.state) = (None, "unregistered".into()));
    let expected = "the broker at b1:5 is in the managers' configuration (moms) and was never started";
    assert_eq!(told("broker", set(listed)), [problem(expected)]);
    assert_eq!(told("broker", |seen| seen.brokers.clear()), [problem("no broker has registered")]);
    // A dead broker that was not contacted is not worth a line.
    assert_eq!(told("connection", set(dead(1, |_| {}))), []);
}

#[test]
fn a_live_broker_that_this_machine_cannot_reach_is_told() {
    let away =
        |seen: &mut Seen| seen.brokers[0].connection = Some(Err(silent("it did not answer in time", Cause::Other)));
    let found = told("connection", away);
    assert_eq!(found[0], problem("broker 1 at b1:5 does not answer this machine over gRPC: it did not answer in time"));
    assert_eq!(found[1], ok("broker 2 at b2:5 answers over gRPC in 4 ms"));
}

#[test]
fn an_address_that_other_machines_cannot_use_is_told() {
    let at = |host: &str, url: &str| {
        told("connection", |seen: &mut Seen| {
            seen.brokers.truncate(1);
            (seen.brokers[0].broker.host, manager(seen).url) = (host.into(), url.into());
        })
    };
    for host in ["0.0.0.0", "::"] {
        let found = at(host, "http://127.0.0.1:1");
        assert!(found[0].0 == Level::Warning && found[0].1.ends_with("an address that means any machine"), "{found:?}");
    }
    for host in ["127.0.0.1", "::1", "localhost"] {
        let found = at(host, "http://m:1");
        let expected = "an address that means the machine that uses it";
        assert!(found[0].0 == Level::Warning && found[0].1.ends_with(expected), "{found:?}");
        for own in ["http://localhost:1", "http://127.0.0.1:1", "https://[::1]:1"] {
            assert_eq!(at(host, own)[0].0, Level::Ok, "{host} {own}");
        }
    }
    assert_eq!(at("b1", "http://m:1")[0].0, Level::Ok);
}

#[test]
fn complaints_are_told_once() {
    let complain = |what: &str| Problem { what: what.into(), next: "see its log".into() };
    let one = |seen: &mut Seen| {
        cluster(seen).problems = vec![complain("broker 1 at b1:5: queue q: not served")];
        cluster(seen).notes = vec!["broker 2 is older".into()];
        let again = ManagerSeen { status: Ok(cluster(seen).clone()), ..answering("http://n:1") };
        seen.managers.push(again);
    };
    let expected = [problem("broker 1 at b1:5: queue q: not served"), warning("broker 2 is older")];
    assert_eq!(told("complaints", one), expected);
    assert_eq!(found("complaints", one)[0].next.as_deref(), Some("see its log"));
    // The broker's own line already says so.
    let dies = |seen: &mut Seen| {
        seen.brokers = vec![dead(1, |_| {})];
        cluster(seen).problems = vec![complain("broker 1 at b1:5 is not alive: refused")];
    };
    assert_eq!(told("complaints", dies), [ok("the managers and the live brokers have no other complaints")]);
}

#[test]
fn clocks_that_differ_are_told() {
    let off = |manager_millis, broker_millis| {
        move |seen: &mut Seen| {
            about_manager(seen).ahead_millis = manager_millis;
            about_broker(seen, 0).ahead_millis = broker_millis;
        }
    };
    let expected = [
        warning("the clock of manager http://m:1 is 7.5 s ahead of this machine's"),
        warning("the clock of broker 1 at b1:5 is 2 min 0 s behind this machine's"),
    ];
    assert_eq!(told("clock", off(Some(7_500), Some(-120_000))), expected);
    let within = [ok("no difference beyond 5.0 s was found between this machine's clock and those of 3 servers")];
    assert_eq!(told("clock", off(Some(5_000), Some(-5_000))), within);
    assert_eq!(told("clock", off(Some(i64::MIN), None))[0].0, Level::Warning);
    let older = |seen: &mut Seen| {
        off(None, None)(seen);
        seen.brokers.truncate(1);
    };
    assert_eq!(told("clock", older), []);
}

#[test]
fn versions_that_differ_are_told() {
    let upgrade = |seen: &mut Seen| {
        about_manager(seen).version = Some("2 (b)".into());
        about_broker(seen, 1).version = None;
    };
    let expected = "versions differ; 1 (a): this program, broker 1 at b1:5; 2 (b): manager http://m:1; \
                    older: broker 2 at b2:5";
    assert_eq!(told("version", upgrade), [warning(expected)]);
    let many = |seen: &mut Seen| {
        seen.brokers = (1..=8).map(broker).collect();
        seen.version = "0".into();
    };
    let expected = "versions differ; 0: this program; 1 (a): manager http://m:1, broker 1 at b1:5, broker 2 at b2:5, \
                    broker 3 at b3:5, broker 4 at b4:5 and 4 more";
    assert_eq!(told("version", many), [warning(expected)]);
}

#[test]
fn a_low_limit_of_open_files_is_told() {
    let limit = |limit| told("open-files", move |seen: &mut Seen| seen.open_files = limit);
    assert_eq!(limit(Some(1_024)), [ok("a process started from here may open 1024 files")]);
    assert_eq!(limit(None), [ok("no limit on the open files of this process is known")]);
    assert_eq!(limit(Some(1_023))[0].0, Level::Warning);
}
