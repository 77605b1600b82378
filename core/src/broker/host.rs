//! Hosting: registers the broker, keeps its lease, and runs a task for each queue that the store assigns to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    BrokerError, BrokerExit, Inner,
    committer::Committer,
    count,
    queue::{Actor, Confirmed, Context, Handle, STOP_GRACE, Subscriber},
};
use crate::{
    model::{BrokerId, Incarnation, QueueId},
    ports::{QueueRecord, Register, RegisterError, RenewError, StoreError},
};

/// Requests to look at the store that wait at once; further ones wait to be taken.
pub(super) const REFRESHES: usize = 256;

/// How soon a failed look at the store is repeated.
const RETRY: Duration = Duration::from_millis(200);

/// Queues with subscriptions up to which their channels are read one queue at a time.
const QUEUES_BY_ONE: usize = 16;

/// Who this broker is.
#[derive(Clone)]
pub(super) struct Registered {
    pub(super) broker: BrokerId,
    pub(super) context: Arc<Context>,
}

/// What the lease's task learnt from the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    /// Something changed that this broker should look at.
    generation: u64,
    /// How often the store was found to have gone back.
    went_back: u64,
}

/// Tells whoever asked for a look at the store whether there was one.
pub(super) type RefreshReply = oneshot::Sender<Result<(), StoreError>>;

/// The broker's main task.
pub(super) struct Host {
    inner: Arc<Inner>,
    refreshes: mpsc::Receiver<RefreshReply>,
    /// The committer and the keeper of the lease: they run beside the rest and die with it.
    helpers: JoinSet<BrokerExit>,
    /// One task per hosted queue; what it returns is why it ended. A queue that left and came back can have two for a
    /// while.
    queues: JoinSet<(Handle, BrokerError)>,
    /// Of each queue that was ever hosted here.
    confirmed: BTreeMap<QueueId, Confirmed>,
}

impl Host {
    pub(super) fn new(inner: Arc<Inner>, refreshes: mpsc::Receiver<RefreshReply>) -> Self {
        Self { inner, refreshes, helpers: JoinSet::new(), queues: JoinSet::new(), confirmed: BTreeMap::new() }
    }

    pub(super) async fn run(mut self) -> BrokerExit {
        let inner = self.inner.clone();
        let exit = tokio::select! {
            biased;
            () = inner.stop.cancelled() => BrokerExit::Stopped,
            exit = self.serve() => exit,
        };
        let why = match exit {
            BrokerExit::Stopped => BrokerError::ShuttingDown,
            BrokerExit::Replaced => BrokerError::Fenced,
        };
        self.stop_queues(&why).await;
        inner.lease.end();
        if exit == BrokerExit::Stopped {
            self.retire().await;
        }
        // From here on nobody gets an answer that would take the dead for the living.
        inner.stop.cancel();
        self.refreshes.close();
        inner.stopped.cancel();
        exit
    }

