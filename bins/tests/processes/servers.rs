//! `rmom-broker` and `rmom-manager` on PostgreSQL, run like an operator would.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rmom_net::testing::{PgServer, TestDatabase};

use crate::support::{Cluster, ClusterOptions, Process, command, eventually, get, program, rmom};

fn database() -> TestDatabase {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(PgServer::shared().create_database())
}

/// Two brokers and a manager with the original's files, adapted only by environment variables. Some run as the small
/// programs, the others through `rmom serve`.
#[test]
fn the_originals_configuration_starts_as_it_is() {
    let database = database();
    let directory = tempfile::tempdir().unwrap();
    let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"));
    let start = |name: &str, command_line: &[&str], file: &str, port_variables: &[&str]| {
        let mut command = command(program(command_line[0]));
        command.args(&command_line[1..]).arg(examples.join(file));
        command.env("RMOM_DATABASE__URL", database.url()).env("RUST_LOG", "info");
        for variable in port_variables {
            command.env(variable, "0");
        }
        let mut process = Process::spawn(name, directory.path(), command);
        let line = process.wait_for_log(" starts");
        let address = line.split("listening=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        (process, address)
    };
    let broker_ports = &["RMOM_PORT", "RMOM_EXTERNAL_PORT"][..];
    let (_first, _) = start("mom1", &["rmom-broker"], "mom1.yaml", broker_ports);
    let (_second, _) = start("mom2", &["rmom", "serve", "broker"], "mom2.yaml", broker_ports);
    let (mut manager_process, manager) =
        start("manager", &["rmom", "serve", "manager"], "Rocket.toml", &["ROCKET_PORT"]);
    eventually("both brokers are alive", || {
        let (_, brokers) = get(&manager, "/v1/brokers")?;
        (brokers.matches("\"live\":true").count() == 2).then_some(())
    });
    let manager = format!("http://{manager}");
    rmom(&manager, &["push", "--create", "news", "rain", "sun"], "").success();
    assert_eq!(rmom(&manager, &["subscribe", "news", "--count", "2"], "").success().text(), "rain\nsun\n");
    assert_eq!(manager_process.stop(), Some(0));
}

#[test]
fn a_database_that_is_down_is_waited_for() {
    let server = Arc::new(PgServer::start());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(server.create_database());
    server.kill9();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("m.toml");
    let text = format!("[default]\nport = 0\n[default.databases.rmom_manager]\nurl = \"{}\"\n", database.url());
    std::fs::write(&config, text).unwrap();
    let mut command = command(program("rmom-manager"));
    command.arg(&config);
    let mut manager = Process::spawn("manager", directory.path(), command);
    let line = manager.wait_for_log("rmom-manager starts");
    let address = line.split("listening=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    manager.wait_for_log("waiting for the database");
    assert_eq!(get(&address, "/healthz").unwrap().0, 200);
    let (status, reason) = get(&address, "/readyz").unwrap();
    assert!(status == 503 && reason.contains("cannot reach the database"), "{status} {reason}");
    assert_eq!(get(&address, "/queues").unwrap().0, 503);
    server.restart();
    eventually("it is ready", || (get(&address, "/readyz")?.0 == 200).then_some(()));
    assert_eq!(manager.stop(), Some(0));
}

#[test]
fn what_waiting_does_not_cure_ends_with_69() {
    let database = database();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("b.yaml");
    std::fs::write(&config, format!("port: 0\ndatabase: {{url: \"{}\"}}\n", database.url())).unwrap();
    let broker = || {
        let mut command = command(program("rmom-broker"));
        command.arg(&config);
        Process::spawn("broker", directory.path(), command)
    };
    let mut first = broker();
    first.wait_for_log("rmom-broker runs");
    assert_eq!(first.stop(), Some(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', true, '\\x00', 0)";
    runtime.block_on(database.execute(later));
    let mut second = broker();
    assert_eq!(second.wait(), Some(69));
    assert!(second.stderr().contains("run the newer program"), "{}", second.stderr());
}

/// Faults of the database at start that pass without a change to the program's configuration.
#[test]
fn what_may_pass_is_waited_for_and_said_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let primary = PgServer::start();
    let standby = primary.start_standby(&[]);
    let wrong_password = format!("postgres://rmom:later@{}/postgres", primary.authority());
    let cases: [(&str, String, &str, &PgServer, &str); 3] = [
        ("away", primary.url("to_come"), "there is no database", &primary, "CREATE DATABASE to_come"),
        // Before the standby could follow the change of the password.
        ("standby", standby.url("postgres"), "is a standby", &standby, "SELECT pg_promote()"),
        ("password", wrong_password, "does not accept user", &primary, "ALTER USER rmom PASSWORD 'later'"),
    ];
    for (name, url, says, server, cure) in cases {
        let config = directory.path().join(format!("{name}.toml"));
        let text = format!("[default]\nport = 0\n[default.databases.rmom_manager]\nurl = \"{url}\"\n");
        std::fs::write(&config, text).unwrap();
        let mut command = command(program("rmom-manager"));
        command.arg(&config);
        let mut manager = Process::spawn(name, directory.path(), command);
        let line = manager.wait_for_log("rmom-manager starts");
        let address = line.split("listening=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        manager.wait_for_log("waiting for the database");
        let (status, reason) = get(&address, "/readyz").unwrap();
        assert!(status == 503 && reason.contains(says), "{name}: {status} {reason}");
        // Time for a few more attempts.
        std::thread::sleep(Duration::from_secs(1));
        runtime.block_on(server.execute(cure));
        eventually("it is ready", || (get(&address, "/readyz")?.0 == 200).then_some(()));
        let warnings = manager.stderr().matches("waiting for the database").count();
        assert_eq!(warnings, 1, "{name}: {}", manager.stderr());
        assert_eq!(manager.stop(), Some(0), "{name}");
    }
}

#[test]
fn a_twin_ends_the_first_and_the_second_serves() {
    let database = database();
    let options = ClusterOptions { brokers: 1, managers: 1, ..ClusterOptions::new(database.url()) };
    let mut cluster = Cluster::start(&options);
    let manager = cluster.manager_urls().remove(0);
    rmom(&manager, &["push", "--create", "q", "x"], "").success();
    // A second broker with the external address of the first.
    let config = cluster.directory().join("twin.yaml");
    let port = cluster.brokers[0].authority.rsplit(':').next().unwrap().to_owned();
    std::fs::write(&config, format!("port: 0\nexternal_port: {port}\ndatabase: {{url: \"{}\"}}\n", database.url()))
        .unwrap();
    let mut command = command(program("rmom-broker"));
    command.arg(&config);
    let _twin = Process::spawn("twin", cluster.directory(), command);
    let first = cluster.brokers[0].process.as_mut().unwrap();
    assert_eq!(first.wait(), Some(75));
    assert!(first.stderr().contains("another process registered as this broker"), "{}", first.stderr());
}

/// Follows the operators' page about a restored older copy.
#[test]
fn a_database_that_lost_messages_halts_the_queue_until_the_broker_is_restarted() {
    let database = database();
    let options = ClusterOptions { brokers: 1, managers: 1, ..ClusterOptions::new(database.url()) };
    let mut cluster = Cluster::start(&options);
    let manager = cluster.manager_urls().remove(0);
    rmom(&manager, &["push", "--create", "q", "1", "2"], "").success();
    rmom(&manager, &["push", "q", "3"], "").success();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(database.execute("DELETE FROM batch WHERE last_offset > 2"));
    for _ in 0..2 {
        let output = rmom(&manager, &["push", "q", "x"], "");
        assert_eq!(output.code, Some(1), "{}", output.stderr);
        assert!(output.stderr.contains("the store was rolled back"), "{}", output.stderr);
    }
    let broker = &mut cluster.brokers[0];
    let (status, reasons) = get(&broker.authority, "/readyz").unwrap();
    assert!(status == 503 && reasons.contains("queue q: the store was rolled back"), "{status} {reasons}");
    eventually("the manager tells it", || {
        let told = rmom(&manager, &["status"], "");
        (told.code == Some(4) && told.text().contains(": queue q: the store was rolled back")).then_some(())
    });
    let (_, page) = get(&broker.authority, "/metrics").unwrap();
    assert!(page.contains("rmom_queue_phase{queue=\"q\",phase=\"halted\"} 1"), "{page}");
    assert_eq!(broker.stop(), Some(0));
    broker.restart();
    broker.wait_until_ready();
    rmom(&manager, &["push", "q", "again 3"], "").success();
    assert_eq!(rmom(&manager, &["subscribe", "q", "--count", "3"], "").success().text(), "1\n2\nagain 3\n");
}

#[test]
fn stopping_in_good_order_hands_over_at_once_and_loses_nothing() {
    let database = database();
    let mut cluster =
        Cluster::start(&ClusterOptions { brokers: 2, managers: 1, ..ClusterOptions::new(database.url()) });
    let manager = cluster.manager_urls().remove(0);
    rmom(&manager, &["push", "--create", "q", "1", "2", "3"], "").success();
    let host = cluster.host_of("q").unwrap();
    let started = Instant::now();
    assert_eq!(cluster.brokers[host].stop(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
    let elsewhere = eventually("the queue has moved", || cluster.host_of("q").filter(|&now| now != host));
    assert_eq!(rmom(&manager, &["subscribe", "q", "--count", "3"], "").success().text(), "1\n2\n3\n");
    cluster.brokers[host].restart();
    cluster.brokers[host].wait_until_ready();
    assert_eq!(cluster.host_of("q"), Some(elsewhere));

    // Metrics of both kinds are there.
    let (_, page) = get(&cluster.brokers[elsewhere].authority, "/metrics").unwrap();
    assert!(page.contains("rmom_queue_last_offset{queue=\"q\"} 3"), "{page}");
    let (_, page) = get(&cluster.managers[0].authority, "/metrics").unwrap();
    assert!(page.contains("rmom_manager_leading 1") && page.contains("rmom_manager_handovers_total 1"), "{page}");

    // Paused, it is not alive; resumed, it is alive again.
    cluster.brokers[host].pause();
    let live =
        || get(&cluster.managers[0].authority, "/v1/brokers").map(|(_, body)| body.matches("\"live\":true").count());
    eventually("the paused broker is missed", || (live() == Some(1)).then_some(()));
    cluster.brokers[host].resume();
    eventually("the resumed broker is back", || (live() == Some(2)).then_some(()));
    assert_eq!(cluster.managers[0].stop(), Some(0));
}
