//! What the cases have in common.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use uuid::Uuid;

use super::{Harness, ManualClock, START};
use crate::{
    model::{
        BrokerAddr, BrokerId, ChannelId, ClaimId, Epoch, Incarnation, Offset, QueueId, QueueLabel, Start, StoreTime,
        Topic,
    },
    ports::{
        AppendBatch, Appended, ChannelRecord, Claim, ClaimError, Claimed, CreateChannel, CreateChannelError,
        CreateQueue, LogError, Register, RegisterError, Store, Trim, Trimmed,
    },
    store::MemoryStore,
};

/// The lease that brokers and managers take.
pub(super) const LEASE: Duration = Duration::from_secs(3);

pub(super) fn label(raw: &str) -> QueueLabel {
    QueueLabel::parse(raw).unwrap()
}

pub(super) fn addr(name: &str) -> BrokerAddr {
    BrokerAddr { host: name.into(), port: 50_051 }
}

/// In place of a store that must not be held while it is opened anew.
pub(super) fn nothing() -> Arc<dyn Store> {
    MemoryStore::new(Arc::new(ManualClock::new(START)))
}

/// A registered broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registered {
    pub(super) id: BrokerId,
    pub(super) incarnation: Incarnation,
}

/// A store under test, and a source of ids.
pub(super) struct Bench<'a> {
    harness: &'a dyn Harness,
    pub(super) store: Arc<dyn Store>,
    drawn: u128,
}

impl<'a> Bench<'a> {
    /// Begins with an empty store.
    pub(super) async fn start(harness: &'a dyn Harness) -> Self {
        Self { harness, store: harness.fresh().await, drawn: 0 }
    }

    /// Crashes and opens the store again.
    pub(super) async fn reopen(&mut self) {
        self.store = nothing();
        self.store = self.harness.reopen().await;
    }

    /// Sets the clock to so many milliseconds after the start.
    pub(super) async fn at(&self, millis: u64) -> StoreTime {
        let now = START.plus_millis(millis);
        self.harness.set_clock(now).await;
        now
    }

    /// A UUID that was not drawn before.
    pub(super) fn uuid(&mut self) -> Uuid {
        self.drawn += 1;
        Uuid::from_u128(self.drawn)
    }

    /// Registers a broker, or the next run of a known one.
    pub(super) async fn register(&mut self, name: &str) -> Registered {
        let incarnation = Incarnation::new(self.uuid());
        let mut register = Register { addr: addr(name), incarnation, replaces: None, lease: LEASE };
        let registration = match self.store.register_broker(&register).await {
            Err(RegisterError::Taken { by }) => {
                register.replaces = Some(by);
                self.store.register_broker(&register).await
            }
            first => first,
        };
        Registered { id: registration.unwrap().broker, incarnation }
    }

    /// Creates a queue.
    pub(super) async fn create(&mut self, name: &str, assignee: Option<BrokerId>) -> QueueId {
        let create = CreateQueue { label: label(name), assignee, request: self.uuid() };
        self.store.create_queue(&create).await.unwrap().id
    }

    /// A queue and the broker that is to host it.
    pub(super) async fn hosted_queue(&mut self, name: &str) -> (Registered, QueueId) {
        let broker = self.register("host").await;
        (broker, self.create(name, Some(broker.id)).await)
    }

    /// Claims a queue.
    pub(super) async fn claim(&mut self, broker: Registered, queue: QueueId) -> Result<Claimed, ClaimError> {
        let claim = self.new_claim(broker, queue);
        self.store.claim(&claim).await
    }

    /// A claim of its own id.
    pub(super) fn new_claim(&mut self, broker: Registered, queue: QueueId) -> Claim {
        let claim = ClaimId::new(self.uuid());
        Claim { queue, broker: broker.id, incarnation: broker.incarnation, claim }
    }

    /// Claims a queue and gets ready to append to it.
    pub(super) async fn writer(&mut self, broker: Registered, queue: QueueId) -> Writer {
        let epoch = self.claim(broker, queue).await.unwrap().epoch;
        Writer::after_claim(&self.store, queue, epoch).await
    }

    /// Creates a channel of a new id.
    pub(super) async fn create_channel(
        &mut self,
        queue: QueueId,
        topic: Topic,
        start: Start,
    ) -> Result<ChannelRecord, CreateChannelError> {
        let create = CreateChannel { id: ChannelId::new(self.uuid()), queue, topic, start, disposable: false };
        self.store.create_channel(&create).await
    }

