//! The log databases of a broker's queues, and what the broker keeps for each of them.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{committer::Committer, store_clock::StoreClock};
use crate::{model::QueueId, ports::Log};

/// A log database as a broker uses it.
pub(super) struct LogDatabase {
    pub(super) log: Arc<dyn Log>,
    /// Joins the batches of its queues into appends.
    pub(super) committer: Committer,
    /// The estimate of its clock, which decides what has expired.
    pub(super) clock: Arc<StoreClock>,
    /// For reading batches back.
    pub(super) reads: Arc<Semaphore>,
}

/// All log databases: one, for now.
pub(super) struct Logs {
    only: LogDatabase,
}

impl Logs {
    /// The one log database, and the task of its committer.
    pub(super) fn new(
        log: Arc<dyn Log>,
        clock: Arc<StoreClock>,
        reads: usize,
        timeout: Duration,
    ) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static + use<>) {
        let (committer, committing) = Committer::new(log.clone(), timeout);
        let only = LogDatabase { log, committer, clock, reads: Arc::new(Semaphore::new(reads)) };
        (Arc::new(Self { only }), committing)
    }

    /// The database that holds a queue's log.
    pub(super) fn of(&self, _: QueueId) -> &LogDatabase {
        &self.only
    }
}
