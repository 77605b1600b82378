//! Promise 1: what is acknowledged was stored before, and is still there in the end.

use std::collections::BTreeMap;

use super::{
    Promise, Violation,
    index::{At, Audit, Index, Outcome, Push, Queue, brief, folded},
};
use crate::history::StoredMessage;

/// Every acknowledgement comes after the commit of that message, and what was committed is in the audit, unless it expired or
/// its queue was deleted. What was trimmed is for [`time_to_live`](super::time_to_live) to judge; which offset was
/// acknowledged, for [`order`](super::order).
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let acknowledgements = index.pushes.iter().filter_map(|(&number, push)| acknowledged(index, number, push));
    let queues = index.queues.iter().flat_map(|(&id, queue)| kept(index, id, queue));
    acknowledgements.chain(queues).collect()
}

fn acknowledged(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let Some((at, Outcome::Acked { queue_id, id, .. })) = push.outcome else { return None };
    let of_label = |queue: u64| {
        let label = index.queues.get(&queue).and_then(|queue| queue.label.as_ref());
        label.is_none_or(|label| *label == folded(push.label))
    };
    let stored = &index.bodies[push.body].stored;
    let there: Vec<_> =
        stored.iter().filter(|(queue, _)| queue_id.map_or_else(|| of_label(*queue), |told| told == *queue)).collect();
    let body = brief(push.body);
    let before: Vec<_> = there.iter().filter(|(_, message)| message.at < at).collect();
    if before.is_empty() {
        let (what, mut records) = match there.first() {
            Some((_, late)) => ("was acknowledged before it was stored", vec![late.at]),
            None => ("was acknowledged, but never stored", Vec::new()),
        };
        records.extend([push.at, at]);
        let what = format!("push {number} of {body} to {:?} {what}", push.label);
        return Some(index.violation(Promise::Durable, what, records));
    }
    let told = id?;
    if before.iter().any(|(_, message)| message.stored.id == told) {
        return None;
    }
    let (_, message) = before[0];
    let is = message.stored.id;
    let what =
        format!("push {number} of {body} to {:?} was acknowledged as message {told}, but stored as {is}", push.label);
    Some(index.violation(Promise::Durable, what, [message.at, push.at, at]))
}

/// What a queue has lost.
fn kept(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let Some(done) = index.milestones.audit_done else { return Vec::new() };
    if queue.tombstoned.is_some() || index.went_back_after(queue.born) {
        return Vec::new();
    }
    let name = index.queue_name(id);
    let Some(audit) = &queue.audit else {
        let what = format!("{name} is gone, and nobody deleted it");
        return vec![index.violation(Promise::Durable, what, [queue.born, done])];
    };
    let mut violations = Vec::new();
    if let Some((message, others)) = missing(index, queue, audit) {
        let StoredMessage { offset, body, .. } = message.stored;
        let what = format!("offset {offset} ({}){} was stored in {name} and is gone", brief(body), and_others(others));
        let records = acknowledgement(index, body).into_iter().chain([message.at, audit.at]).collect::<Vec<_>>();
        violations.push(index.violation(Promise::Durable, what, records));
    }
    if let Some(last) = queue.messages.iter().max_by_key(|message| message.stored.offset)
        && audit.end < last.stored.offset
    {
        let what = format!("{name} ends at offset {}, although {} was stored", audit.end, last.stored.offset);
        violations.push(index.violation(Promise::Durable, what, [last.at, audit.at]));
    }
    violations
}

/// The first message that is not in the audit as it was stored, and how many others are not.
fn missing<'a, 'i>(
    index: &Index<'a>,
    queue: &'i Queue<'a>,
    audit: &Audit<'_>,
) -> Option<(&'i super::index::Message<'a>, usize)> {
    let left: BTreeMap<u64, &StoredMessage> = audit.messages.iter().map(|message| (message.offset, message)).collect();
    let now = index.micros(audit.at);
    let mut gone = queue.messages.iter().filter(|message| {
        let stored = message.stored;
        match left.get(&stored.offset) {
            // An offset that was used twice cannot have both.
            Some(found) => **found != *stored && queue.at_offset(stored.offset).count() == 1,
            None => queue.trimmed_by(stored.offset).is_none() && !index.may_be_expired(stored, now),
        }
    });
    let first = gone.next()?;
    Some((first, gone.count()))
}

/// Where a message was acknowledged.
fn acknowledgement(index: &Index<'_>, body: &str) -> Option<At> {
    let mut pushes = index.bodies.get(body)?.pushes.iter().map(|push| &index.pushes[push]);
    pushes
        .find_map(|push| push.outcome.filter(|(_, outcome)| matches!(outcome, Outcome::Acked { .. })).map(|(at, _)| at))
}

/// For sentences about the first of several.
pub(super) fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " and another message".to_owned(),
        others => format!(" and {others} other messages"),
    }
}
