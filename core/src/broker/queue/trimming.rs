//! Removing what has expired, and saving the producers before their last batch goes.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use super::{
    Shared,
    actor::{Context, Log, Proof},
    unsaved::{Begun, Unsaved},
};
use crate::{
    broker::{BrokerError, Tuning, count},
    model::StoreTime,
    ports::{LogError, StoreError, Trim, Trimmed},
};

type Call = Pin<Box<dyn Future<Output = Result<Trimmed, LogError>> + Send>>;

/// After failures a trim is made again no later than after so many intervals.
const LONGEST_PAUSE: u32 = 8;

/// The trimming of one queue: at most one call of the store at a time, beside the appends.
pub(super) struct Trimming {
    next: Instant,
    running: Option<Running>,
    /// After a failure, not even openings make it try again earlier.
    not_before: Instant,
    /// Has a call that waits for its turn come before those for which nobody waits.
    hurry: Arc<Notify>,
    /// The producers are saved no earlier, for what saving them took the last time.
    save_from: Instant,
    /// The last call did not come to an end with what it had to do.
    more: bool,
    pace: Pace,
}

struct Running {
    call: Call,
    begun: Begun,
    asked_at: Instant,
    /// How many batches it may remove, if any has expired.
    limit: Option<u32>,
}

/// How much a call is to do. One that fails may have had too much to remove in its time: the next is to remove less, down to
/// nothing, so that deletions never keep the producers from being saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// Batches that the next call removes at most.
    limit: u32,
    /// Calls that failed since one removed something.
    failures: u32,
}

impl Pace {
    fn failed(&mut self) {
        self.limit /= 4;
        self.failures = self.failures.saturating_add(1);
    }

    /// `limit` is what the call was allowed to remove, if there was anything.
    fn succeeded(&mut self, limit: Option<u32>, most: u32) {
        if limit != Some(0) {
            self.failures = 0;
        }
        self.limit = self.limit.saturating_mul(4).clamp(1, most.max(1));
    }

    /// The pause before the next call.
    fn pause(&self, interval: Duration) -> Duration {
        interval * 2_u32.saturating_pow(self.failures).min(LONGEST_PAUSE)
    }
}

/// What is to be done for a log at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    /// Something has expired.
    remove: bool,
    /// The producers are to be saved.
    save: bool,
    /// Nobody is kept waiting for a save any longer, whatever it takes.
    save_at_once: bool,
}

fn due(unsaved: &Unsaved, now: StoreTime, tuning: &Tuning) -> Due {
    let batches = unsaved.batches();
    Due {
        remove: unsaved.saved_expiry() <= now,
        save: batches >= tuning.snapshot_every || unsaved.unsaved_expiry() <= now,
        save_at_once: batches >= tuning.snapshot_every.saturating_mul(SAVE_AT_ONCE),
    }
}

/// So many times the batches after which producers are saved do not wait for the pause that saving takes.
const SAVE_AT_ONCE: u64 = 5;

impl Trimming {
    pub(super) fn new(context: &Context) -> Self {
        // Queues that were activated together do not all trim at once.
        let interval = u64::try_from(context.settings.trim_interval.as_millis()).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(context.entropy.below(interval));
        let now = Instant::now();
        let pace = Pace { limit: context.settings.tuning.trim_batches, failures: 0 };
        Self {
            next: now + jitter,
            running: None,
            not_before: now,
            save_from: now,
            more: false,
            pace,
            hurry: Arc::default(),
        }
    }

    /// Abandons a call under way, whose connection goes with it: the claim that follows must not wait for a call that
    /// waits for us, and would only have it fenced. What it was to remove is removed by the next.
    pub(super) fn cancel(&mut self, log: &mut Log) {
        if self.running.take().is_some() {
            mark!(TrimAbandoned);
            log.prove(Proof::Asked, Proof::Missing);
        }
    }

    /// From when on the next call can be made, and whether that is now or to be seen then: an idle queue sleeps until its next
    /// message expires, as far as is known now.
    fn wake(&self, context: &Context, log: &Log) -> (Instant, Option<Due>) {
        let (now, tuning) = (context.clock.at_least(), &context.settings.tuning);
        let mut due = due(&log.unsaved, now, tuning);
        due.remove |= self.more;
        let proves = log.openings.iter().any(|opening| opening.proof == Proof::Missing);
        let save_from = if due.save_at_once { self.next } else { self.next.max(self.save_from) };
        let at = [
            // The call is fenced, which is what they wait for.
            proves.then_some(self.not_before),
            due.remove.then_some(self.next),
            due.save.then_some(save_from),
        ];
        if let Some(at) = at.into_iter().flatten().min() {
            return (at, (at <= Instant::now()).then_some(due));
        }
        let wait = log.unsaved.none_expires_before().since(now).min(tuning.longest_sleep);
        (self.next.max(Instant::now() + wait), None)
    }

