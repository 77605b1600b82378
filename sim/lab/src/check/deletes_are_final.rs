//! Promise 9: deleted queues and channels stay deleted, and nothing else is deleted.

use std::collections::BTreeMap;

use rmom_sim::history::Event;

use super::{
    Promise, Violation,
    index::{At, CallKind, Index, Push, Queue, Reader, brief, folded},
    one_writer::overdue,
};

/// A queue becomes a tombstone only because a caller asked. From then on nothing is stored in it, no broker claims it, no
/// stream stays open on it or on a deleted channel, and its id is never used again. A client that names a deleted queue, by
/// its id or by a position in it, neither receives messages of another queue nor stores any there. An acknowledged delete
/// took effect.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, queue) in &index.queues {
        if let Some(tombstoned) = queue.tombstoned {
            violations.extend(unasked(index, id, queue, tombstoned));
            violations.extend(resurrected(index, id, queue, tombstoned));
        }
    }
    violations.extend(ids(index));
    violations.extend(undone(index));
    for reader in &index.readers {
        violations.extend(wrong_queue(index, reader));
        violations.extend(lingers(index, reader));
        violations.extend(outlives_its_channel(index, reader));
    }
    violations.extend(index.pushes.values().filter_map(|push| strayed(index, push)));
    violations
}

/// No caller had asked to delete the queue at any time at which the call could still have meant it.
fn unasked(index: &Index<'_>, id: u64, queue: &Queue<'_>, tombstoned: At) -> Option<Violation> {
    let label = queue.label.as_ref()?;
    let means_it = |kind: CallKind<'_>| matches!(kind, CallKind::DeleteQueue(named) if folded(named) == *label);
    if index.calls.values().any(|call| call.at < tombstoned && means_it(call.what)) {
        return None;
    }
    let what = format!("{} was deleted, although no client had requested it", index.queue_name(id));
    Some(index.violation(Promise::DeletesAreFinal, what, [queue.born, tombstoned]))
}

fn resurrected(index: &Index<'_>, id: u64, queue: &Queue<'_>, tombstoned: At) -> Vec<Violation> {
    let name = index.queue_name(id);
    let mut violations = Vec::new();
    let rolled_back = index.rolled_back_after(tombstoned);
    let mut alive = |at: At, what: String| {
        if at > tombstoned && !rolled_back {
            let what = format!("{what}, after it was deleted");
            violations.push(index.violation(Promise::DeletesAreFinal, what, [tombstoned, at]));
        }
    };
    for &(at, _) in &queue.assignments {
        alive(at, format!("{name} was assigned"));
    }
    for claim in &queue.claims {
        alive(claim.at, format!("{name} was claimed under epoch {}", claim.epoch));
    }
    for message in &queue.messages {
        let (offset, body) = (message.stored.offset, brief(&message.stored.body));
        alive(message.at, format!("offset {offset} of {name} ({body}) was stored"));
    }
    if let Some(audit) = &queue.audit {
        alive(audit.at, format!("{name} is in the audit"));
    }
    violations
}

/// An id that is used again.
fn ids(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut named: BTreeMap<u64, (At, String)> = BTreeMap::new();
    for (at, record) in index.history.iter().enumerate() {
        let (queue_id, label, since) = match &record.event {
            Event::QueueAdded { queue_id, label } => (*queue_id, label, at),
            Event::QueueCreated { op, queue_id, label } => {
                (*queue_id, label, index.calls.get(op).map_or(at, |call| call.at))
            }
            _ => continue,
        };
        let first = named.entry(queue_id).or_insert_with(|| (at, folded(label)));
        let tombstoned = index.queues[&queue_id].tombstoned.filter(|&tombstoned| tombstoned < since);
        let reused = first.1 != folded(label) || tombstoned.is_some();
        if reused && !index.rolled_back_after(first.0) {
            let what = format!("queue {label:?} was created with id {queue_id}, which {:?} had before", first.1);
            let records: Vec<_> = tombstoned.into_iter().chain([first.0, at]).collect();
            violations.push(index.violation(Promise::DeletesAreFinal, what, records));
        }
    }
    violations
}

/// An acknowledged delete, of a label for which no queue was deleted.
fn undone(index: &Index<'_>) -> Vec<Violation> {
    let deleted = |label: &str, at: At| {
        index.queues.values().any(|queue| {
            let named = queue.label.as_ref().is_none_or(|named| *named == folded(label));
            named && queue.tombstoned.is_some_and(|tombstoned| tombstoned < at)
        })
    };
    let undone = index.history.iter().enumerate().filter_map(|(at, record)| match &record.event {
        Event::QueueDeleted { op, label } if !deleted(label, at) => {
            let what = format!("the delete of queue {label:?} was acknowledged, but the database deleted none");
            let asked = index.calls.get(op).map(|call| call.at);
            let records: Vec<_> = asked.into_iter().chain([at]).collect();
            Some(index.violation(Promise::DeletesAreFinal, what, records))
        }
        _ => None,
    });
    undone.collect()
}

