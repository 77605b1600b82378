//! Promise 7: nothing is dropped before it expires, delivered long after, or left behind.

use std::collections::BTreeMap;

use super::{
    Promise, Violation,
    index::{Index, Message, Push, Queue, Reader, brief},
};

/// A broker that expects nothing to expire looks again after so long, in case the database's clock was set forward.
const LONGEST_SLEEP_MILLIS: u64 = 60_000;

/// Trims take only what has expired on the database's clock; a message lives for as long as its producer asked; times in a
/// queue do not go back. Who asks for messages long after one expired is not given it: what was under way before may wait
/// anywhere for a slow reader, so nothing is said about that. What has expired leaves the store in the end.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, queue) in &index.queues {
        violations.extend(trims(index, id, queue));
        violations.extend(times(index, id, queue));
        violations.extend(left_behind(index, id, queue));
    }
    violations.extend(index.pushes.values().filter_map(|push| lifetime(index, push)));
    violations.extend(index.readers.iter().filter_map(|reader| late(index, reader)));
    violations
}

fn trims(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut through = 0;
    for trim in &queue.trims {
        let trimmed = queue.between(through, trim.through.saturating_add(1)).filter(|message| message.at < trim.at);
        for message in trimmed {
            let expiry = message.stored.expires_at_millis;
            if expiry.is_some_and(|expiry| expiry <= trim.at_millis) || index.went_back_after(message.at) {
                continue;
            }
            let when = expiry
                .map_or("never expires".to_owned(), |expiry| format!("expires {} ms later", expiry - trim.at_millis));
            let (queue, offset) = (index.queue_name(id), message.stored.offset);
            let what = format!("offset {offset} of {queue} ({}) was trimmed, but {when}", brief(&message.stored.body));
            violations.push(index.violation(Promise::TimeToLive, what, [message.at, trim.at]));
        }
        through = through.max(trim.through);
    }
    violations
}

/// When messages were stored, by offset.
fn times(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let back = queue
        .messages
        .windows(2)
        .filter(|pair| pair[1].stored_at_millis < pair[0].stored_at_millis && !index.went_back_after(pair[0].at));
    let violation = |pair: &[Message<'_>]| {
        let what = format!(
            "in {}, offset {} was stored {} ms before {}",
            index.queue_name(id),
            pair[1].stored.offset,
            pair[0].stored_at_millis - pair[1].stored_at_millis,
            pair[0].stored.offset,
        );
        index.violation(Promise::TimeToLive, what, [pair[0].at, pair[1].at])
    };
    back.map(violation).collect()
}

/// How long a message lives is what its producer said.
fn lifetime(index: &Index<'_>, push: &Push<'_>) -> Option<Violation> {
    let asked = push.ttl_millis?;
    let stored = index.bodies[push.body].stored.iter().map(|(_, message)| message);
    let wrong = stored
        .filter(|message| message.at > push.at)
        .find(|message| message.stored.expires_at_millis != Some(message.stored_at_millis.saturating_add(asked)))?;
    let lives = wrong.stored.expires_at_millis.map_or("for ever".to_owned(), |expiry| {
        format!("for {} ms", i128::from(expiry) - i128::from(wrong.stored_at_millis))
    });
    let what = format!("{} was to live for {asked} ms, and is stored to live {lives}", brief(push.body));
    Some(index.violation(Promise::TimeToLive, what, [push.at, wrong.at]))
}

/// What was asked for after it had expired for longer than the bound.
fn late(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let asked_at = reader.asked?;
    let queue = index.queues.get(&index.queue_of(reader)?)?;
    let asked = index.micros(asked_at);
    reader.received.iter().find_map(|received| {
        let message = queue.at_offset(received.offset).find(|message| message.stored.body == received.body)?;
        let expiry = message.stored.expires_at_millis?;
        let (from, to) = (expired_by(index, asked), index.micros(received.at));
        let earliest = index.clock.at_least(from, to);
        if index.micros(message.at) > from || earliest < expiry {
            return None;
        }
        let what = format!(
            "{} was given offset {} ({}), which had expired {} ms before it asked",
            reader.name(),
            received.offset,
            brief(received.body),
            index.clock.at_least(asked, asked).saturating_sub(expiry),
        );
        Some(index.violation(Promise::TimeToLive, what, [message.at, asked_at, received.at]))
    })
}

/// What had expired by then, and stayed so, must not be delivered to whoever asks at `asked`.
fn expired_by(index: &Index<'_>, asked: u64) -> u64 {
    let bound = index.bounds.expiry.saturating_mul(1_000);
    let to_notice = index.bounds.convergence.saturating_mul(1_000);
    let before = asked.saturating_sub(bound);
    if index.clock.was_set_after(before.saturating_sub(to_notice)) { before.saturating_sub(to_notice) } else { before }
}

/// Batches that should have been trimmed by the time of the audit.
fn left_behind(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Option<Violation> {
    index.milestones.converged?;
    let audit = queue.audit?;
    let now = index.micros(audit.at);
    let claim = queue.claims.last()?;
    let mut batches: BTreeMap<u64, Batch<'_>> = BTreeMap::new();
    for left in audit.messages {
        let Some(message) = queue.at_offset(left.offset).last() else { continue };
        let batch = batches.entry(message.at as u64).or_insert(Batch { first: *message, expiry: Some(0) });
        batch.expiry = batch.expiry.zip(left.expires_at_millis).map(|(latest, expiry)| latest.max(expiry));
    }
    let count = batches.len();
    let overdue = batches.values().enumerate().find(|(nth, batch)| {
        // The last one holds the end of the log until all before it are gone.
        if nth + 1 == count && count > 1 {
            return false;
        }
        let since = index.micros(batch.first.at);
        let set = index.clock.was_set_after(since);
        let bound = index.bounds.trim.saturating_add(if set { LONGEST_SLEEP_MILLIS } else { 0 }).saturating_mul(1_000);
        let from = now.saturating_sub(bound);
        let hosted = index.micros(claim.at) <= from && index.faults.quiet_for(bound, from) <= now;
        let expired = batch.expiry.is_some_and(|expiry| expiry <= index.clock.at_least(from, now));
        since <= from && hosted && expired
    });
    let (_, Batch { first, .. }) = overdue?;
    let (queue, offset) = (index.queue_name(id), first.stored.offset);
    let what =
        format!("offset {offset} of {queue} ({}) has expired long ago and is still stored", brief(&first.stored.body));
    Some(index.violation(Promise::TimeToLive, what, [first.at, claim.at, audit.at]))
}

/// What is left of a batch: messages that were stored, and leave, together.
struct Batch<'a> {
    first: Message<'a>,
    /// When the last of them expires; none if one never does.
    expiry: Option<u64>,
}
