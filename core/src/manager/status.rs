//! What a manager tells about itself and about the brokers: for operators, health checks and metrics.

use std::time::Duration;

use parking_lot::Mutex;

use crate::{
    model::{BrokerAddr, BrokerId, Incarnation, ManagerId},
    ports::BrokerState,
};

/// A manager at a moment.
#[derive(Clone, Debug)]
pub struct ManagerStatus {
    /// This manager.
    pub manager: ManagerId,
    /// Its task runs; false after a crash or once it stopped.
    pub running: bool,
    /// It was asked to stop and refuses new operations.
    pub stopping: bool,
    /// It holds the leader lease.
    pub leading: bool,
    /// Who led when the store last told; none: the store has not answered yet.
    pub leader: Option<ManagerId>,
    /// That leader's term: one more at each change of leader.
    pub term: u64,
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
    /// This manager led: it probed the brokers and reconciled the assignments.
    pub led: bool,
    /// Brokers that answered; 0 if it did not lead.
    pub live_brokers: usize,
    /// Queues seen; 0 if it did not lead.
    pub queues: usize,
    /// Queues among them that have no live broker, and none to go to.
    pub stranded: usize,
    /// Why it was cut short, if it was.
    pub error: Option<String>,
}

/// What happened since this manager started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ManagerCounters {
    /// Cycles.
    pub cycles: u64,
    /// Cycles that the store cut short.
    pub cycles_failed: u64,
    /// Times that this manager took the lead.
    pub elected: u64,
    /// Attempts to take or keep the lead that the store did not answer.
    pub lead_failures: u64,
    /// Life probes.
    pub probes: u64,
    /// Life probes that failed.
    pub probes_failed: u64,
    /// Queues assigned elsewhere because their broker died.
    pub failovers: u64,
    /// Queues assigned elsewhere because their broker stopped in good order or drains.
    pub handovers: u64,
    /// Queues assigned elsewhere because their broker had more of them than others.
    pub rebalanced: u64,
    /// Queues assigned that had no broker.
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
    /// Where it is.
    pub addr: BrokerAddr,
    /// The operator listed it (`moms`).
    pub configured: bool,
    /// What the store knows; none: it never registered, and cannot be given queues.
    pub registered: Option<RegisteredBroker>,
    /// Counts as live: probes say so or, where none were made lately, its lease does.
    pub live: bool,
    /// It has not been alive for long, and nothing depends on it: it can be forgotten.
    pub gone: bool,
    /// What this manager's probes said, if it made any.
    pub probe: Option<ProbeView>,
}

/// What the store knows of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredBroker {
    /// Its id.
    pub id: BrokerId,
    /// Its present run.
    pub incarnation: Incarnation,
    /// Whether it takes queues.
    pub state: BrokerState,
    /// Its lease had not run out on the store's clock.
    pub lease_current: bool,
    /// How many queues are assigned to it.
    pub queues: u64,
}

/// The result of life probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeView {
    /// How long ago it last answered; none: never.
    pub last_success_age: Option<Duration>,
    /// How many probes failed since.
    pub failures_in_a_row: u32,
    /// Why the last one failed, if it did.
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
