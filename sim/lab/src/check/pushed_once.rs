//! Promise 4: a retry is stored once.

use std::collections::BTreeMap;

use super::{
    Promise, Violation,
    index::{At, Body, Index, Message, Outcome, Push, Queue, brief},
};

/// No queue has two messages of one producer with one sequence, no two messages have the same id, and no message is stored
/// more often than it was pushed as a new one: retries under the same sequence count once, pushes without a producer count
/// each time. An acknowledgement says whether it is a duplicate.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (&id, queue) in &index.queues {
        violations.extend(stamps(index, id, queue));
    }
    violations.extend(ids(index));
    for (text, body) in &index.bodies {
        violations.extend(copies(index, text, body));
    }
    violations.extend(index.pushes.iter().filter_map(|(&number, push)| told_apart(index, number, push)));
    violations
}

/// An acknowledgement says whether an earlier attempt had stored the message. Our library retries by itself, and the history
/// does not record how often.
fn told_apart(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let Some((at, Outcome::Acked { duplicate, .. })) = push.outcome else { return None };
    let body = &index.bodies[push.body];
    if push.tries_millis.is_some() || !index.rolled_back.is_empty() {
        return None;
    }
    let stored_before = body.stored.first().is_some_and(|(_, message)| message.at < push.at);
    let tried_before = body.pushes.first().is_some_and(|first| *first < number);
    let why = match duplicate {
        false if stored_before && push.producer.is_some() && body.stored.len() == 1 => {
            "new, although it was stored before"
        }
        true if !tried_before || push.producer.is_none() => "a duplicate, although it was the first",
        _ => return None,
    };
    let what = format!("push {number} of {} was acknowledged as {why}", brief(push.body));
    Some(index.violation(Promise::PushedOnce, what, [push.at, at]))
}

fn stamps(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut known: BTreeMap<_, &Message<'_>> = BTreeMap::new();
    for message in &queue.messages {
        let stored = message.stored;
        let Some(first) = known.insert((stored.producer, stored.sequence), message) else { continue };
        if index.lost_between(first.at, message.at) {
            continue;
        }
        let what = format!(
            "in {}, sequence {} of producer {} ({}) is stored at offset {} and again at {}",
            index.queue_name(id),
            stored.sequence,
            stored.producer,
            brief(&stored.body),
            first.stored.offset,
            stored.offset,
        );
        violations.push(index.violation(Promise::PushedOnce, what, [first.at, message.at]));
    }
    violations
}

/// Two pushes never have the same id, in whichever queues they are.
fn ids(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut known = BTreeMap::new();
    for (&queue, message) in index.queues.iter().flat_map(|(id, queue)| queue.messages.iter().map(move |m| (id, m))) {
        let stored = message.stored;
        let Some((of, first)) = known.insert(stored.id, (queue, message)) else { continue };
        let same_push =
            of == queue && (first.stored.producer, first.stored.sequence) == (stored.producer, stored.sequence);
        if same_push || index.lost_between(first.at, message.at) {
            continue;
        }
        let what = format!(
            "message id {} belongs to offset {} of {} and to offset {} of {}",
            stored.id,
            first.stored.offset,
            index.queue_name(of),
            stored.offset,
            index.queue_name(queue),
        );
        violations.push(index.violation(Promise::PushedOnce, what, [first.at, message.at]));
    }
    violations
}

