//! A manager: administers queues and channels, watches the brokers, and makes sure that every queue has a live broker.
//!
//! Each decision of a manager is one transaction in the store, so any number of managers may run. The one that holds the
//! leader lease probes the brokers and reconciles; all managers carry out administrative operations. A manager only
//! *assigns* a queue; its broker then claims the right to write to it.

mod admin;
mod ask;
mod deadlines;
mod error;
mod leadership;
mod nudge;
mod placement;
mod probes;
mod problems;
mod purge;
mod rebalance;
mod reconcile;
mod registry;
mod settings;
mod states;
mod status;
#[cfg(feature = "testing")]
pub mod testing;

use std::{future::Future, panic, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    task::{JoinHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use admin::{MAX_LISTED, NotDescribed, Page, PlacedChannel, PlacedQueue, QueueDetails};
pub use ask::MAX_ASKED_AT_ONCE;
pub use error::ManagerError;
pub use problems::{Health, Problem};
pub use rebalance::{MovedQueue, Rebalanced};
pub use settings::ManagerSettings;
pub use states::ListedQueue;
pub use status::{BrokerView, CycleStatus, ManagerCounters, ManagerStatus, ProbeView, RegisteredBroker};

use crate::{
    model::{BrokerId, ChannelId, ManagerId, QueueLabel, Start, Topic},
    ports::{BrokerControl, ChannelRecord, Databases, Entropy, QueueRecord},
};

/// A handle on a running manager. Clones share it.
///
/// Every operation has a deadline, and ends with [`ManagerError::ShuttingDown`] when the manager stops. Dropping an
/// operation's future abandons it; changes that the store has committed by then remain.
#[derive(Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

/// The reason why a manager ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagerExit {
    /// It was told to stop.
    Stopped,
}

/// State shared by a manager's tasks and handles.
struct Inner {
    id: ManagerId,
    settings: ManagerSettings,
    store: deadlines::TimedStore,
    control: Arc<dyn BrokerControl>,
    entropy: Arc<dyn Entropy>,
    counters: Arc<status::Counters>,
    probes: probes::Probes,
    nudges: nudge::Nudges,
    leadership: leadership::Leadership,
    /// As of the last cycle.
    registry: Mutex<Option<Arc<registry::Registry>>>,
    /// The end and the result of the last cycle (its age is not kept up to date).
    last_cycle: Mutex<Option<(Instant, CycleStatus)>>,
    /// Starts the next cycle at once.
    wake: Notify,
    /// One permit for each whole list that is being read.
    lists: Semaphore,
    /// One permit for each operation under way.
    calls: Semaphore,
    /// Cancelled when new operations are refused.
    stopping: CancellationToken,
    /// Cancelled when all operations end: the task ended, was aborted, or ran out of time to stop.
    dead: CancellationToken,
}

impl Manager {
    /// Starts a manager on the current runtime. Neither the store nor any broker has to be up. The task ends with the
    /// manager. Aborting it is a crash: the lease is not given up, and operations under way are cut off.
    ///
    /// # Panics
    /// The task panics if one of its own tasks does.
    pub fn spawn(
        settings: ManagerSettings,
        databases: impl Into<Databases>,
        control: Arc<dyn BrokerControl>,
        entropy: Arc<dyn Entropy>,
    ) -> (Self, JoinHandle<ManagerExit>) {
        let counters = Arc::new(status::Counters::default());
        let (nudges, nudger) = nudge::nudges(&settings, Arc::clone(&control), &counters);
        let inner = Arc::new(Inner {
            id: ManagerId::new(entropy.uuid()),
            store: deadlines::TimedStore::new(databases.into(), settings.store_timeout),
            probes: probes::Probes::new(&settings, Arc::clone(&control), Arc::clone(&counters)),
            control,
            entropy,
            counters,
            nudges,
            leadership: leadership::Leadership::default(),
            registry: Mutex::default(),
            last_cycle: Mutex::default(),
            wake: Notify::new(),
            lists: Semaphore::new(admin::LISTS),
            calls: Semaphore::new(settings.max_admin_calls as usize),
            stopping: CancellationToken::new(),
            dead: CancellationToken::new(),
            settings,
        });
        // Created here, so that the handle learns of an abort even if the task never ran.
        let dead = inner.dead.clone().drop_guard();
        let task = tokio::spawn({
            let inner = Arc::clone(&inner);
            async move {
                let _dead = dead;
                run(inner, nudger).await
            }
        });
        (Self { inner }, task)
    }

    /// Creates a queue on the live broker with the fewest queues, and waits until it is served there.
    ///
    /// # Errors
    /// [`ManagerError::NoBroker`] if no live broker is known: nothing is created. [`ManagerError::NotServedYet`] at
    /// `create_deadline`: the queue exists.
    pub async fn create_queue(&self, label: &QueueLabel) -> Result<PlacedQueue, ManagerError> {
        self.call(self.inner.settings.create_deadline, |by| self.inner.create_queue(label, by)).await
    }

    /// Deletes a queue with its messages and channels, for good.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], also if it has already been deleted.
    pub async fn delete_queue(&self, label: &QueueLabel) -> Result<(), ManagerError> {
        self.admin(|by| self.inner.delete_queue(label, by)).await
    }

    /// The broker that serves a queue.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], [`ManagerError::NoBrokerFor`].
    pub async fn queue(&self, label: &QueueLabel) -> Result<PlacedQueue, ManagerError> {
        self.admin(|by| self.inner.placed_queue(label, by)).await
    }

    /// A queue's record, and its broker's description.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`]. A broker that cannot be asked is not an error.
    pub async fn describe_queue(&self, label: &QueueLabel) -> Result<QueueDetails, ManagerError> {
        self.admin(|by| self.inner.describe_queue(label, by)).await
    }

    /// Some queues, by label: at most `limit` of those that come after `after`.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Page<QueueRecord>, ManagerError> {
        self.admin(|by| self.inner.queue_page(after, limit, by)).await
    }

    /// Like [`Manager::queue_page`], but also asks each broker of these queues about their state.
    ///
    /// # Errors
    /// The store's errors. A broker that cannot be asked is not an error.
    pub async fn live_queue_page(
        &self,
        after: Option<QueueLabel>,
        limit: u32,
    ) -> Result<Page<ListedQueue>, ManagerError> {
        self.admin(|by| self.inner.live_queue_page(after, limit, by)).await
    }

    /// All queues, by label. They may change while they are being read.
    ///
    /// # Errors
    /// [`ManagerError::LimitReached`] beyond [`MAX_LISTED`].
    pub async fn queues(&self) -> Result<Vec<QueueRecord>, ManagerError> {
        self.admin(|by| self.inner.queues(by)).await
    }

    /// Creates a channel on a queue.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], [`ManagerError::NoBrokerFor`] (nothing is created),
    /// [`ManagerError::OffsetOutOfRange`], [`ManagerError::LimitReached`].
    pub async fn create_channel(
        &self,
        label: &QueueLabel,
        topic: Topic,
        start: Start,
    ) -> Result<PlacedChannel, ManagerError> {
        self.admin(|by| self.inner.create_channel(label, topic, start, false, by)).await
    }

    /// Creates a channel that starts at the earliest message, as the original's clients do after each break. A broker may
    /// delete it once it has had no subscriber for long.
    ///
    /// # Errors
    /// As for [`Manager::create_channel`].
    pub async fn create_disposable_channel(
        &self,
        label: &QueueLabel,
        topic: Topic,
    ) -> Result<PlacedChannel, ManagerError> {
        self.admin(|by| self.inner.create_channel(label, topic, Start::Earliest, true, by)).await
    }

    /// The broker that serves a channel.
    ///
    /// # Errors
    /// [`ManagerError::ChannelNotFound`], [`ManagerError::NoBrokerFor`].
    pub async fn channel(&self, id: ChannelId) -> Result<PlacedChannel, ManagerError> {
        self.admin(|by| self.inner.placed_channel(id, by)).await
    }

    /// Some channels of one queue, or of all, by id: at most `limit` of those that come after `after`.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`].
    pub async fn channel_page(
        &self,
        label: Option<&QueueLabel>,
        after: Option<ChannelId>,
        limit: u32,
    ) -> Result<Page<ChannelRecord>, ManagerError> {
        self.admin(|by| self.inner.channel_page(label, after, limit, by)).await
    }

    /// The channels of one queue, or of all, by id. They may change while they are being read.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`], [`ManagerError::LimitReached`] beyond [`MAX_LISTED`].
    pub async fn channels(&self, label: Option<&QueueLabel>) -> Result<Vec<ChannelRecord>, ManagerError> {
        self.admin(|by| self.inner.channels(label, by)).await
    }

    /// The different topics of a queue's channels, sorted; "no topic" is not among them.
    ///
    /// # Errors
    /// [`ManagerError::QueueNotFound`].
    pub async fn topics(&self, label: &QueueLabel) -> Result<Vec<Topic>, ManagerError> {
        self.admin(|by| self.inner.topics(label, by)).await
    }

    /// Deletes a channel.
    ///
    /// # Errors
    /// [`ManagerError::ChannelNotFound`], also if it has already been deleted.
    pub async fn delete_channel(&self, id: ChannelId) -> Result<(), ManagerError> {
        self.admin(|by| self.inner.delete_channel(id, by)).await
    }

    /// All brokers that registered and were not forgotten, and those in the configuration, by address.
    ///
    /// # Errors
    /// The store's errors.
    pub async fn brokers(&self) -> Result<Vec<BrokerView>, ManagerError> {
        self.admin(|by| self.inner.brokers(by)).await
    }

    /// Drains a broker (true) or ends that (false). A drained broker gets no new queues, and its queues move to other
    /// brokers while it serves them.
    ///
    /// # Errors
    /// [`ManagerError::BrokerNotFound`].
    pub async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<(), ManagerError> {
        self.admin(|by| self.inner.set_draining(broker, draining, by)).await
    }

    /// Removes a broker that is gone for good: its lease has been over for a minute (with `force`: is over), and no queue is
    /// assigned to it. If the broker comes back, it counts as a new one.
    ///
    /// # Errors
    /// [`ManagerError::BrokerNotFound`], [`ManagerError::BrokerAlive`], [`ManagerError::BrokerHasQueues`].
    pub async fn forget_broker(&self, broker: BrokerId, force: bool) -> Result<(), ManagerError> {
        self.admin(|by| self.inner.forget_broker(broker, force, by)).await
    }

    /// Moves some queues from brokers with many to brokers with few, now, even if the settings switch rebalancing off.
    ///
    /// # Errors
    /// [`ManagerError::Unsettled`] while queues are being moved or a broker does not answer; [`ManagerError::NoBroker`].
    pub async fn rebalance(&self) -> Result<Rebalanced, ManagerError> {
        self.admin(|by| self.inner.rebalance(by)).await
    }

    /// Succeeds if the store answers and can be written, so that this manager can do its work.
    ///
    /// # Errors
    /// The store's errors; [`ManagerError::ShuttingDown`] if the manager is stopping or has ended.
    pub async fn ready(&self) -> Result<(), ManagerError> {
        // Does not count as an operation: a busy manager is ready.
        if !self.is_running() || self.inner.stopping.is_cancelled() {
            return Err(ManagerError::ShuttingDown);
        }
        let by = self.inner.store_deadline();
        self.inner.store.read(by, self.inner.store.catalog().now()).await?;
        Ok(self.inner.leadership.can_write(self.inner.settings.lease)?)
    }

    /// True until the manager's task ends, for any reason.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.inner.dead.is_cancelled()
    }

    /// The state for health checks and metrics. Makes no calls.
    #[must_use]
    pub fn status(&self) -> ManagerStatus {
        let inner = &self.inner;
        let lead = inner.leadership.get();
        let registry = inner.registry.lock().clone();
        let limit = inner.settings.max_admin_calls;
        let free = u32::try_from(inner.calls.available_permits()).unwrap_or(limit);
        ManagerStatus {
            manager: inner.id,
            running: self.is_running(),
            stopping: inner.stopping.is_cancelled(),
            leading: self.is_running() && inner.leadership.is_leading(),
            leader: lead.leader,
            term: lead.term,
            brokers: registry.map(|registry| inner.broker_views(&registry)).unwrap_or_default(),
            last_cycle: inner
                .last_cycle
                .lock()
                .as_ref()
                .map(|(ended, cycle)| CycleStatus { age: ended.elapsed(), ..cycle.clone() }),
            calls: (limit.saturating_sub(free), limit),
            counters: inner.counters.get(),
        }
    }

    /// The problems of the cluster: those that this manager knows from `status`, and those that the live brokers report.
    /// Asking the brokers counts as an operation; if that is refused, the refusal is reported as a problem.
    pub async fn health(&self, status: &ManagerStatus) -> Health {
        let mut problems = problems::problems(status, self.inner.settings.cycle);
        let said = match self.admin(|by| self.inner.complaints(status, by)).await {
            Ok(said) => said,
            Err(error) => {
                problems.push(problems::unasked(&error));
                Health::default()
            }
        };
        problems.extend(said.problems);
        Health { problems, notes: said.notes }
    }

    /// Stops in good order: refuses new operations, gives up the lead so that another manager takes over at once, and lets
    /// operations under way finish, for at most `deadline`.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.stopping.cancel();
        if timeout(deadline, self.inner.dead.cancelled()).await.is_err() {
            self.inner.dead.cancel();
        }
    }

    async fn admin<T, F>(&self, operation: impl FnOnce(Instant) -> F) -> Result<T, ManagerError>
    where
        F: Future<Output = Result<T, ManagerError>>,
    {
        self.call(self.inner.settings.admin_deadline, operation).await
    }

    /// Carries out an operation, unless there are too many or the manager is stopping. The operation gets its deadline, so
    /// that it can report its outcome in time; it is cut off only if it ignores the deadline.
    async fn call<T, F>(&self, deadline: Duration, operation: impl FnOnce(Instant) -> F) -> Result<T, ManagerError>
    where
        F: Future<Output = Result<T, ManagerError>>,
    {
        let inner = &self.inner;
        if inner.stopping.is_cancelled() || inner.dead.is_cancelled() {
            return Err(ManagerError::ShuttingDown);
        }
        let Ok(_permit) = inner.calls.try_acquire() else {
            return Err(ManagerError::Overloaded { limit: inner.settings.max_admin_calls });
        };
        let by = Instant::now() + deadline;
        let cut_off = deadline + deadlines::RETRY_DELAY;
        let result = tokio::select! {
            biased;
            () = inner.dead.cancelled() => Err(ManagerError::ShuttingDown),
            result = timeout(cut_off, operation(by)) => {
                result.unwrap_or(Err(ManagerError::DeadlineExceeded(deadline)))
            }
        };
        inner.counters.update(|counters| {
            counters.admin_calls += 1;
            counters.admin_failures += u64::from(result.is_err());
        });
        result
    }
}

