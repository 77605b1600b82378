//! A broker: hosts queues, stores what is pushed before it says so, and delivers it.
//!
//! - [`Broker`] is the handle; everything the outside asks goes through it (requests and errors are in `api`).
//! - `host` registers the broker and runs a task for each queue that the store assigns to it; `look` reads which those are,
//!   `keeping` keeps the lease, beside it.
//! - `queue` is that task: claims, accepts pushes (`producers` finds the duplicates), sends batches, recovers, trims.
//! - `committer` joins the batches of all queues into appends.
//! - `idle` deletes channels that nobody subscribes to any more, if it is to.
//! - `tail` is the cache that subscriptions read, `subscription` the reading.

mod api;
mod committer;
mod host;
mod idle;
mod keeping;
mod lease;
mod look;
mod lookups;
mod moments;
mod producers;
mod push;
mod queue;
mod room;
mod settings;
mod span;
mod subscription;
mod tail;
#[cfg(feature = "testing")]
pub mod testing;
mod turns;

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

pub use api::{
    BrokerError, BrokerStatus, Header, NewMessage, OpenPush, OpenedProducer, ProducerStamp, PushReceipt, PushRequest,
    PushRun, QueueCounters, QueuePhase, QueueStatus, RunReceipt, SubscribeRequest,
};
pub use lookups::{CHANNEL_LOOKUP_TIMEOUT, CHANNELS_AT_ONCE, MAX_PEERS, PEER_SHARE};
use parking_lot::RwLock;
pub use push::PushSession;
pub use room::{
    ARRIVING_SHARE, Held, Kept, MAX_AHEAD_BYTES, MAX_EXPANSION, MAX_ROOM_BYTES, MAX_TURNS, MAX_TURNS_OF_QUEUE,
    PushRoom, QUEUE_SHARE, ROOM_TIMEOUT, Turn, WAITING_SHARE,
};
pub use settings::{BrokerSettings, Tuning};
pub use subscription::Subscription;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    host::{Host, RefreshReply, Registered},
    lease::{Lease, StoreClock},
    lookups::{Caller, Lookups},
    moments::Moments,
    queue::{Command, Context, Handle},
    room::Room,
    subscription::Opening,
    turns::Turns,
};
use crate::{
    model::{
        ChannelId, Epoch, Offset, Origin, ProducerId, QueueId, QueueLabel, Start, Topic, limits::MAX_QUEUE_STATES,
    },
    ports::{
        ChannelRecord, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, Entropy, Opened,
        QueueDescription, QueueRecord, QueueState, Store, StoreError, Uptime,
    },
};

/// A handle on a running broker; clones share it.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
    /// On whose behalf this handle asks.
    caller: Option<Origin>,
}

/// Why a broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerExit {
    /// It was asked to.
    Stopped,
    /// Another process registered under its host and port.
    Replaced,
}

/// What the broker's tasks and handles share.
struct Inner {
    settings: BrokerSettings,
    store: Arc<dyn Store>,
    entropy: Arc<dyn Entropy>,
    moments: Moments,
    clock: Arc<StoreClock>,
    lease: Arc<Lease>,
    /// The queues hosted here, or about to be.
    queues: RwLock<BTreeMap<QueueLabel, Handle>>,
    /// Who this broker is, once the store said so.
    registered: watch::Sender<Option<Registered>>,
    refresh: mpsc::Sender<RefreshReply>,
    stop: CancellationToken,
    stopped: CancellationToken,
    /// For pushes that are being read, or accepted and not stored yet.
    room: Arc<Room>,
    reads: Arc<Semaphore>,
    /// Named producers that the store opens: those of one queue wait for each other there, each with a connection.
    openings: Turns,
    subscriptions: Arc<Semaphore>,
    next_subscription: AtomicU64,
    /// How often the host has begun to look for subscriptions whose channel was deleted.
    channel_looks: AtomicU64,
    lookups: Lookups,
    failed_renewals: AtomicU64,
    /// Channels deleted for being idle.
    expired_channels: AtomicU64,
    draining: AtomicBool,
}

/// Named producers that a broker has the store open at once; more wait, as long as for an activation.
const MAX_OPENINGS: usize = 2;

