//! Failovers with real processes: two managers, three brokers and a PostgreSQL are killed, stopped and restarted under load.
//! Acknowledged messages are delivered once and in order, whichever process dies.

#![allow(clippy::print_stdout, reason = "how long each failover took is printed, a line of a table each")]

mod lines;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use rmom_client::Client;
use rmom_net::testing::{PgServer, TestDatabase};
use tokio::runtime::Runtime;

use self::{
    support::{Cluster, ClusterOptions, eventually, get},
    traffic::Traffic,
};

const QUEUE: &str = "Failover";

/// Pushes that are acknowledged before a fault, and after it.
const PUSHES: u64 = 300;

/// A cluster with a PostgreSQL of its own, as tests kill it.
struct System {
    // Dropped first: it uses the database.
    cluster: Cluster,
    database: TestDatabase,
}

impl System {
    fn start(runtime: &Runtime) -> Self {
        let database = runtime.block_on(Arc::new(PgServer::start()).create_database());
        let cluster = Cluster::start(&ClusterOptions::new(database.url()));
        Self { cluster, database }
    }

    fn host_of(&self, queue: &str) -> usize {
        eventually("a manager knows the queue's broker", || self.cluster.host_of(queue))
    }

    fn leader(&self) -> usize {
        eventually("a manager leads", || self.cluster.leader())
    }
}

/// Causes a fault in a system under load. The load has threads of its own, so `act` may block.
fn survives(fault: &str, limit: Duration, act: impl FnOnce(&mut System)) -> System {
    let runtime = Runtime::new().unwrap();
    let mut system = System::start(&runtime);
    let client = Client::builder().managers(system.cluster.manager_urls()).build().unwrap();
    let traffic = runtime.block_on(Traffic::start(client, QUEUE));
    runtime.block_on(traffic.progress(PUSHES));
    act(&mut system);
    runtime.block_on(traffic.progress(PUSHES));
    let report = runtime.block_on(traffic.finish());
    println!(
        "| {fault} | {:.2} s | {} | {} | {} |",
        report.unavailable.as_secs_f64(),
        report.acknowledged,
        report.delivered,
        report.duplicates
    );
    assert_eq!(report.duplicates, 0, "{fault}: something was stored or delivered twice");
    assert_eq!(report.failed, 0, "{fault}: a push was given up");
    assert!(report.unavailable < limit, "{fault}: the queue was unavailable for {:?}", report.unavailable);
    system
}

#[test]
fn the_hosting_broker_is_killed() {
    survives("SIGKILL of the hosting broker", Duration::from_secs(10), |system| {
        let host = system.host_of(QUEUE);
        system.cluster.brokers[host].kill();
    });
}

#[test]
fn the_leading_manager_is_killed() {
    survives("SIGKILL of the leading manager", Duration::from_secs(5), |system| {
        let leader = system.leader();
        system.cluster.managers[leader].kill();
    });
}

#[test]
fn broker_and_manager_are_killed_at_once() {
    survives("SIGKILL of both at once", Duration::from_secs(15), |system| {
        let (host, leader) = (system.host_of(QUEUE), system.leader());
        system.cluster.brokers[host].kill();
        system.cluster.managers[leader].kill();
    });
}

#[test]
fn all_brokers_are_killed_and_started_again() {
    survives("SIGKILL of all brokers, started again after 0.5 s", Duration::from_secs(15), |system| {
        for broker in &mut system.cluster.brokers {
            broker.kill();
        }
        sleep(Duration::from_millis(500));
        for broker in &mut system.cluster.brokers {
            broker.restart();
        }
    });
}

#[test]
fn the_hosting_broker_is_paused_beyond_its_lease() {
    let mut paused = 0;
    let fault = "SIGSTOP of the hosting broker for 6 s, then SIGCONT";
    let system = survives(fault, Duration::from_secs(15), |system| {
        paused = system.host_of(QUEUE);
        system.cluster.brokers[paused].pause();
        sleep(Duration::from_secs(6));
        system.cluster.brokers[paused].resume();
    });
    assert_ne!(system.host_of(QUEUE), paused, "the queue has moved");
    // It knows that it was replaced, and keeps running.
    let broker = &system.cluster.brokers[paused];
    broker.wait_until_ready();
    let log = broker.process.as_ref().unwrap().stderr();
    assert!(log.contains("no longer serving"), "{log}");
    let (_, metrics) = get(&broker.authority, "/metrics").unwrap();
    assert!(!metrics.contains("queue=\"failover\""), "{metrics}");
}

#[test]
fn the_database_is_killed_and_started_again() {
    let mut away = Duration::ZERO;
    survives("SIGKILL of PostgreSQL, started again after 1 s", Duration::from_secs(20), |system| {
        let server = system.database.server();
        let killed = Instant::now();
        server.kill9();
        sleep(Duration::from_secs(1));
        server.restart();
        away = killed.elapsed();
    });
    println!("PostgreSQL itself, its recovery included, was away for {:.2} s", away.as_secs_f64());
}

#[test]
fn a_broker_that_is_asked_to_stop_hands_over() {
    survives("SIGTERM of the hosting broker", Duration::from_secs(10), |system| {
        let host = system.host_of(QUEUE);
        assert_eq!(system.cluster.brokers[host].stop(), Some(0));
    });
}
