//! From an assignment to a queue that is served: claim, then read the log.

use std::time::Duration;

use tokio::time::Instant;

use super::{Depth, Phase, actor::Actor, actor::Log, batches::Batches};
use crate::{
    broker::{BrokerError, producers::Producers},
    frame::{FrameError, runs},
    model::{ClaimId, Epoch, Offset},
    ports::{Claim, ClaimError, LogTail, StoreError},
};

/// First and longest wait between attempts to reach a store that fails.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why a queue cannot be served here.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody else is to host it, or it is gone.
    Lost(BrokerError),
    /// It is ours, but serving it would do harm.
    Halt(BrokerError),
}

/// Waits longer from attempt to attempt, with jitter, so that brokers do not come in step.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: RETRY.0 }
    }

    pub(super) async fn wait(&mut self, entropy: &dyn crate::ports::Entropy) {
        let base = u64::try_from(self.next.as_millis()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_millis(base / 2 + entropy.below(base))).await;
        self.next = (self.next * 2).min(RETRY.1);
    }
}

impl Actor {
    /// Claims the queue and reads what the new epoch starts from, for as long as it takes the store to answer.
    pub(super) async fn activate(&mut self) -> Result<Log, Refusal> {
        self.set_phase(Phase::Activating);
        let mut backoff = Backoff::new();
        let mut claim = ClaimId::new(self.context.entropy.uuid());
        // What goes on failing is said once.
        let mut failing = false;
        loop {
            match self.activate_in_turn(claim).await {
                Ok(log) => return Ok(log),
                Err(Failure::Refused(refusal)) => return Err(refusal),
                Err(Failure::Store(error)) => {
                    mark!(ActivationRetried);
                    if std::mem::replace(&mut failing, true) {
                        tracing::debug!(queue = %self.shared.label, %error, "activation failed; trying again");
                    } else {
                        tracing::warn!(queue = %self.shared.label, %error, "activation failed; trying until it succeeds");
                    }
                    // An unknown claim is made again under its own name; otherwise each attempt has its own.
                    if !error.is_unknown() {
                        claim = ClaimId::new(self.context.entropy.uuid());
                    }
                    backoff.wait(&*self.context.entropy).await;
                }
            }
        }
    }

    async fn activate_in_turn(&mut self, claim: ClaimId) -> Result<Log, Failure> {
        let (context, shared) = (self.context.clone(), self.shared.clone());
        let turn = context.activations.take(shared.asked_for.notified()).await;
        let activated = self.try_activate(claim).await;
        drop(turn);
        activated
    }

    async fn try_activate(&mut self, claim: ClaimId) -> Result<Log, Failure> {
        let epoch = self.claim(claim).await?;
        // A statement of its own: what it sees includes all that was appended before the claim got its lock.
        let tail = self.read_tail().await?;
        self.check_confirmed(&tail, epoch).await?;
        let producers = self.read_producers(&tail).await?;
        let end = tail.end;
        mark!(ActivatedWithMessages if tail.last_first > Offset::ZERO);
        mark!(ActivatedWhenTrimmedEmpty if tail.last_first == Offset::ZERO && end > Offset::ZERO);
        let stats = self.context.within(self.context.store.stats(self.shared.id, end)).await?;
        *self.shared.depth.lock() = Depth { messages: stats.messages, bytes: stats.bytes, oldest: stats.oldest };
        // From here on subscribers are given what the store holds.
        self.shared.confirmed.raise(epoch, end);
        self.shared.tail.reset(end);
        self.shared.view.send_modify(|view| view.end = end);
        self.set_phase(Phase::Serving(epoch));
        tracing::info!(queue = %self.shared.label, %epoch, %end, "serving");
        Ok(Log {
            epoch,
            end,
            last_first: tail.last_first,
            last_stored_at: tail.last_stored_at,
            snapshot_through: tail.producers.map_or(tail.trimmed_through, |(through, _)| through),
            batches_since_snapshot: 0,
            next_expiry: stats.next_expiry,
            producers,
            batches: Batches::new(end, &self.context.settings),
            openings: Vec::new(),
        })
    }

