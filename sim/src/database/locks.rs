//! Locks on rows, for which other writes wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rmom_core::{
    model::{BrokerId, QueueId, QueueLabel},
    store::memory::State,
};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock},
    time::timeout,
};

use super::rpc::Failure;

/// How long a write waits for one row, as `lock_timeout` in production's PostgreSQL sessions.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// A row of a table, in the order in which writes lock them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// The unique index over the labels of live queues.
    Label(QueueLabel),
    /// A queue with its assignment and its channels.
    Queue(QueueId),
    /// The fencing row of a log. Appends share it; a claim locks it exclusively.
    Log(QueueId),
    /// The row that a trim updates.
    LogState(QueueId),
    /// The managers' leader lease.
    Leader,
    /// A broker with its lease and generation. It is locked last, and for the shortest time, since renewals wait for it;
    /// production locks it in the message that commits.
    Broker(BrokerId),
}

/// How a row is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Excludes changes.
    Share,
    /// Excludes all other locks.
    Change,
}

/// Returns the rows that a write locks, given the stored data.
pub(super) type RowsOf = Box<dyn Fn(&State) -> Vec<(Row, Mode)> + Send + Sync>;

enum Held {
    Share(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    Change(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
}

/// The locks that a write holds, until it is dropped.
#[derive(Default)]
pub(super) struct Locked(Vec<Held>);

/// All locks of one run of the database's process: a crash releases them.
#[derive(Clone, Default)]
pub(super) struct Locks(Arc<Mutex<BTreeMap<Row, Arc<RwLock<()>>>>>);

impl Locks {
    /// Locks rows one after the other, in order, waiting for each in the order of arrival. Once they are locked, looks up
    /// again which rows to lock, until there are no new ones: a queue's assignee, for example, can change meanwhile.
    pub(super) async fn lock(&self, mut rows: impl FnMut() -> Vec<(Row, Mode)>) -> Result<Locked, Failure> {
        let mut locked = Locked::default();
        let mut names = BTreeSet::new();
        loop {
            let mut missing = rows();
            missing.retain(|(row, _)| !names.contains(row));
            if missing.is_empty() {
                return Ok(locked);
            }
            missing.sort();
            for (row, mode) in missing {
                let lock = self.0.lock().entry(row.clone()).or_default().clone();
                let held = async {
                    match mode {
                        Mode::Share => Held::Share(lock.read_owned().await),
                        Mode::Change => Held::Change(lock.write_owned().await),
                    }
                };
                locked.0.push(timeout(LOCK_TIMEOUT, held).await.map_err(|_| Failure::LockTimeout)?);
                names.insert(row);
            }
        }
    }
}
