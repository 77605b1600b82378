//! The store that all brokers share: core's model, its clock, and a record of commits.

use bytes::Bytes;
use parking_lot::Mutex;
use rmom_core::{
    model::{BrokerId, Epoch, Offset, QueueId, QueueLabel, StoreTime},
    ports::{AppendBatch, Appended, Assign, Claim, ClaimError, Claimed, LogError, StoreError, Trim, Trimmed},
    store::memory::State,
};
use tokio::time::Instant;

/// The clock's first reading; far from 0, so that the clock can be set back.
const EPOCH_MILLIS: u64 = 1_000_000_000;

/// A commit.
#[derive(Clone, Debug)]
pub(crate) enum Commit {
    /// A broker created an epoch.
    Claimed { queue: QueueId, epoch: Epoch },
    /// A batch was stored at an instant when the clock showed `now`; the append was `sent` before.
    Appended {
        queue: QueueId,
        epoch: Epoch,
        first: Offset,
        stored_at: StoreTime,
        frames: Bytes,
        now: StoreTime,
        sent: Instant,
        at: Instant,
    },
    /// A trim; `left` are the first offsets of the batches that remain.
    Trimmed { queue: QueueId, now: StoreTime, left: Vec<Offset> },
    /// A queue was deleted.
    Deleted { queue: QueueId },
}

/// See the module's description.
pub(crate) struct Database {
    started: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// How far the clock was set forward, or back if negative, in milliseconds.
    ahead: i64,
    commits: Vec<Commit>,
}

impl Database {
    pub(crate) fn new() -> Self {
        let inner = Inner { state: State::default(), ahead: 0, commits: Vec::new() };
        Self { started: Instant::now(), inner: Mutex::new(inner) }
    }

    /// The clock's reading when it is `ahead`.
    fn shows(&self, ahead: i64) -> StoreTime {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).expect("a run is short");
        StoreTime::from_millis((EPOCH_MILLIS + elapsed).checked_add_signed(ahead).expect("it is not set back for ever"))
    }

    pub(crate) fn now(&self) -> StoreTime {
        self.shows(self.inner.lock().ahead)
    }

    /// Sets the clock forward, or back.
    pub(crate) fn set_clock(&self, by_millis: i64) {
        self.inner.lock().ahead += by_millis;
    }

    /// How far the clock is ahead of its original course, in milliseconds.
    pub(crate) fn ahead(&self) -> i64 {
        self.inner.lock().ahead
    }

    /// Runs one transaction.
    pub(crate) fn transact<T>(&self, work: impl FnOnce(&mut State, StoreTime) -> T) -> T {
        let mut inner = self.inner.lock();
        let now = self.shows(inner.ahead);
        work(&mut inner.state, now)
    }

    /// Runs one transaction and records its commits.
    fn record<T>(&self, work: impl FnOnce(&mut State, StoreTime, &mut Vec<Commit>) -> T) -> T {
        let mut inner = self.inner.lock();
        let now = self.shows(inner.ahead);
        let Inner { state, commits, .. } = &mut *inner;
        work(state, now, commits)
    }

    pub(crate) fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        self.record(|state, now, commits| {
            let before = state.epoch(claim.queue);
            let claimed = state.claim(now, claim)?;
            if before != Some(claimed.epoch) {
                commits.push(Commit::Claimed { queue: claim.queue, epoch: claimed.epoch });
            }
            Ok(claimed)
        })
    }

    pub(crate) fn append(&self, group: &[AppendBatch], sent: Instant) -> Result<Vec<Appended>, StoreError> {
        self.record(|state, now, commits| {
            let outcomes = state.append(now, group)?;
            for (batch, outcome) in group.iter().zip(&outcomes) {
                if let Appended::Stored { stored_at } = *outcome {
                    let (queue, epoch, first, frames) = (batch.queue, batch.epoch, batch.first, batch.frames.clone());
                    let at = Instant::now();
                    commits.push(Commit::Appended { queue, epoch, first, stored_at, frames, now, sent, at });
                }
            }
            Ok(outcomes)
        })
    }

    pub(crate) fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        self.record(|state, now, commits| {
            let trimmed = state.trim(now, trim)?;
            let left = state.headers(trim.queue, Offset::ZERO, u32::MAX).iter().map(|header| header.first).collect();
            commits.push(Commit::Trimmed { queue: trim.queue, now, left });
            Ok(trimmed)
        })
    }

    pub(crate) fn delete_queue(&self, queue: QueueId) -> bool {
        self.record(|state, now, commits| {
            let deleted = state.delete_queue(now, queue);
            if deleted {
                commits.push(Commit::Deleted { queue });
            }
            deleted
        })
    }

    /// The commits since the last call, in order.
    pub(crate) fn take_commits(&self) -> Vec<Commit> {
        std::mem::take(&mut self.inner.lock().commits)
    }

    /// All stored data.
    pub(crate) fn state(&self) -> State {
        self.inner.lock().state.clone()
    }

    /// Assigns a queue to a broker, like a manager.
    pub(crate) fn assign(&self, label: &QueueLabel, to: BrokerId) {
        self.transact(|state, _| {
            if let Some(record) = state.queue(label) {
                // A broker that never registered gets no queue.
                let assign = Assign { queue: record.id, expected: record.assignment, to };
                let _ = state.assign_queues(&[assign]);
            }
        });
    }
}
