//! Errors of a manager's operations.

use std::{borrow::Cow, time::Duration};

use crate::{
    access::Denied,
    model::{BrokerId, ChannelId, Code, Coded, Offset, QueueId, QueueLabel},
    ports::{CreateChannelError, CreateQueueError, StoreError},
};

/// The reason why an operation failed. Unless stated otherwise, nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// The caller may not do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no live queue with that label.
    #[error("queue_label: there is no queue {0}")]
    QueueNotFound(QueueLabel),
    /// There is a live queue with that label.
    #[error("queue_label: the queue {0} exists")]
    QueueExists(QueueLabel),
    /// There is no such channel, or its queue is gone.
    #[error("channel_id: there is no channel {0}")]
    ChannelNotFound(ChannelId),
    /// No broker has ever registered under this id.
    #[error("broker_id: there is no broker {0}")]
    BrokerNotFound(BrokerId),
    /// A broker cannot be forgotten while it may be alive.
    #[error(
        "broker_id: broker {broker} is alive, or was within the last {gone_for:?}; stop it, and try again when it has been \
         gone for so long"
    )]
    BrokerAlive {
        /// The broker.
        broker: BrokerId,
        /// How long it has to be gone.
        gone_for: Duration,
    },
    /// A broker cannot be forgotten while it has queues.
    #[error(
        "broker_id: {queues} queues are assigned to broker {broker}; they are moved as soon as another broker takes \
         queues; try again then"
    )]
    BrokerHasQueues {
        /// The broker.
        broker: BrokerId,
        /// Number of its queues.
        queues: u64,
    },
    /// No live broker could host a new queue.
    #[error("no broker is available; start one, or try again when one is back")]
    NoBroker,
    /// The queue exists, but its assigned broker is not live, and no other broker has it yet.
    #[error("the queue {label} has no live broker at the moment; try again soon")]
    NoBrokerFor {
        /// The queue.
        label: QueueLabel,
    },
    /// The queue was created, but no broker serves it yet.
    #[error(
        "the queue {label} was created, with id {queue}, but no broker served it within {deadline:?}; it exists, and will \
         be served as soon as a broker can"
    )]
    NotServedYet {
        /// Its label.
        label: QueueLabel,
        /// Its id.
        queue: QueueId,
        /// How long this manager waited.
        deadline: Duration,
    },
    /// The cluster is in a state that has to pass first.
    #[error("not now: {0}; try again when `rmom broker list` shows all brokers alive")]
    Unsettled(&'static str),
    /// A named limit on the number of queues or channels was reached.
    #[error("{0}")]
    LimitReached(String),
    /// The start of a channel is beyond the queue's end.
    #[error("start: offset {start} is beyond the end of the queue, which is {end}")]
    OffsetOutOfRange {
        /// The requested offset.
        start: Offset,
        /// The newest message's offset.
        end: Offset,
    },
    /// The store failed. After [`StoreError::Unknown`], the change may have been made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operation took too long. It may have been carried out in part.
    #[error("the operation was not finished within {0:?}")]
    DeadlineExceeded(Duration),
    /// Too many operations at once.
    #[error("{limit} operations are under way, which is the limit; try again later")]
    Overloaded {
        /// `max_admin_calls`.
        limit: u32,
    },
    /// This manager is stopping, or has stopped.
    #[error("this manager is stopping; ask another one")]
    ShuttingDown,
    /// The store contradicts itself.
    #[error("a defect of rmom: {0}")]
    Internal(&'static str),
}

impl Coded for ManagerError {
    fn code(&self) -> Code {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::QueueNotFound(_) => Code::QueueNotFound,
            Self::QueueExists(_) => Code::QueueExists,
            Self::ChannelNotFound(_) => Code::ChannelNotFound,
            Self::BrokerNotFound(_) => Code::BrokerNotFound,
            Self::BrokerAlive { .. } | Self::BrokerHasQueues { .. } => Code::BrokerInUse,
            Self::NoBroker | Self::NoBrokerFor { .. } => Code::NoBroker,
            Self::NotServedYet { .. } => Code::NotHosted,
            Self::Unsettled(_) => Code::Unsettled,
            Self::LimitReached(_) => Code::LimitReached,
            Self::OffsetOutOfRange { .. } => Code::OffsetOutOfRange,
            Self::Store(error) => error.code(),
            Self::DeadlineExceeded(_) => Code::DeadlineExceeded,
            Self::Overloaded { .. } => Code::Overloaded,
            Self::ShuttingDown => Code::ShuttingDown,
            Self::Internal(_) => Code::Internal,
        }
    }

    fn details(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        match self {
            Self::NotServedYet { queue, .. } => vec![("queue_id", queue.to_string().into())],
            Self::OffsetOutOfRange { end, .. } => vec![("end", end.to_string().into())],
            Self::Overloaded { limit } => vec![("limit", limit.to_string().into())],
            _ => Vec::new(),
        }
    }
}

impl ManagerError {
    pub(super) fn from_create_queue(error: CreateQueueError, label: &QueueLabel) -> Self {
        match error {
            CreateQueueError::Exists => Self::QueueExists(label.clone()),
            CreateQueueError::DeletedSince => Self::QueueNotFound(label.clone()),
            CreateQueueError::TooMany => Self::LimitReached(error.to_string()),
            CreateQueueError::NoSuchBroker(_) => Self::NoBroker,
            CreateQueueError::Store(error) => Self::Store(error),
        }
    }

    pub(super) fn from_create_channel(error: CreateChannelError, label: &QueueLabel) -> Self {
        match error {
            CreateChannelError::NoSuchQueue => Self::QueueNotFound(label.clone()),
            CreateChannelError::TooMany => Self::LimitReached(error.to_string()),
            CreateChannelError::BeyondEnd { start, end } => Self::OffsetOutOfRange { start, end },
            CreateChannelError::IdTaken => Self::Internal("a random channel id was taken"),
            CreateChannelError::Store(error) => Self::Store(error),
        }
    }
}
