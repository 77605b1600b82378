//! The broker's main task: it runs a task for each queue that the store assigns to the broker, and everything beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    api::{BrokerError, BrokerExit},
    idle::delete_idle_channels,
    inner::{Inner, REFRESHES, RefreshReply, Registered},
    look::{Elsewhere, Look, Seen},
    membership::{News, keep_lease, register, retire, watch_lease},
    queue::{Confirmed, Context, Handle, QueueTask, STOP_GRACE},
    turns::Turns,
};
use crate::{
    model::{Incarnation, QueueId, limits::MAX_LOOKED_UP},
    ports::{QueueRecord, StoreError},
};

/// How soon a failed look at the store is repeated. After one that succeeded the broker rests for as long as it took, up to
/// this: looks that are asked for one after the other take half of its time at most.
const RETRY: Duration = Duration::from_millis(200);

/// How often a look asks for queues that are remembered and not hosted here. Nothing but a little memory depends on it.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// The broker's main task.
pub(super) struct Supervisor {
    inner: Arc<Inner>,
    refreshes: mpsc::Receiver<RefreshReply>,
    /// The committer and the keepers of the lease: they run beside the rest and die with it.
    helpers: JoinSet<BrokerExit>,
    /// One task per hosted queue; what it returns is why it ended. A queue that left and came back can have two for a
    /// while.
    queues: JoinSet<(Handle, BrokerError)>,
    /// Of each queue that was ever hosted here, until a look finds that it was deleted.
    confirmed: BTreeMap<QueueId, Confirmed>,
    /// A look asks for some of those that are not hosted here now: the ones behind this.
    asked_through: QueueId,
    /// When a look does so next.
    next_forget: Instant,
}

impl Supervisor {
    pub(super) fn new(inner: Arc<Inner>, refreshes: mpsc::Receiver<RefreshReply>) -> Self {
        Self {
            inner,
            refreshes,
            helpers: JoinSet::new(),
            queues: JoinSet::new(),
            confirmed: BTreeMap::new(),
            asked_through: QueueId::default(),
            next_forget: Instant::now() + FORGET_EVERY,
        }
    }

    /// `committing` is the committer's task.
    pub(super) async fn run(mut self, committing: impl Future<Output = ()> + Send + 'static) -> BrokerExit {
        let inner = self.inner.clone();
        let exit = tokio::select! {
            biased;
            () = inner.stop.cancelled() => BrokerExit::Stopped,
            exit = self.serve(committing) => exit,
        };
        let why = match exit {
            BrokerExit::Stopped => BrokerError::ShuttingDown,
            BrokerExit::Replaced => BrokerError::Fenced,
        };
        self.stop_queues(&why).await;
        inner.lease.end();
        if exit == BrokerExit::Stopped {
            retire(&inner).await;
        }
        // From here on nobody gets an answer that would take the dead for the living.
        inner.stop.cancel();
        self.refreshes.close();
        inner.stopped.cancel();
        exit
    }

