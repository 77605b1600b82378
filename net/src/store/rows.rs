//! Rows of either database as the model's types. Both name their columns alike.

use rmom_core::{
    model::{ChannelId, Incarnation, ManagerId, Offset, ProducerId, StoreTime},
    ports::{
        BatchHeader, BrokerLife, BrokerRecord, BrokerState, ChannelRecord, Leadership, LogTail, Page, QueueRecord,
        Registration, Renewal, StoreError, StoredBatch, Trimmed,
    },
};

use super::column::{self, StoreRow};

/// A broker that registered.
pub(super) fn registration(row: &impl StoreRow, store_time: StoreTime) -> Result<Registration, StoreError> {
    Ok(Registration {
        broker: column::broker_id(row, "id")?,
        generation: column::generation(row, "generation")?,
        store_time,
    })
}

/// A broker that renewed its lease.
pub(super) fn renewal(row: &impl StoreRow, store_time: StoreTime) -> Result<Renewal, StoreError> {
    Ok(Renewal {
        generation: column::generation(row, "generation")?,
        renewals: column::renewals(row, "renewals")?,
        draining: column::state(row, "state")? == BrokerState::Draining,
        store_time,
    })
}

/// A broker.
pub(super) fn broker(row: &impl StoreRow) -> Result<BrokerRecord, StoreError> {
    Ok(BrokerRecord {
        id: column::broker_id(row, "id")?,
        addr: column::addr(row)?,
        incarnation: Incarnation::new(row.uuid("incarnation")?),
        state: column::state(row, "state")?,
        lease_until: column::time(row, "lease_until")?,
        lease: column::duration(row, "lease")?,
        queues: column::unsigned(row, "queues")?,
    })
}

/// Whether a broker lives.
pub(super) fn broker_life(row: &impl StoreRow, store_time: StoreTime) -> Result<BrokerLife, StoreError> {
    Ok(BrokerLife {
        addr: column::addr(row)?,
        state: column::state(row, "state")?,
        lease_until: column::time(row, "lease_until")?,
        lease: column::duration(row, "lease")?,
        store_time,
    })
}

/// A queue.
pub(super) fn queue(row: &impl StoreRow) -> Result<QueueRecord, StoreError> {
    Ok(QueueRecord {
        id: column::queue_id(row, "id")?,
        label: column::label(row, "label")?,
        assignee: column::assignee(row)?,
        assignment: column::assignment(row, "assignment")?,
    })
}

/// A channel.
pub(super) fn channel(row: &impl StoreRow) -> Result<ChannelRecord, StoreError> {
    Ok(ChannelRecord {
        id: channel_id(row)?,
        queue: column::queue_id(row, "queue_id")?,
        label: column::label(row, "label")?,
        topic: column::topic(row, "topic")?,
        start: column::offset(row, "start_offset")?,
        assignee: column::assignee(row)?,
    })
}

/// The column `id` of a channel.
pub(super) fn channel_id(row: &impl StoreRow) -> Result<ChannelId, StoreError> {
    row.uuid("id").map(ChannelId::new)
}

/// The managers' leader.
pub(super) fn leadership(row: &impl StoreRow, store_time: StoreTime) -> Result<Leadership, StoreError> {
    Ok(Leadership { leader: ManagerId::new(row.uuid("manager")?), term: column::term(row, "term")?, store_time })
}

/// A count, in the column `n`.
pub(super) fn count(row: Option<&impl StoreRow>) -> Result<u64, StoreError> {
    row.map_or(Ok(0), |row| column::unsigned(row, "n"))
}

/// A batch without its frames.
pub(super) fn header(row: &impl StoreRow) -> Result<BatchHeader, StoreError> {
    Ok(BatchHeader {
        first: column::offset(row, "first_offset")?,
        last: column::offset(row, "last_offset")?,
        epoch: column::epoch(row, "epoch")?,
        stored_at: column::time(row, "stored_at")?,
        expires_at: column::time(row, "expires_at")?,
        format: column::format(row)?,
        index: column::bytes(row, "message_index")?,
    })
}

/// The batches of a read. A row without a batch tells how far it looked.
pub(super) fn page(rows: &[impl StoreRow]) -> Result<Page, StoreError> {
    let mut page = Page::default();
    for row in rows {
        if row.optional_int("first_offset")?.is_none() {
            page.looked_through = column::offset(row, "through")?.min(column::offset(row, "end_offset")?);
            continue;
        }
        let header = header(row)?;
        page.looked_through = header.last;
        let (frames, checksum) = (column::bytes(row, "frames")?, column::checksum(row)?);
        page.batches.push(StoredBatch { header, frames, checksum });
    }
    Ok(page)
}

/// The end of a log, and a row for each of its named producers.
pub(super) fn tail<R: StoreRow>(row: &R, producers: &[R]) -> Result<LogTail, StoreError> {
    let trimmed_through = column::offset(row, "trimmed_through")?;
    let snapshot = match row.optional_blob("producers")? {
        Some(snapshot) => Some((column::offset(row, "producers_through")?, snapshot.into())),
        None => None,
    };
    let epoch = |row| Ok((ProducerId::new(R::uuid(row, "producer_id")?), column::producer_epoch(row, "incarnation")?));
    Ok(LogTail {
        epoch: column::epoch(row, "epoch")?,
        end: column::offset(row, "last_offset")?.max(trimmed_through),
        last_first: column::offset(row, "first_offset")?,
        last_epoch: column::epoch(row, "last_epoch")?,
        last_stored_at: column::time(row, "stored_at")?,
        last_expires_at: column::time(row, "expires_at")?,
        trimmed_through,
        messages: column::unsigned(row, "messages")?,
        bytes: column::unsigned(row, "bytes")?,
        removed: column::removed(row)?,
        oldest: column::optional_time(row, "oldest")?,
        none_expires_before: column::time(row, "none_expires_before")?,
        producers: snapshot,
        producer_epochs: producers.iter().map(epoch).collect::<Result<_, StoreError>>()?,
    })
}

/// A trim that has removed nothing yet, from the state of a log.
pub(super) fn untrimmed(
    row: &impl StoreRow,
    trimmed_through: Offset,
    store_time: StoreTime,
) -> Result<Trimmed, StoreError> {
    Ok(Trimmed {
        trimmed_through,
        batches: 0,
        messages: 0,
        bytes: 0,
        removed: column::removed(row)?,
        oldest: None,
        next_expiry: StoreTime::NEVER,
        more: false,
        store_time,
    })
}
