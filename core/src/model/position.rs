//! The position of a consumer, and the start of a channel.

use serde::{Deserialize, Serialize};

use super::{Epoch, Offset, QueueId};

/// The position of the last message that a consumer received, from which it can continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The queue. A later queue with the same label answers `QueueReplaced`.
    pub queue: QueueId,
    /// The epoch of the stream that delivered the message. The store must have reached it.
    pub epoch: Epoch,
    /// The message's offset; the next delivered message is beyond it.
    pub offset: Offset,
}

/// The offset at which a new channel starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest live message, as the original does.
    #[default]
    Earliest,
    /// After the newest message at the time of creation.
    Latest,
    /// At this offset, or the first live one beyond it.
    At(Offset),
}
