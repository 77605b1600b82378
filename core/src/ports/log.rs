//! The log of each queue, and the row that fences it.

use async_trait::async_trait;
use bytes::Bytes;

use super::StoreError;
use crate::frame::{BatchHeader, StoredBatch};
use crate::model::{BrokerId, ClaimId, Epoch, Incarnation, Offset, ProducerEpoch, ProducerId, QueueId, StoreTime};

/// How far ahead of the store's clock a batch may be stored because the one before was. Within it, times never go back in a
/// queue; what lies further ahead was stored while the clock was wrong, and has no say.
pub const MAX_CLOCK_AHEAD_MILLIS: u64 = 60_000;

/// How many offsets a trim looks through for the oldest batch that is left, at most: a database may still hold, and pass over,
/// each batch that was removed there. The next trim goes on from where it stopped.
pub const MAX_TRIM_SPAN: u64 = 200_000;

/// A span of offsets that a read looks through in time, also if a batch was removed at each of them.
pub const MAX_READ_SPAN: u64 = 200_000;

/// No queue has more named producers, whatever a broker's settings say: so many entries make the end of a log no larger than
/// a new owner can read in time.
pub const MAX_NAMED_PRODUCERS: u32 = 100_000;

/// A broker's claim to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The queue.
    pub queue: QueueId,
    /// Who claims it.
    pub broker: BrokerId,
    /// In which run.
    pub incarnation: Incarnation,
    /// Names the attempt: made again, it answers with the epoch it created, if that is still the latest.
    pub claim: ClaimId,
}

/// A claim that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The epoch it created: one more than any before.
    pub epoch: Epoch,
    /// The store's clock at the time.
    pub store_time: StoreTime,
}

/// Why a claim failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The queue is assigned to another broker, or to none.
    #[error("the queue is not assigned to this broker")]
    NotAssignee,
    /// Another process registered under this broker's host and port.
    #[error("another process registered as this broker")]
    Replaced,
    /// The queue was deleted.
    #[error("the queue was deleted")]
    Deleted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was ever removed of a log, as its store counts it: what went between two counts is their difference. A log that an
/// earlier version kept begins with another number than zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Messages.
    pub messages: i64,
    /// Bytes of their frames.
    pub bytes: i64,
}

/// The end of a log, as a new owner reads it, in a statement of its own after the claim. Reading it takes the same whatever
/// the log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTail {
    /// The latest epoch; [`Epoch::ZERO`] if nobody has claimed the queue.
    pub epoch: Epoch,
    /// The offset of the newest message ever stored: the greater of the last batch's end and `trimmed_through`.
    pub end: Offset,
    /// First offset of the last batch still stored; [`Offset::ZERO`] if there is none.
    pub last_first: Offset,
    /// Its epoch; [`Epoch::ZERO`] if there is none.
    pub last_epoch: Epoch,
    /// When it was stored.
    pub last_stored_at: StoreTime,
    /// When it expires; [`StoreTime::NEVER`] if there is none.
    pub last_expires_at: StoreTime,
    /// Everything up to this offset has been removed.
    pub trimmed_through: Offset,
    /// Messages in stored batches, expired ones that are not trimmed yet included.
    pub messages: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// What was removed before.
    pub removed: Removed,
    /// When the oldest batch was stored; none if there is none, or a trim has not found it yet ([`MAX_TRIM_SPAN`]).
    pub oldest: Option<StoreTime>,
    /// No batch that ends before the producer snapshot's offset expires before this.
    pub none_expires_before: StoreTime,
    /// The last producer snapshot (an encoded `ProducerSnapshot`), and the offset through which it speaks.
    pub producers: Option<(Offset, Bytes)>,
    /// The producers' epochs that [`Log::open_producer`] gave out; of more than [`MAX_NAMED_PRODUCERS`] one more than that.
    pub producer_epochs: Vec<(ProducerId, ProducerEpoch)>,
}

impl Default for LogTail {
    /// Of a log that nothing was ever stored in.
    fn default() -> Self {
        Self {
            epoch: Epoch::ZERO,
            end: Offset::ZERO,
            last_first: Offset::ZERO,
            last_epoch: Epoch::ZERO,
            last_stored_at: StoreTime::default(),
            last_expires_at: StoreTime::NEVER,
            trimmed_through: Offset::ZERO,
            messages: 0,
            bytes: 0,
            removed: Removed::default(),
            oldest: None,
            none_expires_before: StoreTime::NEVER,
            producers: None,
            producer_epochs: Vec::new(),
        }
    }
}

/// A batch to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendBatch {
    /// The queue.
    pub queue: QueueId,
    /// The epoch of this owner's claim.
    pub epoch: Epoch,
    /// Offset of the first message: the log's end + 1.
    pub first: Offset,
    /// Offset of the last message.
    pub last: Offset,
    /// First offset of the batch before; [`Offset::ZERO`] if there is none. The store has to hold that batch, or to
    /// have trimmed it: else it lost what it had confirmed.
    pub previous: Offset,
    /// When the batch before was stored: this one is stored no earlier, unless that lies further ahead of the store's clock
    /// than [`MAX_CLOCK_AHEAD_MILLIS`].
    pub not_before: StoreTime,
    /// The longest lifetime of its messages in milliseconds; none if one lives for ever.
    pub lifetime_millis: Option<u64>,
    /// Version of index and frames.
    pub format: u16,
    /// The encoded `BatchIndex`.
    pub index: Bytes,
    /// The messages as they go to the socket.
    pub frames: Bytes,
    /// CRC-32 of index and frames.
    pub checksum: u32,
}

