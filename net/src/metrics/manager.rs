//! A manager's page.

use rmom_core::manager::{BrokerView, ManagerCounters, ManagerStatus};

use super::text::{Kind, Text, serving};
use crate::serve::ServeStats;

type Counter = (&'static str, &'static str, fn(&ManagerCounters) -> u64);

const COUNTERS: &[Counter] = &[
    ("rmom_manager_cycles_total", "Cycles of the manager's loop.", |counters| counters.cycles),
    ("rmom_manager_cycles_failed_total", "Cycles that the store interrupted.", |counters| counters.cycles_failed),
    ("rmom_manager_elected_total", "Times that this manager became the leader.", |counters| counters.elected),
    (
        "rmom_manager_lead_failures_total",
        "Attempts to become or stay the leader that the store did not answer.",
        |counters| counters.lead_failures,
    ),
    ("rmom_manager_probes_total", "Life probes.", |counters| counters.probes),
    ("rmom_manager_probes_failed_total", "Failed life probes.", |counters| counters.probes_failed),
    ("rmom_manager_failovers_total", "Queues reassigned because their broker died.", |counters| counters.failovers),
    ("rmom_manager_handovers_total", "Queues reassigned because their broker stopped cleanly or drains.", |counters| {
        counters.handovers
    }),
    ("rmom_manager_rebalanced_total", "Queues reassigned to balance the brokers.", |counters| counters.rebalanced),
    ("rmom_manager_placed_total", "Queues without a broker that were assigned one.", |counters| counters.placed),
    ("rmom_manager_lost_races_total", "Assignments that another manager made first.", |counters| counters.lost_races),
    ("rmom_manager_nudges_failed_total", "Failed calls that tell a broker to look at its assignments.", |counters| {
        counters.nudges_failed
    }),
    ("rmom_manager_nudges_dropped_total", "Dropped calls that tell a broker to look at its assignments.", |counters| {
        counters.nudges_dropped
    }),
    ("rmom_manager_purged_batches_total", "Batches of deleted queues that were removed.", |counters| {
        counters.purged_batches
    }),
    ("rmom_manager_purges_failed_total", "Failed attempts to remove batches of deleted queues.", |counters| {
        counters.purges_failed
    }),
    ("rmom_manager_admin_calls_total", "Administrative operations begun.", |counters| counters.admin_calls),
    ("rmom_manager_admin_failures_total", "Failed administrative operations.", |counters| counters.admin_failures),
];

