//! What an operator can set on a broker.

use std::time::Duration;

use crate::model::{BrokerAddr, limits};

/// Settings of a broker. [`BrokerSettings::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Where clients and managers reach it.
    pub addr: BrokerAddr,
    /// Lifetime of messages that name none; none: for ever. Default: 600 s, as the original's example has it.
    pub message_ttl: Option<Duration>,
    /// Largest encoded message, framing included.
    pub max_message_bytes: usize,
    /// How many of a queue's newest messages stay in memory. Slower subscribers read from the store.
    pub queue_buffer_messages: usize,
    /// How many bytes of them.
    pub queue_buffer_bytes: usize,
    /// Most messages of a batch; at most [`limits::MAX_BATCH_MESSAGES`].
    pub max_batch_messages: usize,
    /// Bytes of pushes that are accepted and not stored yet, over all queues; further pushes wait.
    pub max_pending_bytes: usize,
    /// How long the broker may go without the store before it counts as dead. Renewed three times as often.
    pub lease: Duration,
    /// Deadline of one call of the store; below the lease.
    pub store_timeout: Duration,
    /// How long pushes wait while the fate of an append is found out; then their outcome is unknown.
    pub recovery_timeout: Duration,
    /// How long a push or subscription waits for its queue to be activated here.
    pub activation_timeout: Duration,
    /// How often expired messages are removed.
    pub trim_interval: Duration,
    /// For how long a producer is remembered after its last push; above the clients' delivery timeout.
    pub producer_retention: Duration,
    /// Most subscriptions at once.
    pub max_subscriptions: usize,
    /// Reads of the store on behalf of subscribers at once.
    pub max_store_reads: usize,
    /// Looking up unknown queues and channels in the store: at most so many a second.
    pub max_lookups_per_second: u32,
}

impl BrokerSettings {
    /// The defaults, for a broker at `addr`.
    #[must_use]
    pub fn new(addr: BrokerAddr) -> Self {
        Self {
            addr,
            message_ttl: Some(Duration::from_secs(600)),
            max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
            queue_buffer_messages: 10_000,
            queue_buffer_bytes: 16 << 20,
            max_batch_messages: limits::MAX_BATCH_MESSAGES,
            max_pending_bytes: 64 << 20,
            lease: Duration::from_secs(3),
            store_timeout: Duration::from_secs(2),
            recovery_timeout: Duration::from_secs(10),
            activation_timeout: Duration::from_secs(5),
            trim_interval: Duration::from_secs(1),
            producer_retention: Duration::from_secs(3600),
            max_subscriptions: 20_000,
            max_store_reads: 4,
            max_lookups_per_second: 1_000,
        }
    }
}
