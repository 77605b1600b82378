//! What the broker's tasks and handles share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    api::BrokerError,
    lease::Lease,
    logs::Logs,
    lookup_limits::LookupLimits,
    moments::Moments,
    queue::{Context, Handle},
    room::Room,
    settings::BrokerSettings,
    store_clock::StoreClock,
    turns::Turns,
};
use crate::{
    model::{BrokerId, QueueLabel},
    ports::{Catalog, Databases, Entropy, StoreError, Uptime},
};

/// Requests to look at the store that wait at once; further ones wait to be taken.
pub(super) const REFRESHES: usize = 256;

/// Named producers that a broker has the store open at once; more wait, as long as for an activation.
pub(super) const MAX_OPENINGS: usize = 2;

/// Who this broker is.
#[derive(Clone)]
pub(super) struct Registered {
    pub(super) broker: BrokerId,
    pub(super) context: Arc<Context>,
}

/// The answer to a request to look at the store.
pub(super) type RefreshReply = oneshot::Sender<Result<(), StoreError>>;

/// See the module.
pub(super) struct Inner {
    pub(super) settings: BrokerSettings,
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) logs: Arc<Logs>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) moments: Moments,
    pub(super) clock: Arc<StoreClock>,
    pub(super) lease: Arc<Lease>,
    /// The queues hosted here, or about to be.
    pub(super) queues: RwLock<BTreeMap<QueueLabel, Handle>>,
    /// Who this broker is, once the store said so.
    pub(super) registered: watch::Sender<Option<Registered>>,
    pub(super) refresh: mpsc::Sender<RefreshReply>,
    pub(super) stop: CancellationToken,
    pub(super) stopped: CancellationToken,
    /// For pushes that are being read, or accepted and not stored yet.
    pub(super) room: Arc<Room>,
    /// Named producers that the store opens: those of one queue wait for each other there, each with a connection.
    pub(super) openings: Turns,
    pub(super) subscriptions: Arc<Semaphore>,
    pub(super) next_subscription: AtomicU64,
    /// How often the supervisor has begun to look for subscriptions whose channel was deleted.
    pub(super) channel_looks: AtomicU64,
    pub(super) lookups: LookupLimits,
    pub(super) failed_renewals: AtomicU64,
    /// Channels deleted for being idle.
    pub(super) expired_channels: AtomicU64,
    pub(super) draining: AtomicBool,
}

impl Inner {
    /// Of a broker that is not registered yet, what asks it to look at the store, and the task of its committer.
    pub(super) fn new(
        settings: BrokerSettings,
        databases: Databases,
        entropy: Arc<dyn Entropy>,
        uptime: Arc<dyn Uptime>,
    ) -> (Arc<Self>, mpsc::Receiver<RefreshReply>, impl Future<Output = ()> + Send + 'static + use<>) {
        let (refresh, refreshes) = mpsc::channel(REFRESHES);
        let moments = Moments::new(uptime);
        let clock = Arc::new(StoreClock::new(moments.clone()));
        let (logs, committing) =
            Logs::new(databases.log, clock.clone(), settings.max_store_reads, settings.store_timeout);
        let inner = Arc::new(Self {
            clock,
            lease: Arc::new(Lease::new(moments.clone())),
            moments,
            queues: RwLock::default(),
            registered: watch::Sender::new(None),
            refresh,
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
            room: Room::new(settings.max_pending_bytes),
            openings: Turns::new(MAX_OPENINGS),
            subscriptions: Arc::new(Semaphore::new(settings.max_subscriptions)),
            next_subscription: AtomicU64::new(0),
            channel_looks: AtomicU64::new(0),
            lookups: LookupLimits::new(settings.max_lookups_per_second),
            failed_renewals: AtomicU64::new(0),
            expired_channels: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            settings,
            catalog: databases.catalog,
            logs,
            entropy,
        });
        (inner, refreshes, committing)
    }

    /// Who this broker is, if it may serve.
    pub(super) fn ready(&self) -> Result<Registered, BrokerError> {
        if self.stop.is_cancelled() {
            return Err(BrokerError::ShuttingDown);
        }
        match &*self.registered.borrow() {
            Some(registered) if self.lease.is_current() => Ok(registered.clone()),
            _ => Err(BrokerError::LeaseExpired),
        }
    }

    pub(super) fn context(&self) -> Result<Arc<Context>, BrokerError> {
        Ok(self.ready()?.context)
    }

    pub(super) async fn refresh(&self) -> Result<(), BrokerError> {
        let (reply, done) = oneshot::channel();
        self.refresh.send(reply).await.map_err(|_| BrokerError::ShuttingDown)?;
        done.await.map_err(|_| BrokerError::ShuttingDown)?.map_err(Into::into)
    }

    /// A read of the store, with its deadline.
    pub(super) async fn read<T>(&self, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, BrokerError> {
        let timeout = self.settings.store_timeout;
        tokio::time::timeout(timeout, read)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {timeout:?}"))))
            .map_err(Into::into)
    }

    /// A write of the store, with its deadline.
    pub(super) async fn write<T>(&self, write: impl Future<Output = T>) -> Result<T, BrokerError> {
        let timeout = self.settings.store_timeout;
        tokio::time::timeout(timeout, write)
            .await
            .map_err(|_| StoreError::Unknown(format!("no answer within {timeout:?}")).into())
    }
}