    async fn serve(&mut self, committing: impl Future<Output = ()> + Send + 'static) -> BrokerExit {
        let incarnation = Incarnation::new(self.inner.entropy.uuid());
        let (broker, generation) = register(&self.inner, incarnation).await;
        let context = Arc::new(Context {
            settings: self.inner.settings.clone(),
            catalog: self.inner.catalog.clone(),
            logs: self.inner.logs.clone(),
            entropy: self.inner.entropy.clone(),
            lease: self.inner.lease.clone(),
            broker,
            incarnation,
            fenced_appends: AtomicU64::new(0),
            activations: Turns::new(self.inner.settings.max_activations),
            trims: Turns::new(self.inner.settings.max_trims),
        });
        self.inner.registered.send_replace(Some(Registered { broker, context: context.clone() }));
        let (news, mut learnt) = watch::channel(News { generation, rolled_back: 0 });
        let renewing = keep_lease(self.inner.clone(), broker, incarnation, news);
        self.helpers.spawn(async move {
            committing.await;
            BrokerExit::Stopped
        });
        self.helpers.spawn(renewing);
        self.helpers.spawn(watch_lease(self.inner.clone()));
        if let Some(expiry) = self.inner.settings.channel_idle_expiry {
            self.helpers.spawn(delete_idle_channels(self.inner.clone(), context.clone(), expiry));
        }
        let mut seen = News::default();
        let mut next_refresh = Some(Instant::now());
        let mut waiting = Vec::new();
        // One look at a time, which holds up nothing.
        let mut look: Option<Look> = None;
        let mut rest_until = Instant::now();
        loop {
            let due = next_refresh.filter(|_| look.is_none()).map(|at| at.max(rest_until));
            tokio::select! {
                biased;
                Some(ended) = self.helpers.join_next() => return ended.unwrap_or_else(resume),
                Some(ended) = self.queues.join_next(), if !self.queues.is_empty() => {
                    mark!(LookedBeside if look.is_some());
                    let (handle, why) = ended.unwrap_or_else(resume);
                    self.queue_ended(&handle, &why);
                    // It may still be ours: look, but not in a tight loop.
                    next_refresh.get_or_insert(Instant::now() + RETRY);
                }
                Ok(()) = learnt.changed() => {
                    let now = *learnt.borrow_and_update();
                    mark!(NewsByPolling if now.generation != seen.generation);
                    mark!(LookedBeside if look.is_some());
                    if now.rolled_back != seen.rolled_back {
                        self.verify_all();
                    }
                    seen = now;
                    next_refresh = Some(Instant::now());
                }
                saw = async { look.as_mut().expect("guarded").seen().await }, if look.is_some() => match saw {
                    Ok(Seen::Assigned(assigned)) => {
                        let lost = self.take(&context, assigned);
                        look.as_mut().expect("it just answered").go_on_with_lost(lost);
                    }
                    Ok(Seen::Lost(lost)) => {
                        self.let_go(&lost);
                        look.as_mut().expect("it just answered").go_on_with_rest();
                    }
                    Ok(Seen::Rest(remembered)) => {
                        self.forget(&remembered);
                        let done = look.take().expect("it just answered");
                        rest_until = Instant::now() + done.began.elapsed().min(RETRY);
                        answer(done.replies, &Ok(()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the assigned queues; trying again");
                        rest_until = Instant::now() + RETRY;
                        next_refresh.get_or_insert(rest_until);
                        answer(look.take().expect("it just answered").replies, &Err(error));
                    }
                },
                // A request that arrives during a look waits for the next look.
                Some(reply) = self.refreshes.recv(), if look.is_none() && waiting.len() < REFRESHES => {
                    waiting.push(reply);
                    next_refresh = Some(Instant::now());
                }
                () = sleep_until(due) => {
                    next_refresh = None;
                    let remembered = self.remembered();
                    look = Some(Look::begin(&self.inner, &context, remembered, std::mem::take(&mut waiting)));
                }
            }
        }
    }

    /// Some queues that are remembered and not hosted here, if it is time to ask for some; in the end it is the turn of each.
    fn remembered(&mut self) -> BTreeSet<QueueId> {
        if Instant::now() < self.next_forget {
            return BTreeSet::new();
        }
        self.next_forget = Instant::now() + FORGET_EVERY;
        let hosted: BTreeSet<QueueId> = self.inner.queues.read().values().map(|handle| handle.shared.id).collect();
        let behind = self.confirmed.range((Bound::Excluded(self.asked_through), Bound::Unbounded));
        let left = behind.map(|(&id, _)| id).filter(|id| !hosted.contains(id));
        let some: BTreeSet<QueueId> = left.take(MAX_LOOKED_UP).collect();
        self.asked_through = some.last().copied().filter(|_| some.len() == MAX_LOOKED_UP).unwrap_or_default();
        some
    }

    /// Takes what is assigned to this broker. Returns what it hosts besides.
    fn take(&mut self, context: &Arc<Context>, assigned: Vec<QueueRecord>) -> BTreeSet<QueueId> {
        let mut lost: BTreeSet<QueueId> = self.inner.queues.read().values().map(|handle| handle.shared.id).collect();
        for record in assigned {
            lost.remove(&record.id);
            self.host(context, record);
        }
        lost
    }

    /// Lets go of what is assigned to others, or deleted.
    fn let_go(&mut self, lost: &Elsewhere) {
        let gone: Vec<_> = {
            let hosted = self.inner.queues.read();
            hosted.values().filter(|handle| lost.asked.contains(&handle.shared.id)).cloned().collect()
        };
        for handle in gone {
            let queue = handle.shared.id;
            let why = match lost.live.get(&queue) {
                None => BrokerError::QueueReplaced { queue },
                Some(record) => {
                    BrokerError::NotHosted { assignee: record.assignee.as_ref().map(|(_, addr)| addr.clone()) }
                }
            };
            // From now on no request finds the queue; its task ends in its own time.
            self.inner.queues.write().remove(&handle.shared.label);
            end(&handle, &why);
        }
        self.forget(lost);
    }

    /// Forgets what was deleted.
    fn forget(&mut self, elsewhere: &Elsewhere) {
        for deleted in elsewhere.asked.iter().filter(|id| !elsewhere.live.contains_key(id)) {
            self.confirmed.remove(deleted);
        }
    }

    fn host(&mut self, context: &Arc<Context>, record: QueueRecord) {
        let mut hosted = self.inner.queues.write();
        if let Some(handle) = hosted.get(&record.label).filter(|handle| handle.shared.id == record.id) {
            if std::mem::replace(&mut *handle.shared.assignment.lock(), record.assignment) != record.assignment {
                // It went away and came back between two looks: somebody else may have claimed it meanwhile.
                handle.verify();
            }
            return;
        }
        if let Some(handle) = hosted.remove(&record.label) {
            // A label names one queue at a time, so the one that had it was deleted.
            let queue = handle.shared.id;
            let why = BrokerError::QueueReplaced { queue };
            end(&handle, &why);
            self.confirmed.remove(&queue);
        }
        let confirmed = self.confirmed.entry(record.id).or_default().clone();
        let (task, handle) = QueueTask::new(context.clone(), &record, confirmed);
        hosted.insert(record.label, handle.clone());
        self.queues.spawn(async move { (handle, task.run().await) });
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

    /// The store was rolled back: every queue reads its log again, and halts if that lost something.
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
}

/// Ends the streams and the task of a queue that is not this broker's any more.
fn end(handle: &Handle, why: &BrokerError) {
    mark!(LetGoDeleted if matches!(why, BrokerError::QueueReplaced { .. }), else LetGoMoved);
    handle.shared.evict(why);
    handle.stop(why);
}

fn answer(replies: Vec<RefreshReply>, looked: &Result<(), StoreError>) {
    for reply in replies {
        let _ = reply.send(looked.clone());
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
