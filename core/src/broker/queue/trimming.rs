//! Removing what has expired, and saving the producers before their last batch goes.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use super::{
    context::Context,
    ending::Ending,
    log_state::{LogState, Proof},
    shared::Shared,
    unsaved::{Begun, Unsaved},
};
use crate::{
    broker::{BrokerError, Tuning, count::count},
    model::{Offset, StoreTime},
    ports::{LogError, StoreError, Trim, Trimmed},
};

type Call = Pin<Box<dyn Future<Output = Result<Trimmed, LogError>> + Send>>;

/// After failures a trim is made again no later than after so many intervals.
const LONGEST_PAUSE: u32 = 8;

/// The trimming of one queue: at most one call of the store at a time, beside the appends.
pub(super) struct Trimming {
    /// Nothing is removed earlier.
    next: Instant,
    /// Nothing is saved earlier.
    next_save: Instant,
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
    /// How many batches it may remove.
    limit: u32,
}

/// How much a call does. One that fails may have had too much to remove in its time, so the next removes less. How much was
/// too much is remembered, and approached slowly. While removals fail, calls that save the producers remove nothing: deletions
/// never keep the producers from being saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// Batches that the next call removes at most.
    limit: u32,
    /// The limit of the last removal that failed, a little more after each that succeeded since.
    too_much: u32,
    /// Removals that failed since one succeeded.
    removals: u32,
    /// Other calls that failed since any succeeded.
    others: u32,
}

impl Pace {
    fn new(most: u32) -> Self {
        Self { limit: most.max(1), too_much: u32::MAX, removals: 0, others: 0 }
    }

    /// `limit` is what the call was allowed to remove; 0 if it did something else.
    fn failed(&mut self, limit: u32) {
        if limit == 0 {
            self.others = self.others.saturating_add(1);
            return;
        }
        self.removals = self.removals.saturating_add(1);
        self.too_much = limit;
        self.limit = (limit / 4).max(1);
    }

    /// `limit` as before; `is_full` if the call removed so many. One that removed less shows nothing of what goes in its time.
    fn succeeded(&mut self, limit: u32, is_full: bool, most: u32) {
        self.others = 0;
        if limit == 0 {
            return;
        }
        self.removals = 0;
        if is_full {
            let (quick, slow) = (self.limit.saturating_mul(4), self.limit.saturating_add((self.limit / 16).max(1)));
            self.limit = if quick <= self.too_much / 2 { quick } else { slow }.min(most.max(1));
            self.too_much = self.too_much.saturating_add(self.too_much / 64 + 1);
        }
    }

    fn is_undisturbed(&self) -> bool {
        (self.removals, self.others) == (0, 0)
    }
}

/// The pause before the next call, after so many failures.
fn pause(interval: Duration, failures: u32) -> Duration {
    interval * 2_u32.saturating_pow(failures).min(LONGEST_PAUSE)
}

