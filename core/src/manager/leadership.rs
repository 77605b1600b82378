//! Which manager leads: the holder of a lease in the store. Only the leader probes and reconciles. Two that believe to
//! lead at once would do no harm, since every assignment is a compare-and-set; they would only do work twice.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Inner;
use crate::{model::ManagerId, ports::StoreError};

/// What this manager knows of the lease.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead {
    /// Until when this manager leads, if it does.
    until: Option<Instant>,
    /// Who led when the store last told.
    pub(super) leader: Option<ManagerId>,
    /// That leader's term.
    pub(super) term: u64,
}

/// Since when the lease cannot be asked for, and why.
#[derive(Clone, Debug)]
pub(super) struct Failing {
    since: Instant,
    error: StoreError,
}

/// The lease, as this manager last saw it.
#[derive(Default)]
pub(super) struct Leadership {
    lead: Mutex<Lead>,
    failing: Mutex<Option<Failing>>,
}

impl Leadership {
    pub(super) fn get(&self) -> Lead {
        *self.lead.lock()
    }

    /// True while this manager holds the lease by its own clock, which runs out before the store's.
    pub(super) fn is_leading(&self) -> bool {
        self.lead.lock().until.is_some_and(|until| Instant::now() < until)
    }

    /// Gives the lead up locally; the store has to be told, too.
    pub(super) fn step_down(&self) {
        self.lead.lock().until = None;
    }

    /// Every manager writes the row of the lease again and again, whether it leads or not: what keeps it from doing so for
    /// longer than `patience` would keep it from doing anything else.
    pub(super) fn can_write(&self, patience: Duration) -> Result<(), StoreError> {
        let failing = self.failing.lock().clone();
        match failing.map(|failing| (failing.since.elapsed(), failing.error)) {
            Some((elapsed, error)) if elapsed >= patience => Err(StoreError::Unavailable(format!(
                "nothing could be written for {} s; the last attempt: {error}",
                elapsed.as_secs()
            ))),
            _ => Ok(()),
        }
    }

    /// Takes note of how asking for the lease went; true if that is another outcome than before.
    fn answered(&self, asked: Instant, error: Option<&StoreError>) -> bool {
        let mut failing = self.failing.lock();
        let was = failing.is_some();
        *failing = error.map(|error| Failing {
            since: failing.as_ref().map_or(asked, |failing| failing.since),
            error: error.clone(),
        });
        was != failing.is_some()
    }

    fn set(&self, lead: Lead) {
        *self.lead.lock() = lead;
    }
}

impl Inner {
    /// Takes the lease when it is free, and keeps it. Never ends.
    pub(super) async fn lead_or_follow(&self) {
        let lease = self.settings.lease;
        loop {
            // The lease runs in the store from some time after this, so counting from here errs on the safe side.
            let asked = Instant::now();
            let was_leading = self.leadership.is_leading();
            match self.store.write(asked + lease, self.store.raw().lead(self.id, lease)).await {
                Ok(held) => {
                    if self.leadership.answered(asked, None) {
                        info!("the store answers again");
                    }
                    let mine = held.leader == self.id;
                    mark!(LeadKept if mine && was_leading);
                    mark!(LeadTakenOver if mine && self.leadership.get().leader.is_some_and(|led| led != self.id));
                    self.leadership.set(Lead {
                        until: mine.then(|| asked + lease),
                        leader: Some(held.leader),
                        term: held.term,
                    });
                    if mine && !was_leading {
                        info!(term = held.term, "leading");
                        self.counters.update(|counters| counters.elected += 1);
                        self.wake.notify_one();
                    } else if was_leading && !mine {
                        mark!(LeadLost);
                        warn!(leader = %held.leader, term = held.term, "another manager leads now");
                    }
                }
                Err(error) => {
                    self.counters.update(|counters| counters.lead_failures += 1);
                    mark!(LeadUnreachable);
                    if self.leadership.answered(asked, Some(&error)) {
                        warn!(%error, "cannot reach the leader lease; trying again");
                    }
                }
            }
            sleep_until(asked + lease / 3).await;
        }
    }
}
