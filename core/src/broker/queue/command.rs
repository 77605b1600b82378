//! What reaches a queue's task: commands through its channel, orders beside it.

use tokio::sync::oneshot;

use crate::{
    broker::{BrokerError, Held, ProducerStamp},
    model::{NewMessage, Offset, ProducerEpoch, ProducerId, ProducerKey, Sequence},
};

/// Commands waiting for a queue's task. Senders wait when it is full.
pub(super) const COMMANDS: usize = 256;

/// A run of pushes on its way to a queue.
pub(in crate::broker) struct Push {
    /// `None`: the broker numbers the messages.
    pub(in crate::broker) producer: Option<(ProducerStamp, Sequence)>,
    pub(in crate::broker) messages: Vec<NewMessage>,
    /// Its part of the broker's room, until it is answered.
    pub(in crate::broker) held: Held,
    pub(in crate::broker) reply: oneshot::Sender<Result<Pushed, BrokerError>>,
}

/// A run that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Pushed {
    /// The producer that the messages are stored under.
    pub(in crate::broker) key: ProducerKey,
    /// Sequence of its last message.
    pub(in crate::broker) through: Sequence,
    /// Offset of its last message, if it is known.
    pub(in crate::broker) offset: Option<Offset>,
    /// How many of its messages had been stored before.
    pub(in crate::broker) duplicates: u64,
}

pub(in crate::broker) enum Command {
    Push(Box<Push>),
    /// A named producer has a new epoch: answers with its last stored sequence, as soon as that is certain.
    Open {
        id: ProducerId,
        epoch: ProducerEpoch,
        reply: oneshot::Sender<Sequence>,
    },
}

/// What the supervisor orders a queue's task to do. Not a command: a task that takes no commands sees it, too, and giving it
/// never waits.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct Orders {
    /// One more for each order to claim the queue and read its log again.
    pub(in crate::broker) verifications: u64,
    /// Take no more commands, store what was accepted, then end.
    pub(in crate::broker) stop: Option<BrokerError>,
}