/// A reader with a position in one queue, or of one of its channels, that receives messages of another queue.
fn wrong_queue(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let id = index.queue_of(reader)?;
    let name = index.queue_name(id);
    // A consumer connects by itself: its start alone does not show that a broker granted it anything.
    let served = reader.received.first().map(|received| received.at).or(reader.position.and(reader.opened));
    if let (Some(after), Some(served)) = (reader.after.filter(|after| after.queue_id != id), served) {
        let held = index.queue_name(after.queue_id);
        let what = format!("{} resumed from a position in {held}, but is served {name}", reader.name());
        return Some(index.violation(Promise::DeletesAreFinal, what, [reader.began, served]));
    }
    reader.received.iter().find_map(|received| {
        if !index.is_of_another_queue(received, id) {
            return None;
        }
        let (of, message) = index.bodies.get(received.body)?.stored.first()?;
        let (other, reader_name) = (index.queue_name(*of), reader.name());
        let what = format!("{reader_name}, of a channel of {name}, received {} of {other}", brief(received.body));
        Some(index.violation(Promise::DeletesAreFinal, what, [message.at, reader.began, received.at]))
    })
}

/// A stream that stays open on a deleted queue.
fn lingers(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let opened = reader.opened?;
    let id = index.queue_of(reader)?;
    let tombstoned = index.queues.get(&id)?.tombstoned?;
    let overdue = overdue(index, reader, tombstoned.max(opened), index.bounds.convergence)?;
    let what = format!("{} stays open, although {} was deleted", reader.name(), index.queue_name(id));
    Some(index.violation(Promise::DeletesAreFinal, what, [tombstoned, opened, overdue]))
}

/// A stream or consumer of a channel that was deleted although its queue remains.
fn outlives_its_channel(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let opened = reader.opened?;
    let removed = index.channels.get(&reader.channel)?.removed?;
    let overdue = overdue(index, reader, removed.max(opened), index.bounds.deleted)?;
    let what = format!("{} stays open, although channel {} was deleted", reader.name(), reader.channel);
    Some(index.violation(Promise::DeletesAreFinal, what, [removed, opened, overdue]))
}

