//! Removes the data of deleted queues, outside the cycles: even if there is a lot of it, a broker's death is noticed in
//! time.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{Inner, reconcile::MIN_CYCLE};
use crate::{ports::Purged, repeat::Repeat};

/// While there is more, the leader rests for this many times the duration of the last step: the database has more important
/// work.
const REST: u32 = 3;

/// A step that takes longer removes too much at once: its transaction holds locks, and other work waits for the disk.
const SLOW: Duration = Duration::from_millis(100);

/// The size of the next step, and the rest before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    limit: u32,
    rest: Duration,
}

impl Pace {
    /// The pace after a step that took `took`. `purged` is `None` if the step failed. After a step that failed or was slow
    /// the next one tries less, down to a single batch.
    fn after(self, took: Duration, purged: Option<Purged>, most: u32, cycle: Duration) -> Self {
        let cycle = cycle.max(MIN_CYCLE);
        let limit = if purged.is_none() || took > SLOW {
            (self.limit / 2).max(1)
        } else if took < SLOW / 2 {
            self.limit.saturating_mul(2).min(most)
        } else {
            self.limit
        };
        let is_more = purged.is_some_and(|purged| purged.more);
        Self { limit, rest: if is_more { (took * REST).clamp(MIN_CYCLE, cycle) } else { cycle } }
    }
}

impl Inner {
    /// Removes the data of deleted queues, while this manager leads. Never returns.
    pub(super) async fn run_purges(&self) {
        let most = self.settings.purge_batches.max(1);
        let mut pace = Pace { limit: most, rest: self.settings.cycle.max(MIN_CYCLE) };
        let failures = Repeat::default();
        loop {
            let began = Instant::now();
            if self.leadership.is_leading() {
                let purge = self.store.log().purge_deleted(pace.limit);
                let purged = self.store.write(self.store_deadline(), purge).await;
                if purged.is_ok() && failures.over() {
                    info!("what deleted queues left behind is removed again");
                }
                match &purged {
                    Ok(Purged { batches: 0, .. }) => {}
                    Ok(Purged { batches, .. }) => {
                        mark!(Purged);
                        debug!(batches, "removed batches of deleted queues");
                        self.counters.update(|counters| counters.purged_batches += batches);
                    }
                    Err(error) => {
                        self.counters.update(|counters| counters.purges_failed += 1);
                        if let Some(times) = failures.happened() {
                            warn!(%error, times, "cannot remove what deleted queues left behind; trying again");
                        }
                    }
                }
                pace = pace.after(began.elapsed(), purged.ok(), most, self.settings.cycle);
            }
            sleep(pace.rest).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CYCLE: Duration = Duration::from_secs(1);
    const TOOK: Duration = Duration::from_millis(20);

    fn purged(batches: u64, more: bool) -> Option<Purged> {
        Some(Purged { batches, more })
    }

    #[test]
    fn a_step_that_fails_is_followed_by_smaller_ones_and_they_grow_again() {
        let mut pace = Pace { limit: 8, rest: CYCLE };
        let mut limits = Vec::new();
        for failed in [true, true, true, true, false, false, false, false] {
            pace = pace.after(TOOK, purged(1, true).filter(|_| !failed), 8, CYCLE);
            limits.push(pace.limit);
        }
        assert_eq!(limits, [4, 2, 1, 1, 2, 4, 8, 8]);
    }

    #[test]
    fn slow_steps_become_smaller_and_only_quick_ones_grow() {
        let pace = Pace { limit: 64, rest: CYCLE };
        let limit = |took, more| pace.after(Duration::from_millis(took), purged(64, more), 1_000, CYCLE).limit;
        assert_eq!([49, 50, 100, 101].map(|took| limit(took, true)), [128, 64, 64, 32]);
        // This also holds when everything is gone: the next deleted queue may be as slow.
        assert_eq!([49, 50, 100, 101].map(|took| limit(took, false)), [128, 64, 64, 32]);
    }

    #[test]
    fn while_there_is_more_the_database_gets_a_rest_and_no_more_than_that() {
        let pace = Pace { limit: 8, rest: CYCLE };
        assert_eq!(pace.after(TOOK, purged(8, true), 8, CYCLE).rest, TOOK * REST);
        // The step found nothing in its range, but there is more beyond it.
        assert_eq!(pace.after(TOOK, purged(0, true), 8, CYCLE).rest, TOOK * REST);
        assert_eq!(pace.after(CYCLE * 2, purged(8, true), 8, CYCLE).rest, CYCLE);
        assert_eq!(pace.after(TOOK, purged(8, false), 8, CYCLE).rest, CYCLE);
        assert_eq!(pace.after(TOOK, None, 8, CYCLE).rest, CYCLE);
        assert_eq!(pace.after(Duration::ZERO, purged(0, false), 8, Duration::ZERO).rest, MIN_CYCLE);
    }
}
