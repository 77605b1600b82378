//! A batch on its way to the store, and what follows once it is stored, or refused for good.

use std::sync::Arc;

use super::{
    batches::{Sealed, answer},
    context::Context,
    log_state::{InFlight, LogState},
    shared::Shared,
};
use crate::{
    broker::{BrokerError, count::count},
    model::{Epoch, StoreTime},
    ports::{AppendBatch, StoreError},
};

/// Sends a batch under the log's epoch.
pub(super) fn append(context: &Context, shared: &Shared, log: &LogState, sealed: Sealed) -> InFlight {
    let encoded = &sealed.encoded;
    assert_eq!(encoded.first, log.end.next(), "a batch starts where the log ends");
    let batch = AppendBatch {
        queue: shared.id,
        epoch: log.epoch,
        first: encoded.first,
        last: encoded.last,
        previous: log.last_first,
        not_before: log.last_stored_at,
        lifetime_millis: encoded.lifetime_millis,
        format: encoded.format(),
        index: encoded.index.clone(),
        frames: encoded.frames.clone(),
        checksum: encoded.checksum,
    };
    let database = context.logs.of(shared.id);
    let committer = database.committer.clone();
    InFlight {
        sealed,
        epoch: log.epoch,
        sent_at: database.clock.at_least(),
        append: Box::pin(async move { committer.append(batch).await }),
    }
}

/// A batch is not stored, and will not be: say so, and go on with what comes next.
pub(super) fn refuse_batch(shared: &Shared, log: &mut LogState, sealed: Sealed, reason: StoreError) {
    let error = BrokerError::Store(reason);
    if let Some(times) = shared.said.refused_batches.happened() {
        tracing::error!(queue = %shared.label, %error, times, "pushes refused");
    }
    count(&shared.counters.refused, sealed.encoded.messages());
    answer(sealed.waiters, Err(&error));
    log.producers.forget_accepted();
    log.batches.fail(log.end, &BrokerError::Behind);
}

/// A batch is durable: remember it, serve it, acknowledge it.
pub(super) fn committed(shared: &Shared, log: &mut LogState, sealed: Sealed, epoch: Epoch, stored_at: StoreTime) {
    let said = &shared.said;
    for failing in [&said.failed_appends, &said.refused_batches, &said.unknown_outcomes] {
        failing.went_well();
    }
    let Sealed { encoded, waiters, .. } = sealed;
    log.producers.store(&encoded.runs, stored_at);
    let before = std::mem::replace(&mut log.end, encoded.last);
    log.last_first = encoded.first;
    log.last_stored_at = stored_at;
    let batch = Arc::new(encoded.stored(epoch, stored_at));
    log.unsaved.appended(before, batch.expires_at());
    count(&shared.counters.pushed, batch.messages());
    count(&shared.counters.pushed_bytes, batch.frame_bytes() as u64);
    shared.depth.lock().stored(batch.messages(), batch.frame_bytes() as u64, stored_at);
    shared.confirmed.raise(log.epoch, log.end);
    shared.tail.push(batch);
    shared.view.send_modify(|view| view.end = log.end);
    answer(waiters, Ok(()));
}
