//! From an assignment to a queue that is served: claim, then read the log.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::time::Instant;

use super::{
    backoff::Backoff,
    batches::Batches,
    context::Context,
    ending::{Ending, Failure},
    log_state::LogState,
    shared::{Depth, Phase, Shared},
    unsaved::Unsaved,
};
use crate::{
    broker::{BrokerError, count::count, producers::Producers},
    frame::{FrameError, runs},
    model::{ClaimId, Epoch, Offset},
    ports::{Claim, ClaimError, LogTail, MAX_NAMED_PRODUCERS, StoreError},
};

/// The longest between attempts to activate a queue, which are made for as long as they fail.
const LONGEST_ACTIVATION_PAUSE: Duration = Duration::from_secs(4);

/// Claims the queue and reads what the new epoch starts from, for as long as it takes the store to answer.
pub(super) async fn activate(context: &Context, shared: &Shared) -> Result<LogState, Ending> {
    shared.set_phase(Phase::Activating);
    let mut backoff = Backoff::up_to(LONGEST_ACTIVATION_PAUSE);
    let mut claim = ClaimId::new(context.entropy.uuid());
    loop {
        match activate_in_turn(context, shared, claim).await {
            Ok(log) => {
                shared.unserved_since.lock().take();
                shared.newer.store(false, Relaxed);
                shared.said.activations.over();
                return Ok(log);
            }
            Err(Failure::Final(ending)) => {
                shared.unserved_since.lock().take();
                return Err(ending);
            }
            Err(Failure::Store(error)) => {
                mark!(ActivationRetried);
                // A queue that waits for its turn is not broken, however many are before it.
                shared.unserved_since.lock().get_or_insert_with(Instant::now);
                count(&shared.counters.failed_activations, 1);
                if let Some(times) = shared.said.activations.happened() {
                    let queue = &shared.label;
                    tracing::warn!(%queue, %error, times, "activation failed; trying until it succeeds");
                }
                // An unknown claim is made again under its own name; otherwise each attempt has its own.
                if !error.is_unknown() {
                    claim = ClaimId::new(context.entropy.uuid());
                }
                backoff.wait(&*context.entropy).await;
            }
        }
    }
}

async fn activate_in_turn(context: &Context, shared: &Shared, claim: ClaimId) -> Result<LogState, Failure> {
    let turn = context.activations.take(shared.asked_for.notified()).await;
    let activated = try_activate(context, shared, claim).await;
    drop(turn);
    activated
}

async fn try_activate(context: &Context, shared: &Shared, id: ClaimId) -> Result<LogState, Failure> {
    let epoch = claim(context, shared, id).await?;
    // A statement of its own: what it sees includes all that was appended before the claim got its lock.
    let tail = read_tail(context, shared, epoch).await?;
    check_confirmed(context, shared, &tail, epoch).await?;
    let (producers, unsaved) = read_producers(context, shared, &tail).await?;
    let end = tail.end;
    mark!(ActivatedWithMessages if tail.last_first > Offset::ZERO);
    mark!(ActivatedWhenTrimmedEmpty if tail.last_first == Offset::ZERO && end > Offset::ZERO);
    *shared.depth.lock() = Depth::of(&tail);
    // From here on subscribers are given what the store holds.
    shared.confirmed.raise(epoch, end);
    shared.tail.reset(end);
    shared.view.send_modify(|view| view.end = end);
    shared.set_phase(Phase::Serving(epoch));
    tracing::info!(queue = %shared.label, %epoch, %end, "serving");
    Ok(LogState {
        epoch,
        end,
        last_first: tail.last_first,
        last_stored_at: tail.last_stored_at,
        unsaved,
        producers,
        batches: Batches::new(end, &context.settings),
        openings: Vec::new(),
    })
}

/// One attempt to create the next epoch.
pub(super) async fn claim(context: &Context, shared: &Shared, id: ClaimId) -> Result<Epoch, Failure> {
    let request = Claim { queue: shared.id, broker: context.broker, incarnation: context.incarnation, claim: id };
    let timeout = context.settings.store_timeout;
    let asked_at = Instant::now();
    let claimed = match tokio::time::timeout(timeout, context.logs.of(shared.id).log.claim(&request)).await {
        Ok(claimed) => claimed,
        Err(_) => Err(StoreError::Unknown(format!("no answer to a claim within {timeout:?}")).into()),
    };
    match claimed {
        Ok(claimed) => {
            count(&shared.counters.claims, 1);
            context.logs.of(shared.id).clock.read(asked_at, claimed.store_time);
            Ok(claimed.epoch)
        }
        Err(ClaimError::NotAssignee) => Err(Failure::Final(Ending::Stop(BrokerError::NotHosted { assignee: None }))),
        Err(ClaimError::Replaced) => Err(Failure::Final(Ending::Stop(BrokerError::Fenced))),
        Err(ClaimError::Deleted) => Err(Failure::Final(Ending::Stop(BrokerError::QueueReplaced { queue: shared.id }))),
        Err(ClaimError::Store(error)) => {
            mark!(ClaimUnknown if error.is_unknown());
            Err(Failure::Store(error))
        }
    }
}

