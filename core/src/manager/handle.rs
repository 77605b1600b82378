//! The handle on a running manager: starting and stopping it, and what it says of itself.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Inner, ManagerError, ManagerExit, admin, deadlines, leadership, nudge, probes,
    problems::{self, Problem},
    run,
    settings::ManagerSettings,
    status::{self, CycleStatus, ManagerStatus},
};
use crate::{
    access::{Action, Call, admit},
    model::ManagerId,
    ports::{BrokerControl, Databases, Entropy},
};

/// A handle on a running manager. Clones share it. `Manager<Call>` acts for a caller, and only it has operations.
///
/// Every operation has a deadline, and ends with [`ManagerError::ShuttingDown`] when the manager stops. Dropping an
/// operation's future abandons it; changes that the store has committed by then remain.
///
/// The fields are private to this file: operations reach the manager only through [`Manager::call`].
#[derive(Clone)]
pub struct Manager<C = ()> {
    inner: Arc<Inner>,
    call: C,
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
        (Self { inner, call: () }, task)
    }
}

impl<C> Manager<C> {
    /// A handle for a call.
    #[must_use]
    pub fn on_behalf_of(&self, call: Call) -> Manager<Call> {
        Manager { inner: self.inner.clone(), call }
    }

    /// A handle for no call.
    #[must_use]
    pub fn on_behalf_of_nobody(&self) -> Manager {
        Manager { inner: self.inner.clone(), call: () }
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

    /// The problems of the cluster that `status` shows.
    pub(super) fn problems(&self, status: &ManagerStatus) -> Vec<Problem> {
        problems::problems(status, self.inner.settings.cycle)
    }

    /// Stops in good order: refuses new operations, gives up the lead so that another manager takes over at once, and lets
    /// operations under way finish, for at most `deadline`.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.stopping.cancel();
        if timeout(deadline, self.inner.dead.cancelled()).await.is_err() {
            self.inner.dead.cancel();
        }
    }
}

impl Manager<Call> {
    /// As [`Manager::call`], with the deadline of most operations.
    pub(super) async fn admin<'a, T, F>(
        &'a self,
        action: Action,
        operation: impl FnOnce(&'a Arc<Inner>, Instant) -> F,
    ) -> Result<T, ManagerError>
    where
        F: Future<Output = Result<T, ManagerError>>,
    {
        self.call(action, |settings| settings.admin_deadline, operation).await
    }

    /// Admits an operation and carries it out, unless there are too many or the manager is stopping. Operations reach the
    /// manager only through this method. The operation gets its deadline, so that it can report its outcome in time; it is
    /// cut off only if it ignores the deadline.
    pub(super) async fn call<'a, T, F>(
        &'a self,
        action: Action,
        deadline: impl FnOnce(&ManagerSettings) -> Duration,
        operation: impl FnOnce(&'a Arc<Inner>, Instant) -> F,
    ) -> Result<T, ManagerError>
    where
        F: Future<Output = Result<T, ManagerError>>,
    {
        let _permit = admit(&self.call, action)?;
        let inner = &self.inner;
        if inner.stopping.is_cancelled() || inner.dead.is_cancelled() {
            return Err(ManagerError::ShuttingDown);
        }
        let Ok(_permit) = inner.calls.try_acquire() else {
            return Err(ManagerError::Overloaded { limit: inner.settings.max_admin_calls });
        };
        let deadline = deadline(&inner.settings);
        let by = Instant::now() + deadline;
        let cut_off = deadline + deadlines::RETRY_DELAY;
        let result = tokio::select! {
            biased;
            () = inner.dead.cancelled() => Err(ManagerError::ShuttingDown),
            result = timeout(cut_off, operation(inner, by)) => {
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
