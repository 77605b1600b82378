//! Promise 3: a queue has one sequence of offsets, and each producer's messages are stored in its order.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Promise, Violation,
    index::{At, Index, Message, Outcome, Queue, Reader, Received, brief, folded},
};

/// Offsets in the store have no gaps, and none is used twice. Readers see them strictly increasing, each with the message
/// stored there. A message that was sent after the acknowledgement of another comes after it; a producer's messages are
/// stored in the order in which they were sent, despite retries.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, queue) in &index.queues {
        violations.extend(offsets(index, id, queue));
        violations.extend(sequences(index, id, queue));
        violations.extend(acknowledged_first(index, id, queue));
        violations.extend(as_sent(index, id, queue));
    }
    violations.extend(index.pushes.keys().filter_map(|&number| wrong_offset(index, number)));
    for reader in &index.readers {
        violations.extend(increasing(index, reader));
        violations.extend(contents(index, reader));
    }
    violations
}

/// The log of a queue.
fn offsets(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (mut end, mut end_at) = (0, queue.born);
    for message in &queue.messages {
        let offset = message.stored.offset;
        let lost = index.lost_between(end_at, message.at);
        let what = if lost {
            acknowledged_by_itself(index, queue, message).then(|| {
                format!(
                    "{} used offset {offset} again, which it had acknowledged before the database was rolled back",
                    message.by
                )
            })
        } else if offset <= end {
            Some(format!("offset {offset} was used again"))
        } else if offset > end + 1 {
            Some(format!("offset {offset} follows {end}: a gap"))
        } else {
            None
        };
        if let Some(what) = what {
            let what = format!("in {}, {what}", index.queue_name(id));
            violations.push(index.violation(Promise::Order, what, [end_at, message.at]));
        }
        if offset > end || lost {
            (end, end_at) = (offset, message.at);
        }
    }
    violations
}

/// True if the process that stores the message had already let others know of another message at its offset.
fn acknowledged_by_itself(index: &Index<'_>, queue: &Queue<'_>, message: &Message<'_>) -> bool {
    let process = |message: &Message<'_>| queue.claim_before(message.at).map(|claim| claim.incarnation);
    let mut earlier = queue.at_offset(message.stored.offset).filter(|earlier| earlier.at < message.at);
    earlier.any(|earlier| {
        let pushes = index.bodies.get(earlier.stored.body.as_str()).map_or(&[][..], |body| &body.pushes);
        let acked = pushes.iter().any(|push| {
            let outcome = index.pushes[push].outcome;
            outcome.is_some_and(|(at, outcome)| matches!(outcome, Outcome::Acked { .. }) && at < message.at)
        });
        acked && process(earlier).is_some() && process(earlier) == process(message)
    })
}

/// The sequences of each producer, as its messages carry them.
fn sequences(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut last: BTreeMap<_, &Message<'_>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for message in &queue.messages {
        let stored = message.stored;
        // Equal sequences of one producer are for `pushed_once`.
        if !known.insert((stored.producer, stored.sequence)) {
            continue;
        }
        let earlier = last.insert(stored.producer, message);
        let Some(earlier) = earlier.filter(|earlier| earlier.stored.sequence > stored.sequence) else { continue };
        if index.rolled_back_after(earlier.at) {
            continue;
        }
        let what = format!(
            "in {}, sequence {} of producer {} comes at offset {}, after {} at {}",
            index.queue_name(id),
            stored.sequence,
            stored.producer,
            stored.offset,
            earlier.stored.sequence,
            earlier.stored.offset,
        );
        violations.push(index.violation(Promise::Order, what, [earlier.at, message.at]));
    }
    violations
}

