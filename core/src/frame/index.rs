//! The index of a batch.

use prost::Message as _;
use rmom_proto::storage::BatchIndex;

use super::READS_UP_TO;
use crate::model::{IdError, NameError, Offset, ProducerEpoch, ProducerId, ProducerKey, Sequence};

/// The reason why a stored batch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A later rmom wrote it.
    #[error("stored by a newer version: upgrade this broker, which reads formats up to {READS_UP_TO} and not {found}")]
    Newer {
        /// The batch's format.
        found: u16,
    },
    /// The bytes differ from those that were stored.
    #[error("checksum {found:08x} instead of {expected:08x}")]
    Checksum {
        /// The stored checksum.
        expected: u32,
        /// The checksum of the bytes that were read.
        found: u32,
    },
    /// The index is not a `BatchIndex`.
    #[error("index: {0}")]
    Index(#[from] prost::DecodeError),
    /// An id in the index is invalid.
    #[error("index: {0}")]
    Id(#[from] IdError),
    /// A topic in the index is invalid.
    #[error("index: {0}")]
    Name(#[from] NameError),
    /// Parts of the batch contradict each other.
    #[error("{0}")]
    Inconsistent(&'static str),
}

/// Consecutive messages of one producer with consecutive sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The producer.
    pub key: ProducerKey,
    /// Sequence of the first message.
    pub first: Sequence,
    /// Offset of the first message.
    pub offset: Offset,
    /// Number of messages; at least one.
    pub count: u64,
}

impl Run {
    /// Sequence of the last message.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.first.plus(self.count - 1)
    }

    /// Offset of the last message.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.offset.plus(self.count - 1)
    }

    /// The offset of this producer's message with that sequence, if it is in the run.
    #[must_use]
    pub fn offset_of(&self, id: ProducerId, sequence: Sequence) -> Option<Offset> {
        (self.key.id == id && self.first <= sequence && sequence <= self.last())
            .then(|| self.offset.plus(sequence.since(self.first)))
    }
}

/// Number of messages of a batch that begins and ends at these offsets.
pub(super) fn count(first: Offset, last: Offset) -> Result<u64, FrameError> {
    if first == Offset::ZERO || last < first {
        return Err(FrameError::Inconsistent("the batch is empty"));
    }
    // There must be an offset left for the next message.
    if last.get() == i64::MAX as u64 {
        return Err(FrameError::Inconsistent("the batch ends at the last offset there is"));
    }
    Ok(last.next().since(first))
}

pub(super) fn decode(format: u16, index: &[u8]) -> Result<BatchIndex, FrameError> {
    if format > READS_UP_TO {
        return Err(FrameError::Newer { found: format });
    }
    Ok(BatchIndex::decode(index)?)
}

/// The producers of a stored batch with its first message at `first` and its last at `last`.
///
/// # Errors
/// [`FrameError`] if the index is damaged or newer than this binary.
pub fn runs(format: u16, index: &[u8], first: Offset, last: Offset) -> Result<Vec<Run>, FrameError> {
    let index = decode(format, index)?;
    count(first, last)?;
    let mut offset = first;
    let mut runs = Vec::with_capacity(index.producers.len());
    for run in &index.producers {
        let count = u64::from(run.count);
        let first = Sequence::parse(run.first_sequence)?;
        let fits = count >= 1 && first > Sequence::ZERO && count <= last.next().since(offset);
        if !fits || Sequence::parse(run.first_sequence.saturating_add(count)).is_err() {
            return Err(FrameError::Inconsistent("a producer's run does not fit the batch"));
        }
        let epoch = ProducerEpoch::stored(run.producer_epoch);
        let key = ProducerKey { id: ProducerId::from_slice(&run.producer_id)?, epoch };
        runs.push(Run { key, first, offset, count });
        offset = offset.plus(count);
    }
    if offset != last.next() {
        return Err(FrameError::Inconsistent("the producers' runs do not cover the batch"));
    }
    Ok(runs)
}
