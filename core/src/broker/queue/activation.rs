//! From an assignment to a queue that is served: claim, then read the log.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{Depth, Phase, actor::Actor, actor::Log, batches::Batches, unsaved::Unsaved};
use crate::{
    broker::{BrokerError, count, producers::Producers},
    frame::{FrameError, runs},
    model::{ClaimId, Epoch, Offset},
    ports::{Claim, ClaimError, LogTail, MAX_NAMED_PRODUCERS, StoreError},
};

/// First and longest wait between attempts to reach a store that fails.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The longest between attempts to activate a queue, which are made for as long as they fail.
const LONGEST_ACTIVATION_PAUSE: Duration = Duration::from_secs(4);

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
    longest: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: RETRY.0, longest: RETRY.1 }
    }

    pub(super) async fn wait(&mut self, entropy: &dyn crate::ports::Entropy) {
        let base = u64::try_from(self.next.as_millis()).unwrap_or(u64::MAX);
        tokio::time::sleep(Duration::from_millis(base / 2 + entropy.below(base))).await;
        self.next = (self.next * 2).min(self.longest);
    }
}

impl Actor {
    /// Claims the queue and reads what the new epoch starts from, for as long as it takes the store to answer.
    pub(super) async fn activate(&mut self) -> Result<Log, Refusal> {
        self.set_phase(Phase::Activating);
        let mut backoff = Backoff { longest: LONGEST_ACTIVATION_PAUSE, ..Backoff::new() };
        let mut claim = ClaimId::new(self.context.entropy.uuid());
        loop {
            match self.activate_in_turn(claim).await {
                Ok(log) => {
                    self.shared.unserved_since.lock().take();
                    self.shared.newer.store(false, Relaxed);
                    self.shared.said.activations.over();
                    return Ok(log);
                }
                Err(Failure::Refused(refusal)) => {
                    self.shared.unserved_since.lock().take();
                    return Err(refusal);
                }
                Err(Failure::Store(error)) => {
                    mark!(ActivationRetried);
                    // A queue that waits for its turn is not broken, however many are before it.
                    self.shared.unserved_since.lock().get_or_insert_with(Instant::now);
                    count(&self.shared.counters.failed_activations, 1);
                    if let Some(times) = self.shared.said.activations.happened() {
                        let queue = &self.shared.label;
                        tracing::warn!(%queue, %error, times, "activation failed; trying until it succeeds");
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
        let tail = self.read_tail(epoch).await?;
        self.check_confirmed(&tail, epoch).await?;
        let (producers, unsaved) = self.read_producers(&tail).await?;
        let end = tail.end;
        mark!(ActivatedWithMessages if tail.last_first > Offset::ZERO);
        mark!(ActivatedWhenTrimmedEmpty if tail.last_first == Offset::ZERO && end > Offset::ZERO);
        *self.shared.depth.lock() = Depth::of(&tail);
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
            unsaved,
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
                count(&self.shared.counters.claims, 1);
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

    /// The end of the log, after a claim created `epoch`. An end of an earlier epoch was read before that claim: it comes
    /// from a standby or an older copy, and says nothing. A database that was set back itself claims and reads one epoch.
    pub(super) async fn read_tail(&self, epoch: Epoch) -> Result<LogTail, Failure> {
        let tail = self.context.within(self.context.store.tail(self.shared.id)).await?;
        if tail.epoch < epoch {
            let reason = format!("the end of the log was read at epoch {}, before the claim of {epoch}", tail.epoch);
            return Err(self.stale(reason).await);
        }
        Ok(tail)
    }

    /// The log must not end before what was acknowledged or delivered here.
    pub(super) async fn check_confirmed(&self, tail: &LogTail, epoch: Epoch) -> Result<(), Failure> {
        let (confirmed_epoch, confirmed) = self.shared.confirmed.get();
        if tail.end >= confirmed && epoch > confirmed_epoch {
            return Ok(());
        }
        self.check_deleted().await?;
        Err(Failure::Refused(Refusal::Halt(BrokerError::StoreWentBack { end: tail.end, epoch, confirmed })))
    }

    /// Nothing may be left of a queue that was deleted after the claim, and nothing is lost. It may also be a standby that does
    /// not know the queue yet, so nobody is told that it was deleted before the next claim says so.
    async fn check_deleted(&self) -> Result<(), Failure> {
        let queue = self.shared.id;
        match self.context.within(self.context.store.queue_by_id(queue)).await? {
            Some(_) => Ok(()),
            None => {
                Err(StoreError::Unavailable(format!("a read does not know queue {queue}, which was claimed")).into())
            }
        }
    }

    /// A read has less than what is known to be stored: it came from a standby or an older copy, unless the queue was deleted.
    async fn stale(&self, reason: String) -> Failure {
        if let Err(failure) = self.check_deleted().await {
            return failure;
        }
        count(&self.shared.counters.stale_reads, 1);
        Failure::Store(StoreError::Unavailable(reason))
    }

    /// The last sequence of each producer: the snapshot, and the headers of the batches after it, of which there are so many
    /// at most that a queue can be taken over in time ([`Tuning::max_unsaved`](crate::broker::Tuning)).
    async fn read_producers(&self, tail: &LogTail) -> Result<(Producers, Unsaved), Failure> {
        let corrupt = |error: FrameError| {
            self.shared.newer.store(matches!(error, FrameError::Newer { .. }), Relaxed);
            Failure::from(StoreError::from(error))
        };
        let snapshot = tail.producers.as_ref().map(|(_, snapshot)| snapshot);
        mark!(SnapshotRead if snapshot.is_some());
        if tail.incarnations.len() > MAX_NAMED_PRODUCERS as usize {
            // An owner that does not know all of them would store what an earlier incarnation pushes.
            let reason =
                format!("more than {MAX_NAMED_PRODUCERS} named producers are stored for queue {}", self.shared.id);
            return Err(StoreError::Corrupt(reason).into());
        }
        let mut producers = Producers::restore(snapshot, tail.incarnations.clone()).map_err(corrupt)?;
        let mut unsaved = Unsaved::new(tail);
        let saved_through = unsaved.saved_through();
        // When the last batch that the snapshot speaks for expires, the store did not say.
        let mut after = Offset::new(saved_through.get().saturating_sub(1));
        while tail.last_first > Offset::ZERO && after < tail.end {
            let page = self.context.settings.tuning.header_page;
            let headers = self.context.within(self.context.store.headers(self.shared.id, after, page)).await?;
            let Some(last) = headers.last() else {
                // A retry of what it does not have would be stored twice.
                let reason = format!("the headers after offset {after} end before {}, where the queue does", tail.end);
                return Err(self.stale(reason).await);
            };
            after = last.last;
            mark!(HeadersRead if last.last > saved_through);
            for header in &headers {
                unsaved.found(header.last, header.expires_at);
                if header.last <= saved_through {
                    continue;
                }
                let runs = runs(header.format, &header.index, header.first, header.last).map_err(corrupt)?;
                producers.store(&runs, header.stored_at);
            }
        }
        Ok((producers, unsaved))
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