impl Inner {
    fn store_deadline(&self) -> Instant {
        Instant::now() + self.settings.store_timeout
    }
}

async fn run(inner: Arc<Inner>, nudger: nudge::Nudger) -> ManagerExit {
    // Aborting this task drops the set, which aborts its tasks.
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let inner = Arc::clone(&inner);
        async move { inner.lead_or_follow().await }
    });
    tasks.spawn({
        let inner = Arc::clone(&inner);
        async move { inner.run_cycles().await }
    });
    tasks.spawn({
        let inner = Arc::clone(&inner);
        async move { inner.run_purges().await }
    });
    tasks.spawn(nudger.run());
    tokio::select! {
        biased;
        () = inner.stopping.cancelled() => {}
        Some(Err(error)) = tasks.join_next() => {
            if let Ok(panicked) = error.try_into_panic() {
                panic::resume_unwind(panicked);
            }
        }
    }
    tasks.shutdown().await;
    inner.leadership.step_down();
    let resign = inner.store.catalog().resign(inner.id);
    match inner.store.write(inner.store_deadline(), resign).await {
        Ok(()) => info!("gave up the lead, if there was any"),
        Err(error) => warn!(%error, "could not give up the lead; it ends with the lease"),
    }
    // Every operation holds a permit, and ends by its deadline.
    tokio::select! {
        biased;
        () = inner.dead.cancelled() => {}
        _ = inner.calls.acquire_many(inner.settings.max_admin_calls) => {}
    }
    ManagerExit::Stopped
}