    async fn serve(&mut self) -> BrokerExit {
        let incarnation = Incarnation::new(self.inner.entropy.uuid());
        let (broker, generation) = self.register(incarnation).await;
        let (committer, committing) = Committer::new(self.inner.store.clone(), self.inner.settings.store_timeout);
        let context = Arc::new(Context {
            settings: self.inner.settings.clone(),
            store: self.inner.store.clone(),
            entropy: self.inner.entropy.clone(),
            clock: self.inner.clock.clone(),
            committer,
            broker,
            incarnation,
            fenced_appends: AtomicU64::new(0),
        });
        self.inner.registered.send_replace(Some(Registered { broker, context: context.clone() }));
        let (news, mut learnt) = watch::channel(News { generation, went_back: 0 });
        let renewing = keep_lease(self.inner.clone(), broker, incarnation, news);
        self.helpers.spawn(async move {
            committing.await;
            BrokerExit::Stopped
        });
        self.helpers.spawn(renewing);
        let mut seen = News::default();
        let mut next_refresh = Some(Instant::now());
        let mut waiting = Vec::new();
        loop {
            let lease_until = self.inner.lease.until();
            tokio::select! {
                biased;
                Some(ended) = self.helpers.join_next() => return ended.unwrap_or_else(resume),
                Some(ended) = self.queues.join_next(), if !self.queues.is_empty() => {
                    let (handle, why) = ended.unwrap_or_else(resume);
                    self.queue_ended(&handle, &why);
                    // It may still be ours: look, but not in a tight loop.
                    next_refresh.get_or_insert(Instant::now() + RETRY);
                }
                Ok(()) = learnt.changed() => {
                    let now = *learnt.borrow_and_update();
                    mark!(NewsByPolling if now.generation != seen.generation);
                    if now.went_back != seen.went_back {
                        self.verify_all();
                    }
                    seen = now;
                    next_refresh = Some(Instant::now());
                }
                Some(reply) = self.refreshes.recv() => {
                    waiting.push(reply);
                    while let Ok(reply) = self.refreshes.try_recv() {
                        waiting.push(reply);
                    }
                    next_refresh = Some(Instant::now());
                    self.look(&context, &mut next_refresh, &mut waiting).await;
                }
                () = sleep_until(next_refresh) => self.look(&context, &mut next_refresh, &mut waiting).await,
                // It may have been renewed since the timer was set.
                () = sleep_until(lease_until) => if !self.inner.lease.is_current() {
                    self.lease_ran_out();
                },
            }
        }
    }

    async fn look(&mut self, context: &Arc<Context>, next: &mut Option<Instant>, waiting: &mut Vec<RefreshReply>) {
        let refreshed = self.refresh(context).await;
        match &refreshed {
            Ok(()) => *next = None,
            Err(error) => {
                tracing::warn!(%error, "cannot read the assigned queues; trying again");
                *next = Some(Instant::now() + RETRY);
            }
        }
        for reply in waiting.drain(..) {
            let _ = reply.send(refreshed.clone());
        }
    }

