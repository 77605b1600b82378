//! Delivery: a subscriber holds an offset and asks for the next chunk when its connection has room.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    BrokerError,
    lease::Lease,
    queue::{Context, Handle, Phase, Shared, Subscriber, View},
    tail::Lookup,
};
use crate::{
    broker::count::count,
    frame::{Batch, FrameError},
    model::{ChannelId, Epoch, Offset, QueueId, Topic},
    ports::{Page, StoreError},
};

/// A subscription. Dropping it ends it.
pub struct Subscription {
    context: Arc<Context>,
    lease: Arc<Lease>,
    reads: Arc<Semaphore>,
    shared: Arc<Shared>,
    view: watch::Receiver<View>,
    ended: watch::Receiver<Option<BrokerError>>,
    evictions: u64,
    epoch: Epoch,
    topic: Topic,
    /// Everything up to here was handed over, or is not for this subscriber.
    after: Offset,
    /// Batches read from the store, while it is behind the cache.
    page: VecDeque<Batch>,
    key: u64,
    entry: Arc<Subscriber>,
    _slot: OwnedSemaphorePermit,
}

/// Where and what a new subscription reads.
pub(super) struct Opening {
    pub(super) channel: ChannelId,
    pub(super) topic: Topic,
    pub(super) peer: String,
    pub(super) after: Offset,
    pub(super) epoch: Epoch,
    pub(super) key: u64,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Subscription {
    pub(super) fn new(
        context: Arc<Context>,
        lease: Arc<Lease>,
        reads: Arc<Semaphore>,
        handle: &Handle,
        opening: Opening,
    ) -> Self {
        let shared = handle.shared.clone();
        let view = shared.view.subscribe();
        let evictions = view.borrow().evictions;
        let (sender, ended) = watch::channel(None);
        let entry = Arc::new(Subscriber {
            channel: opening.channel,
            topic: opening.topic.clone(),
            peer: opening.peer,
            offset: AtomicU64::new(opening.after.get()),
            ended: sender,
        });
        shared.subscribers.lock().insert(opening.key, entry.clone());
        Self {
            context,
            lease,
            reads,
            shared,
            view,
            ended,
            evictions,
            epoch: opening.epoch,
            topic: opening.topic,
            after: opening.after,
            page: VecDeque::new(),
            key: opening.key,
            entry,
            _slot: opening.slot,
        }
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> QueueId {
        self.shared.id
    }

    /// The epoch it is served under, for positions.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The next chunk: one or more length-prefixed gRPC messages, ready for the socket. Waits until there is one; an error
    /// ends the subscription. Cancel-safe.
    ///
    /// # Errors
    /// Why the client should come back, here or elsewhere, or should not.
    pub async fn next(&mut self) -> Result<Bytes, BrokerError> {
        loop {
            if let Some(frames) = self.at_hand(usize::MAX)? {
                return Ok(frames);
            }
            match self.shared.tail.after(self.after) {
                Lookup::Found(_) => {}
                Lookup::AtEnd => self.wait().await,
                Lookup::Behind(end) => {
                    // The store may be gone, and others read before: neither keeps the end of this from being seen.
                    let ends = until_it_ends(self.ended.clone(), self.view.clone(), self.evictions);
                    tokio::select! {
                        biased;
                        () = ends => {
                            mark!(StreamEndedWhileReading);
                        }
                        read = self.read(end) => read?,
                    }
                }
            }
        }
    }

    /// What [`Self::next`] would return at once: `None` if it would wait, or read from the store, or if the chunk has more
    /// bytes than `largest`.
    ///
    /// # Errors
    /// As [`Self::next`], which returns the same error again.
    pub fn at_hand(&mut self, largest: usize) -> Result<Option<Bytes>, BrokerError> {
        loop {
            self.check()?;
            if let Some(batch) = self.page.front() {
                let now = self.context.clock.at_least();
                mark!(ExpiredInStore if batch.expires_at() <= now);
                let chunk = batch.chunk(self.after, &self.topic, now);
                if chunk.frames.len() > largest {
                    return Ok(None);
                }
                self.page.pop_front();
                let frames = self.hand_over(chunk);
                mark!(CameBackToCache if self.page.is_empty()
                    && !matches!(self.shared.tail.after(self.after), Lookup::Behind(_)));
                if let Some(frames) = frames {
                    return Ok(Some(frames));
                }
                continue;
            }
            match self.shared.tail.after(self.after) {
                Lookup::Found(batch) => {
                    let now = self.context.clock.at_least();
                    mark!(ExpiredInCache if batch.expires_at() <= now);
                    let chunk = batch.chunk(self.after, &self.topic, now);
                    if chunk.frames.len() > largest {
                        return Ok(None);
                    }
                    if let Some(frames) = self.hand_over(chunk) {
                        return Ok(Some(frames));
                    }
                }
                Lookup::AtEnd | Lookup::Behind(_) => return Ok(None),
            }
        }
    }

    fn hand_over(&mut self, chunk: crate::frame::Chunk) -> Option<Bytes> {
        assert!(chunk.through > self.after, "a subscriber only moves forward");
        self.after = chunk.through;
        self.entry.offset.store(self.after.get(), Relaxed);
        if chunk.messages == 0 {
            return None;
        }
        count(&self.shared.counters.delivered, chunk.messages);
        Some(chunk.frames)
    }

    /// Nothing is delivered by a broker that lost its lease or the queue.
    fn check(&self) -> Result<(), BrokerError> {
        if let Some(error) = self.ended.borrow().as_ref() {
            mark!(StreamChannelDeleted);
            return Err(error.clone());
        }
        let view = self.view.borrow();
        if view.evictions != self.evictions {
            mark!(StreamEvicted);
            return Err(view.evicted_for.clone().unwrap_or(BrokerError::Fenced));
        }
        // It may have ended before this subscription could see the eviction.
        if let Phase::Halted(error) | Phase::Ended(error) = &view.phase {
            return Err(error.clone());
        }
        if !self.lease.is_current() {
            return Err(BrokerError::LeaseExpired);
        }
        Ok(())
    }

    /// Waits for something new. The broker evicts everybody when its lease runs out, so no timer is needed here.
    async fn wait(&mut self) {
        tokio::select! {
            biased;
            _ = self.ended.changed() => {}
            changed = self.view.changed() => {
                if changed.is_err() {
                    // The queue's task is gone without a word; the lease will tell.
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Reads a page from the store. `end` is what was durable before.
    async fn read(&mut self, end: Offset) -> Result<(), BrokerError> {
        let _permit = self.reads.acquire().await.map_err(|_| BrokerError::ShuttingDown)?;
        count(&self.shared.counters.store_reads, 1);
        mark!(FellBackToStore);
        let (queue, tuning) = (self.shared.id, self.context.settings.tuning);
        let span = self.shared.span.offsets(tuning.read_span);
        let page = self.context.store.read_within(queue, self.after, span, tuning.page_bytes);
        let page = self.context.within(page).await.inspect_err(|error| {
            self.shared.span.failed();
            self.tell_if_corrupt(error, self.after.next());
        });
        let Page { batches: stored, looked_through } = page?;
        self.shared.span.succeeded();
        // What lies beyond is durable, too, but nobody here knows it yet: an append whose answer is on its way, or lost, or
        // another owner's. A client with such a position would come back to a broker that ends before it.
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
            if self.context.within(self.context.store.queue_by_id(queue)).await?.is_none() {
                // So does an older copy of the store say. Its owner is told of a deletion by what fences it.
                let reason = format!("queue {queue} is not in the store; it may have been deleted");
                return Err(StoreError::Unavailable(reason).into());
            }
            return Err(self.stale(end, looked_through));
        }
        // All of it has expired and is trimmed.
        mark!(AllTrimmed if through == end);
        self.after = through;
        self.entry.offset.store(through.get(), Relaxed);
        Ok(())
    }
}

impl Subscription {
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

/// Waits until [`Subscription::check`] has a reason to end the subscription. What is appended meanwhile is none.
async fn until_it_ends(
    mut ended: watch::Receiver<Option<BrokerError>>,
    mut view: watch::Receiver<View>,
    evictions: u64,
) {
    let is_over = |view: &View| view.evictions != evictions || matches!(view.phase, Phase::Halted(_) | Phase::Ended(_));
    // A sender that is gone says nothing more.
    let ended = async {
        if ended.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let over = async {
        if view.wait_for(is_over).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = ended => {}
        () = over => {}
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("queue", &self.shared.label)
            .field("channel", &self.entry.channel)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.subscribers.lock().remove(&self.key);
    }
}
