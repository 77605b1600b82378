//! Finding out what became of an append whose answer was lost. Never guessed: claim, then read.

use tokio::time::Instant;

use super::{
    activation::{check_confirmed, claim, read_tail},
    append::{append, committed, refuse_batch},
    backoff::{Backoff, Recovery},
    batches::{Sealed, answer},
    context::Context,
    ending::{Ending, Failure},
    log_state::{InFlight, LogState},
    shared::{Phase, Shared},
};
use crate::{
    broker::{BrokerError, count::count},
    model::{ClaimId, Epoch},
    ports::{LogTail, StoreError},
};

/// What the log says about a batch.
enum Found {
    /// It is there.
    Stored,
    /// It is not, and its place is free.
    Absent,
    /// Its place is taken by somebody else's, or somebody else owned the queue meanwhile.
    Superseded,
}

/// Creates a new epoch, after which the old append cannot land any more, and looks whether it did. Stored: the
/// pushers get their answer. Absent: the same batch is sent again, in its old place, until its time is up. Neither, if
/// there was another owner in between: it may have told somebody what is stored, and by whom.
pub(super) async fn recover(
    context: &Context,
    shared: &Shared,
    log: &mut LogState,
    in_flight: InFlight,
    cause: StoreError,
) -> Result<Option<InFlight>, Ending> {
    count(&shared.counters.unknown_appends, 1);
    mark!(AppendUnknown);
    if let Some(times) = shared.said.failed_appends.happened() {
        let queue = &shared.label;
        tracing::warn!(%queue, error = %cause, times, "append failed; claiming the queue again to see");
    }
    shared.set_phase(Phase::Recovering(log.epoch));
    let InFlight { mut sealed, epoch: sent_under, .. } = in_flight;
    let again = sealed.recovery.is_some();
    let mut recovery = sealed.recovery.take().unwrap_or_else(|| Recovery {
        deadline: Instant::now() + context.settings.recovery_timeout,
        backoff: Backoff::new(),
    });
    // One for all attempts: made again, it finds itself, and what others claimed meanwhile is told apart.
    let id = ClaimId::new(context.entropy.uuid());
    let ending = loop {
        match look(context, shared, id, log, &sealed, sent_under).await {
            Ok((tail, found)) => {
                if !matches!(found, Found::Superseded) {
                    shared.set_phase(Phase::Serving(log.epoch));
                }
                match found {
                    Found::Stored => {
                        mark!(RecoveredStored);
                        committed(shared, log, sealed, sent_under, tail.last_stored_at);
                        return Ok(None);
                    }
                    Found::Absent if Instant::now() >= recovery.deadline => {
                        // The store lets the queue be claimed, and nothing be appended.
                        mark!(RecoveryRefused);
                        let reason = format!("every append failed, the last one with: {cause}");
                        refuse_batch(shared, log, sealed, StoreError::Unavailable(reason));
                        return Ok(None);
                    }
                    Found::Absent => {
                        if again {
                            recovery.backoff.wait(&*context.entropy).await;
                        }
                        sealed.recovery = Some(recovery);
                        mark!(RecoveredAbsent);
                        return Ok(Some(append(context, shared, log, sealed)));
                    }
                    Found::Superseded => break Ending::Activate,
                }
            }
            Err(Failure::Final(ending)) => {
                mark!(RecoveryLostQueue if matches!(ending, Ending::Stop(_)));
                break ending;
            }
            Err(Failure::Store(error)) => {
                if Instant::now() >= recovery.deadline {
                    mark!(RecoveryTimedOut);
                    if let Some(times) = shared.said.unknown_outcomes.happened() {
                        let queue = &shared.label;
                        tracing::error!(%queue, %error, times, "the outcome of an append stays unknown");
                    }
                    break Ending::Activate;
                }
                mark!(RecoveryRetried);
                recovery.backoff.wait(&*context.entropy).await;
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
    Err(ending)
}

async fn look(
    context: &Context,
    shared: &Shared,
    id: ClaimId,
    log: &mut LogState,
    sealed: &Sealed,
    sent_under: Epoch,
) -> Result<(LogTail, Found), Failure> {
    let _turn = context.activations.take_first().await;
    let epoch = claim(context, shared, id).await?;
    // The next one, or this attempt's once more.
    if epoch > log.epoch.next() {
        mark!(RecoverySawAnotherOwner);
        return Ok((LogTail::default(), Found::Superseded));
    }
    log.epoch = epoch;
    let tail = read_tail(context, shared, epoch).await?;
    check_confirmed(context, shared, &tail, epoch).await?;
    let encoded = &sealed.encoded;
    let found = if tail.end == log.end {
        Found::Absent
    } else if (tail.last_first, tail.end, tail.last_epoch) == (encoded.first, encoded.last, sent_under) {
        Found::Stored
    } else {
        Found::Superseded
    };
    Ok((tail, found))
}
