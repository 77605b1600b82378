//! Accepting what is pushed: a run is compared with what was accepted before, checked, and encoded into a batch.

use tokio::sync::oneshot;

use super::{
    batches::{Waiter, answer, offset_of},
    command::{Push, Pushed},
    context::Context,
    log_state::{InFlight, LogState, Opening, Proof},
    shared::Shared,
};
use crate::{
    broker::{BrokerError, BrokerSettings, ProducerStamp, count::count},
    frame::encoded_len,
    model::{
        NewMessage, Offset, ProducerEpoch, ProducerId, ProducerKey, QueueId, Sequence,
        limits::{MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_TTL},
    },
    ports::StoreError,
};

/// Dedupes, validates and accepts a run.
pub(super) fn push(
    context: &Context,
    shared: &Shared,
    log: &mut LogState,
    in_flight: Option<&mut InFlight>,
    push: Push,
) {
    let Push { producer, mut messages, held, reply } = push;
    let is_stamped = producer.is_some();
    mark!(ProducerOfBroker if !is_stamped);
    let (stamp, first) = producer.unwrap_or_else(|| {
        // A push that names no producer gets one: this broker, with offsets for sequences. Offsets are never used again, so
        // message ids are not either, even after the producer was idle for so long that it was forgotten.
        let key = ProducerKey { id: ProducerId::new(context.incarnation.uuid()), epoch: ProducerEpoch::ZERO };
        let next = Sequence::new(log.batches.next().get());
        (ProducerStamp { key, lowest_unacknowledged: next }, next)
    });
    let total = messages.len() as u64;
    let refuse = |error: BrokerError, reply: oneshot::Sender<_>| {
        count(&shared.counters.refused, total);
        let _ = reply.send(Err(error));
    };
    let verdict = match log.producers.judge(&stamp, first, total) {
        Ok(verdict) => verdict,
        Err(error) => return refuse(error, reply),
    };
    let fresh = usize::try_from(verdict.duplicates).map_or(&mut [][..], |old| &mut messages[old..]);
    for message in fresh.iter_mut() {
        message.ttl = message.ttl.or(context.settings.message_ttl);
        if let Err(error) = validate(message, &context.settings) {
            mark!(PushInvalid);
            return refuse(error, reply);
        }
    }
    if !fresh.is_empty() && log.unsaved.batches() >= context.settings.tuning.max_unsaved() {
        mark!(PushHeldForSaving);
        let reason = "the producers of what was stored last could not be saved yet; try again".to_owned();
        return refuse(StoreError::Unavailable(reason).into(), reply);
    }
    let limit = context.settings.max_producers_per_queue;
    let (now, retention) = (context.logs.of(shared.id).clock.at_least(), context.settings.producer_retention);
    if !fresh.is_empty() && is_stamped && !log.producers.admits(stamp.key.id, limit, now, retention) {
        return refuse(BrokerError::TooManyProducers { setting: "max_producers_per_queue", limit }, reply);
    }
    count(&shared.counters.duplicates, verdict.duplicates);
    let key = stamp.key;
    let through = first.plus(total - 1);
    let mut pushed = Pushed { key, through, offset: None, duplicates: verdict.duplicates };
    if fresh.is_empty() {
        let waiter = Waiter { pushed, reply, _held: held };
        return answer_duplicate(log, in_flight, waiter);
    }
    mark!(DuplicateInPart if verdict.duplicates > 0);
    pushed.offset = Some(accept(log, shared.id, key, first.plus(verdict.duplicates), fresh));
    log.producers.accept(key, through);
    log.batches.wait(Waiter { pushed, reply, _held: held });
}

/// Nothing new in a run: it shares the outcome of what it repeats.
fn answer_duplicate(log: &mut LogState, in_flight: Option<&mut InFlight>, mut waiter: Waiter) {
    let (id, through) = (waiter.pushed.key.id, waiter.pushed.through);
    if let Some(last) = log.producers.last(id)
        && through <= last.sequence
    {
        mark!(DuplicateStored);
        waiter.pushed.offset = (through == last.sequence).then_some(last.offset);
        return answer(vec![waiter], Ok(()));
    }
    if let Some(in_flight) = in_flight
        && let Some(offset) = offset_of(&in_flight.sealed.encoded.runs, id, through)
    {
        mark!(DuplicateInFlight);
        waiter.pushed.offset = Some(offset);
        in_flight.sealed.waiters.push(waiter);
        return;
    }
    if let Some(waiter) = log.batches.wait_for(id, through, waiter) {
        // Below what the producer declared as settled, and never stored: there is nothing to wait for.
        answer(vec![waiter], Ok(()));
    }
}

/// Notes the next epoch of a named producer. Its last sequence is answered as soon as that is certain.
pub(super) fn open(log: &mut LogState, id: ProducerId, epoch: ProducerEpoch, reply: oneshot::Sender<Sequence>) {
    mark!(NamedProducerWentOn if log.producers.last(id).is_some());
    mark!(NamedProducerWaited if log.producers.is_pending(id));
    log.producers.open(id, epoch);
    log.openings.push(Opening { id, reply, proof: Proof::Missing });
}

/// Encodes new messages; returns the last one's offset.
fn accept(log: &mut LogState, queue: QueueId, key: ProducerKey, first: Sequence, messages: &[NewMessage]) -> Offset {
    let ids = key.message_ids(queue);
    let mut sequence = first;
    let mut last = log.end;
    for message in messages {
        last = log.batches.add(key, sequence, ids.at(sequence), message);
        sequence = sequence.next();
    }
    last
}

/// Checks a message against the limits.
fn validate(message: &NewMessage, settings: &BrokerSettings) -> Result<(), BrokerError> {
    if message.headers.len() > MAX_HEADERS {
        return Err(BrokerError::TooManyHeaders { found: message.headers.len() });
    }
    for header in &message.headers {
        let bytes = header.name.len();
        if bytes == 0 || bytes > MAX_HEADER_NAME_BYTES {
            return Err(BrokerError::HeaderName { bytes });
        }
    }
    if let Some(ttl) = message.ttl
        && ttl > MAX_TTL
    {
        return Err(BrokerError::TtlTooLong(ttl));
    }
    let bytes = encoded_len(message);
    let limit = settings.max_message_bytes;
    if bytes > limit {
        return Err(BrokerError::MessageTooLarge { bytes, limit });
    }
    Ok(())
}