/// A push for a specific queue id that is stored in another queue.
fn strayed(index: &Index<'_>, push: &Push<'_>) -> Option<Violation> {
    let meant = push.queue_id?;
    let pushes = &index.bodies[push.body].pushes;
    // Other attempts may name another queue.
    if pushes.iter().any(|other| index.pushes[other].queue_id != Some(meant)) {
        return None;
    }
    let (other, message) = index.bodies[push.body].stored.iter().find(|(queue, _)| *queue != meant)?;
    let (meant, other) = (index.queue_name(meant), index.queue_name(*other));
    let what = format!("{} was pushed to {meant}, but stored in {other}", brief(push.body));
    Some(index.violation(Promise::DeletesAreFinal, what, [push.at, message.at]))
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::{Event, Pos};
    use uuid::Uuid;

    use crate::check::{
        Promise::DeletesAreFinal,
        testing::{CHANNEL, HistoryBuilder, LABEL, assert_broken, assert_kept},
    };

    const OTHER: Uuid = Uuid::from_u128(0xc2);

    /// A queue with a message was deleted, and a new queue with its label has a message.
    fn replaced() -> HistoryBuilder {
        let mut run = HistoryBuilder::new();
        run.push("a").delete().create(2).channel(OTHER, "", 0).push("b");
        run
    }

    #[test]
    fn streams_of_the_new_queue_are_accepted() {
        assert_kept(replaced().stream_of(1, OTHER, None).see(1, [1]).finish());
    }

    #[test]
    fn a_queue_is_deleted_without_a_request() {
        let mut run = HistoryBuilder::new();
        run.record("database", Event::QueueTombstoned { queue_id: 1 });
        run.log().deleted = true;
        run.channels.clear();
        assert!(
            assert_broken(run.finish(), DeletesAreFinal).ends_with("was deleted, although no client had requested it")
        );
    }

    #[test]
    fn a_delete_with_an_unknown_outcome_may_take_effect() {
        let mut run = HistoryBuilder::new();
        let op = run.next_op();
        run.record("operator", Event::QueueDeleting { op, label: "ORDERS".into() });
        run.record("operator", Event::AdminFailed { op, code: "OUTCOME_UNKNOWN".into(), unknown: true });
        assert_kept(run.clone().push("a").finish());
        run.record("database", Event::QueueTombstoned { queue_id: 1 });
        run.log().deleted = true;
        run.channels.clear();
        assert_kept(run.finish());
    }

    #[test]
    fn a_delete_is_acknowledged_but_not_done() {
        let mut run = HistoryBuilder::new();
        let (op, label) = (run.next_op(), LABEL.to_owned());
        run.record("operator", Event::QueueDeleting { op, label: label.clone() });
        run.record("operator", Event::QueueDeleted { op, label });
        assert_broken(&run, DeletesAreFinal);
    }

    #[test]
    fn a_deleted_queue_is_used_again() {
        let mut run = HistoryBuilder::new();
        run.push("a").delete();
        let mut stored = run.clone();
        let push = stored.send("b");
        assert!(
            assert_broken(stored.store("b").ack(push), DeletesAreFinal).ends_with("was stored, after it was deleted")
        );
        assert_broken(run.clone().take_over(2), DeletesAreFinal);
        run.log().deleted = false;
        assert_broken(run.finish(), DeletesAreFinal);
    }

    #[test]
    fn the_id_of_a_deleted_queue_is_used_again() {
        let mut run = HistoryBuilder::new();
        run.delete();
        let (op, label) = (run.next_op(), LABEL.to_owned());
        run.record("operator", Event::QueueCreating { op, label: label.clone() });
        run.record("operator", Event::QueueCreated { op, label, queue_id: 1 });
        assert_broken(&run, DeletesAreFinal);

        let mut run = HistoryBuilder::new();
        run.record("database", Event::QueueAdded { queue_id: 1, label: "other".into() });
        assert_broken(&run, DeletesAreFinal);
    }

    #[test]
    fn an_answer_overtakes_a_delete() {
        let mut run = HistoryBuilder::new();
        let (op, other, label) = (run.next_op(), run.next_op(), LABEL.to_owned());
        run.record("operator", Event::QueueCreating { op, label: label.clone() });
        run.record("operator", Event::QueueDeleting { op: other, label: label.clone() });
        run.record("database", Event::QueueTombstoned { queue_id: 1 });
        run.record("operator", Event::QueueCreated { op, label: label.clone(), queue_id: 1 });
        run.record("operator", Event::QueueDeleted { op: other, label });
        assert_kept(&run);
    }

    #[test]
    fn a_position_in_the_old_queue_is_served_the_new_queue() {
        let after = Some(Pos { queue_id: 1, epoch: 1, offset: 0 });
        assert_broken(&replaced().stream_of(1, OTHER, after).clone(), DeletesAreFinal);

        let mut run = replaced();
        let (stream, observer, broker) = (1, "o1".to_owned(), "broker-1".to_owned());
        let refused = Event::StreamOpened { stream, observer, channel: OTHER, after, broker, position: None };
        run.record("consumer-1", refused);
        assert_kept(run.end(1, "QUEUE_REPLACED").finish());

        let mut run = replaced();
        let (consumer, application) = ("b1".to_owned(), "billing".to_owned());
        run.record("consumer-2", Event::ConsumerStarted { consumer, application, channel: OTHER, resumed: after });
        assert_kept(run.clone().stop("b1", Some("QUEUE_REPLACED")).finish());
        assert_broken(run.deliver("b1", [1]), DeletesAreFinal);
    }

    #[test]
    fn the_old_channel_receives_messages_of_the_new_queue() {
        assert_broken(replaced().stream_of(1, CHANNEL, None).see(1, [1]), DeletesAreFinal);
    }

    #[test]
    fn a_stream_of_a_deleted_channel_stays_open() {
        let mut run = HistoryBuilder::new();
        run.push("a").stream(1).see(1, [1]).delete();
        assert_kept(run.clone().wait(3_000).end(1, "QUEUE_REPLACED"));
        assert_broken(run.wait(6_000).end(1, "QUEUE_REPLACED"), DeletesAreFinal);
    }

    #[test]
    fn a_push_to_the_old_queue_is_stored_in_the_new_queue() {
        let mut run = HistoryBuilder::new();
        run.delete().create(2);
        let sent = Event::PushSent {
            push: 9,
            label: LABEL.into(),
            topic: String::new(),
            body: "a".into(),
            producer: Some("p1".into()),
            sequence: 1,
            ttl_millis: None,
            queue_id: Some(1),
            tries_millis: None,
            expected: None,
        };
        run.record("producer-1", sent);
        assert_kept(run.clone().fail(9, "QUEUE_REPLACED", false).finish());
        run.store("a");
        let id = Some(run.log().all[&1].id);
        run.record(
            "producer-1",
            Event::PushAcked { push: 9, queue_id: Some(2), id, offset: Some(1), duplicate: false },
        );
        assert_broken(run.finish(), DeletesAreFinal);
    }
}
