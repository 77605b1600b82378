//! What can be asked of a broker, and what it answers.

use std::{borrow::Cow, time::Duration};

use crate::{
    access::Denied,
    model::{
        BrokerAddr, ChannelId, Code, Coded, Epoch, IdError, MessageId, NameError, NewMessage, Offset, Position,
        ProducerEpoch, ProducerKey, QueueId, QueueLabel, Sequence,
        limits::{MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_TTL},
    },
    ports::{StoreError, SubscriberDescription},
};

/// Who pushes, for pushes that may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer and its epoch.
    pub key: ProducerKey,
    /// The lowest sequence whose outcome it does not know: where a broker that does not know it starts.
    pub lowest_unacknowledged: Sequence,
}

/// One push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRequest {
    /// Where to.
    pub label: QueueLabel,
    /// The queue that is meant, if the client cares which queue of that label it is.
    pub queue: Option<QueueId>,
    /// The producer, and the message's sequence. `None`: the broker numbers it.
    pub producer: Option<(ProducerStamp, Sequence)>,
    /// What.
    pub message: NewMessage,
}

/// A push that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushReceipt {
    /// The queue.
    pub queue: QueueId,
    /// The message's id.
    pub id: MessageId,
    /// Its offset; none for a duplicate so old that only the fact is remembered.
    pub offset: Option<Offset>,
    /// True if it had been stored before.
    pub duplicate: bool,
}

/// The opening of a stream of pushes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPush {
    /// Where to.
    pub label: QueueLabel,
    /// As in [`PushRequest::queue`].
    pub queue: Option<QueueId>,
    /// The producer. `None`: the broker numbers the messages, in an order of its own.
    pub producer: Option<ProducerStamp>,
}

/// Messages of consecutive sequences, pushed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRun {
    /// Sequence of the first.
    pub first: Sequence,
    /// The messages; at least one.
    pub messages: Vec<NewMessage>,
    /// As in [`ProducerStamp::lowest_unacknowledged`]. `None`: unchanged.
    pub lowest_unacknowledged: Option<Sequence>,
}

/// A run that is durable, and with it all before it on the same stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunReceipt {
    /// Sequence of the run's last message.
    pub through: Sequence,
    /// Its offset; none for a duplicate so old that only the fact is remembered.
    pub offset: Option<Offset>,
    /// How many messages of the run had been stored before.
    pub duplicates: u64,
}

/// A subscription to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// The channel.
    pub channel: ChannelId,
    /// Continue after this position. `None`: begin at the channel's start.
    pub position: Option<Position>,
}

/// A named producer's new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedProducer {
    /// The queue.
    pub queue: QueueId,
    /// Its epoch from now on; earlier ones are refused.
    pub epoch: ProducerEpoch,
    /// The last sequence it stored in this queue; 0: none.
    pub last_sequence: Sequence,
}