/// Counts something that happened.
fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Broker {
    /// Starts a broker on the current runtime. It registers as soon as the store answers, and serves what the store says
    /// is its own. The task ends with the broker; aborting it is a crash.
    pub fn spawn(
        settings: BrokerSettings,
        store: Arc<dyn Store>,
        entropy: Arc<dyn Entropy>,
        uptime: Arc<dyn Uptime>,
    ) -> (Self, tokio::task::JoinHandle<BrokerExit>) {
        let (refresh, refreshes) = mpsc::channel(host::REFRESHES);
        let moments = Moments::new(uptime);
        let inner = Arc::new(Inner {
            clock: Arc::new(StoreClock::new(moments.clone())),
            lease: Arc::new(Lease::new(moments.clone())),
            moments,
            queues: RwLock::default(),
            registered: watch::Sender::new(None),
            refresh,
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
            room: Room::new(settings.max_pending_bytes),
            reads: Arc::new(Semaphore::new(settings.max_store_reads)),
            openings: Turns::new(MAX_OPENINGS),
            subscriptions: Arc::new(Semaphore::new(settings.max_subscriptions)),
            next_subscription: AtomicU64::new(0),
            channel_looks: AtomicU64::new(0),
            lookups: Lookups::new(settings.max_lookups_per_second),
            failed_renewals: AtomicU64::new(0),
            expired_channels: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            settings,
            store,
            entropy,
        });
        let task = tokio::spawn(Host::new(inner.clone(), refreshes).run());
        (Self { inner, caller: None }, task)
    }

    /// A handle for calls that came over a connection from this peer, whose look-ups count for its address.
    #[must_use]
    pub fn on_behalf_of(&self, peer: &str) -> Self {
        Self { inner: self.inner.clone(), caller: Some(Origin::of(peer)) }
    }

    fn caller(&self) -> Caller<'_> {
        self.caller.as_ref()
    }

    /// Creates a queue here.
    ///
    /// # Errors
    /// [`BrokerError::QueueExists`], and what the store says.
    pub async fn create_queue(&self, label: &QueueLabel) -> Result<QueueId, BrokerError> {
        let inner = &self.inner;
        let broker = inner.ready()?.broker;
        let create = CreateQueue { label: label.clone(), assignee: Some(broker), request: inner.entropy.uuid() };
        let record = inner.write(inner.store.create_queue(&create)).await?.map_err(|error| match error {
            CreateQueueError::Exists => BrokerError::QueueExists(label.clone()),
            CreateQueueError::DeletedSince => BrokerError::QueueNotFound(label.clone()),
            CreateQueueError::TooMany => BrokerError::LimitReached(error.to_string()),
            CreateQueueError::NoSuchBroker(_) => BrokerError::Fenced,
            CreateQueueError::Store(error) => error.into(),
        })?;
        self.rebuild_queue(label).await?;
        Ok(record.id)
    }

    /// Deletes a queue, wherever it is hosted.
    ///
    /// # Errors
    /// [`BrokerError::QueueNotFound`], and what the store says.
    pub async fn delete_queue(&self, label: &QueueLabel) -> Result<(), BrokerError> {
        let inner = &self.inner;
        inner.ready()?;
        let not_found = || BrokerError::QueueNotFound(label.clone());
        let record = inner.read(inner.store.queue(label)).await?.ok_or_else(not_found)?;
        if !inner.write(inner.store.delete_queue(record.id)).await?? {
            return Err(not_found());
        }
        self.hurry().await
    }

    /// Serves a queue that is assigned to this broker; answers once it does.
    ///
    /// # Errors
    /// [`BrokerError::NotHosted`] if it is assigned elsewhere, [`BrokerError::QueueNotFound`], and what the store says.
    pub async fn rebuild_queue(&self, label: &QueueLabel) -> Result<(), BrokerError> {
        self.refresh().await?;
        self.inner.hosted(label, self.caller()).await?.served(self.inner.settings.activation_timeout).await?;
        Ok(())
    }

    /// Creates a channel on a queue hosted here, starting at the earliest message.
    ///
    /// # Errors
    /// [`BrokerError::QueueNotFound`], [`BrokerError::NotHosted`], [`BrokerError::LimitReached`], and what the store says.
    pub async fn create_channel(&self, label: &QueueLabel, topic: Topic) -> Result<ChannelId, BrokerError> {
        let inner = &self.inner;
        inner.ready()?;
        let handle = inner.hosted(label, self.caller()).await?;
        let id = ChannelId::new(inner.entropy.uuid());
        let queue = handle.shared.id;
        let create = CreateChannel { id, queue, topic, start: Start::Earliest, disposable: true };
        inner.write(inner.store.create_channel(&create)).await?.map_err(|error| match error {
            CreateChannelError::NoSuchQueue => BrokerError::QueueNotFound(label.clone()),
            CreateChannelError::Store(error) => error.into(),
            error => BrokerError::LimitReached(error.to_string()),
        })?;
        Ok(id)
    }

    /// Deletes a channel; its subscriptions end.
    ///
    /// # Errors
    /// [`BrokerError::ChannelNotFound`], and what the store says.
    pub async fn delete_channel(&self, channel: ChannelId) -> Result<(), BrokerError> {
        let inner = &self.inner;
        inner.ready()?;
        if !inner.write(inner.store.delete_channel(channel)).await?? {
            return Err(BrokerError::ChannelNotFound(channel));
        }
        self.hurry().await
    }

    /// Succeeds while the lease is current.
    ///
    /// # Errors
    /// [`BrokerError::LeaseExpired`], [`BrokerError::ShuttingDown`].
    pub fn heartbeat(&self) -> Result<(), BrokerError> {
        let ready = self.inner.ready().map(|_| ());
        mark!(HeartbeatRefused if ready == Err(BrokerError::LeaseExpired));
        ready
    }

    /// Looks at the store now: takes what was assigned to this broker, lets go of what was not.
    ///
    /// # Errors
    /// [`BrokerError::ShuttingDown`], and what the store says.
    pub async fn refresh(&self) -> Result<(), BrokerError> {
        self.inner.refresh().await
    }

    /// Looks at the store, which this broker has changed. That it cannot now does not undo the change; it will.
    async fn hurry(&self) -> Result<(), BrokerError> {
        match self.refresh().await {
            Err(BrokerError::Store(_)) => Ok(()),
            refreshed => refreshed,
        }
    }

    /// Describes a queue hosted here.
    ///
    /// # Errors
    /// As [`Broker::rebuild_queue`].
    pub async fn describe(&self, label: &QueueLabel) -> Result<QueueDescription, BrokerError> {
        let inner = &self.inner;
        inner.ready()?;
        let handle = inner.hosted(label, self.caller()).await?;
        let epoch = handle.served(inner.settings.activation_timeout).await?;
        let status = handle.status(inner.clock.at_least());
        Ok(QueueDescription {
            queue: status.queue,
            epoch,
            last_offset: status.last_offset,
            depth_messages: status.depth_messages,
            depth_bytes: status.depth_bytes,
            oldest_age: status.oldest_age,
            subscribers: status.subscribers,
        })
    }

    /// The state of the queues with these labels that are hosted here, by label, [`MAX_QUEUE_STATES`] at most. It costs a
    /// little for each of them and for each of their subscribers, and waits for nothing.
    ///
    /// # Errors
    /// [`BrokerError::LeaseExpired`], [`BrokerError::ShuttingDown`].
    pub fn states(&self, labels: RangeInclusive<QueueLabel>) -> Result<Vec<QueueState>, BrokerError> {
        let inner = &self.inner;
        inner.ready()?;
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        let now = inner.clock.at_least();
        let some: Vec<Handle> =
            inner.queues.read().range(labels).take(MAX_QUEUE_STATES).map(|(_, handle)| handle.clone()).collect();
        Ok(some.iter().map(|handle| handle.state(now)).collect())
    }

    /// Gives a named producer its next incarnation in a queue hosted here; earlier ones are refused from now on.
    ///
    /// # Errors
    /// As [`Broker::rebuild_queue`]; [`BrokerError::TooManyProducers`].
    pub async fn open_producer(&self, label: &QueueLabel, producer: ProducerId) -> Result<OpenedProducer, BrokerError> {
        let inner = &self.inner;
        inner.ready()?;
        let handle = inner.hosted(label, self.caller()).await?;
        handle.served(inner.settings.activation_timeout).await?;
        let queue = handle.shared.id;
        let timeout = inner.settings.activation_timeout;
        let late = |_| BrokerError::ActivationTimeout(timeout);
        let limit = inner.settings.max_named_producers_per_queue;
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let opened = {
            let overloaded =
                |_| BrokerError::Overloaded { what: "named producers that are opened at once", limit: MAX_OPENINGS };
            let _turn = tokio::time::timeout(timeout, inner.openings.take_first()).await.map_err(overloaded)?;
            inner.write(inner.store.open_producer(queue, producer, most)).await??
        };
        let incarnation = match opened {
            Opened::Given(incarnation) => incarnation,
            Opened::TooMany => {
                return Err(BrokerError::TooManyProducers { setting: "max_named_producers_per_queue", limit });
            }
            Opened::Deleted => return Err(BrokerError::QueueReplaced { queue }),
        };
        let (reply, answer) = oneshot::channel();
        handle.send(Command::Open { id: producer, incarnation, reply }).await?;
        let last_sequence =
            tokio::time::timeout(timeout, answer).await.map_err(late)?.map_err(|_| handle.why_ended())?;
        Ok(OpenedProducer { queue, incarnation, last_sequence })
    }

    /// Subscribes to a channel of a queue hosted here.
    ///
    /// # Errors
    /// [`BrokerError::ChannelNotFound`], [`BrokerError::NotHosted`], [`BrokerError::QueueReplaced`],
    /// [`BrokerError::OffsetOutOfRange`], [`BrokerError::StoreWentBack`], [`BrokerError::Overloaded`], and what the store
    /// says.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, BrokerError> {
        let inner = &self.inner;
        inner.ready()?;
        let limit = inner.settings.max_subscriptions;
        let overloaded = |_| BrokerError::Overloaded { what: "subscriptions of this broker", limit };
        let slot = inner.subscriptions.clone().try_acquire_owned().map_err(overloaded)?;
        let (channel, looks) = inner.channel(request.channel, self.caller()).await?;
        if let Some(position) = request.position
            && position.queue != channel.queue
        {
            return Err(BrokerError::QueueReplaced { queue: position.queue });
        }
        let mut handle = inner.hosted_since(&channel.label, channel.queue, self.caller()).await?;
        let mut epoch = handle.served(inner.settings.activation_timeout).await?;
        let beyond = |end, epoch| request.position.is_some_and(|p| p.offset > end || p.epoch > epoch);
        if beyond(handle.shared.tail.end(), epoch) {
            // Either the store went back, or the queue has another owner and this broker does not know yet.
            mark!(PositionAhead);
            inner.lookups.take(self.caller())?;
            inner.refresh().await?;
            handle = inner.hosted(&channel.label, self.caller()).await?;
            epoch = handle.served(inner.settings.activation_timeout).await?;
            // Nor does the assignment say when another process of this broker has claimed the queue.
            if beyond(handle.shared.tail.end(), epoch)
                && inner.read(inner.store.tail(handle.shared.id)).await?.epoch > epoch
            {
                return Err(BrokerError::Fenced);
            }
        }
        if handle.shared.id > channel.queue {
            return Err(BrokerError::ChannelNotFound(request.channel));
        }
        if handle.shared.id < channel.queue {
            return Err(BrokerError::NotHosted { assignee: channel.assignee.map(|(_, addr)| addr) });
        }
        let end = handle.shared.tail.end();
        mark!(StartedAtChannelStart if request.position.is_none());
        mark!(StartedAfterPosition if request.position.is_some_and(|p| p.offset <= end && p.epoch <= epoch));
        let after = match request.position {
            None => Offset::new(channel.start.get().saturating_sub(1)),
            Some(position) if position.offset > end || position.epoch > epoch => {
                mark!(PositionBeyondEnd if position.epoch == Epoch::ZERO);
                return Err(if position.epoch == Epoch::ZERO {
                    BrokerError::OffsetOutOfRange { offset: position.offset, end }
                } else {
                    BrokerError::StoreWentBack { end, epoch, confirmed: position.offset }
                });
            }
            Some(position) => position.offset,
        };
        let opening = Opening {
            channel: request.channel,
            topic: channel.topic,
            peer: request.peer,
            after,
            epoch,
            key: inner.next_subscription.fetch_add(1, Relaxed),
            slot,
        };
        let context = inner.context()?;
        let subscription = Subscription::new(context, inner.lease.clone(), inner.reads.clone(), &handle, opening);
        if inner.channel_looks.load(SeqCst) != looks {
            // The channel may have been deleted since it was read, and the look for its subscriptions did not see this one.
            inner.channel(request.channel, self.caller()).await?;
        }
        Ok(subscription)
    }

    /// For health checks and metrics.
    #[must_use]
    pub fn status(&self) -> BrokerStatus {
        let inner = &self.inner;
        let now = inner.clock.at_least();
        BrokerStatus {
            lease_current: inner.lease.is_current(),
            draining: inner.draining.load(Relaxed),
            stopping: inner.stop.is_cancelled(),
            pending_bytes: (inner.room.used(), inner.room.limit()),
            room_counts: inner.room.counts(),
            failed_renewals: inner.failed_renewals.load(Relaxed),
            expired_channels: inner.expired_channels.load(Relaxed),
            fenced_appends: inner
                .registered
                .borrow()
                .as_ref()
                .map_or(0, |registered| registered.context.fenced_appends.load(Relaxed)),
            queues: inner.queues.read().values().map(|handle| handle.status(now)).collect(),
        }
    }

    /// True if a queue is halted, has been activated for longer than this, or holds a batch that cannot be delivered. It costs
    /// less than [`Broker::status`].
    #[must_use]
    pub fn has_broken_queue(&self, longest_activation: Duration) -> bool {
        self.inner.queues.read().values().any(|handle| handle.shared.is_broken(longest_activation))
    }

    /// Stops in good order: refuses new requests, finishes pushes in flight, releases the queues, ends subscriptions with
    /// a retryable error. Waits for at most `deadline`.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.stop.cancel();
        // Past the deadline the caller goes on, and whatever is left dies with the process.
        let _ = tokio::time::timeout(deadline, self.inner.stopped.cancelled()).await;
    }
}

