//! What a manager asks of a broker.

use std::{ops::RangeInclusive, time::Duration};

use async_trait::async_trait;

use crate::model::{BrokerAddr, ChannelId, Code, Epoch, Offset, QueueId, QueueLabel, Topic};

/// Why a broker did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No connection, or it broke.
    #[error("cannot reach the broker at {addr}: {reason}")]
    Unreachable {
        /// Where it should be.
        addr: BrokerAddr,
        /// What the transport said.
        reason: String,
    },
    /// No answer within the deadline.
    #[error("the broker at {addr} did not answer within {deadline:?}")]
    DeadlineExceeded {
        /// Where it is.
        addr: BrokerAddr,
        /// How long it had.
        deadline: Duration,
    },
    /// It does not know the call.
    #[error("the broker at {addr} is of an older version, which does not know this call; upgrade it")]
    Older {
        /// Where it is.
        addr: BrokerAddr,
    },
    /// It answered with an error.
    #[error("the broker at {addr} refused: {message}")]
    Refused {
        /// Where it is.
        addr: BrokerAddr,
        /// The stable code, if there was one.
        code: Option<Code>,
        /// What it said.
        message: String,
    },
}

/// What the hosting broker knows about a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDescription {
    /// The queue.
    pub queue: QueueId,
    /// The broker's epoch.
    pub epoch: Epoch,
    /// The newest message's offset.
    pub last_offset: Offset,
    /// Live messages.
    pub depth_messages: u64,
    /// Their frames' bytes.
    pub depth_bytes: u64,
    /// Age of the oldest.
    pub oldest_age: Duration,
    /// Who is subscribed.
    pub subscribers: Vec<SubscriberDescription>,
}

/// What a broker does with a queue that it hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueActivity {
    /// It claims the queue and reads its log, or finds out what became of an append.
    Waiting,
    /// It serves the queue.
    Served,
    /// It does nothing until an operator looks.
    Halted,
}

/// What the hosting broker knows about a queue at once, without waiting for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// The queue.
    pub queue: QueueId,
    /// What the broker does with it.
    pub activity: QueueActivity,
    /// Why the queue is not served; none if it is.
    pub reason: Option<String>,
    /// The broker's epoch; 0 before its first claim, and while the queue is halted.
    pub epoch: Epoch,
    /// The newest message's offset.
    pub last_offset: Offset,
    /// Live messages.
    pub depth_messages: u64,
    /// Their frames' bytes.
    pub depth_bytes: u64,
    /// Age of the oldest.
    pub oldest_age: Duration,
    /// How many are subscribed.
    pub subscribers: u64,
    /// Offsets between what the slowest of them was handed and the newest message.
    pub largest_lag: u64,
}

/// One subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberDescription {
    /// The channel.
    pub channel: ChannelId,
    /// The channel's topic.
    pub topic: Topic,
    /// Address of the client's end of the connection.
    pub peer: String,
    /// Everything up to this offset was handed to the connection.
    pub offset: Offset,
    /// Offsets between that and the newest message.
    pub lag: u64,
}

/// A manager's line to the brokers. Every call has a deadline. None of them confers anything: decisions are in the
/// store, and these calls only make a broker look at it sooner.
#[async_trait]
pub trait BrokerControl: Send + Sync + 'static {
    /// Succeeds while the broker's own lease is current.
    async fn heartbeat(&self, broker: &BrokerAddr, deadline: Duration) -> Result<(), ControlError>;

    /// Makes the broker look up a queue that was assigned to it, and answers once it serves it.
    async fn rebuild(&self, broker: &BrokerAddr, label: &QueueLabel, deadline: Duration) -> Result<(), ControlError>;

    /// Makes the broker notice at once that something of its was deleted or moved away.
    async fn refresh(&self, broker: &BrokerAddr, deadline: Duration) -> Result<(), ControlError>;

    /// Asks the hosting broker about a queue.
    async fn describe(
        &self,
        broker: &BrokerAddr,
        label: &QueueLabel,
        deadline: Duration,
    ) -> Result<QueueDescription, ControlError>;

    /// Asks a broker about all queues with these labels that it hosts.
    async fn states(
        &self,
        broker: &BrokerAddr,
        labels: &RangeInclusive<QueueLabel>,
        deadline: Duration,
    ) -> Result<Vec<QueueState>, ControlError>;

    /// Asks a broker why it is not as it should be. None: all is well, as far as it knows.
    async fn complaints(&self, broker: &BrokerAddr, deadline: Duration) -> Result<Vec<String>, ControlError>;
}