/// Why a broker did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The caller may not do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A label or topic.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An id or counter.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A field that contradicts another, or is missing.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field, as the client knows it.
        field: &'static str,
        /// What is wrong, and what would be right.
        reason: &'static str,
    },
    /// Framing included.
    #[error("content: the message takes {bytes} bytes, framing included; the limit is {limit}")]
    MessageTooLarge {
        /// Encoded length.
        bytes: usize,
        /// `max_message_bytes`.
        limit: usize,
    },
    /// More than [`MAX_HEADERS`].
    #[error("headers: there are {found}; the limit is {MAX_HEADERS}")]
    TooManyHeaders {
        /// How many there are.
        found: usize,
    },
    /// A header's name is empty or longer than [`MAX_HEADER_NAME_BYTES`].
    #[error("headers: a name has {bytes} bytes; it takes 1 to {MAX_HEADER_NAME_BYTES}")]
    HeaderName {
        /// Its length.
        bytes: usize,
    },
    /// Longer than [`MAX_TTL`].
    #[error("ttl_millis: {}; the limit is {}", .0.as_millis(), MAX_TTL.as_millis())]
    TtlTooLong(Duration),
    /// No live queue of that label.
    #[error("queue_label: there is no queue {0}")]
    QueueNotFound(QueueLabel),
    /// A live queue of that label.
    #[error("queue_label: the queue {0} exists")]
    QueueExists(QueueLabel),
    /// The client means a queue that was deleted.
    #[error("the queue with id {queue} was deleted; its label may name a new one")]
    QueueReplaced {
        /// The id that the client holds.
        queue: QueueId,
    },
    /// No such channel, or its queue is gone.
    #[error("channel_id: there is no channel {0}")]
    ChannelNotFound(ChannelId),
    /// A named limit.
    #[error("{0}")]
    LimitReached(String),
    /// A producer that is new to the queue, which keeps as many apart as it may.
    #[error("the queue has {limit} producers, which is the limit ({setting}); use one producer for many pushes")]
    TooManyProducers {
        /// The setting that limits them.
        setting: &'static str,
        /// Its value.
        limit: usize,
    },
    /// The queue is assigned to another broker, or to none.
    #[error("the queue is hosted by {}, not here", .assignee.as_ref().map_or_else(|| "no broker".to_owned(), ToString::to_string))]
    NotHosted {
        /// The assigned broker. `None`: the queue is not assigned yet.
        assignee: Option<BrokerAddr>,
    },
    /// The queue is assigned to this broker, which could not claim it and read its log in time.
    #[error("the queue was not ready within {0:?}; try again")]
    ActivationTimeout(Duration),
    /// This broker was replaced as the queue's owner.
    #[error("this broker is no longer the queue's owner; ask the manager who is")]
    Fenced,
    /// This broker's lease ran out.
    #[error("this broker's lease ran out; it cannot reach the store, or was paused")]
    LeaseExpired,
    /// The producer skipped sequences.
    #[error("sequence: {found} does not follow; {expected} is next")]
    SequenceGap {
        /// The next acceptable sequence.
        expected: Sequence,
        /// The one that came.
        found: Sequence,
    },
    /// A later epoch of the producer exists.
    #[error("producer: epoch {found} was replaced by {current}")]
    ProducerFenced {
        /// The latest.
        current: ProducerEpoch,
        /// The one that came.
        found: ProducerEpoch,
    },
    /// The offset is beyond the end of the queue.
    #[error("offset {offset} is beyond the end of the queue, which is {end}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The newest message's offset.
        end: Offset,
    },
    /// The store holds less than it had confirmed.
    #[error(
        "the store was rolled back: it ends at offset {end}, epoch {epoch}, but had confirmed {confirmed}; see the operators' page"
    )]
    StoreRolledBack {
        /// Its newest message's offset.
        end: Offset,
        /// Its latest epoch.
        epoch: Epoch,
        /// What it had confirmed to this broker or to the client.
        confirmed: Offset,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A push ahead of this one failed, and with it everything behind.
    #[error("a push ahead of this one failed; nothing behind it was stored")]
    Behind,
    /// The process is stopping.
    #[error("this broker is stopping")]
    ShuttingDown,
    /// A buffer limit.
    #[error("{what}: the limit of {limit} is reached; try again later")]
    Overloaded {
        /// Which limit.
        what: &'static str,
        /// Its value.
        limit: usize,
    },
}

impl Coded for BrokerError {
    fn code(&self) -> Code {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Name(_) => Code::InvalidName,
            Self::Id(_)
            | Self::Invalid { .. }
            | Self::TooManyHeaders { .. }
            | Self::HeaderName { .. }
            | Self::TtlTooLong(_) => Code::InvalidArgument,
            Self::MessageTooLarge { .. } => Code::MessageTooLarge,
            Self::QueueNotFound(_) => Code::QueueNotFound,
            Self::QueueExists(_) => Code::QueueExists,
            Self::QueueReplaced { .. } => Code::QueueReplaced,
            Self::ChannelNotFound(_) => Code::ChannelNotFound,
            Self::LimitReached(_) => Code::LimitReached,
            Self::TooManyProducers { .. } => Code::TooManyProducers,
            Self::NotHosted { .. } | Self::ActivationTimeout(_) => Code::NotHosted,
            Self::Fenced => Code::Fenced,
            Self::LeaseExpired => Code::LeaseExpired,
            Self::SequenceGap { .. } => Code::SequenceGap,
            Self::ProducerFenced { .. } => Code::ProducerFenced,
            Self::OffsetOutOfRange { .. } => Code::OffsetOutOfRange,
            Self::StoreRolledBack { .. } => Code::StoreRolledBack,
            Self::Store(error) => error.code(),
            Self::Behind => Code::StoreUnavailable,
            Self::ShuttingDown => Code::ShuttingDown,
            Self::Overloaded { .. } => Code::Overloaded,
        }
    }

    fn details(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        match self {
            Self::NotHosted { assignee: Some(addr) } => {
                vec![("host", addr.host.clone().into()), ("port", addr.port.to_string().into())]
            }
            Self::SequenceGap { expected, .. } => vec![("expected", expected.to_string().into())],
            Self::ProducerFenced { current, .. } => vec![("current", current.to_string().into())],
            Self::OffsetOutOfRange { end, .. } | Self::StoreRolledBack { end, .. } => {
                vec![("end", end.to_string().into())]
            }
            Self::MessageTooLarge { limit, .. } | Self::TooManyProducers { limit, .. } => {
                vec![("limit", limit.to_string().into())]
            }
            _ => Vec::new(),
        }
    }
}