impl Inner {
    /// Who this broker is, if it may serve.
    fn ready(&self) -> Result<Registered, BrokerError> {
        if self.stop.is_cancelled() {
            return Err(BrokerError::ShuttingDown);
        }
        match &*self.registered.borrow() {
            Some(registered) if self.lease.is_current() => Ok(registered.clone()),
            _ => Err(BrokerError::LeaseExpired),
        }
    }

    fn context(&self) -> Result<Arc<Context>, BrokerError> {
        Ok(self.ready()?.context)
    }

    async fn refresh(&self) -> Result<(), BrokerError> {
        let (reply, done) = oneshot::channel();
        self.refresh.send(reply).await.map_err(|_| BrokerError::ShuttingDown)?;
        done.await.map_err(|_| BrokerError::ShuttingDown)?.map_err(Into::into)
    }

    /// A read of the store, with its deadline.
    async fn read<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, BrokerError> {
        let timeout = self.settings.store_timeout;
        tokio::time::timeout(timeout, read)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {timeout:?}"))))
            .map_err(Into::into)
    }

    /// A write of the store, with its deadline.
    async fn write<T>(&self, write: impl Future<Output = T>) -> Result<T, BrokerError> {
        let timeout = self.settings.store_timeout;
        tokio::time::timeout(timeout, write)
            .await
            .map_err(|_| StoreError::Unknown(format!("no answer within {timeout:?}")).into())
    }