    /// A broker, its queue, and a writer on it.
    pub(super) async fn hosted_writer(&mut self, name: &str) -> Writer {
        let (broker, queue) = self.hosted_queue(name).await;
        self.writer(broker, queue).await
    }
}

/// Appends to one queue as its owner does.
#[derive(Clone)]
pub(super) struct Writer {
    /// Weak, so that nobody holds a store that is opened anew.
    store: Weak<dyn Store>,
    pub(super) queue: QueueId,
    pub(super) epoch: Epoch,
    pub(super) end: Offset,
    pub(super) previous: Offset,
    pub(super) not_before: StoreTime,
}

impl Writer {
    /// As a new owner begins: from what the store says is the end.
    pub(super) async fn after_claim(store: &Arc<dyn Store>, queue: QueueId, epoch: Epoch) -> Self {
        let tail = store.tail(queue).await.unwrap();
        Self {
            store: Arc::downgrade(store),
            queue,
            epoch,
            end: tail.end,
            previous: tail.last_first,
            not_before: tail.last_stored_at,
        }
    }

    /// The store that it was made for.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        self.store.upgrade().expect("a writer is not used after a reopen")
    }

    /// The same writer on the store as it was opened anew.
    pub(super) fn on(self, store: &Arc<dyn Store>) -> Self {
        Self { store: Arc::downgrade(store), ..self }
    }

    /// The next batch, of `count` messages that live for ever.
    pub(super) fn batch(&self, count: u64) -> AppendBatch {
        batch(self.queue, self.epoch, self.end.next(), count, self.previous, self.not_before)
    }

    /// Takes note that a batch was stored.
    pub(super) fn stored(&mut self, batch: &AppendBatch, stored_at: StoreTime) {
        self.end = batch.last;
        self.previous = batch.first;
        self.not_before = stored_at;
    }

    /// Appends one batch, and what became of it.
    pub(super) async fn try_append(&mut self, batch: AppendBatch) -> Appended {
        let answers = self.store().append(std::slice::from_ref(&batch)).await.unwrap();
        assert_eq!(answers.len(), 1);
        if let Appended::Stored { stored_at } = answers[0] {
            self.stored(&batch, stored_at);
        }
        answers[0]
    }

    /// Appends `count` messages that live for ever; it has to succeed.
    pub(super) async fn append(&mut self, count: u64) -> StoreTime {
        self.append_with_lifetime(count, None).await
    }

    /// Appends `count` messages; it has to succeed.
    pub(super) async fn append_with_lifetime(&mut self, count: u64, lifetime_millis: Option<u64>) -> StoreTime {
        let batch = AppendBatch { lifetime_millis, ..self.batch(count) };
        match self.try_append(batch).await {
            Appended::Stored { stored_at } => stored_at,
            other => panic!("not stored but {other:?}"),
        }
    }

    /// A trim of everything that has expired.
    pub(super) fn new_trim(&self) -> Trim {
        Trim {
            queue: self.queue,
            epoch: self.epoch,
            producers: Some(Bytes::from_static(b"producers")),
            through: self.end,
            none_expires_before: StoreTime::default(),
            limit: 1_000,
        }
    }

    /// What the store says is stored: messages, bytes, and since when.
    pub(super) async fn totals(&self) -> (u64, u64, Option<StoreTime>) {
        let tail = self.store().tail(self.queue).await.unwrap();
        (tail.messages, tail.bytes, tail.oldest)
    }

    /// Trims everything that has expired.
    pub(super) async fn trim(&self) -> Result<Trimmed, LogError> {
        self.store().trim(&self.new_trim()).await
    }
}

/// A batch whose content is a function of its place, so that a misplaced one shows.
pub(super) fn batch(
    queue: QueueId,
    epoch: Epoch,
    first: Offset,
    count: u64,
    previous: Offset,
    not_before: StoreTime,
) -> AppendBatch {
    let last = Offset::new(first.get() + count - 1);
    let index = Bytes::from(format!("index {queue} {epoch} {first}"));
    let frames: String = (first.get()..=last.get()).map(|offset| format!("<{queue} {epoch} {offset}>")).collect();
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&index);
    checksum.update(frames.as_bytes());
    AppendBatch {
        queue,
        epoch,
        first,
        last,
        previous,
        not_before,
        lifetime_millis: None,
        format: 1,
        index,
        frames: frames.into(),
        checksum: checksum.finalize(),
    }
}
