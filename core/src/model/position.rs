//! Where a consumer is, and where a channel starts.

use serde::{Deserialize, Serialize};

use super::{Epoch, Offset, QueueId};

/// What a consumer needs to go on: the last message it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The queue; another one of the same label answers `QueueReplaced`.
    pub queue: QueueId,
    /// The epoch of the stream that delivered the message: the store has to have seen it.
    pub epoch: Epoch,
    /// The message's offset; the next delivered is beyond it.
    pub offset: Offset,
}

/// Where a new channel starts.
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
