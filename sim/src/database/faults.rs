//! Temporary faults of the database.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A fault of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseFault {
    /// Every call takes longer.
    Slow {
        /// The delay, in milliseconds.
        millis: u64,
    },
    /// It stores nothing more: definite failures.
    Full,
    /// It accepts no connections, and closes existing ones.
    Refuse,
    /// It commits, but loses the answers to writes.
    LoseReplies,
    /// It closes the connection of every other write before the commit.
    AbortWrites,
    /// Writes are stalled between taking their locks and the commit.
    StallWrites,
    /// It closes the connection of every append before the commit; all else works.
    AbortAppends,
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { millis } => write!(f, "each call of the database takes {millis} ms longer"),
            Self::Full => f.write_str("the database is full"),
            Self::Refuse => f.write_str("the database refuses connections"),
            Self::LoseReplies => f.write_str("the database loses its answers"),
            Self::AbortWrites => f.write_str("the database aborts every other write"),
            Self::StallWrites => f.write_str("writes stand still in the database"),
            Self::AbortAppends => f.write_str("the database aborts every append"),
        }
    }
}

/// The active faults. They survive crashes of the database's process, as a full disk does.
#[derive(Debug, Default)]
pub(super) struct Faults {
    active: watch::Sender<Vec<DatabaseFault>>,
    /// Counts writes; while the fault lasts, every second one is aborted.
    writes: AtomicU64,
}

impl Faults {
    pub(super) fn begin(&self, fault: DatabaseFault) {
        self.active.send_modify(|active| active.push(fault));
    }

    pub(super) fn end(&self, fault: DatabaseFault) {
        self.active.send_modify(|active| {
            if let Some(at) = active.iter().position(|&other| other == fault) {
                active.remove(at);
            }
        });
    }

    fn has(&self, fault: DatabaseFault) -> bool {
        self.active.borrow().contains(&fault)
    }

    /// How much longer than usual a call takes.
    pub(super) fn slowness(&self) -> Duration {
        let active = self.active.borrow();
        let millis = active.iter().map(|fault| if let DatabaseFault::Slow { millis } = fault { *millis } else { 0 });
        Duration::from_millis(millis.sum())
    }

    pub(super) fn full(&self) -> bool {
        self.has(DatabaseFault::Full)
    }

    pub(super) fn loses_replies(&self) -> bool {
        self.has(DatabaseFault::LoseReplies)
    }

    /// True if this write is one of those that are aborted.
    pub(super) fn aborts_write(&self) -> bool {
        self.has(DatabaseFault::AbortWrites) && self.writes.fetch_add(1, Relaxed).is_multiple_of(2)
    }

    pub(super) fn aborts_appends(&self) -> bool {
        self.has(DatabaseFault::AbortAppends)
    }

    /// Waits until connections have to be closed.
    pub(super) async fn refused(&self) {
        self.until(|active| active.contains(&DatabaseFault::Refuse)).await;
    }

    /// Waits while writes are stalled.
    pub(super) async fn stalled(&self) {
        self.until(|active| !active.contains(&DatabaseFault::StallWrites)).await;
    }

    async fn until(&self, condition: impl Fn(&Vec<DatabaseFault>) -> bool) {
        // The sender is a field of `self`, so waiting cannot fail.
        let _ = self.active.subscribe().wait_for(condition).await;
    }
}