/// A message first sent after another was acknowledged has the greater offset.
fn acknowledged_first(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    // The greatest acknowledged offset and when it became known; both grow.
    let mut acknowledged: Vec<(At, u64)> =
        acked(index, queue).map(|(at, message)| (at, message.stored.offset)).collect();
    acknowledged.sort_unstable();
    let mut greatest = 0;
    acknowledged.retain(|&(_, offset)| {
        let grows = offset > greatest;
        greatest = greatest.max(offset);
        grows
    });
    let overtakes = |message: &Message<'_>| {
        let first = index.bodies.get(message.stored.body.as_str())?.pushes.first()?;
        let sent = index.pushes[first].at;
        let (acked, offset) = *acknowledged[..acknowledged.partition_point(|&(at, _)| at < sent)].last()?;
        if offset < message.stored.offset || index.rolled_back_after(queue.born) {
            return None;
        }
        let what = format!(
            "in {}, {} is at offset {}, although {offset} had been acknowledged before it was sent",
            index.queue_name(id),
            brief(&message.stored.body),
            message.stored.offset,
        );
        Some(index.violation(Promise::Order, what, [acked, sent, message.at]))
    };
    queue.messages.iter().filter_map(overtakes).collect()
}

/// The acknowledged messages of a queue, with the record of each acknowledgement.
fn acked<'i, 'a>(index: &'i Index<'a>, queue: &'i Queue<'a>) -> impl Iterator<Item = (At, &'i Message<'a>)> {
    queue.messages.iter().filter_map(|message| {
        let mut pushes = index.bodies.get(message.stored.body.as_str())?.pushes.iter();
        let at = pushes.find_map(|push| match index.pushes[push].outcome? {
            (at, Outcome::Acked { .. }) if at > message.at => Some(at),
            _ => None,
        })?;
        Some((at, message))
    })
}

/// A producer's acknowledged messages are stored in the order in which the application numbered them. Messages that were
/// given up do not count: they may still be stored later. Messages sent through our library are pushed once and count in the
/// order of their pushes: when the application reopens its producer, its numbers start anew behind the stored ones.
fn as_sent(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut by_producer: BTreeMap<&str, BTreeMap<u64, &Message<'_>>> = BTreeMap::new();
    for (_, message) in acked(index, queue) {
        let pushes = &index.bodies[message.stored.body.as_str()].pushes;
        let push = &index.pushes[&pushes[0]];
        // A message that was pushed again under another number has two places.
        let one_number = pushes.iter().all(|again| index.pushes[again].sequence == push.sequence);
        if let Some(producer) = push.producer.filter(|_| one_number) {
            // A message that was stored twice counts at its first place.
            let place = if push.tries_millis.is_some() { pushes[0] } else { push.sequence };
            by_producer.entry(producer).or_default().entry(place).or_insert(message);
        }
    }
    let mut violations = Vec::new();
    for (producer, messages) in by_producer {
        let in_order: Vec<_> = messages.into_iter().collect();
        for pair in in_order.windows(2) {
            let [(first, earlier), (second, later)] = pair else { continue };
            if earlier.stored.offset < later.stored.offset || index.rolled_back_after(queue.born) {
                continue;
            }
            let what = format!(
                "in {}, message {second} of {producer} is at offset {}, before its message {first} at {}",
                index.queue_name(id),
                later.stored.offset,
                earlier.stored.offset,
            );
            violations.push(index.violation(Promise::Order, what, [earlier.at, later.at]));
        }
    }
    violations
}

/// The offset that a producer was told is the one stored.
fn wrong_offset(index: &Index<'_>, number: u64) -> Option<Violation> {
    let push = &index.pushes[&number];
    let Some((at, Outcome::Acked { queue_id, offset: Some(told), .. })) = push.outcome else { return None };
    let is_meant = |queue: &u64| queue_id.is_none_or(|told| told == *queue);
    let stored: Vec<_> = index.bodies[push.body].stored.iter().filter(|(queue, _)| is_meant(queue)).collect();
    let (_, first) = stored.first()?;
    if stored.iter().any(|(_, message)| message.stored.offset == told) {
        return None;
    }
    let body = brief(push.body);
    let is = first.stored.offset;
    let what = format!("push {number} of {body} was acknowledged at offset {told}, but is stored at {is}");
    Some(index.violation(Promise::Order, what, [first.at, push.at, at]))
}

