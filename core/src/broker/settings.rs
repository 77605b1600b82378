//! What an operator can set on a broker.

use std::time::Duration;

use crate::{
    model::{BrokerAddr, limits},
    ports::MAX_READ_SPAN,
};

/// Settings of a broker. [`BrokerSettings::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// Where clients and managers reach it.
    pub addr: BrokerAddr,
    /// Lifetime of messages that name none. `None`: they never expire. Default: 600 s, as the original's example has it.
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
    /// Most producers of one queue that are remembered at once. Further ones are refused until some are forgotten.
    pub max_producers_per_queue: usize,
    /// Most producers of one queue that ever had a name.
    pub max_named_producers_per_queue: usize,
    /// Most subscriptions at once.
    pub max_subscriptions: usize,
    /// Queues that are activated at once, or claimed again after an append of unknown outcome; the others wait for their turn.
    /// Below the connections that the store has, so that the rest goes on.
    pub max_activations: usize,
    /// Queues of which expired messages are removed at once.
    pub max_trims: usize,
    /// Reads of the store on behalf of subscribers at once.
    pub max_store_reads: usize,
    /// Looking up queues that are not hosted here, and channels that do not exist: at most so many a second, and a quarter of
    /// them for one address.
    pub max_lookups_per_second: u32,
    /// A broker deletes a channel that was made by the original's route or gRPC method once nobody has subscribed to it for so
    /// long, or up to half as long again. `None`: it deletes none, which is the default.
    pub channel_idle_expiry: Option<Duration>,
    /// What no operator has to know.
    pub tuning: Tuning,
}

/// The sizes of a broker's steps. No configuration names them: the defaults are right for all, and only simulations change
/// them, in order to meet in a short run what else takes days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// The producers are saved after so many batches, which bounds what an activation has to read.
    pub snapshot_every: u64,
    /// Saving producers of so many bytes is done once a second at most; of twice as many, once in two seconds.
    pub save_bytes_per_second: usize,
    /// Batches that one call of the store removes, so that none takes long.
    pub trim_batches: u32,
    /// Headers of batches that one call of the store reads.
    pub header_page: u32,
    /// Trimming looks again at least so often, in case the store's clock runs faster than ours.
    pub longest_sleep: Duration,
    /// A batch that has as many frame bytes ends with the push that filled it. Larger ones cost the store less a message, but
    /// hold everything that producers have in flight, who then wait for it, as the store waits for them: what is in flight has
    /// to be in several batches for producers, broker, and store to work at the same time. 512 KiB delivers as much, 4 MiB a
    /// quarter less.
    pub enough_bytes: usize,
    /// Bytes that a subscriber reads from the store at a time when it is behind the cache.
    pub page_bytes: usize,
    /// Offsets that such a read looks through, at most. A subscriber crosses a larger hole, where batches between others have
    /// expired, with several reads.
    pub read_span: u64,
}

impl Tuning {
    /// Beyond so many batches that no saved producers speak for, nothing is appended: a new owner reads the headers of all.
    #[must_use]
    pub fn max_unsaved(&self) -> u64 {
        self.snapshot_every.saturating_mul(10)
    }

    /// How long nothing is saved after so many bytes of producers.
    #[must_use]
    pub fn saving_takes(&self, bytes: usize) -> Duration {
        Duration::from_secs(1).mul_f64(bytes as f64 / self.save_bytes_per_second.max(1) as f64)
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            snapshot_every: 1_000,
            save_bytes_per_second: 64 << 10,
            trim_batches: 1_000,
            header_page: 1_000,
            longest_sleep: Duration::from_secs(60),
            enough_bytes: 256 << 10,
            page_bytes: 1 << 20,
            read_span: MAX_READ_SPAN,
        }
    }
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
            max_producers_per_queue: 100_000,
            max_named_producers_per_queue: 10_000,
            max_subscriptions: 20_000,
            max_activations: 4,
            max_trims: 2,
            max_store_reads: 4,
            max_lookups_per_second: 1_000,
            channel_idle_expiry: None,
            tuning: Tuning::default(),
        }
    }
}
