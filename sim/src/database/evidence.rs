//! The messages of a batch, as a subscriber would read them.

use bytes::Buf as _;
use prost::Message as _;
use rmom_core::{
    frame::{FRAME_PREFIX_BYTES, runs},
    ports::StoredBatch,
};
use rmom_proto::{messages::Message, storage::BatchIndex};

use crate::history::{StoredMessage, body_text};

/// The messages of a stored batch, in order.
///
/// # Panics
/// If the batch cannot be decoded. No broker may store such a batch, so the simulation has found a bug.
pub(super) fn messages(batch: &StoredBatch) -> Vec<StoredMessage> {
    let header = &batch.header;
    let at = || format!("the batch at offset {} cannot be read", header.first);
    let index = BatchIndex::decode(header.index.clone()).unwrap_or_else(|error| panic!("{}: {error}", at()));
    let runs = runs(header.format, &header.index, header.first, header.last)
        .unwrap_or_else(|error| panic!("{}: {error}", at()));
    let mut producers = runs.iter().flat_map(|run| (0..run.count).map(|nth| (run.key.id, run.first.plus(nth))));
    let mut frames = batch.frames.clone();
    let mut messages = Vec::new();
    for (nth, offset) in (header.first.get()..=header.last.get()).enumerate() {
        let body = index.lengths.get(nth).and_then(|&length| (length as usize).checked_sub(FRAME_PREFIX_BYTES));
        let body = body.filter(|&body| frames.len() >= FRAME_PREFIX_BYTES + body).unwrap_or_else(|| panic!("{}", at()));
        frames.advance(FRAME_PREFIX_BYTES);
        let message = Message::decode(frames.split_to(body)).unwrap_or_else(|error| panic!("{}: {error}", at()));
        let headers = message.headers.iter().map(|header| (header.name.as_str(), header.value.as_ref()));
        let lifetime = index.ttl_millis.get(nth).or(index.ttl_millis.first()).copied().unwrap_or(0);
        // `runs` covers the batch; otherwise it would have failed earlier.
        let (producer, sequence) = producers.next().unwrap_or_else(|| panic!("{}", at()));
        messages.push(StoredMessage {
            id: message.id.parse().unwrap_or_else(|error| panic!("{}: {error}", at())),
            offset,
            topic: message.topic,
            body: body_text(&message.content, headers),
            producer: producer.uuid(),
            sequence: sequence.get(),
            expires_at_millis: (lifetime > 0).then(|| header.stored_at.plus_millis(lifetime).millis()),
        });
    }
    messages
}
