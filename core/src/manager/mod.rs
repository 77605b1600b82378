//! A manager: administers queues and channels, watches the brokers, and makes sure that every queue has a live broker.
//!
//! Each decision of a manager is one transaction in the store, so any number of managers may run. The one that holds the
//! leader lease probes the brokers and reconciles; all managers carry out administrative operations. A manager only
//! *assigns* a queue; its broker then claims the right to write to it.

mod admin;
mod ask;
mod calls;
mod deadlines;
mod error;
mod handle;
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

use std::{panic, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use admin::{MAX_LISTED, NotDescribed, Page, PlacedChannel, PlacedQueue, QueueDetails};
pub use ask::MAX_ASKED_AT_ONCE;
pub use error::ManagerError;
pub use handle::Manager;
pub use problems::{Health, Problem};
pub use rebalance::{MovedQueue, Rebalanced};
pub use settings::ManagerSettings;
pub use states::ListedQueue;
pub use status::{BrokerView, CycleStatus, ManagerCounters, ManagerStatus, ProbeView, RegisteredBroker};

use crate::{
    model::ManagerId,
    ports::{BrokerControl, Entropy},
};

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
