//! `rmom bench`: a short run of each kind. Each run checks its own messages.

use rmom_net::testing::PgServer;
use serde_json::Value;

use crate::support::{Process, command, eventually, program, rmom};

/// An address without a listener: runs that start a cluster need no other.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Runs `rmom bench`, and returns its report.
#[track_caller]
fn bench(args: &str) -> Value {
    let args: Vec<&str> = ["bench", "--json"].into_iter().chain(args.split(' ')).collect();
    let output = rmom(NOWHERE, &args, "").success();
    serde_json::from_str(output.text()).unwrap()
}

#[track_caller]
fn positive(report: &Value, figure: &str) -> f64 {
    let number = report["figures"][figure].as_f64().unwrap_or_else(|| panic!("no {figure} in {report}"));
    assert!(number > 0.0, "{figure} in {report}");
    number
}

const SHORT: &str = "--embedded --duration 500ms --warm-up 100ms";

#[test]
fn push_by_stream() {
    let report = bench(&format!("push {SHORT} --queues 3 --producers 2 --topics 2 --size 20-300 --in-flight 100"));
    assert_eq!((&report["bench"], &report["settings"]["queues"]), (&"push".into(), &"3".into()));
    let stored = positive(&report, "stored_per_second");
    assert!(positive(&report, "stored_and_read_back") >= stored * 0.5, "{report}");
}

#[test]
fn push_by_unary_calls() {
    let report = bench(&format!("push {SHORT} --mode unary --in-flight 8"));
    positive(&report, "stored_per_second");
    assert!(report["figures"]["acknowledged_after_ms"]["p99"].as_f64() > Some(0.0), "{report}");
}

/// A message that is sent three times is stored once, which the run checks by reading back; the broker counts the other two
/// copies.
#[test]
fn push_in_a_retry_storm() {
    let report = bench(&format!("push {SHORT} --resend 3 --producers 2 --topics 2 --size 20-300"));
    let stored = report["figures"]["stored_and_read_back"].as_u64().unwrap();
    assert!(stored > 0, "{report}");
    assert_eq!(report["figures"]["duplicates_the_broker_counted"], stored * 2, "{report}");
    positive(&report, "stored_per_second");
    let report = bench(&format!("push {SHORT} --resend 1 --in-flight 100"));
    assert_eq!(report["figures"]["duplicates_the_broker_counted"], 0, "{report}");
}

#[test]
fn subscribe_while_pushing() {
    let report = bench(&format!("subscribe {SHORT} --subscribers 3 --topics 2 --producers 2"));
    positive(&report, "delivered_per_second");
    // Two subscribers of one topic and one of the other: half of the messages for each.
    let ratio = positive(&report, "delivered_and_checked") / positive(&report, "stored_and_read_back");
    assert!((ratio - 1.5).abs() < 0.01, "{report}");
}

#[test]
fn subscribe_to_a_backlog() {
    let report = bench("subscribe --embedded --backlog 20000 --subscribers 2");
    assert_eq!(report["figures"]["delivered_and_checked"], 40_000, "{report}");
    positive(&report, "delivered_per_second");
}

#[test]
fn latency() {
    let report = bench(&format!("latency {SHORT} --rate 200 --subscribers 2"));
    let times = &report["figures"]["received_after_due_ms"];
    // 100 messages in half a second, for each of two subscribers.
    assert_eq!(times["count"], 200, "{report}");
    assert!(times["p50"].as_f64() > Some(0.0) && times["p50"].as_f64() <= times["max"].as_f64(), "{report}");
    if cfg!(target_os = "linux") {
        let processes = report["processes"].as_array().unwrap();
        assert!(processes.iter().all(|process| process["peak_resident_bytes"].as_u64() > Some(0)), "{report}");
        assert_eq!(processes.len(), 2, "{report}");
    }
}

#[test]
fn failover_in_one_process() {
    let report = bench("failover --embedded --backlog 5000 --rounds 2 --rate 200");
    let times = &report["figures"]["from_fault_to_next_delivery_ms"];
    assert_eq!(times["count"], 2, "{report}");
    assert!(times["p50"].as_f64() > Some(1.0), "{report}");
}

#[test]
fn failover_of_processes_on_postgres() {
    let server = PgServer::shared();
    let report = bench(&format!("failover --postgres {} --backlog 5000 --rounds 1 --rate 200", server.url("postgres")));
    assert_eq!(report["settings"]["fsync"], "on", "{report}");
    let count = positive(&report, "stored_and_read_back");
    assert!((count - 5_000.0 - positive(&report, "delivered_and_checked")).abs() < 0.5, "{report}");
}

#[test]
fn idle() {
    let report = bench(&format!("idle {SHORT} --queues 5 --channels 2 --subscribers 30 --connections 3"));
    assert_eq!(report["figures"]["subscribers_that_were_awake_at_the_end"], 30, "{report}");
    positive(&report, "creating_took");
}

/// Measures a running cluster: the run leaves nothing behind, and drains a broker instead of killing it.
#[test]
fn a_running_cluster_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut dev = command(program("rmom"));
    dev.args(["dev", "--json", "--port", "0", "--ephemeral"]).current_dir(directory.path());
    let mut dev = Process::spawn("dev", directory.path(), dev);
    let line = dev.wait_until("its addresses", |stdout, _| stdout.lines().next().map(str::to_owned));
    let manager = serde_json::from_str::<Value>(&line).unwrap()["manager"].as_str().unwrap().to_owned();

    let args = ["bench", "--json", "failover", "--backlog", "1000", "--rounds", "2", "--rate", "200"];
    let output = rmom(&manager, &args, "").success();
    let report: Value = serde_json::from_str(output.text()).unwrap();
    assert!(report["settings"]["fault"].as_str().unwrap().ends_with("drained"), "{report}");
    let args = ["bench", "push", "--duration", "200ms", "--warm-up", "100ms"];
    let table = rmom(&manager, &args, "").success();
    assert!(table.text().contains("\nstored per second"), "{}", table.text());

    let queues = rmom(&manager, &["queue", "list", "--json"], "").success();
    assert_eq!(queues.text(), "[]\n");
    let brokers = rmom(&manager, &["broker", "list", "--json"], "").success();
    assert!(!brokers.text().contains("draining"), "{}", brokers.text());
}

#[test]
#[cfg(target_os = "linux")]
fn an_interrupted_run_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut run = command(program("rmom"));
    run.args(["bench", "push", "--embedded", "--duration", "60s"]).env("TMPDIR", directory.path());
    let mut run = Process::spawn("bench", directory.path(), run);
    let dirs = |path: &str| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let cluster = eventually("the cluster has its folder, where its process runs", || {
        let folder = dirs(directory.path().to_str()?).find(|path| path.join("data").is_dir())?;
        dirs("/proc").find(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder))
    });
    run.signal("INT");
    assert_eq!(run.wait(), Some(130));
    assert!(!cluster.exists(), "its process has ended");
    assert!(dirs(directory.path().to_str().unwrap()).all(|path| !path.is_dir()), "its folder is gone");
}
