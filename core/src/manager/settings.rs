//! The settings of a manager.

use std::time::Duration;

use crate::model::BrokerAddr;

/// Settings of a manager. [`ManagerSettings::default`] has the defaults.
///
/// They determine how long a queue is without a broker after its broker died: at most
/// `cycle + (life_probe_max_retries + 1) * probe_deadline + life_probe_max_retries * life_probe_retry_delay`,
/// plus the store's time for a few statements per [`MAX_ASSIGNED_QUEUES`](crate::model::limits::MAX_ASSIGNED_QUEUES) queues,
/// plus the new broker's time for its claims. A dead process on a live machine refuses probes at once, which saves the
/// deadlines. If the leading manager died too, add `lease * 4 / 3`.
#[derive(Clone, Debug)]
pub struct ManagerSettings {
    /// Brokers that the operator expects (the original's `moms`). They are probed and reported even before they have
    /// registered, but queues are assigned only to registered brokers.
    pub moms: Vec<BrokerAddr>,
    /// How often the leader probes the brokers and reconciles the assignments (`manager_cycle_secs`).
    pub cycle: Duration,
    /// How long a broker may take to answer one life probe.
    pub probe_deadline: Duration,
    /// Pause between a failed life probe and the next attempt (`life_probe_retry_delay_millis`).
    pub life_probe_retry_delay: Duration,
    /// How many times a failed life probe is repeated before the broker counts as dead.
    pub life_probe_max_retries: u32,
    /// How long a leader may go without the store before another manager takes over. The lease is renewed three times as
    /// often.
    pub lease: Duration,
    /// Deadline of one call of the store; shorter than the lease.
    pub store_timeout: Duration,
    /// Deadline of an administrative operation other than the creation of a queue.
    pub admin_deadline: Duration,
    /// How long the creation of a queue waits until a broker serves it.
    pub create_deadline: Duration,
    /// Deadline of one call that hurries a broker up, and of one attempt to have a new queue served.
    pub nudge_deadline: Duration,
    /// How long a broker may take to describe a queue.
    pub describe_deadline: Duration,
    /// Limit on the administrative operations at once; more are refused.
    pub max_admin_calls: u32,
    /// Limit on the life probes at once.
    pub max_concurrent_probes: usize,
    /// Limit on the queues that the leader moves from brokers that are gone before it probes the brokers again. It also
    /// probes again once a `cycle` has passed.
    pub max_moves_per_cycle: usize,
    /// Limit on the queues that a cycle moves from drained brokers. The next cycle continues when these are served.
    pub drain_moves_per_cycle: usize,
    /// Limit on the calls at once that hurry a broker up.
    pub max_concurrent_nudges: usize,
    /// Limit on such calls that wait for their turn; more are dropped, and the brokers notice the changes by themselves.
    pub max_pending_nudges: usize,
    /// Whether queues are moved from brokers with many to brokers with few (`rebalance`).
    pub rebalance: bool,
    /// How long the brokers have to be the same, all of them alive, before queues are moved to level them
    /// (`rebalance_after_secs`).
    pub rebalance_after: Duration,
    /// The difference in queues between two brokers that is tolerated; at least a tenth of the average always is.
    pub rebalance_tolerance: u64,
    /// Limit on the queues that a cycle moves to level the brokers.
    pub rebalance_moves_per_cycle: usize,
    /// Limit on the batches of deleted queues that the leader removes in one step.
    pub purge_batches: u32,
}

impl Default for ManagerSettings {
    fn default() -> Self {
        Self {
            moms: Vec::new(),
            cycle: Duration::from_secs(1),
            probe_deadline: Duration::from_millis(500),
            life_probe_retry_delay: Duration::from_millis(33),
            life_probe_max_retries: 3,
            lease: Duration::from_secs(3),
            store_timeout: Duration::from_secs(2),
            admin_deadline: Duration::from_secs(5),
            create_deadline: Duration::from_secs(5),
            nudge_deadline: Duration::from_secs(2),
            describe_deadline: Duration::from_secs(1),
            max_admin_calls: 256,
            max_concurrent_probes: 64,
            max_moves_per_cycle: 5_000,
            drain_moves_per_cycle: 16,
            max_concurrent_nudges: 32,
            max_pending_nudges: 4_096,
            rebalance: true,
            rebalance_after: Duration::from_secs(30),
            rebalance_tolerance: 2,
            rebalance_moves_per_cycle: 8,
            purge_batches: 1_000,
        }
    }
}

impl ManagerSettings {
    /// How many life probes in a row have to fail before a broker counts as dead.
    #[must_use]
    pub fn probe_attempts(&self) -> u32 {
        self.life_probe_max_retries.saturating_add(1)
    }
}
