//! Leadership: the manager that holds a lease in the store leads. Only the leader probes and reconciles. Two managers that
//! both believe that they lead do no harm, since every assignment is a compare-and-set; they only do the work twice.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Inner;
use crate::{
    model::{ManagerId, Term},
    ports::StoreError,
};

/// This manager's knowledge of the lease.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lead {
    /// The end of this manager's lead, if it leads.
    until: Option<Instant>,
    /// The leader, when the store last answered.
    pub(super) leader: Option<ManagerId>,
    /// That leader's term.
    pub(super) term: Term,
}

/// The time since which requests for the lease have failed, and the error.
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

    /// True while this manager holds the lease by its own clock, by which it ends before it does in the store.
    pub(super) fn is_leading(&self) -> bool {
        self.lead.lock().until.is_some_and(|until| Instant::now() < until)
    }

    /// Gives up the lead locally; the caller has to tell the store, too.
    pub(super) fn step_down(&self) {
        self.lead.lock().until = None;
    }

    /// Every manager, leading or not, keeps writing the row of the lease. An obstacle that prevents this for longer than
    /// `patience` would prevent any other write.
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

    /// Notes the result of a request for the lease. True if it differs from the one before.
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
    /// Takes the lease when it is free, and keeps it. Never returns.
    pub(super) async fn lead_or_follow(&self) {
        let lease = self.settings.lease;
        loop {
            // The lease in the store starts at some time after this, so counting from here errs on the safe side.
            let asked = Instant::now();
            let was_leading = self.leadership.is_leading();
            match self.store.write(asked + lease, self.store.catalog().lead(self.id, lease)).await {
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
                        info!(term = held.term.get(), "leading");
                        self.counters.update(|counters| counters.elected += 1);
                        self.wake.notify_one();
                    } else if was_leading && !mine {
                        mark!(LeadLost);
                        warn!(leader = %held.leader, term = held.term.get(), "another manager leads now");
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