/// How often one body is stored in one queue under different sequences.
fn copies(index: &Index<'_>, text: &str, body: &Body<'_>) -> Vec<Violation> {
    let mut by_queue: BTreeMap<u64, BTreeMap<_, &Message<'_>>> = BTreeMap::new();
    for (queue, message) in &body.stored {
        let stamp = (message.stored.producer, message.stored.sequence);
        by_queue.entry(*queue).or_default().entry(stamp).or_insert(message);
    }
    by_queue.retain(|_, stored| stored.len() > 1);
    if by_queue.is_empty() || body.pushes.is_empty() {
        return Vec::new();
    }
    let attempts = || body.pushes.iter().map(|push| &index.pushes[push]);
    let mut stamped: Vec<_> = attempts().filter_map(|push| Some((push.producer?, push.sequence))).collect();
    stamped.sort_unstable();
    stamped.dedup();
    let may_be_stored =
        |outcome: Option<(At, Outcome<'_>)>| !matches!(outcome, Some((_, Outcome::Failed { unknown: false, .. })));
    let unstamped = attempts().filter(|push| push.producer.is_none() && may_be_stored(push.outcome)).count();
    let allowed = (stamped.len() + unstamped).max(1);
    let too_many = |(queue, stored): (u64, BTreeMap<_, &Message<'_>>)| {
        let mut copies: Vec<_> = stored.into_values().collect();
        copies.sort_by_key(|message| message.at);
        let (first, last) = (copies.first()?, copies.last()?);
        if copies.len() <= allowed || index.lost_between(first.at, last.at) {
            return None;
        }
        let offsets: Vec<_> = copies.iter().map(|message| message.stored.offset).collect();
        let queue = index.queue_name(queue);
        let what = format!("{} is stored {} times in {queue}, at offsets {offsets:?}", brief(text), copies.len());
        let records: Vec<_> = attempts().map(|push| push.at).chain(copies.iter().map(|message| message.at)).collect();
        Some(index.violation(Promise::PushedOnce, what, records))
    };
    by_queue.into_iter().filter_map(too_many).collect()
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;
    use uuid::Uuid;

    use crate::check::{
        Promise::PushedOnce,
        testing::{HistoryBuilder, assert_broken, assert_kept},
    };

    #[test]
    fn a_retry_is_stored_once() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a").fail(push, "OUTCOME_UNKNOWN", true);
        let again = run.retry(push);
        assert_kept(run.ack(again).finish());
    }

    #[test]
    fn a_retry_is_stored_again() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a").fail(push, "OUTCOME_UNKNOWN", true);
        let again = run.retry(push);
        run.take_over(2).store("a").ack(again);
        assert!(assert_broken(run.finish(), PushedOnce).contains("is stored at offset 1 and again at 2"));
    }

    #[test]
    fn a_retry_is_given_another_sequence() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a").fail(push, "OUTCOME_UNKNOWN", true);
        let again = run.retry(push);
        run.store_with("a", |message| {
            message.sequence += 1;
            message.id = Uuid::from_u128(9);
        });
        run.ack(again);
        assert!(assert_broken(run.finish(), PushedOnce).contains("is stored 2 times"));
    }

    #[test]
    fn two_messages_have_one_id() {
        let mut run = HistoryBuilder::new();
        run.push("a");
        let push = run.send("b");
        let id = run.log().all[&1].id;
        run.store_with("b", |message| message.id = id).ack(push);
        assert_broken(run.finish(), PushedOnce);
    }

    #[test]
    fn repeated_pushes_without_a_producer_may_be_stored_twice() {
        let mut run = HistoryBuilder::new();
        let push = run.send_plain("a");
        run.store("a").fail(push, "OUTCOME_UNKNOWN", true);
        let again = run.retry(push);
        assert_kept(run.clone().store("a").ack(again).finish());
        assert_broken(run.store("a").store("a").ack(again).finish(), PushedOnce);
    }

    #[test]
    fn one_push_without_a_producer_is_stored_once() {
        let mut run = HistoryBuilder::new();
        let push = run.send_plain("a");
        assert_broken(run.store("a").take_over(2).store("a").ack(push).finish(), PushedOnce);
    }

    #[test]
    fn a_new_queue_knows_nothing_of_the_old() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a").fail(push, "OUTCOME_UNKNOWN", true).delete().create(2);
        let again = run.retry(push);
        assert_kept(run.store("a").ack(again).finish());
    }

    #[test]
    fn a_retry_is_stored_again_after_a_rollback() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a").fail(push, "OUTCOME_UNKNOWN", true);
        run.record("database", Event::StoreRolledBack);
        run.log().end = 0;
        let again = run.retry(push);
        assert_kept(run.take_over(2).store("a").ack(again));
    }
}
