//! The handle on a running broker: starting and stopping it, and what it says of itself and its queues.

use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    api::{BrokerError, BrokerExit, BrokerStatus},
    inner::Inner,
    queue::Handle,
    room::PushRoom,
    settings::BrokerSettings,
    supervisor::Supervisor,
};
use crate::{
    access::{Action, Call, Permit, Right, admit},
    model::{QueueLabel, limits::MAX_QUEUE_STATES},
    ports::{Databases, Entropy, QueueDescription, QueueState, Uptime},
};

/// A handle on a running broker; clones share it. `Broker<Call>` acts for a caller, and only it takes requests.
///
/// The fields are private to this file: requests reach the broker only through [`Broker::admit`].
#[derive(Clone)]
pub struct Broker<C = ()> {
    inner: Arc<Inner>,
    call: C,
}

impl Broker {
    /// Starts a broker on the current runtime. It registers as soon as the store answers, and serves what the store says
    /// is its own. The task ends with the broker; aborting it is a crash.
    pub fn spawn(
        settings: BrokerSettings,
        databases: impl Into<Databases>,
        entropy: Arc<dyn Entropy>,
        uptime: Arc<dyn Uptime>,
    ) -> (Self, tokio::task::JoinHandle<BrokerExit>) {
        let (inner, refreshes, committing) = Inner::new(settings, databases.into(), entropy, uptime);
        let task = tokio::spawn(Supervisor::new(inner.clone(), refreshes).run(committing));
        (Self { inner, call: () }, task)
    }
}

impl Broker<Call> {
    /// Admits the call to do this, which is the only way from a request to the broker's queues.
    pub(super) fn admit(&self, action: Action) -> Result<(&Arc<Inner>, Permit), BrokerError> {
        Ok((&self.inner, admit(&self.call, action)?))
    }

    /// Succeeds while the lease is current.
    ///
    /// # Errors
    /// [`BrokerError::LeaseExpired`], [`BrokerError::ShuttingDown`].
    pub fn heartbeat(&self) -> Result<(), BrokerError> {
        let (inner, _permit) = self.admit(Right::Inspect.on_cluster())?;
        let ready = inner.ready().map(|_| ());
        mark!(HeartbeatRefused if ready == Err(BrokerError::LeaseExpired));
        ready
    }

    /// Looks at the store now: takes what was assigned to this broker, lets go of what was not.
    ///
    /// # Errors
    /// [`BrokerError::ShuttingDown`], and what the store says.
    pub async fn refresh(&self) -> Result<(), BrokerError> {
        let (inner, _permit) = self.admit(Right::Inspect.on_cluster())?;
        inner.refresh().await
    }

    /// Describes a queue hosted here.
    ///
    /// # Errors
    /// As [`Broker::rebuild_queue`].
    pub async fn describe(&self, label: &QueueLabel) -> Result<QueueDescription, BrokerError> {
        let (inner, permit) = self.admit(Right::Inspect.on_queue(label))?;
        inner.ready()?;
        let handle = inner.hosted(label, permit.caller().origin()).await?;
        let epoch = handle.served(inner.settings.activation_timeout).await?;
        let status = handle.status(inner.logs.of(handle.shared.id).clock.at_least());
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
        let (inner, _permit) = self.admit(Right::Inspect.on_cluster())?;
        inner.ready()?;
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        let some: Vec<Handle> =
            inner.queues.read().range(labels).take(MAX_QUEUE_STATES).map(|(_, handle)| handle.clone()).collect();
        Ok(some.iter().map(|handle| handle.state(inner.logs.of(handle.shared.id).clock.at_least())).collect())
    }
}

impl<C> Broker<C> {
    /// A handle for a call.
    #[must_use]
    pub fn on_behalf_of(&self, call: Call) -> Broker<Call> {
        Broker { inner: self.inner.clone(), call }
    }

    /// The room that a reader of pushes takes before it reads them from a connection.
    #[must_use]
    pub fn room(&self) -> PushRoom {
        PushRoom::new(self.inner.room.clone(), None)
    }

    /// True while the broker may serve; for health checks.
    #[must_use]
    pub fn may_serve(&self) -> bool {
        self.inner.ready().is_ok()
    }

    /// For health checks and metrics.
    #[must_use]
    pub fn status(&self) -> BrokerStatus {
        let inner = &self.inner;
        let status = |handle: &Handle| handle.status(inner.logs.of(handle.shared.id).clock.at_least());
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
            queues: inner.queues.read().values().map(status).collect(),
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