    fn hosted_now(&self, label: &QueueLabel) -> Option<Handle> {
        self.queues.read().get(label).cloned()
    }

    /// The queue, if it is hosted here. Before it refuses, it looks at the store.
    async fn hosted(&self, label: &QueueLabel, caller: Caller<'_>) -> Result<Handle, BrokerError> {
        if let Some(handle) = self.hosted_now(label) {
            return Ok(handle);
        }
        self.lookups.take(caller)?;
        let record = self.read(self.store.queue(label)).await?;
        mark!(LookupNotFound if record.is_none());
        let record: QueueRecord = record.ok_or_else(|| BrokerError::QueueNotFound(label.clone()))?;
        let me = self.ready()?.broker;
        match record.assignee {
            Some((broker, _)) if broker == me => {
                mark!(LookupActivated);
                self.refresh().await?;
                self.hosted_now(label).ok_or(BrokerError::NotHosted { assignee: None })
            }
            Some((_, addr)) => {
                mark!(LookupElsewhere);
                Err(BrokerError::NotHosted { assignee: Some(addr) })
            }
            None => Err(BrokerError::NotHosted { assignee: None }),
        }
    }

    /// As [`Inner::hosted`]. If what is hosted here is older than `queue`, it was deleted, and this broker does not know yet.
    async fn hosted_since(
        &self,
        label: &QueueLabel,
        queue: QueueId,
        caller: Caller<'_>,
    ) -> Result<Handle, BrokerError> {
        let handle = self.hosted(label, caller).await?;
        if handle.shared.id >= queue {
            return Ok(handle);
        }
        mark!(HostedPredecessor);
        self.lookups.take(caller)?;
        self.refresh().await?;
        self.hosted(label, caller).await
    }

    /// A channel, and how many looks had begun before it was read; from the store: it may have been deleted, or created by a manager, at any time.
    async fn channel(&self, channel: ChannelId, caller: Caller<'_>) -> Result<(ChannelRecord, u64), BrokerError> {
        let turn = self.lookups.channel(caller).await?;
        let looks = self.channel_looks.load(SeqCst);
        let found = match idle::use_channel(self, channel).await? {
            true => self.read(self.store.channel(channel)).await?,
            false => None,
        };
        drop(turn);
        if found.is_none() {
            self.lookups.missed(caller);
        }
        mark!(SubscribedToUnknownChannel if found.is_none());
        Ok((found.ok_or(BrokerError::ChannelNotFound(channel))?, looks))
    }
}
