//! The newest batches of a queue, in memory. A cache: the store is the truth, and who is behind reads there.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::RwLock;

use crate::{frame::Batch, model::Offset};

/// Batches that follow each other without a gap, up to the newest.
#[derive(Debug)]
pub(super) struct Tail {
    inner: RwLock<Inner>,
    max_messages: u64,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Arc<Batch>>,
    messages: u64,
    bytes: usize,
    /// The newest durable offset, cached or not.
    end: Offset,
}

/// What the tail holds for a reader.
#[derive(Debug)]
pub(super) enum Lookup {
    /// The batch that has the next offset.
    Found(Arc<Batch>),
    /// The reader has everything.
    AtEnd,
    /// The next offset is older than the tail; everything durable ends at this offset.
    Behind(Offset),
}

impl Tail {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { inner: RwLock::default(), max_messages: max_messages as u64, max_bytes }
    }

    /// Starts again, empty, after `end`.
    pub(super) fn reset(&self, end: Offset) {
        *self.inner.write() = Inner { end, ..Inner::default() };
    }

    /// Adds the newest batch, and lets the oldest go as the limits want. The newest always stays.
    ///
    /// # Panics
    /// If it does not follow the last one: a defect that would deliver out of order.
    pub(super) fn push(&self, batch: Arc<Batch>) {
        let mut inner = self.inner.write();
        assert_eq!(batch.first(), inner.end.next(), "batches follow each other without a gap");
        inner.end = batch.last();
        inner.messages += batch.messages();
        inner.bytes += batch.frame_bytes();
        inner.batches.push_back(batch);
        while inner.batches.len() > 1 && (inner.messages > self.max_messages || inner.bytes > self.max_bytes) {
            if let Some(oldest) = inner.batches.pop_front() {
                mark!(CacheOverflowed);
                inner.messages -= oldest.messages();
                inner.bytes -= oldest.frame_bytes();
            }
        }
    }

    /// The newest durable offset.
    pub(super) fn end(&self) -> Offset {
        self.inner.read().end
    }

    /// What comes after an offset.
    pub(super) fn after(&self, after: Offset) -> Lookup {
        let inner = self.inner.read();
        if after >= inner.end {
            return Lookup::AtEnd;
        }
        let at = inner.batches.partition_point(|batch| batch.last() <= after);
        match inner.batches.get(at) {
            Some(batch) if at > 0 || batch.first() <= after.next() => Lookup::Found(batch.clone()),
            _ => Lookup::Behind(inner.end),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::{
        broker::NewMessage,
        frame::BatchBuilder,
        model::{Epoch, MessageId, ProducerEpoch, ProducerId, ProducerKey, Sequence, StoreTime},
    };

    fn batch(first: u64, messages: u64) -> Arc<Batch> {
        let key = ProducerKey { id: ProducerId::new(Uuid::nil()), epoch: ProducerEpoch::ZERO };
        let mut builder = BatchBuilder::new(Offset::new(first));
        for i in 0..messages {
            let message = NewMessage { content: Bytes::from_static(b"x"), ..NewMessage::default() };
            builder.push(key, Sequence::new(first + i), MessageId::new(Uuid::nil()), &message);
        }
        Arc::new(builder.finish().stored(Epoch::new(1), StoreTime::from_millis(1)))
    }

    fn first_after(tail: &Tail, after: u64) -> String {
        match tail.after(Offset::new(after)) {
            Lookup::Found(batch) => batch.first().to_string(),
            Lookup::AtEnd => "end".into(),
            Lookup::Behind(end) => format!("behind {end}"),
        }
    }

    #[test]
    fn readers_find_their_batch_or_learn_that_they_are_behind() {
        let tail = Tail::new(5, 1 << 20);
        tail.reset(Offset::new(10));
        assert_eq!(first_after(&tail, 10), "end");
        assert_eq!(first_after(&tail, 9), "behind 10");
        tail.push(batch(11, 2));
        tail.push(batch(13, 2));
        let found = [9, 10, 11, 12, 13, 14].map(|after| first_after(&tail, after));
        assert_eq!(found, ["behind 14", "11", "11", "13", "13", "end"]);
    }

    #[test]
    fn limits_let_the_oldest_go_but_never_the_newest() {
        let tail = Tail::new(3, 1 << 20);
        tail.push(batch(1, 2));
        tail.push(batch(3, 2));
        assert_eq!(first_after(&tail, 0), "behind 4");
        assert_eq!(first_after(&tail, 2), "3");
        tail.push(batch(5, 9));
        assert_eq!(first_after(&tail, 2), "behind 13");
        assert_eq!(first_after(&tail, 4), "5");
        let tail = Tail::new(100, 1);
        tail.push(batch(1, 1));
        assert_eq!(first_after(&tail, 0), "1");
    }
}