    /// Waits until there is something to trim or to save, and does it. Cancel-safe: a call under way goes on at the next.
    pub(super) async fn step(
        &mut self,
        context: &Arc<Context>,
        shared: &Shared,
        log: &mut Log,
    ) -> Result<(), BrokerError> {
        while self.running.is_none() {
            match self.wake(context, log) {
                (_, Some(due)) => self.running = Some(self.start(context, shared, log, due)),
                (at, None) => tokio::time::sleep_until(at).await,
            }
        }
        if log.openings.iter().any(|opening| opening.proof == Proof::Missing) {
            self.hurry.notify_one();
        }
        let running = self.running.as_mut().expect("it runs, or was just started");
        let result = running.call.as_mut().await;
        let Running { begun, asked_at, limit, .. } = self.running.take().expect("it ran");
        let interval = context.settings.trim_interval;
        match result {
            Ok(trimmed) => {
                context.clock.read(asked_at, trimmed.store_time);
                log.unsaved.done(begun, trimmed.next_expiry);
                log.prove(Proof::Asked, Proof::Given);
                count(&shared.counters.expired, trimmed.messages);
                let mut depth = shared.depth.lock();
                depth.messages = depth.messages.saturating_sub(trimmed.messages);
                depth.bytes = depth.bytes.saturating_sub(trimmed.bytes);
                let is_empty = log.end <= trimmed.trimmed_through;
                depth.oldest = trimmed.oldest.or((!is_empty).then_some(log.last_stored_at));
                drop(depth);
                self.pace.succeeded(limit, context.settings.tuning.trim_batches);
                if self.pace.failures == 0 {
                    shared.said.trims.over();
                }
                self.more = trimmed.more;
                let pause = if trimmed.more { Duration::ZERO } else { self.pace.pause(interval) };
                self.next = asked_at + pause;
                Ok(())
            }
            Err(LogError::Fenced { .. }) => {
                mark!(TrimFenced);
                Err(BrokerError::Fenced)
            }
            Err(LogError::Deleted) => Err(BrokerError::QueueReplaced { queue: shared.id }),
            Err(LogError::Store(error)) => {
                // Nothing depends on its outcome: it is simply done again.
                mark!(TrimFailed);
                count(&shared.counters.failed_trims, 1);
                log.prove(Proof::Asked, Proof::Missing);
                self.pace.failed();
                self.next = Instant::now() + self.pace.pause(interval);
                self.not_before = self.next;
                // Without a lease everything fails, and that is said elsewhere.
                if context.lease.is_current()
                    && let Some(times) = shared.said.trims.happened()
                {
                    tracing::warn!(queue = %shared.label, %error, times, "trimming failed; trying again");
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, context: &Arc<Context>, shared: &Shared, log: &mut Log, due: Due) -> Running {
        let (now, asked_at) = (context.clock.at_least(), Instant::now());
        let saves = due.save && (due.save_at_once || self.save_from <= asked_at);
        let none_expires_before = log.unsaved.none_expires_before();
        // Somebody waits for what is not proved yet.
        let first = log.openings.iter().any(|opening| opening.proof == Proof::Missing);
        log.prove(Proof::Missing, Proof::Asked);
        let producers = saves.then(|| log.producers.snapshot(log.end, now, context.settings.producer_retention));
        if let Some(snapshot) = &producers {
            mark!(ProducersSaved);
            self.save_from = asked_at + context.settings.tuning.saving_takes(snapshot.len());
        }
        let limit = (none_expires_before <= now).then_some(self.pace.limit);
        mark!(TrimWithoutSaving if limit.is_some() && !saves);
        let trim = Trim {
            queue: shared.id,
            epoch: log.epoch,
            through: if saves { log.end } else { log.unsaved.saved_through() },
            producers,
            none_expires_before,
            limit: limit.unwrap_or(0),
        };
        let begun = log.unsaved.begin(saves.then_some(log.end));
        let (context, hurry) = (context.clone(), self.hurry.clone());
        let call = Box::pin(async move {
            let _turn =
                if first { context.trims.take_first().await } else { context.trims.take(hurry.notified()).await };
            let timeout = context.settings.store_timeout;
            tokio::time::timeout(timeout, context.store.trim(&trim))
                .await
                .unwrap_or_else(|_| Err(StoreError::Unknown(format!("no answer to a trim within {timeout:?}")).into()))
        });
        Running { call, begun, asked_at, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Offset, ports::LogTail};

    #[test]
    fn a_call_that_fails_is_made_again_with_less_to_remove() {
        let (interval, most) = (Duration::from_secs(1), 1_000);
        let mut pace = Pace { limit: most, failures: 0 };
        let mut seen = Vec::new();
        for _ in 0..6 {
            pace.failed();
            seen.push((pace.limit, pace.pause(interval).as_secs()));
        }
        assert_eq!(seen, [(250, 2), (62, 4), (15, 8), (3, 8), (0, 8), (0, 8)]);
        // Only the producers were saved: what is to be removed is still too much, for all that is known.
        pace.succeeded(Some(0), most);
        assert_eq!((pace.limit, pace.pause(interval).as_secs()), (1, 8));
        pace.succeeded(Some(1), most);
        assert_eq!((pace.limit, pace.pause(interval)), (4, interval));
        (0..9).for_each(|_| pace.succeeded(Some(1), most));
        assert_eq!(pace.limit, most);
    }

    #[test]
    fn producers_are_saved_when_their_batches_expire_or_are_many() {
        let tuning = Tuning { snapshot_every: 3, ..Tuning::default() };
        let at = StoreTime::from_millis;
        let mut log = Unsaved::new(&LogTail::default());
        let nothing = Due { remove: false, save: false, save_at_once: false };
        assert_eq!(due(&log, at(1 << 40), &tuning), nothing);
        log.appended(Offset::ZERO, at(100));
        assert_eq!(due(&log, at(99), &tuning), nothing);
        assert_eq!(due(&log, at(100), &tuning), Due { save: true, ..nothing });
        let begun = log.begin(Some(Offset::new(1)));
        log.done(begun, at(100));
        assert_eq!(due(&log, at(99), &tuning), nothing);
        assert_eq!(due(&log, at(100), &tuning), Due { remove: true, ..nothing });
        (1..=3).for_each(|n| log.appended(Offset::new(n), StoreTime::NEVER));
        assert_eq!(due(&log, at(99), &tuning), Due { save: true, ..nothing });
        (4..=15).for_each(|n| log.appended(Offset::new(n), StoreTime::NEVER));
        assert_eq!(due(&log, at(99), &tuning), Due { save: true, save_at_once: true, ..nothing });
    }
}