/// The end of the log, after a claim created `epoch`. An end of an earlier epoch was read before that claim: it comes
/// from a standby or an older copy, and says nothing. A database that was set back itself claims and reads one epoch.
pub(super) async fn read_tail(context: &Context, shared: &Shared, epoch: Epoch) -> Result<LogTail, Failure> {
    let tail = context.within(context.logs.of(shared.id).log.tail(shared.id)).await?;
    if tail.epoch < epoch {
        let reason = format!("the end of the log was read at epoch {}, before the claim of {epoch}", tail.epoch);
        return Err(stale(context, shared, reason).await);
    }
    Ok(tail)
}

/// The log must not end before what was acknowledged or delivered here.
pub(super) async fn check_confirmed(
    context: &Context,
    shared: &Shared,
    tail: &LogTail,
    epoch: Epoch,
) -> Result<(), Failure> {
    let (confirmed_epoch, confirmed) = shared.confirmed.get();
    if tail.end >= confirmed && epoch > confirmed_epoch {
        return Ok(());
    }
    check_deleted(context, shared).await?;
    Err(Failure::Final(Ending::Halt(BrokerError::StoreRolledBack { end: tail.end, epoch, confirmed })))
}

/// Nothing may be left of a queue that was deleted after the claim, and nothing is lost. It may also be a standby that does
/// not know the queue yet, so no client is told that it was deleted before the next claim says so.
async fn check_deleted(context: &Context, shared: &Shared) -> Result<(), Failure> {
    let queue = shared.id;
    match context.within(context.catalog.queue_by_id(queue)).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::Unavailable(format!("a read does not know queue {queue}, which was claimed")).into()),
    }
}

/// A read has less than what is known to be stored: it came from a standby or an older copy, unless the queue was deleted.
async fn stale(context: &Context, shared: &Shared, reason: String) -> Failure {
    if let Err(failure) = check_deleted(context, shared).await {
        return failure;
    }
    count(&shared.counters.stale_reads, 1);
    Failure::Store(StoreError::Unavailable(reason))
}

/// The last sequence of each producer: the snapshot, and the headers of the batches after it, of which there are so many
/// at most that a queue can be taken over in time ([`Tuning::max_unsaved`](crate::broker::Tuning)).
async fn read_producers(context: &Context, shared: &Shared, tail: &LogTail) -> Result<(Producers, Unsaved), Failure> {
    let corrupt = |error: FrameError| {
        shared.newer.store(matches!(error, FrameError::Newer { .. }), Relaxed);
        Failure::from(StoreError::from(error))
    };
    let snapshot = tail.producers.as_ref().map(|(_, snapshot)| snapshot);
    mark!(SnapshotRead if snapshot.is_some());
    if tail.producer_epochs.len() > MAX_NAMED_PRODUCERS as usize {
        // An owner that does not know all of them would store what is pushed under an earlier epoch.
        let reason = format!("more than {MAX_NAMED_PRODUCERS} named producers are stored for queue {}", shared.id);
        return Err(StoreError::Corrupt(reason).into());
    }
    let mut producers = Producers::restore(snapshot, tail.producer_epochs.clone()).map_err(corrupt)?;
    let mut unsaved = Unsaved::new(tail);
    let saved_through = unsaved.saved_through();
    // When the last batch that the snapshot speaks for expires, the store did not say.
    let mut after = Offset::new(saved_through.get().saturating_sub(1));
    while tail.last_first > Offset::ZERO && after < tail.end {
        let page = context.settings.tuning.header_page;
        let headers = context.within(context.logs.of(shared.id).log.headers(shared.id, after, page)).await?;
        let Some(last) = headers.last() else {
            // A retry of what it does not have would be stored twice.
            let reason = format!("the headers after offset {after} end before {}, where the queue does", tail.end);
            return Err(stale(context, shared, reason).await);
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
