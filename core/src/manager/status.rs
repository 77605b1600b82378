//! A manager's report on itself and on the brokers: for operators, health checks and metrics.

use std::time::Duration;

use parking_lot::Mutex;

use crate::{
    model::{BrokerAddr, BrokerId, Incarnation, ManagerId, Term},
    ports::BrokerState,
};

/// The state of a manager at a moment.
#[derive(Clone, Debug)]
pub struct ManagerStatus {
    /// This manager.
    pub manager: ManagerId,
    /// True while its task runs; false after a crash and once it has stopped.
    pub running: bool,
    /// True if it was told to stop and refuses new operations.
    pub stopping: bool,
    /// True if it holds the leader lease.
    pub leading: bool,
    /// The leader, when the store last answered. `None` means that the store has not answered yet.
    pub leader: Option<ManagerId>,
    /// That leader's term: one more at each change of leader.
    pub term: Term,
    /// The brokers, as of the last cycle.
    pub brokers: Vec<BrokerView>,
    /// The last cycle, if there was one.
    pub last_cycle: Option<CycleStatus>,
    /// Administrative operations under way, and the limit.
    pub calls: (u32, u32),
    /// Counters.
    pub counters: ManagerCounters,
}

/// One turn of the manager's loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CycleStatus {
    /// How long it took.
    pub duration: Duration,
    /// How long ago it ended.
    pub age: Duration,
    /// True if this manager led: it probed the brokers and reconciled the assignments.
    pub led: bool,
    /// Number of brokers that answered; 0 if it did not lead.
    pub live_brokers: usize,
    /// Number of queues seen; 0 if it did not lead.
    pub queues: usize,
    /// Number of those queues without a live broker and without one to go to.
    pub stranded: usize,
    /// The reason why it was cut short, if it was.
    pub error: Option<String>,
}

/// Counts since the start of this manager.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManagerCounters {
    /// Cycles.
    pub cycles: u64,
    /// Cycles that the store cut short.
    pub cycles_failed: u64,
    /// Number of times that this manager took the lead.
    pub elected: u64,
    /// Attempts to take or keep the lead that the store did not answer.
    pub lead_failures: u64,
    /// Life probes.
    pub probes: u64,
    /// Life probes that failed.
    pub probes_failed: u64,
    /// Queues reassigned because their broker died.
    pub failovers: u64,
    /// Queues reassigned because their broker stopped in good order or drains.
    pub handovers: u64,
    /// Queues reassigned because their broker had more of them than others.
    pub rebalanced: u64,
    /// Queues without a broker that were assigned to one.
    pub placed: u64,
    /// Assignments that another manager was quicker to make.
    pub lost_races: u64,
    /// Calls to hurry a broker up that failed.
    pub nudges_failed: u64,
    /// Such calls that were dropped because too many were waiting.
    pub nudges_dropped: u64,
    /// Batches of deleted queues that were removed.
    pub purged_batches: u64,
    /// Attempts to remove such batches that the store failed.
    pub purges_failed: u64,
    /// Administrative operations that were begun.
    pub admin_calls: u64,
    /// Administrative operations that failed.
    pub admin_failures: u64,
}

/// A broker as a manager sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerView {
    /// Its address.
    pub addr: BrokerAddr,
    /// True if it is in the configuration (`moms`).
    pub configured: bool,
    /// The store's record. `None` means that it never registered, and cannot be given queues.
    pub registered: Option<RegisteredBroker>,
    /// True if it counts as live: according to probes or, without recent ones, to its lease.
    pub live: bool,
    /// True if it has not been alive for long and nothing depends on it: it can be forgotten.
    pub gone: bool,
    /// The results of this manager's probes, if it made any.
    pub probe: Option<ProbeView>,
}

/// The store's record of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredBroker {
    /// Its id.
    pub id: BrokerId,
    /// Its present run.
    pub incarnation: Incarnation,
    /// Whether it takes queues.
    pub state: BrokerState,
    /// True if its lease had not run out on the store's clock.
    pub lease_current: bool,
    /// Number of queues assigned to it.
    pub queues: u64,
}

/// The result of life probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeView {
    /// How long ago it last answered. `None` means never.
    pub last_success_age: Option<Duration>,
    /// Number of probes that have failed since.
    pub failures_in_a_row: u32,
    /// The reason why the last one failed, if it did.
    pub last_error: Option<String>,
}

/// Counters that many tasks add to.
#[derive(Default)]
pub(super) struct Counters(Mutex<ManagerCounters>);

impl Counters {
    pub(super) fn update(&self, change: impl FnOnce(&mut ManagerCounters)) {
        change(&mut self.0.lock());
    }

    pub(super) fn get(&self) -> ManagerCounters {
        *self.0.lock()
    }
}