/// What a log needs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    /// Something has expired.
    remove: bool,
    /// It is time to save the producers.
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
        let pace = Pace::new(context.settings.tuning.trim_batches);
        Self {
            next: now + jitter,
            next_save: now + jitter,
            running: None,
            not_before: now,
            save_from: now,
            more: false,
            pace,
            hurry: Arc::default(),
        }
    }

    /// Abandons a call under way, whose connection goes with it: the claim that follows must not wait for a call that
    /// waits for us, and would only have it fenced. The next removes what this one would have removed.
    pub(super) fn cancel(&mut self, log: &mut LogState) {
        if self.running.take().is_some() {
            mark!(TrimAbandoned);
            log.prove(Proof::Asked, Proof::Missing);
        }
    }

    /// From when on the next call can be made, and what it does if that is now: an idle queue sleeps until its next message
    /// expires, as far as is known now.
    fn wake(&self, context: &Context, shared: &Shared, log: &LogState) -> (Instant, Option<Due>) {
        let (now, instant, tuning) =
            (context.logs.of(shared.id).clock.at_least(), Instant::now(), &context.settings.tuning);
        let mut due = due(&log.unsaved, now, tuning);
        due.remove |= self.more;
        let proves = log.openings.iter().any(|opening| opening.proof == Proof::Missing);
        let save_from = if due.save_at_once { self.next_save } else { self.next_save.max(self.save_from) };
        // An expiry that lies ahead may come before the rest can be done.
        let expiry = |at: StoreTime| instant + at.since(now).min(tuning.longest_sleep);
        let remove = if due.remove { self.next } else { self.next.max(expiry(log.unsaved.saved_expiry())) };
        let save = if due.save { save_from } else { self.next_save.max(expiry(log.unsaved.unsaved_expiry())) };
        let mut at = remove.min(save);
        if proves {
            // The call is fenced, which is what they wait for.
            at = at.min(self.not_before);
        }
        (at, (at <= instant).then_some(due))
    }

    /// Waits until there is something to trim or to save, and does it. Cancel-safe: a call under way goes on at the next.
    pub(super) async fn step(
        &mut self,
        context: &Arc<Context>,
        shared: &Shared,
        log: &mut LogState,
    ) -> Result<(), Ending> {
        while self.running.is_none() {
            match self.wake(context, shared, log) {
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
                context.logs.of(shared.id).clock.read(asked_at, trimmed.store_time);
                log.unsaved.done(begun, trimmed.next_expiry);
                log.prove(Proof::Asked, Proof::Given);
                count(&shared.counters.expired, trimmed.messages);
                shared.passed(Offset::ZERO, trimmed.trimmed_through);
                let mut depth = shared.depth.lock();
                depth.trimmed(trimmed.removed);
                let is_empty = log.end <= trimmed.trimmed_through;
                depth.oldest = trimmed.oldest.or((!is_empty).then_some(log.last_stored_at));
                drop(depth);
                let is_full = trimmed.batches >= u64::from(limit);
                self.pace.succeeded(limit, is_full, context.settings.tuning.trim_batches);
                self.next_save = asked_at + interval;
                // While removals fail, a call that did something else does not bring the next of them nearer.
                if self.pace.removals == 0 {
                    self.more = trimmed.more;
                    self.next = asked_at + if trimmed.more { Duration::ZERO } else { interval };
                    self.next_save = self.next;
                }
                if self.pace.is_undisturbed() {
                    shared.said.trims.over();
                    shared.trims_fail_since.lock().take();
                }
                Ok(())
            }
            Err(LogError::Fenced { .. }) => {
                mark!(TrimFenced);
                Err(Ending::Stop(BrokerError::Fenced))
            }
            // The next claim says so for certain, or finds that an earlier copy of the store was read.
            Err(LogError::Deleted) => Err(Ending::Activate),
            Err(LogError::Store(error)) => {
                // Nothing depends on its outcome: it is simply done again.
                mark!(TrimFailed);
                count(&shared.counters.failed_trims, 1);
                log.prove(Proof::Asked, Proof::Missing);
                self.pace.failed(limit);
                let now = Instant::now();
                if limit > 0 {
                    self.next = now + pause(interval, self.pace.removals);
                    self.next_save = now + interval;
                } else {
                    self.next_save = now + pause(interval, self.pace.others);
                    self.next = self.next.max(self.next_save);
                }
                self.not_before = self.next_save;
                // Without a lease everything fails, and that is said elsewhere.
                if context.lease.is_current() {
                    shared.trims_fail_since.lock().get_or_insert(now);
                    if let Some(times) = shared.said.trims.happened() {
                        tracing::warn!(queue = %shared.label, %error, times, "trimming failed; trying again");
                    }
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, context: &Arc<Context>, shared: &Shared, log: &mut LogState, due: Due) -> Running {
        let (now, asked_at) = (context.logs.of(shared.id).clock.at_least(), Instant::now());
        let saves = due.save && self.next_save <= asked_at && (due.save_at_once || self.save_from <= asked_at);
        let none_expires_before = log.unsaved.none_expires_before();
        // An opening waits for what is not proved yet.
        let first = log.openings.iter().any(|opening| opening.proof == Proof::Missing);
        log.prove(Proof::Missing, Proof::Asked);
        let producers = saves.then(|| log.producers.snapshot(log.end, now, context.settings.producer_retention));
        if let Some(snapshot) = &producers {
            mark!(ProducersSaved);
            self.save_from = asked_at + context.settings.tuning.saving_takes(snapshot.len());
        }
        // While removals fail, nothing else fails with them.
        let removes = self.pace.removals == 0 || (self.next <= asked_at && !saves && !first);
        let limit = if removes && none_expires_before <= now { self.pace.limit } else { 0 };
        mark!(TrimWithoutSaving if limit > 0 && !saves);
        let trim = Trim {
            queue: shared.id,
            epoch: log.epoch,
            through: if saves { log.end } else { log.unsaved.saved_through() },
            producers,
            none_expires_before,
            limit,
        };
        let begun = log.unsaved.begin(saves.then_some(log.end));
        let (context, hurry) = (context.clone(), self.hurry.clone());
        let call = Box::pin(async move {
            let _turn =
                if first { context.trims.take_first().await } else { context.trims.take(hurry.notified()).await };
            let timeout = context.settings.store_timeout;
            tokio::time::timeout(timeout, context.logs.of(trim.queue).log.trim(&trim))
                .await
                .unwrap_or_else(|_| Err(StoreError::Unknown(format!("no answer to a trim within {timeout:?}")).into()))
        });
        Running { call, begun, asked_at, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::LogTail;

    #[test]
    fn a_removal_that_fails_is_made_again_with_less() {
        let (interval, most) = (Duration::from_secs(1), 1_000);
        let mut pace = Pace::new(most);
        let mut seen = Vec::new();
        for _ in 0..6 {
            pace.failed(pace.limit);
            seen.push((pace.limit, super::pause(interval, pace.removals).as_secs()));
        }
        assert_eq!(seen, [(250, 2), (62, 4), (15, 8), (3, 8), (1, 8), (1, 8)]);
        // Only the producers were saved, or nothing was done: nothing more is known of removals.
        let before = pace;
        pace.succeeded(0, true, most);
        assert_eq!(pace, before);
        pace.succeeded(1, true, most);
        assert_eq!((pace.limit, pace.removals), (2, 0));
        pace.failed(0);
        assert_eq!((pace.limit, pace.removals, pace.others), (2, 0, 1), "it had nothing to remove");
        (0..200).for_each(|_| pace.succeeded(pace.limit, true, most));
        assert_eq!(pace.limit, most, "what failed once is tried again");
    }

    #[test]
    fn a_limit_that_fails_is_approached_slowly() {
        let (most, possible) = (1_000, 300);
        let mut pace = Pace::new(most);
        let (mut failed, mut removed) = (0, 0);
        for _ in 0..200 {
            if pace.limit > possible {
                pace.failed(pace.limit);
                failed += 1;
            } else {
                removed += pace.limit;
                pace.succeeded(pace.limit, true, most);
            }
        }
        assert!(failed <= 12, "{failed} of 200 removals failed");
        assert!(removed >= 200 * possible / 2, "{removed} batches were removed");
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
