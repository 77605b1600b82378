//! Delivery: a subscriber holds an offset and asks for the next chunk when its connection has room. Its own [`Reader`] reads;
//! the subscription ends with the lease, the queue or the channel.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    api::BrokerError,
    count::count,
    lease::Lease,
    queue::{Handle, Phase, Shared, Subscriber, View},
    reader::{NotAtHand, Reader},
};
use crate::{
    access::Permit,
    model::{ChannelId, Epoch, QueueId, Topic},
};

/// A subscription. Dropping it ends it.
pub struct Subscription {
    reader: Reader,
    lease: Arc<Lease>,
    shared: Arc<Shared>,
    view: watch::Receiver<View>,
    ended: watch::Receiver<Option<BrokerError>>,
    evictions: u64,
    epoch: Epoch,
    topic: Topic,
    key: u64,
    entry: Arc<Subscriber>,
    permit: Permit,
    _slot: OwnedSemaphorePermit,
}

/// A subscription that begins.
pub(super) struct NewSubscription {
    pub(super) channel: ChannelId,
    pub(super) topic: Topic,
    pub(super) permit: Permit,
    pub(super) epoch: Epoch,
    pub(super) key: u64,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Subscription {
    pub(super) fn new(reader: Reader, lease: Arc<Lease>, handle: &Handle, new: NewSubscription) -> Self {
        let shared = handle.shared.clone();
        let view = shared.view.subscribe();
        let evictions = view.borrow().evictions;
        let (sender, ended) = watch::channel(None);
        let entry = Arc::new(Subscriber {
            channel: new.channel,
            topic: new.topic.clone(),
            peer: new.permit.caller().peer().to_string(),
            offset: AtomicU64::new(reader.after().get()),
            ended: sender,
        });
        shared.subscribers.lock().insert(new.key, entry.clone());
        Self {
            reader,
            lease,
            shared,
            view,
            ended,
            evictions,
            epoch: new.epoch,
            topic: new.topic,
            key: new.key,
            entry,
            permit: new.permit,
            _slot: new.slot,
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
            match self.hand_over(usize::MAX)? {
                Ok(frames) => return Ok(frames),
                Err(NotAtHand::TooLarge) => unreachable!("a chunk of any size was asked for"),
                Err(NotAtHand::AtEnd) => self.wait().await,
                Err(NotAtHand::Behind(end)) => {
                    // The store may be gone, and others read before: neither keeps the end of this from being seen.
                    let ends = until_it_ends(self.ended.clone(), self.view.clone(), self.evictions);
                    tokio::select! {
                        biased;
                        () = ends => {
                            mark!(StreamEndedWhileReading);
                        }
                        read = self.reader.read(end) => {
                            read?;
                            self.entry.offset.store(self.reader.after().get(), Relaxed);
                        }
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
        Ok(self.hand_over(largest)?.ok())
    }

    /// Hands over the next chunk that has something for this subscriber.
    fn hand_over(&mut self, largest: usize) -> Result<Result<Bytes, NotAtHand>, BrokerError> {
        loop {
            self.check()?;
            let chunk = match self.reader.take(&self.topic, largest) {
                Ok(chunk) => chunk,
                Err(why) => return Ok(Err(why)),
            };
            self.entry.offset.store(chunk.through.get(), Relaxed);
            if chunk.messages > 0 {
                count(&self.shared.counters.delivered, chunk.messages);
                return Ok(Ok(chunk.frames));
            }
        }
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
        Ok(self.permit.check()?)
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
}

/// Waits until [`Subscription::check`] has a reason to end the subscription. An append is not one.
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
            .field("after", &self.reader.after())
            .finish_non_exhaustive()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.subscribers.lock().remove(&self.key);
    }
}
