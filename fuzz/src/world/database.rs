//! The store that all brokers share: core's model of one, its clock, and a record of what was committed.

use bytes::Bytes;
use parking_lot::Mutex;
use rmom_core::{
    model::{BrokerId, Epoch, Offset, QueueId, QueueLabel, StoreTime},
    ports::{AppendBatch, Appended, Assign, Claim, ClaimError, Claimed, LogError, StoreError, Trim, Trimmed},
    store::memory::State,
};
use tokio::time::Instant;

/// What the store's clock shows at first; far from 0, so that it can be set back.
const EPOCH_MILLIS: u64 = 1_000_000_000;

/// Something that was committed.
#[derive(Clone, Debug)]
pub(crate) enum Commit {
    /// A broker created an epoch.
    Claimed { queue: QueueId, epoch: Epoch },
    /// A batch was stored at an instant when the clock showed `now`; it was `sent` before.
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
    /// Something may have been removed; `left` are the first offsets of the batches that remain.
    Trimmed { queue: QueueId, now: StoreTime, left: Vec<Offset> },
    /// A queue was deleted.
    Deleted { queue: QueueId },
}

/// See the module.
pub(crate) struct Database {
    started: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// How far the clock was set forward, or back if this is negative, in milliseconds.
    ahead: i64,
    commits: Vec<Commit>,
}

impl Database {
    pub(crate) fn new() -> Self {
        let inner = Inner { state: State::default(), ahead: 0, commits: Vec::new() };
        Self { started: Instant::now(), inner: Mutex::new(inner) }
    }

    /// What the clock shows when it is `ahead`.
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

    /// How far the clock is ahead of where it started, in milliseconds.
    pub(crate) fn ahead(&self) -> i64 {
        self.inner.lock().ahead
    }

    /// One transaction.
    pub(crate) fn transact<T>(&self, work: impl FnOnce(&mut State, StoreTime) -> T) -> T {
        let mut inner = self.inner.lock();
        let now = self.shows(inner.ahead);
        work(&mut inner.state, now)
    }

    /// One transaction that is put on record.
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

    /// What was committed since the last call, in order.
    pub(crate) fn take_commits(&self) -> Vec<Commit> {
        std::mem::take(&mut self.inner.lock().commits)
    }

    /// All that is stored.
    pub(crate) fn state(&self) -> State {
        self.inner.lock().state.clone()
    }

    /// Decides who is to host a queue, as a manager does.
    pub(crate) fn assign(&self, label: &QueueLabel, to: BrokerId) {
        self.transact(|state, _| {
            if let Some(record) = state.queue(label) {
                // A broker that never registered gets nothing.
                let assign = Assign { queue: record.id, expected: record.assignment, to };
                let _ = state.assign_queues(&[assign]);
            }
        });
    }
}