    /// One attempt to create the next epoch.
    pub(super) async fn claim(&self, claim: ClaimId) -> Result<Epoch, Failure> {
        let context = &self.context;
        let request = Claim { queue: self.shared.id, broker: context.broker, incarnation: context.incarnation, claim };
        let timeout = context.settings.store_timeout;
        let asked_at = Instant::now();
        let claimed = match tokio::time::timeout(timeout, context.store.claim(&request)).await {
            Ok(claimed) => claimed,
            Err(_) => Err(StoreError::Unknown(format!("no answer to a claim within {timeout:?}")).into()),
        };
        match claimed {
            Ok(claimed) => {
                super::super::count(&self.shared.counters.claims, 1);
                context.clock.read(asked_at, claimed.store_time);
                Ok(claimed.epoch)
            }
            Err(ClaimError::NotAssignee) => {
                Err(Failure::Refused(Refusal::Lost(BrokerError::NotHosted { assignee: None })))
            }
            Err(ClaimError::Replaced) => Err(Failure::Refused(Refusal::Lost(BrokerError::Fenced))),
            Err(ClaimError::Deleted) => {
                Err(Failure::Refused(Refusal::Lost(BrokerError::QueueReplaced { queue: self.shared.id })))
            }
            Err(ClaimError::Store(error)) => {
                mark!(ClaimUnknown if error.is_unknown());
                Err(Failure::Store(error))
            }
        }
    }

    pub(super) async fn read_tail(&self) -> Result<LogTail, Failure> {
        Ok(self.context.within(self.context.store.tail(self.shared.id)).await?)
    }

    /// The log must not end before what was acknowledged or delivered here.
    pub(super) async fn check_confirmed(&self, tail: &LogTail, epoch: Epoch) -> Result<(), Failure> {
        let (confirmed_epoch, confirmed) = self.shared.confirmed.get();
        if tail.end >= confirmed && epoch > confirmed_epoch {
            return Ok(());
        }
        let queue = self.shared.id;
        if self.context.within(self.context.store.queue_by_id(queue)).await?.is_none() {
            // It was deleted after the claim. Nothing may be left of it, and nothing is lost.
            return Err(Failure::Refused(Refusal::Lost(BrokerError::QueueReplaced { queue })));
        }
        Err(Failure::Refused(Refusal::Halt(BrokerError::StoreWentBack { end: tail.end, epoch, confirmed })))
    }

    /// The last sequence of each producer: the snapshot, and the headers of the batches after it.
    async fn read_producers(&self, tail: &LogTail) -> Result<Producers, Failure> {
        let corrupt = |error: FrameError| Failure::Refused(Refusal::Halt(corrupt(&error)));
        let snapshot = tail.producers.as_ref().map(|(_, snapshot)| snapshot);
        mark!(SnapshotRead if snapshot.is_some());
        let mut producers = Producers::restore(snapshot, tail.incarnations.clone()).map_err(corrupt)?;
        let mut after = tail.producers.as_ref().map_or(Offset::ZERO, |(through, _)| *through);
        loop {
            let page = self.context.settings.tuning.header_page;
            let headers = self.context.within(self.context.store.headers(self.shared.id, after, page)).await?;
            let Some(last) = headers.last() else { return Ok(producers) };
            after = last.last;
            mark!(HeadersRead);
            for header in &headers {
                let runs = runs(header.format, &header.index, header.first, header.last).map_err(corrupt)?;
                producers.store(&runs, header.stored_at);
            }
        }
    }
}

/// Why one attempt failed.
pub(super) enum Failure {
    /// It will not succeed.
    Refused(Refusal),
    /// It may.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(_) => Self::Refused(Refusal::Halt(error.into())),
            _ => Self::Store(error),
        }
    }
}

pub(super) fn corrupt(error: &FrameError) -> BrokerError {
    StoreError::Corrupt(error.to_string()).into()
}