/// Each reader sees offsets increase. Messages that an application receives twice are for `delivered_once`.
fn increasing(index: &Index<'_>, reader: &Reader<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    let mut last: Option<(u64, At)> = None;
    for received in &reader.received {
        let again = !seen.insert(received.offset);
        if let Some((offset, at)) = last
            && received.offset <= offset
            && !(again && reader.is_consumer())
        {
            let what = format!("{} received offset {} after {offset}", reader.name(), received.offset);
            violations.push(index.violation(Promise::Order, what, [at, received.at]));
        }
        if last.is_none_or(|(offset, _)| offset < received.offset) {
            last = Some((received.offset, received.at));
        }
    }
    violations
}

/// The message that a reader receives at an offset is the one stored there. Messages that are stored nowhere are for
/// `no_loss`, those of another queue for `deletes_are_final`, and ids for `delivered_once`.
fn contents(index: &Index<'_>, reader: &Reader<'_>) -> Vec<Violation> {
    let Some((id, queue)) = index.queue_of(reader).and_then(|id| Some((id, index.queues.get(&id)?))) else {
        return Vec::new();
    };
    let differs = |received: &Received<'_>| {
        let same = |message: &Message<'_>| {
            message.stored.body == received.body && folded(&message.stored.topic) == folded(received.topic)
        };
        let first = queue.at_offset(received.offset).next()?;
        if queue.at_offset(received.offset).any(same) || index.is_of_another_queue(received, id) {
            return None;
        }
        let what = format!(
            "{} received {} (topic {:?}) at offset {} of {}, where {} (topic {:?}) is stored",
            reader.name(),
            brief(received.body),
            received.topic,
            received.offset,
            index.queue_name(id),
            brief(&first.stored.body),
            first.stored.topic,
        );
        Some(index.violation(Promise::Order, what, [first.at, received.at]))
    };
    reader.received.iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;

    use crate::check::{
        Promise::Order,
        testing::{HistoryBuilder, assert_broken, assert_kept},
    };

    #[test]
    fn messages_are_stored_in_order() {
        let mut run = HistoryBuilder::new();
        run.push("a").take_over(2).push("b").push("c").stream(1).see(1, [1, 2, 3]);
        assert_kept(run.finish());
    }

    #[test]
    fn an_offset_is_used_again() {
        let mut run = HistoryBuilder::new();
        run.push("a");
        let push = run.send("b");
        run.store_with("b", |message| message.offset = 1).fail(push, "OUTCOME_UNKNOWN", true);
        assert!(assert_broken(&run, Order).ends_with("offset 1 was used again"));
    }

    #[test]
    fn an_offset_is_left_out() {
        let mut run = HistoryBuilder::new();
        run.push("a");
        let push = run.send("b");
        run.store_with("b", |message| message.offset = 3).ack(push);
        assert!(assert_broken(run.finish(), Order).ends_with("offset 3 follows 1: a gap"));
    }

    #[test]
    fn a_broker_without_the_acknowledgement_reuses_offsets_after_a_restore() {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b");
        run.record("database", Event::StoreRolledBack);
        run.log().end = 1;
        run.log().left.remove(&2);
        let push = run.clone().send("c");
        assert_kept(run.clone().take_over(2).store("c").fail(push, "OUTCOME_UNKNOWN", true));
        // The producer was never told that the other one was stored.
        let mut unknown = HistoryBuilder::new();
        let push = unknown.push("a").send("b");
        unknown.store("b").fail(push, "OUTCOME_UNKNOWN", true).record("database", Event::StoreRolledBack);
        unknown.log().end = 1;
        unknown.send("c");
        assert_kept(unknown.store("c"));

        run.send("c");
        assert!(
            assert_broken(run.store("c"), Order)
                .contains("which it had acknowledged before the database was rolled back")
        );
    }

    #[test]
    fn a_stream_goes_back() {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b").push("c");
        assert_broken(run.clone().stream(1).see(1, [1, 2, 3, 2]), Order);
        assert_broken(run.clone().stream(1).see(1, [1, 1, 2]), Order);
        assert_kept(run.stream(1).see(1, [1, 2, 3]).end(1, "UNAVAILABLE").stream(2).see(2, [1]));
    }

    #[test]
    fn a_consumer_goes_back() {
        let mut run = HistoryBuilder::new();
        run.push_for("a", 50).push("b").wait(100);
        assert_broken(run.consumer("b1", None).deliver("b1", [2, 1]), Order);
    }

    #[test]
    fn sequences_go_back() {
        let mut run = HistoryBuilder::new();
        let (a, b) = (run.send("a"), run.send("b"));
        run.store("b").store("a").fail(a, "OUTCOME_UNKNOWN", true).fail(b, "OUTCOME_UNKNOWN", true);
        assert!(assert_broken(run.finish(), Order).contains("sequence 1 of producer"));
    }

    #[test]
    fn acknowledged_messages_are_stored_as_they_were_sent() {
        // The library began a new producer in between, so that the sequences do not show the order.
        let mut run = HistoryBuilder::new();
        let (a, b) = (run.send("a"), run.send("b"));
        run.store("b").store_with("a", |message| {
            (message.producer, message.sequence) = (uuid::Uuid::from_u128(7), 1);
        });
        assert_broken(run.clone().ack(a).ack(b), Order);
        // A message that was given up may be stored later.
        assert_kept(run.fail(a, "DELIVERY_TIMEOUT", true).ack(b).finish());
    }

    #[test]
    fn sequences_restart_after_messages_that_were_not_stored() {
        let mut run = HistoryBuilder::new();
        for body in ["a", "b"] {
            let push = run.send_by_library(body, 2_000);
            run.wait(2_000).fail(push, "DELIVERY_TIMEOUT", false);
        }
        let c = run.send_by_library("c", 2_000);
        run.store_with("c", |message| message.sequence = 1).ack(c).number_on(1);
        let d = run.send_by_library("d", 2_000);
        assert_kept(run.store("d").ack(d).finish());
    }

    #[test]
    fn an_acknowledged_message_precedes_messages_sent_later() {
        let mut run = HistoryBuilder::new();
        let a = run.send_plain("a");
        let b = run.send_plain("b");
        run.store("a").ack(a).store("b").ack(b);
        assert_kept(run.clone().finish());
        // Offset 3 goes to a push that was sent after offset 4 was acknowledged: it was left free on purpose.
        let d = run.send_plain("d");
        run.store_with("d", |message| message.offset = 4).ack(d);
        let c = run.send_plain("c");
        run.store_with("c", |message| message.offset = 3).ack(c);
        let violations = crate::check::check(&run.history);
        assert!(violations.iter().all(|violation| violation.promise == Order), "{violations:#?}");
        assert!(violations.iter().any(|violation| violation.what.contains("had been acknowledged before it was sent")));
    }

    #[test]
    fn another_offset_is_acknowledged() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a");
        let acked = Event::PushAcked { push, queue_id: Some(1), id: None, offset: Some(2), duplicate: false };
        run.record("producer-1", acked);
        assert!(assert_broken(&run, Order).ends_with("was acknowledged at offset 2, but is stored at 1"));
    }

    #[test]
    fn an_answer_without_an_offset_is_accepted() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a");
        let acked = Event::PushAcked { push, queue_id: Some(1), id: None, offset: Some(0), duplicate: false };
        run.record("producer-1", acked);
        assert_kept(&run);
    }

    #[test]
    fn another_message_is_delivered_at_an_offset() {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b");
        let (a, b) = (run.log().all[&1].clone(), run.log().all[&2].clone());
        let mut altered = a.clone();
        altered.topic = "news".into();
        let mut swapped = b;
        swapped.offset = 1;
        assert_broken(run.clone().stream(1).see_message(1, altered), Order);
        assert_broken(run.clone().stream(1).see_message(1, swapped), Order);
        assert_kept(run.stream(1).see_message(1, a));
    }
}