/// Why a broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerExit {
    /// It was asked to.
    Stopped,
    /// Another process registered under its host and port.
    Replaced,
}

/// The broker as a whole, for health checks and metrics.
#[derive(Clone, Debug)]
pub struct BrokerStatus {
    /// Registered, and the lease is current.
    pub lease_current: bool,
    /// An operator drains it.
    pub draining: bool,
    /// It no longer takes requests.
    pub stopping: bool,
    /// Bytes of pushes that are being read, or accepted and not stored yet, and the limit.
    pub pending_bytes: (usize, usize),
    /// Pushes that waited for room among them, and pushes that were refused for lack of it, since the start.
    pub room_counts: (u64, u64),
    /// Lease renewals that failed since the start.
    pub failed_renewals: u64,
    /// Channels that were deleted since the start because nobody subscribed to them.
    pub expired_channels: u64,
    /// Appends that found a later epoch, since the start: of all queues, as those it happened to are not hosted any more.
    pub fenced_appends: u64,
    /// The queues it hosts, or is about to, by label.
    pub queues: Vec<QueueStatus>,
}

/// What a hosted queue is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePhase {
    /// Claiming it and reading its log.
    Activating,
    /// Serving.
    Serving,
    /// Finding out what became of an append.
    Recovering,
    /// The store was rolled back; nothing is done until an operator looks.
    Halted,
}

/// One hosted queue. Counters count since this broker began to host it.
#[derive(Clone, Debug)]
pub struct QueueStatus {
    /// Its label.
    pub label: QueueLabel,
    /// Its id.
    pub queue: QueueId,
    /// What it is doing.
    pub phase: QueuePhase,
    /// How long ago the first of the attempts to activate it failed, of which none has succeeded so far; none while it is served
    /// or halted.
    pub unserved: Option<Duration>,
    /// How long ago the first of the trims failed, of which none has done all that it had to so far.
    pub trims_failing: Option<Duration>,
    /// Where a stored batch ends that could not be decoded when it was last read; none once it was read or removed.
    pub undeliverable: Option<Offset>,
    /// A newer version of the broker stored what this one cannot read, if it is unserved or has something undeliverable.
    pub newer: bool,
    /// The broker's epoch; 0 before the first claim.
    pub epoch: Epoch,
    /// How often the queue went from one broker to another in its life, in good order or because the first had died.
    pub moves: u64,
    /// The newest message's offset.
    pub last_offset: Offset,
    /// Live messages (expired ones count until they are trimmed).
    pub depth_messages: u64,
    /// Their frames' bytes.
    pub depth_bytes: u64,
    /// Age of the oldest.
    pub oldest_age: Duration,
    /// Who is subscribed.
    pub subscribers: Vec<SubscriberDescription>,
    /// Counters.
    pub counters: QueueCounters,
}

/// What happened to a queue since this broker began to host it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Messages stored.
    pub pushed: u64,
    /// Bytes of their frames.
    pub pushed_bytes: u64,
    /// Messages handed to subscribers' connections.
    pub delivered: u64,
    /// Pushes that had been stored before.
    pub duplicates: u64,
    /// Pushes refused, for whatever reason.
    pub refused: u64,
    /// Messages trimmed after they expired.
    pub expired: u64,
    /// Appends whose outcome was not known at first.
    pub unknown_appends: u64,
    /// Claims by this broker: its own activations and recoveries.
    pub claims: u64,
    /// Chunks read from the store because the cache did not reach back far enough.
    pub store_reads: u64,
    /// Reads that showed less than this broker knows to be stored: they came from a standby, or an older copy.
    pub stale_reads: u64,
    /// Reads that found a batch that cannot be decoded.
    pub corrupt_reads: u64,
    /// Attempts to activate it that failed.
    pub failed_activations: u64,
    /// Trims that failed.
    pub failed_trims: u64,
}
