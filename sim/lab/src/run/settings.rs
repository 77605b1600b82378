//! The settings under which scenarios run, and the bounds that follow from them.

use std::time::Duration;

use rmom_client::{ClientBuilder, MAX_DELIVERY_TIMEOUT};
use rmom_core::{
    broker::{BrokerSettings, Tuning},
    manager::ManagerSettings,
    model::{BrokerAddr, limits},
};

use crate::scenario::Scenario;

/// Small, so that exceeding it costs little.
pub(super) const MAX_MESSAGE_BYTES: usize = 65_536;

/// How long a client may take to notice that a connection is dead: interval plus timeout of its keepalive.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// How long a client waits for the answer when it opens a stream.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a client waits for a manager's answer where a queue is.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client waits for an acknowledgement from a broker that is otherwise alive.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(8);
/// How long an operator waits for an answer.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);
/// The longest pause between two attempts to activate a queue whose activation kept failing.
const ACTIVATION_PAUSE: Duration = Duration::from_secs(6);
/// The longest pause between two trims after repeated failures, in trim intervals.
const TRIM_PAUSES: u32 = 8;
/// A client's first and longest pause between two attempts.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How much two clocks may differ, plus the duration of a tick and a few segments.
const SLACK: Duration = Duration::from_millis(100);

/// Where limits are small, a producer is forgotten this long after its last push: later than any message that it sent before
/// it gave up can arrive.
const RETENTION: Duration = Duration::from_secs(20);
/// Where limits are small, one or two saved producers keep a queue from saving again for a while.
const SAVED_BYTES: usize = 50;
/// Where limits are small, brokers check for expired messages this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(2);

/// Shorter than in production, so that a scenario of a few seconds has room for several failovers.
pub(super) fn broker(scenario: &Scenario) -> BrokerSettings {
    let topology = &scenario.topology;
    let mut settings = BrokerSettings {
        message_ttl: topology.message_ttl_millis.map(Duration::from_millis),
        channel_idle_expiry: topology.channel_idle_millis.map(Duration::from_millis),
        queue_buffer_messages: usize::try_from(topology.queue_buffer_messages).unwrap_or(usize::MAX).max(1),
        max_batch_messages: usize::try_from(topology.batch_messages)
            .unwrap_or(usize::MAX)
            .clamp(1, limits::MAX_BATCH_MESSAGES),
        max_message_bytes: MAX_MESSAGE_BYTES,
        lease: Duration::from_secs(2),
        store_timeout: Duration::from_millis(1_200),
        recovery_timeout: Duration::from_secs(6),
        activation_timeout: Duration::from_secs(3),
        trim_interval: Duration::from_millis(500),
        // Fewer than there are queues.
        max_activations: 2,
        max_trims: 1,
        ..BrokerSettings::new(BrokerAddr { host: String::new(), port: 1 })
    };
    if let Some(limits) = topology.limits {
        let page_bytes = usize::try_from(limits.page_bytes).unwrap_or(usize::MAX).max(1);
        settings.max_pending_bytes = usize::try_from(limits.pending_bytes).unwrap_or(usize::MAX).max(1);
        settings.max_lookups_per_second = limits.lookups.max(1);
        settings.max_store_reads = 1;
        // A producer that never gives up would push a forgotten message again.
        if scenario.workload.delivery_millis.is_some() {
            settings.producer_retention = RETENTION;
        }
        settings.tuning = Tuning {
            snapshot_every: limits.snapshot_batches.max(1),
            save_bytes_per_second: SAVED_BYTES,
            trim_batches: limits.page_batches.max(1),
            header_page: limits.page_batches.max(1),
            longest_sleep: LONGEST_SLEEP,
            enough_bytes: page_bytes,
            page_bytes,
            read_span: u64::from(limits.page_batches.max(1)),
        };
    }
    settings
}

/// Shorter than in production, as in [`broker`].
pub(super) fn manager() -> ManagerSettings {
    ManagerSettings {
        cycle: Duration::from_millis(500),
        probe_deadline: Duration::from_millis(300),
        life_probe_max_retries: 2,
        lease: Duration::from_secs(2),
        store_timeout: Duration::from_millis(1_200),
        admin_deadline: Duration::from_secs(3),
        create_deadline: Duration::from_secs(4),
        nudge_deadline: Duration::from_secs(1),
        rebalance_after: Duration::from_secs(1),
        rebalance_tolerance: 1,
        // Fewer than there are queues.
        max_moves_per_cycle: 2,
        drain_moves_per_cycle: 2,
        ..ManagerSettings::default()
    }
}

