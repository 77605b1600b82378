//! Rules that do not depend on the database.

use rmom_core::{
    model::{Offset, Start},
    ports::{AppendBatch, ChannelRecord, CreateChannel, CreateChannelError, Removed, StoreError, Trimmed},
};

/// Most batches that one read returns, however small they are.
pub(super) const MAX_READ_BATCHES: i64 = 1_024;
/// Most empty tombstones that one purge removes.
pub(super) const MAX_PURGED_QUEUES: i64 = 1_000;

/// Refuses a group that breaks the rules of `Log::append`, before anything is sent.
pub(super) fn check_group(group: &[AppendBatch]) -> Result<(), StoreError> {
    if !group.is_sorted_by(|a, b| a.queue < b.queue) {
        return Err(StoreError::Refused("the batches of a group are not in order of queue id".into()));
    }
    if group.iter().any(|batch| batch.first == Offset::ZERO || batch.last < batch.first) {
        return Err(StoreError::Refused("a batch of the group has no messages".into()));
    }
    Ok(())
}

/// What was ever removed of a log, after a trim that began with what `trimmed` has for it. `total` is the running total of a
/// log that is empty now: the counts begin anew from there.
pub(super) fn removed_by(trimmed: &Trimmed, total: Option<i64>) -> Removed {
    let before = trimmed.removed;
    let messages = before.messages.saturating_add_unsigned(trimmed.messages);
    let bytes = before.bytes.saturating_add_unsigned(trimmed.bytes);
    let anew = |bytes| Removed { messages: trimmed.trimmed_through.as_i64(), bytes };
    total.map_or(Removed { messages, bytes }, anew)
}

/// The offset at which a new channel starts, of a log that was trimmed through one offset and ends at another.
pub(super) fn start(start: Start, trimmed_through: Offset, end: Offset) -> Result<Offset, CreateChannelError> {
    match start {
        Start::Earliest => Ok(trimmed_through.next()),
        Start::Latest => Ok(end.next()),
        Start::At(start) if start > end.next() => Err(CreateChannelError::BeyondEnd { start, end }),
        Start::At(start) => Ok(start),
    }
}

/// A channel of the same id, queue and topic counts as made by the same request.
pub(super) fn same_channel(found: ChannelRecord, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
    let same = found.queue == create.queue && found.topic == create.topic;
    if same { Ok(found) } else { Err(CreateChannelError::IdTaken) }
}