    async fn register(&self, incarnation: Incarnation) -> (BrokerId, u64) {
        let settings = &self.inner.settings;
        let mut register = Register { addr: settings.addr.clone(), incarnation, replaces: None, lease: settings.lease };
        loop {
            let asked_at = Instant::now();
            let attempt = self.inner.store.register_broker(&register);
            let error = match tokio::time::timeout(settings.store_timeout, attempt).await {
                Ok(Ok(registration)) => {
                    self.inner.clock.read(asked_at, registration.store_time);
                    self.inner.lease.renewed(asked_at, settings.lease);
                    tracing::info!(broker = %registration.broker, addr = %settings.addr, %incarnation, "registered");
                    return (registration.broker, registration.generation);
                }
                // The run before this one; or another one that starts, and whoever registers last stays.
                Ok(Err(RegisterError::Taken { by })) => {
                    register.replaces = Some(by);
                    continue;
                }
                Ok(Err(RegisterError::Store(error))) => error.to_string(),
                Err(_) => format!("no answer within {:?}", settings.store_timeout),
            };
            mark!(RegistrationRetried);
            tracing::warn!(error, "cannot register with the store; trying again");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Takes what is assigned to this broker, and lets go of what is not.
    async fn refresh(&mut self, context: &Arc<Context>) -> Result<(), StoreError> {
        let assigned = context.within(self.inner.store.assigned_queues(context.broker)).await?;
        let ids: BTreeSet<QueueId> = assigned.iter().map(|record| record.id).collect();
        let gone: Vec<_> = {
            let hosted = self.inner.queues.read();
            hosted.values().filter(|handle| !ids.contains(&handle.shared.id)).cloned().collect()
        };
        for handle in gone {
            let why = match context.within(self.inner.store.queue_by_id(handle.shared.id)).await? {
                None => BrokerError::QueueReplaced { queue: handle.shared.id },
                Some(record) => BrokerError::NotHosted { assignee: record.assignee.map(|(_, addr)| addr) },
            };
            mark!(LetGoDeleted if matches!(why, BrokerError::QueueReplaced { .. }), else LetGoMoved);
            // Nobody is to find it any more; the task ends when it gets round to it.
            self.inner.queues.write().remove(&handle.shared.label);
            handle.shared.evict(&why);
            handle.stop(&why);
        }
        for record in assigned {
            self.host(context, record);
        }
        self.end_orphans(context).await
    }

    fn host(&mut self, context: &Arc<Context>, record: QueueRecord) {
        let mut hosted = self.inner.queues.write();
        if let Some(handle) = hosted.get(&record.label).filter(|handle| handle.shared.id == record.id) {
            if handle.shared.assignment.swap(record.assignment, Relaxed) != record.assignment {
                // It went away and came back between two looks: somebody else may have claimed it meanwhile.
                handle.verify();
            }
            return;
        }
        let confirmed = self.confirmed.entry(record.id).or_default().clone();
        let (actor, handle) = Actor::new(context.clone(), &record, confirmed);
        hosted.insert(record.label, handle.clone());
        self.queues.spawn(async move { (handle, actor.run().await) });
    }

    /// Ends subscriptions whose channel was deleted.
    async fn end_orphans(&self, context: &Context) -> Result<(), StoreError> {
        self.inner.channel_looks.fetch_add(1, SeqCst);
        // Before the channels are read: of one that is created meanwhile what is read knows nothing.
        let subscribed: Vec<(QueueId, Vec<Arc<Subscriber>>)> = {
            let hosted = self.inner.queues.read();
            let subscribers = |handle: &Handle| handle.shared.subscribers.lock().values().cloned().collect::<Vec<_>>();
            let all = hosted.values().map(|handle| (handle.shared.id, subscribers(handle)));
            all.filter(|(_, subscribers)| !subscribers.is_empty()).collect()
        };
        let mut channels = BTreeSet::new();
        if subscribed.len() > QUEUES_BY_ONE {
            channels.extend(context.within(self.inner.store.channels(None)).await?.into_iter().map(|c| c.id));
        } else {
            for (queue, _) in &subscribed {
                let of_queue = context.within(self.inner.store.channels(Some(*queue))).await?;
                channels.extend(of_queue.into_iter().map(|channel| channel.id));
            }
        }
        for subscriber in subscribed.into_iter().flat_map(|(_, subscribers)| subscribers) {
            if !channels.contains(&subscriber.channel) {
                subscriber.ended.send_replace(Some(BrokerError::ChannelNotFound(subscriber.channel)));
            }
        }
        Ok(())
    }

    fn queue_ended(&mut self, ended: &Handle, why: &BrokerError) {
        let mut hosted = self.inner.queues.write();
        match hosted.get(&ended.shared.label) {
            Some(handle) if Arc::ptr_eq(&handle.shared, &ended.shared) => {
                hosted.remove(&ended.shared.label);
            }
            // The label names a later task by now. Of the same queue: the one that ended may have claimed it after that one.
            Some(handle) if handle.shared.id == ended.shared.id => handle.verify(),
            _ => {}
        }
        if matches!(why, BrokerError::QueueReplaced { .. }) {
            self.confirmed.remove(&ended.shared.id);
        }
    }

    /// Streams end, so that their clients find the queue's next owner; what is stored meanwhile is for the fence to say.
    fn lease_ran_out(&self) {
        tracing::error!("the lease ran out: the store does not answer, or this process was paused");
        mark!(LeaseRanOutPushing if self.inner.pending.available_permits() < self.inner.settings.max_pending_bytes,
            else LeaseRanOutIdle);
        self.inner.lease.end();
        for handle in self.inner.queues.read().values() {
            handle.shared.evict(&BrokerError::LeaseExpired);
        }
    }

    /// The store went back: every queue reads its log again, and halts if that lost something.
    fn verify_all(&self) {
        for handle in self.inner.queues.read().values() {
            handle.verify();
        }
    }

    async fn stop_queues(&mut self, why: &BrokerError) {
        let hosted: Vec<_> = std::mem::take(&mut *self.inner.queues.write()).into_values().collect();
        let deadline = Instant::now() + STOP_GRACE;
        for handle in &hosted {
            handle.stop(why);
        }
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.queues.join_next()).await {
            let _ = ended.unwrap_or_else(resume);
        }
        for handle in &hosted {
            handle.shared.evict(why);
        }
        self.queues.abort_all();
    }

    async fn retire(&self) {
        let Some(registered) = self.inner.registered.borrow().clone() else { return };
        let Context { broker, incarnation, .. } = *registered.context;
        let retire = self.inner.store.retire_broker(broker, incarnation);
        match tokio::time::timeout(self.inner.settings.store_timeout, retire).await {
            Ok(Ok(())) => tracing::info!(%broker, "retired"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot retire; the lease will run out by itself"),
            Err(_) => tracing::warn!("no time to retire; the lease will run out by itself"),
        }
    }
}

/// Renews the lease; ends only when another run took this broker's place.
async fn keep_lease(
    inner: Arc<Inner>,
    broker: BrokerId,
    incarnation: Incarnation,
    news: watch::Sender<News>,
) -> BrokerExit {
    let lease = inner.settings.lease;
    let (interval, retry) = (lease / 3, lease / 15);
    // One answer that is lost must not cost the lease.
    let timeout = inner.settings.store_timeout.min(interval);
    let mut renewals = 0;
    let mut generation = news.borrow().generation;
    let mut wait = interval;
    // What goes on failing is said once.
    let mut failing = false;
    loop {
        tokio::time::sleep(wait).await;
        let asked_at = Instant::now();
        let attempt = inner.store.renew_broker(broker, incarnation, lease);
        let error = match tokio::time::timeout(timeout, attempt).await {
            Ok(Ok(renewal)) => {
                let lapsed = !inner.lease.is_current();
                if std::mem::take(&mut failing) {
                    tracing::info!(lapsed, "the store answers again: the lease is renewed");
                }
                mark!(LeaseCameBackUnchanged if lapsed && renewal.generation == generation);
                mark!(LeaseCameBackChanged if lapsed && renewal.generation != generation);
                inner.clock.read(asked_at, renewal.store_time);
                inner.lease.renewed(asked_at, lease);
                inner.draining.store(renewal.draining, Relaxed);
                let went_back = renewal.renewals <= renewals || renewal.generation < generation;
                if went_back {
                    tracing::error!(
                        found = renewal.renewals,
                        expected = renewals + 1,
                        "the store went back: an older copy was restored, or it lost data"
                    );
                }
                if went_back || lapsed || renewal.generation != generation {
                    news.send_modify(|news| {
                        news.generation = renewal.generation;
                        news.went_back += u64::from(went_back);
                    });
                }
                (renewals, generation) = (renewal.renewals, renewal.generation);
                wait = interval;
                continue;
            }
            Ok(Err(RenewError::Replaced)) => {
                tracing::error!(addr = %inner.settings.addr, "another process registered under this broker's host and port");
                return BrokerExit::Replaced;
            }
            Ok(Err(RenewError::Store(error))) => error.to_string(),
            Err(_) => format!("no answer within {timeout:?}"),
        };
        count(&inner.failed_renewals, 1);
        mark!(RenewalFailed);
        if std::mem::replace(&mut failing, true) {
            tracing::debug!(error, "cannot renew the lease; trying again");
        } else {
            tracing::warn!(error, "cannot renew the lease; trying again until the store answers");
        }
        wait = retry;
    }
}

/// Sleeps until an instant; for ever without one.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A defect in one of our tasks is a defect of the process: nothing runs on without it.
fn resume<T>(error: tokio::task::JoinError) -> T {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
    unreachable!("none of the broker's own tasks is cancelled while it is waited for")
}