/// How long a producer tries to deliver a message. If the scenario does not set it, the run ends before a producer gives up.
pub(super) fn delivery_timeout(scenario: &Scenario) -> Duration {
    scenario.workload.delivery_millis.map_or(MAX_DELIVERY_TIMEOUT, Duration::from_millis)
}

/// Shorter than in production, as well.
pub(super) fn client(builder: ClientBuilder, delivery_timeout: Duration) -> ClientBuilder {
    builder
        .open_timeout(OPEN_TIMEOUT)
        .lookup_timeout(LOOKUP_TIMEOUT)
        .ack_timeout(ACK_TIMEOUT)
        .request_timeout(REQUEST_TIMEOUT)
        .retry_backoff(BACKOFF.0, BACKOFF.1)
        .delivery_timeout(delivery_timeout)
}

/// More messages than the producers of a run ever have in flight at once.
const SENT_AT_ONCE: usize = 1_000;
/// More bytes than the producers of a run ever have in flight at once.
const SENT_AT_ONCE_BYTES: usize = 16 << 20;
/// Longer than any run.
const UNBOUNDED: Duration = Duration::from_secs(1 << 30);

/// The bounds with which the history is compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How long after its expiry the delivery of a message may still start: a broker learns the database's time with one
    /// round trip, which takes at most the deadline of a call.
    pub(super) expiry: Duration,
    /// How soon every broker that serves learns that the database's clock was set: it serves until its lease ends, which is
    /// counted from its request for the time.
    pub(super) clock: Duration,
    /// How soon after the last fault everything is in order.
    pub(super) convergence: Duration,
    /// How soon after that the brokers are level again.
    pub(super) level: Duration,
    /// How soon after its expiry a message must be gone from the store.
    pub(super) trim: Duration,
    /// How much longer that may take if the database's clock was set.
    pub(super) sleep: Duration,
    /// How soon a stream ends after its channel was deleted, in the absence of faults.
    pub(super) deleted: Duration,
    /// How soon a push is acknowledged while no fault affects the processes that it needs: an append may wait for another
    /// one.
    pub(super) answer: Duration,
    /// The shortest time for which a channel without subscribers is kept.
    pub(super) idle: Duration,
}

impl Bounds {
    /// The formula of the operator's manual (how long a failover takes), plus the clients' own delays.
    pub(super) fn of(broker: &BrokerSettings, manager: &ManagerSettings) -> Self {
        let probes = manager.probe_deadline * manager.probe_attempts()
            + manager.life_probe_retry_delay * manager.life_probe_max_retries;
        let new_leader = manager.lease * 4 / 3;
        // A broker notices at its next renewal that the store is back, or that it has to register anew.
        let broker_back = broker.lease / 3 + broker.store_timeout;
        let claim = broker.store_timeout * 2;
        let failover = new_leader + broker_back + manager.cycle + probes + claim + ACTIVATION_PAUSE;
        // A client was just told to wait, or waits for an answer that was lost.
        let client = KEEPALIVE.max(OPEN_TIMEOUT) + LOOKUP_TIMEOUT * 2 + BACKOFF.1 * 2;
        Self {
            expiry: broker.store_timeout + SLACK,
            clock: broker.lease + SLACK,
            convergence: failover + broker.recovery_timeout + client,
            // Twice: a step that was not served in time is followed by a pause as long as the one before the first step.
            level: (manager.rebalance_after + manager.cycle * 3 + manager.nudge_deadline + claim) * 2,
            trim: broker.trim_interval * (1 + TRIM_PAUSES) + broker.store_timeout * 2 + failover,
            sleep: broker.tuning.longest_sleep,
            // A broker learns at its next renewal that there was a change, and reads it; then it notifies its client.
            deleted: broker.lease / 3 + broker.store_timeout * 3 + client,
            // Where batches or the space for pushes are small, pushes wait for earlier ones or are refused: that is load,
            // not a fault.
            answer: if broker.max_batch_messages < SENT_AT_ONCE || broker.max_pending_bytes < SENT_AT_ONCE_BYTES {
                UNBOUNDED
            } else {
                broker.store_timeout * 2 + SLACK
            },
            idle: broker.channel_idle_expiry.unwrap_or(UNBOUNDED),
        }
    }
}
