//! Which manager leads: the holder of a lease in the store. Only the leader probes and reconciles. Two that believe to
//! lead at once would do no harm, since every assignment is a compare-and-set; they would only do work twice.

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Inner;
use crate::model::ManagerId;

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

/// The lease, as this manager last saw it.
#[derive(Default)]
pub(super) struct Leadership(Mutex<Lead>);

impl Leadership {
    pub(super) fn get(&self) -> Lead {
        *self.0.lock()
    }

    /// True while this manager holds the lease by its own clock, which runs out before the store's.
    pub(super) fn is_leading(&self) -> bool {
        self.0.lock().until.is_some_and(|until| Instant::now() < until)
    }

    /// Gives the lead up locally; the store has to be told, too.
    pub(super) fn step_down(&self) {
        self.0.lock().until = None;
    }

    fn set(&self, lead: Lead) {
        *self.0.lock() = lead;
    }
}

impl Inner {
    /// Takes the lease when it is free, and keeps it. Never ends.
    pub(super) async fn lead_or_follow(&self) {
        let lease = self.settings.lease;
        let mut answering = true;
        loop {
            // The lease runs in the store from some time after this, so counting from here errs on the safe side.
            let asked = Instant::now();
            let was_leading = self.leadership.is_leading();
            match self.store.write(asked + lease, self.store.raw().lead(self.id, lease)).await {
                Ok(held) => {
                    if !answering {
                        info!("the store answers again");
                    }
                    answering = true;
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
                    if answering {
                        warn!(%error, "cannot reach the leader lease; trying again");
                    }
                    answering = false;
                }
            }
            sleep_until(asked + lease / 3).await;
        }
    }
}