/// The page of one manager.
#[must_use]
pub fn manager(status: &ManagerStatus, connections: &ServeStats) -> String {
    let mut text = Text::new();
    let flag = u8::from;
    let gauge = Kind::Gauge;
    text.single(gauge, "rmom_manager_running", "1 while the manager's task runs.", flag(status.running));
    text.single(gauge, "rmom_manager_stopping", "1 once the manager was asked to stop.", flag(status.stopping));
    text.single(gauge, "rmom_manager_leading", "1 while this manager is the leader.", flag(status.leading));
    text.single(gauge, "rmom_manager_term", "Changes of leader so far.", status.term.get());
    let (calls, limit) = status.calls;
    text.single(gauge, "rmom_manager_admin_calls", "Administrative operations in progress.", calls);
    text.single(
        gauge,
        "rmom_manager_admin_calls_limit",
        "Administrative operations beyond this number are refused.",
        limit,
    );
    if let Some(cycle) = &status.last_cycle {
        let help = "Duration of the last cycle.";
        text.single(gauge, "rmom_manager_cycle_seconds", help, cycle.duration.as_secs_f64());
        let help = "Time since the end of the last cycle.";
        text.single(gauge, "rmom_manager_cycle_age_seconds", help, cycle.age.as_secs_f64());
        // Only a leader counts these; a follower's zero would look as if everything were lost.
        if cycle.led {
            text.single(gauge, "rmom_manager_live_brokers", "Brokers that answered.", cycle.live_brokers);
            text.single(gauge, "rmom_manager_queues", "Queues of the cluster.", cycle.queues);
            text.single(gauge, "rmom_manager_stranded_queues", "Queues that no live broker can host.", cycle.stranded);
        }
    }
    for &(name, help, value) in COUNTERS {
        text.single(Kind::Counter, name, help, value(&status.counters));
    }
    serving(&mut text, connections);

    let broker = |view: &BrokerView| [("broker", view.addr.to_string())];
    let brokers = &status.brokers;
    // Brokers that are gone are only counted: their addresses may never be used again.
    let gone = brokers.iter().filter(|view| view.gone).count();
    text.single(gauge, "rmom_manager_brokers_gone", "Brokers that are long gone; see rmom broker forget.", gone);
    let brokers: Vec<_> = brokers.iter().filter(|view| !view.gone).collect();
    let live = brokers.iter().map(|view| (broker(view), flag(view.live)));
    text.metric(gauge, "rmom_manager_broker_live", "1 while the broker counts as live.", live);
    let queues = brokers.iter().filter_map(|view| Some((broker(view), view.registered.as_ref()?.queues)));
    text.metric(gauge, "rmom_manager_broker_queues", "Queues assigned to the broker.", queues);
    let failures = brokers.iter().filter_map(|view| Some((broker(view), view.probe.as_ref()?.failures_in_a_row)));
    text.metric(gauge, "rmom_manager_broker_failed_probes", "Failed life probes since the last success.", failures);
    text.finish()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use rmom_core::{
        manager::{CycleStatus, ProbeView},
        model::{BrokerAddr, ManagerId, Term},
    };

    use super::*;

    pub(in crate::metrics) fn status(led: bool) -> ManagerStatus {
        let view = |host: &str, live, probe| BrokerView {
            addr: BrokerAddr { host: host.into(), port: 50051 },
            configured: true,
            registered: None,
            live,
            gone: host == "gone",
            probe,
        };
        let probe = ProbeView { last_success_age: None, failures_in_a_row: 3, last_error: None };
        ManagerStatus {
            manager: ManagerId::new(uuid::Uuid::from_u128(1)),
            running: true,
            stopping: false,
            leading: led,
            leader: None,
            term: Term::new(4),
            brokers: vec![view("b1", true, None), view("::1", false, Some(probe)), view("gone", false, None)],
            last_cycle: Some(CycleStatus {
                duration: Duration::from_millis(20),
                age: Duration::from_secs(2),
                led,
                live_brokers: 1,
                queues: 9,
                stranded: 0,
                error: None,
            }),
            calls: (1, 64),
            counters: ManagerCounters { failovers: 5, ..ManagerCounters::default() },
        }
    }

    #[test]
    fn every_number_has_its_line() {
        let page = manager(&status(true), &ServeStats::default());
        for line in [
            "rmom_manager_leading 1",
            "rmom_manager_term 4",
            "rmom_manager_cycle_seconds 0.02",
            "rmom_manager_queues 9",
            "rmom_manager_failovers_total 5",
            "rmom_connections 0",
            r#"rmom_manager_broker_live{broker="b1:50051"} 1"#,
            r#"rmom_manager_broker_live{broker="[::1]:50051"} 0"#,
            r#"rmom_manager_broker_failed_probes{broker="[::1]:50051"} 3"#,
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(page.contains("rmom_manager_brokers_gone 1") && !page.contains("gone:50051"), "{page}");
        assert!(!page.contains("rmom_manager_broker_queues"), "no broker registered");
    }

    #[test]
    fn a_follower_does_not_report_what_only_a_leader_counts() {
        let page = manager(&status(false), &ServeStats::default());
        assert!(
            !page.contains("rmom_manager_live_brokers") && !page.contains("rmom_manager_stranded_queues"),
            "{page}"
        );
    }
}