/// What became of one batch of a group append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable.
    Stored {
        /// The store's clock; expiry counts from here.
        stored_at: StoreTime,
    },
    /// A later epoch was claimed, or the epoch never existed. Nothing was stored.
    Fenced {
        /// The queue's epoch now.
        epoch: Epoch,
    },
    /// The queue was deleted. Nothing was stored.
    Deleted,
    /// The first offset is taken. Nothing was stored.
    Conflict,
    /// The batch before is neither stored nor trimmed: the store was rolled back. Nothing was stored.
    RolledBack,
}

/// A page of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What there is.
    pub batches: Vec<StoredBatch>,
    /// The source has no other batches up to this offset and will have none: it holds what comes later, or removed it. A page
    /// without batches proves no more: what lies beyond this offset its source does not have yet, or did not look for.
    pub looked_through: Offset,
}

/// A request to save the producers and to remove what has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trim {
    /// The queue.
    pub queue: QueueId,
    /// The epoch of this owner's claim.
    pub epoch: Epoch,
    /// An encoded `ProducerSnapshot` that speaks through `through`, to be saved in the same transaction; none: the one that
    /// is saved stays, and no batch beyond that is removed either.
    pub producers: Option<Bytes>,
    /// No batch beyond is removed.
    pub through: Offset,
    /// No batch but the last expires before this, as the owner knows: what was removed need not be looked through again.
    pub none_expires_before: StoreTime,
    /// How many batches to remove at most.
    pub limit: u32,
}

/// What a trim did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// Everything up to this offset has been removed, now or before.
    pub trimmed_through: Offset,
    /// Batches, messages and frame bytes removed now.
    pub batches: u64,
    /// See `batches`.
    pub messages: u64,
    /// See `batches`.
    pub bytes: u64,
    /// What was ever removed, this included: also by a trim whose answer was lost.
    pub removed: Removed,
    /// When the oldest batch that is left was stored; none if there is none, or it was not found yet.
    pub oldest: Option<StoreTime>,
    /// No batch that is left expires before this, but for the last one while there are others; [`StoreTime::NEVER`] if none
    /// does. A trim of a limit of 0 does not look, unless there is only one.
    pub next_expiry: StoreTime,
    /// There is more to do now: the limit was reached, or [`MAX_TRIM_SPAN`].
    pub more: bool,
    /// The store's clock at the time.
    pub store_time: StoreTime,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Batches that it removed.
    pub batches: u64,
    /// Something of deleted queues is left: the limit was reached, or a hole between batches was passed. The next purge goes on
    /// there.
    pub more: bool,
}

/// What became of an attempt to open a named producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It has this epoch now.
    Given(ProducerEpoch),
    /// It is new, and there are as many as there may be. Nothing was given.
    TooMany,
    /// The queue was deleted. Nothing was given.
    Deleted,
}

/// Why a fenced write other than an append failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A later epoch was claimed.
    #[error("fenced: the queue's epoch is {epoch} now")]
    Fenced {
        /// The queue's epoch now.
        epoch: Epoch,
    },
    /// The queue was deleted.
    #[error("the queue was deleted")]
    Deleted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One append-only log per queue. Only the creator of a queue's latest epoch can write to its log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Creates the next epoch, if the claimant is the assignee and its incarnation the registered one; waits for appends
    /// under way to that queue. Afterwards no append under an earlier epoch lands.
    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError>;

    /// The end of the log. After a claim, this is all that earlier epochs ever stored.
    async fn tail(&self, queue: QueueId) -> Result<LogTail, StoreError>;

    /// Headers of the batches that end beyond `after`, in order, `limit` at most.
    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError>;

    /// Batches that end beyond `after`, in order: at least one if there is any, then as many as fit `max_bytes` of frames. It
    /// looks for batches that begin within `span` offsets beyond `after`, or beyond what was trimmed if that is more: a
    /// database may still hold, and pass over, each batch that was removed there.
    async fn read_within(&self, queue: QueueId, after: Offset, span: u64, max_bytes: usize)
    -> Result<Page, StoreError>;

    /// As [`Log::read_within`], [`MAX_READ_SPAN`] far.
    async fn read(&self, queue: QueueId, after: Offset, max_bytes: usize) -> Result<Page, StoreError> {
        self.read_within(queue, after, MAX_READ_SPAN, max_bytes).await
    }

    /// Appends one batch to each of several queues, each by itself: the answers are in the order of the group, which is in
    /// order of queue id and names each queue once. Atomic per batch and, on error, for the whole group: after
    /// [`StoreError::Unknown`] either every batch that could be stored was, or none.
    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError>;

    /// Saves the producers, unless those that are saved speak through a later offset: a trim of unknown outcome may land
    /// after its successor, which removed what only the newer ones know. Removes batches whose `expires_at` is not later
    /// than the store's now, those that expired first first; the last batch stays until all before it are gone.
    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError>;

    /// Gives a named producer of a live queue its next epoch: 1, 2, 3 …. A new one is refused if the queue has `most`
    /// or [`MAX_NAMED_PRODUCERS`], however many are opened at the same time.
    async fn open_producer(&self, queue: QueueId, producer: ProducerId, most: u32) -> Result<Opened, StoreError>;

    /// Removes up to `limit` batches of deleted queues, and what else is left of those.
    async fn purge_deleted(&self, limit: u32) -> Result<Purged, StoreError>;
}
