//! Reading a queue forward: from the cache, or page by page from the store while the reader is behind the cache. What has
//! expired is left out, and holes, where batches were trimmed, are crossed.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    api::BrokerError,
    count::count,
    queue::{Context, Shared},
    tail::Lookup,
};
use crate::{
    frame::{Batch, Chunk, FrameError},
    model::{Offset, Topic},
    ports::{Page, StoreError},
};

/// See the module.
pub(super) struct Reader {
    context: Arc<Context>,
    shared: Arc<Shared>,
    /// Everything up to here was taken, or was trimmed.
    after: Offset,
    /// Batches read from the store, while it is behind the cache.
    page: VecDeque<Batch>,
}

/// Why a reader has no chunk at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAtHand {
    /// The next one has more bytes than were asked for.
    TooLarge,
    /// The reader has everything.
    AtEnd,
    /// The next one is in the store, which has the queue up to this offset: [`Reader::read`] comes first.
    Behind(Offset),
}

impl Reader {
    /// Reads what lies beyond `after`.
    pub(super) fn new(context: Arc<Context>, shared: Arc<Shared>, after: Offset) -> Self {
        Self { context, shared, after, page: VecDeque::new() }
    }

    /// Everything up to here was taken, or was trimmed.
    pub(super) fn after(&self) -> Offset {
        self.after
    }

    /// Takes what `topic` selects of the next batch, which may be nothing. Nothing is taken if that has more bytes than
    /// `largest`.
    pub(super) fn take(&mut self, topic: &Topic, largest: usize) -> Result<Chunk, NotAtHand> {
        let chunk = match self.page.front() {
            Some(batch) => {
                let now = self.context.logs.of(self.shared.id).clock.at_least();
                mark!(ExpiredInStore if batch.expires_at() <= now);
                batch.chunk(self.after, topic, now)
            }
            None => match self.shared.tail.after(self.after) {
                Lookup::Found(batch) => {
                    let now = self.context.logs.of(self.shared.id).clock.at_least();
                    mark!(ExpiredInCache if batch.expires_at() <= now);
                    batch.chunk(self.after, topic, now)
                }
                Lookup::AtEnd => return Err(NotAtHand::AtEnd),
                Lookup::Behind(end) => return Err(NotAtHand::Behind(end)),
            },
        };
        if chunk.frames.len() > largest {
            return Err(NotAtHand::TooLarge);
        }
        assert!(chunk.through > self.after, "a reader only moves forward");
        self.after = chunk.through;
        if self.page.pop_front().is_some() {
            mark!(CameBackToCache if self.page.is_empty()
                && !matches!(self.shared.tail.after(self.after), Lookup::Behind(_)));
        }
        Ok(chunk)
    }

    /// Reads a page from the store. `end` is where the queue ended before, as [`NotAtHand::Behind`] says. Cancel-safe.
    pub(super) async fn read(&mut self, end: Offset) -> Result<(), BrokerError> {
        let database = self.context.logs.of(self.shared.id);
        let _permit = database.reads.acquire().await.map_err(|_| BrokerError::ShuttingDown)?;
        count(&self.shared.counters.store_reads, 1);
        mark!(FellBackToStore);
        let (queue, tuning) = (self.shared.id, self.context.settings.tuning);
        let span = self.shared.span.offsets(tuning.read_span);
        let page = database.log.read_within(queue, self.after, span, tuning.page_bytes);
        let page = self.context.within(page).await.inspect_err(|error| {
            self.shared.span.failed();
            self.tell_if_corrupt(error, self.after.next());
        });
        let Page { batches: stored, looked_through } = page?;
        self.shared.span.succeeded();
        // Batches beyond the end are durable, too, but this broker does not know them yet: their append's answer is on its way or
        // lost, or another owner stored them. A client with such a position would come back to a broker that ends before it.
        mark!(StoreAheadOfBroker if stored.iter().any(|batch| batch.header.last > end));
        for batch in stored.iter().take_while(|batch| batch.header.last <= end) {
            let last = batch.header.last;
            let batch = Batch::decode(batch).map_err(|error| self.cannot_decode(error, last))?;
            self.page.push_back(batch);
            self.shared.passed(self.after, last);
        }
        if !self.page.is_empty() {
            return Ok(());
        }
        let through = looked_through.min(end);
        if through <= self.after {
            if self.context.within(self.context.catalog.queue_by_id(queue)).await?.is_none() {
                // An older copy of the store says so, too. Its owner is told of a deletion by what fences it.
                let reason = format!("queue {queue} is not in the store; it may have been deleted");
                return Err(StoreError::Unavailable(reason).into());
            }
            return Err(self.stale(end, looked_through));
        }
        // All of it has expired and is trimmed.
        mark!(AllTrimmed if through == end);
        self.after = through;
        Ok(())
    }

    /// The store that was read has neither what is known to be stored nor a trim of it.
    fn stale(&self, end: Offset, looked_through: Offset) -> BrokerError {
        count(&self.shared.counters.stale_reads, 1);
        if let Some(times) = self.shared.said.stale_reads.happened() {
            let (queue, after) = (&self.shared.label, self.after);
            tracing::error!(
                %queue, %after, %end, %looked_through, times,
                "a read has nothing of what was stored: it came from a standby or an older copy; no message is left out"
            );
        }
        let reason = format!("a read after offset {} ends before {end}, where the queue does", self.after);
        StoreError::Unavailable(reason).into()
    }

    /// `at` is where the batch ends, as far as is known.
    fn tell_if_corrupt(&self, error: &StoreError, at: Offset) {
        if matches!(error, StoreError::Corrupt(_)) {
            self.tell_undeliverable(error, at, false);
        }
    }

    fn cannot_decode(&self, error: FrameError, at: Offset) -> StoreError {
        let newer = matches!(error, FrameError::Newer { .. });
        let error = StoreError::from(error);
        self.tell_undeliverable(&error, at, newer);
        error
    }

    fn tell_undeliverable(&self, error: &StoreError, at: Offset, newer: bool) {
        self.shared.newer.store(newer, Relaxed);
        count(&self.shared.counters.corrupt_reads, 1);
        *self.shared.undeliverable.lock() = Some(at);
        if let Some(times) = self.shared.said.corrupt_reads.happened() {
            let (queue, after) = (&self.shared.label, self.after);
            tracing::error!(%queue, %after, %error, times, "a stored batch cannot be delivered; an operator has to look");
        }
    }
}
