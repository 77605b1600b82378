//! A batch in the form in which stores keep it.

use bytes::Bytes;

use crate::model::{Epoch, Offset, StoreTime};

/// The facts about a stored batch that are known without reading its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first message.
    pub first: Offset,
    /// Offset of the last message.
    pub last: Offset,
    /// The epoch it was stored under.
    pub epoch: Epoch,
    /// When it was stored.
    pub stored_at: StoreTime,
    /// When the last of its messages expires.
    pub expires_at: StoreTime,
    /// Version of index and frames.
    pub format: u16,
    /// The encoded `BatchIndex`.
    pub index: Bytes,
}

/// A stored batch. Expired messages may be among its frames; the reader leaves them out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Everything but the frames.
    pub header: BatchHeader,
    /// The messages as sent to the socket.
    pub frames: Bytes,
    /// CRC-32 of index and frames.
    pub checksum: u32,
}
