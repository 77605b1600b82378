//! Finding out what became of an append whose answer was lost. Never guessed: claim, then read.

use tokio::time::Instant;

use super::{
    Phase,
    activation::{Backoff, Failure, Refusal},
    actor::{Actor, InFlight, Log, Next},
    batches::{Sealed, answer},
};
use crate::{
    broker::{BrokerError, count},
    model::{ClaimId, Epoch},
    ports::{LogTail, StoreError},
};

/// What the log says about a batch.
enum Fate {
    /// It is there.
    Stored,
    /// It is not, and its place is free.
    Absent,
    /// Its place is taken by somebody else's, or somebody else owned the queue meanwhile.
    Superseded,
}

/// How long a batch has been in trouble. It goes with the batch from one append to the next.
pub(super) struct Recovery {
    /// When its pushers are told.
    deadline: Instant,
    backoff: Backoff,
}

impl Actor {
    /// Creates a new epoch, after which the old append cannot land any more, and looks whether it did. Stored: the
    /// pushers get their answer. Absent: the same batch is sent again, in its old place, until its time is up. Neither, if
    /// there was another owner in between: it may have told somebody what is stored, and by whom.
    pub(super) async fn recover(
        &mut self,
        log: &mut Log,
        in_flight: InFlight,
        cause: StoreError,
    ) -> Result<Option<InFlight>, Next> {
        count(&self.shared.counters.unknown_appends, 1);
        mark!(AppendUnknown);
        if let Some(times) = self.shared.said.failed_appends.happened() {
            let queue = &self.shared.label;
            tracing::warn!(%queue, error = %cause, times, "append failed; claiming the queue again to see");
        }
        self.set_phase(Phase::Recovering(log.epoch));
        let InFlight { mut sealed, epoch: sent_under, .. } = in_flight;
        let again = sealed.recovery.is_some();
        let mut recovery = sealed.recovery.take().unwrap_or_else(|| Recovery {
            deadline: Instant::now() + self.context.settings.recovery_timeout,
            backoff: Backoff::new(),
        });
        // One for all attempts: made again, it finds itself, and what others claimed meanwhile is told apart.
        let claim = ClaimId::new(self.context.entropy.uuid());
        let next = loop {
            match self.look(claim, log, &sealed, sent_under).await {
                Ok((tail, fate)) => {
                    if !matches!(fate, Fate::Superseded) {
                        self.set_phase(Phase::Serving(log.epoch));
                    }
                    match fate {
                        Fate::Stored => {
                            mark!(RecoveredStored);
                            self.committed(log, sealed, sent_under, tail.last_stored_at);
                            return Ok(None);
                        }
                        Fate::Absent if Instant::now() >= recovery.deadline => {
                            // The store lets the queue be claimed, and nothing be appended.
                            mark!(RecoveryRefused);
                            let reason = format!("every append failed, the last one with: {cause}");
                            self.refuse_batch(log, sealed, StoreError::Unavailable(reason));
                            return Ok(None);
                        }
                        Fate::Absent => {
                            if again {
                                recovery.backoff.wait(&*self.context.entropy).await;
                            }
                            sealed.recovery = Some(recovery);
                            mark!(RecoveredAbsent);
                            return Ok(Some(self.append(log, sealed)));
                        }
                        Fate::Superseded => break Next::Activate,
                    }
                }
                Err(Failure::Refused(Refusal::Lost(error))) => {
                    mark!(RecoveryLostQueue);
                    break Next::End(error);
                }
                Err(Failure::Refused(Refusal::Halt(error))) => break Next::Halt(error),
                Err(Failure::Store(error)) => {
                    if Instant::now() >= recovery.deadline {
                        mark!(RecoveryTimedOut);
                        if let Some(times) = self.shared.said.unknown_outcomes.happened() {
                            let queue = &self.shared.label;
                            tracing::error!(%queue, %error, times, "the outcome of an append stays unknown");
                        }
                        break Next::Activate;
                    }
                    mark!(RecoveryRetried);
                    recovery.backoff.wait(&*self.context.entropy).await;
                }
            }
        };
        let error = BrokerError::Store(StoreError::Unknown(match cause {
            StoreError::Unavailable(reason)
            | StoreError::Unknown(reason)
            | StoreError::Refused(reason)
            | StoreError::Corrupt(reason) => reason,
        }));
        answer(sealed.waiters, Err(&error));
        Err(next)
    }

    async fn look(
        &self,
        claim: ClaimId,
        log: &mut Log,
        sealed: &Sealed,
        sent_under: Epoch,
    ) -> Result<(LogTail, Fate), Failure> {
        let _turn = self.context.activations.take_first().await;
        let epoch = self.claim(claim).await?;
        // The next one, or this attempt's once more.
        if epoch > log.epoch.next() {
            mark!(RecoverySawAnotherOwner);
            return Ok((LogTail::default(), Fate::Superseded));
        }
        log.epoch = epoch;
        let tail = self.read_tail(epoch).await?;
        self.check_confirmed(&tail, epoch).await?;
        let encoded = &sealed.encoded;
        let fate = if tail.end == log.end {
            Fate::Absent
        } else if (tail.last_first, tail.end, tail.last_epoch) == (encoded.first, encoded.last, sent_under) {
            Fate::Stored
        } else {
            Fate::Superseded
        };
        Ok((tail, fate))
    }
}
