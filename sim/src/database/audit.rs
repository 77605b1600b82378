//! The end of a run: the contents of the database, as evidence.

use rmom_core::{
    model::{Epoch, Offset, StoreTime},
    ports::{ChannelRecord, QueueRecord},
    store::memory::State,
};

use super::evidence::messages;
use crate::history::Event;

/// All live queues, all channels, and the end of the audit.
pub(super) fn audit(state: &State, now: StoreTime) -> Vec<Event> {
    let queues = state.queues().into_iter().map(|record| queue(state, &record));
    let channels = state.channels(None).into_iter().map(|record| channel(&record));
    queues.chain(channels).chain([Event::AuditDone { at_millis: now.millis() }]).collect()
}

fn queue(state: &State, record: &QueueRecord) -> Event {
    let tail = state.tail(record.id);
    Event::AuditQueue {
        queue_id: record.id.get(),
        label: record.label.as_str().to_owned(),
        end: tail.end.get(),
        trimmed_through: tail.trimmed_through.get(),
        epoch: state.epoch(record.id).map_or(0, Epoch::get),
        messages: state.read(record.id, Offset::ZERO, usize::MAX).batches.iter().flat_map(messages).collect(),
    }
}

fn channel(record: &ChannelRecord) -> Event {
    Event::AuditChannel {
        channel: record.id.uuid(),
        queue_id: record.queue.get(),
        topic: record.topic.as_wire().to_owned(),
        // The store keeps the first offset that the channel delivers; the evidence has the offset before it.
        start: record.start.get().saturating_sub(1),
    }
}
