//! What a caller can ask for.

use std::fmt;

use crate::model::{ChannelId, QueueLabel};

/// A kind of operation that a caller can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// Push messages into a queue.
    Push,
    /// Read messages of a queue. This includes the creation of channels, which subscribers need and which hold no messages.
    Consume,
    /// Create queues.
    Create,
    /// Delete queues, and channels with the subscriptions of others.
    Delete,
    /// Change the settings of a queue.
    Configure,
    /// Look at queues, channels and the cluster. Managers need this right on brokers.
    Inspect,
    /// Change the cluster: drain, forget and rebalance brokers.
    Admin,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 7] =
        [Self::Push, Self::Consume, Self::Create, Self::Delete, Self::Configure, Self::Inspect, Self::Admin];

    /// The name in configurations and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Consume => "consume",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Configure => "configure",
            Self::Inspect => "inspect",
            Self::Admin => "admin",
        }
    }

    /// The action of this kind on a queue.
    #[must_use]
    pub fn on_queue(self, label: &QueueLabel) -> Action {
        Action { right: self, object: Object::Queue(label.clone()) }
    }

    /// The action of this kind on a channel.
    #[must_use]
    pub const fn on_channel(self, channel: ChannelId) -> Action {
        Action { right: self, object: Object::Channel(channel) }
    }

    /// The action of this kind on all queues and brokers.
    #[must_use]
    pub const fn on_cluster(self) -> Action {
        Action { right: self, object: Object::Cluster }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an operation acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A queue with its messages and channels.
    Queue(QueueLabel),
    /// A channel whose queue the caller did not name.
    Channel(ChannelId),
    /// All queues and brokers.
    Cluster,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(label) => write!(f, "the queue {label}"),
            Self::Channel(channel) => write!(f, "the channel {channel}"),
            Self::Cluster => f.write_str("the cluster"),
        }
    }
}

/// An operation that a caller asks for, without its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its kind.
    pub right: Right,
    /// What it acts on.
    pub object: Object,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.right, self.object)
    }
}
