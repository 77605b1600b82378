//! Removing what has expired, and saving the producers before their last batch goes.

use std::{pin::Pin, sync::Arc};

use tokio::{sync::Notify, time::Instant};

use super::{
    Shared,
    actor::{Context, Log, Proof},
};
use crate::{
    broker::{BrokerError, count},
    model::{Offset, StoreTime},
    ports::{LogError, StoreError, Trim, Trimmed},
};

type Call = Pin<Box<dyn Future<Output = Result<Trimmed, LogError>> + Send>>;

/// The trimming of one queue: at most one call of the store at a time, beside the appends.
pub(super) struct Trimming {
    next: Instant,
    running: Option<(Call, Offset, Instant)>,
    /// After a failure, not even openings make it try again earlier.
    not_before: Instant,
    /// Has a call that waits for its turn come before those for which nobody waits.
    hurry: Arc<Notify>,
}

impl Trimming {
    pub(super) fn new(context: &Context) -> Self {
        // Queues that were activated together do not all trim at once.
        let interval = u64::try_from(context.settings.trim_interval.as_millis()).unwrap_or(u64::MAX);
        let jitter = std::time::Duration::from_millis(context.entropy.below(interval));
        let now = Instant::now();
        Self { next: now + jitter, running: None, not_before: now, hurry: Arc::default() }
    }

    /// Abandons a call under way, whose connection goes with it: the claim that follows must not wait for a call that
    /// waits for us, and would only have it fenced. What it was to remove is removed by the next.
    pub(super) fn cancel(&mut self, log: &mut Log) {
        if self.running.take().is_some() {
            mark!(TrimAbandoned);
            log.next_expiry = StoreTime::default();
            log.prove(Proof::Asked, Proof::Missing);
        }
    }

    /// When there will be something to do, as far as is known now: an idle queue sleeps until its next message expires.
    fn due(&self, context: &Context, log: &Log) -> Instant {
        if log.openings.iter().any(|opening| opening.proof == Proof::Missing) {
            // The call is fenced, which is what they wait for.
            return self.not_before;
        }
        if log.batches_since_snapshot >= context.settings.tuning.snapshot_every {
            return self.next;
        }
        let wait = log.next_expiry.since(context.clock.at_least()).min(context.settings.tuning.longest_sleep);
        self.next.max(Instant::now() + wait)
    }

    /// Waits until there is something to trim or to save, and does it. Cancel-safe: a call under way goes on at the next.
    pub(super) async fn step(
        &mut self,
        context: &Arc<Context>,
        shared: &Shared,
        log: &mut Log,
    ) -> Result<(), BrokerError> {
        if self.running.is_none() {
            tokio::time::sleep_until(self.due(context, log)).await;
            self.next = Instant::now() + context.settings.trim_interval;
            let asked_at = Instant::now();
            let (call, through) = start(context, shared, log, self.hurry.clone());
            self.running = Some((call, through, asked_at));
        }
        if log.openings.iter().any(|opening| opening.proof == Proof::Missing) {
            self.hurry.notify_one();
        }
        let (call, through, asked_at) = self.running.as_mut().expect("it runs, or was just started");
        let (result, through, asked_at) = (call.as_mut().await, *through, *asked_at);
        self.running = None;
        match result {
            Ok(trimmed) => {
                context.clock.read(asked_at, trimmed.store_time);
                log.snapshot_through = through;
                log.prove(Proof::Asked, Proof::Given);
                log.next_expiry = log.next_expiry.min(trimmed.next_expiry);
                count(&shared.counters.expired, trimmed.messages);
                let mut depth = shared.depth.lock();
                depth.messages = depth.messages.saturating_sub(trimmed.messages);
                depth.bytes = depth.bytes.saturating_sub(trimmed.bytes);
                depth.oldest = trimmed.oldest.or((log.end > through).then_some(log.last_stored_at));
                drop(depth);
                if trimmed.batches == u64::from(context.settings.tuning.trim_batches) {
                    self.next = Instant::now();
                }
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
                log.next_expiry = StoreTime::default();
                log.prove(Proof::Asked, Proof::Missing);
                self.not_before = self.next;
                tracing::warn!(queue = %shared.label, %error, "trimming failed; trying again");
                Ok(())
            }
        }
    }
}

fn start(context: &Arc<Context>, shared: &Shared, log: &mut Log, hurry: Arc<Notify>) -> (Call, Offset) {
    log.batches_since_snapshot = 0;
    // Somebody waits for what is not proved yet.
    let first = log.openings.iter().any(|opening| opening.proof == Proof::Missing);
    log.prove(Proof::Missing, Proof::Asked);
    // From here on it speaks of what is appended beside the call; the answer speaks of the rest.
    log.next_expiry = StoreTime::NEVER;
    let through = log.end;
    let now = context.clock.at_least();
    let producers = log.producers.snapshot(through, now, context.settings.producer_retention);
    let limit = context.settings.tuning.trim_batches;
    let trim = Trim { queue: shared.id, epoch: log.epoch, producers, through, limit };
    let context = context.clone();
    let call = Box::pin(async move {
        let _turn = if first { context.trims.take_first().await } else { context.trims.take(hurry.notified()).await };
        let timeout = context.settings.store_timeout;
        tokio::time::timeout(timeout, context.store.trim(&trim))
            .await
            .unwrap_or_else(|_| Err(StoreError::Unknown(format!("no answer to a trim within {timeout:?}")).into()))
    });
    (call, through)
}
