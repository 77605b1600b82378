//! Promise 1: acknowledged messages were stored before the acknowledgement, and are still stored at the end.

use std::collections::BTreeMap;

use rmom_sim::history::StoredMessage;

use super::{
    Promise, Violation,
    index::{At, Audit, Index, Outcome, Push, Queue, brief, folded},
};

/// Every acknowledgement comes after the commit of its message, and committed messages are in the audit unless they expired
/// or their queue was deleted. [`time_to_live`](super::time_to_live) judges trims, and [`order`](super::order) judges which
/// offset was acknowledged.
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

/// The messages that a queue has lost.
fn kept(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Vec<Violation> {
    let Some(done) = index.milestones.audit_done else { return Vec::new() };
    // A queue without a claim may exist by name only.
    if queue.tombstoned.is_some() || queue.claims.is_empty() || index.rolled_back_after(queue.born) {
        return Vec::new();
    }
    let name = index.queue_name(id);
    let Some(audit) = &queue.audit else {
        let what = format!("{name} is gone, although no client deleted it");
        return vec![index.violation(Promise::Durable, what, [queue.born, done])];
    };
    let mut violations = Vec::new();
    if let Some((message, others)) = missing(index, queue, audit) {
        let StoredMessage { offset, body, .. } = message.stored;
        let what = format!("offset {offset} ({}){} was stored in {name}, but is gone", brief(body), and_others(others));
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

/// The first message that is not in the audit as it was stored, and the number of the others.
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
            // If an offset was used twice, only one of its messages can be there.
            Some(found) => **found != *stored && queue.at_offset(stored.offset).count() == 1,
            None => queue.trimmed_by(stored.offset).is_none() && !index.may_be_expired(message, now),
        }
    });
    let first = gone.next()?;
    Some((first, gone.count()))
}

/// The record that acknowledges a message.
fn acknowledgement(index: &Index<'_>, body: &str) -> Option<At> {
    let mut pushes = index.bodies.get(body)?.pushes.iter().map(|push| &index.pushes[push]);
    pushes
        .find_map(|push| push.outcome.filter(|(_, outcome)| matches!(outcome, Outcome::Acked { .. })).map(|(at, _)| at))
}

/// A suffix for sentences that name only the first of several.
pub(super) fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " and another message".to_owned(),
        others => format!(" and {others} other messages"),
    }
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::{Event, Phase};

    use crate::check::{
        Promise::Durable,
        testing::{HistoryBuilder, assert_broken, assert_kept},
    };

    #[test]
    fn acknowledged_and_kept() {
        assert_kept(HistoryBuilder::new().push("a").push("b").finish());
    }

    #[test]
    fn acknowledged_and_never_stored() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.record("producer-1", Event::PushAcked { push, queue_id: None, id: None, offset: None, duplicate: false });
        assert_eq!(
            assert_broken(run.finish(), Durable),
            r#"push 1 of "a" to "orders" was acknowledged, but never stored"#
        );
    }

    #[test]
    fn acknowledged_as_a_duplicate_of_nothing() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.fail(push, "OUTCOME_UNKNOWN", true);
        let push = run.retry(push);
        run.record("producer-1", Event::PushAcked { push, queue_id: None, id: None, offset: None, duplicate: true });
        assert_broken(run.finish(), Durable);
    }

    #[test]
    fn acknowledged_before_it_was_stored() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.record("producer-1", Event::PushAcked { push, queue_id: None, id: None, offset: None, duplicate: false });
        run.store("a");
        assert!(assert_broken(run.finish(), Durable).ends_with("was acknowledged before it was stored"));
    }

    #[test]
    fn acknowledged_under_another_id() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a");
        let id = Some(uuid::Uuid::nil());
        run.record("producer-1", Event::PushAcked { push, queue_id: Some(1), id, offset: Some(1), duplicate: false });
        assert_broken(run.finish(), Durable);
    }

    #[test]
    fn unknown_outcomes_go_either_way() {
        let mut run = HistoryBuilder::new();
        let (stored, lost) = (run.send("stored"), run.send("lost"));
        run.store("stored").fail(stored, "OUTCOME_UNKNOWN", true).fail(lost, "OUTCOME_UNKNOWN", true);
        assert_kept(run.finish());
    }

    #[test]
    fn a_stored_message_is_missing_in_the_audit() {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b").push("c");
        run.log().left.remove(&2);
        assert_eq!(
            assert_broken(run.finish(), Durable),
            r#"offset 2 ("b") was stored in queue "orders" (1), but is gone"#
        );
    }

    #[test]
    fn another_message_is_in_its_place_in_the_audit() {
        let mut run = HistoryBuilder::new();
        run.push("a");
        run.log().left.get_mut(&1).expect("it is there").body = "b".into();
        assert_broken(run.finish(), Durable);
    }

    #[test]
    fn the_end_went_back() {
        let mut run = HistoryBuilder::new();
        run.push("a").push_for("b", 50).wait(100);
        run.log().left.remove(&2);
        run.log().end = 1;
        assert!(assert_broken(run.finish(), Durable).contains("ends at offset 1"));
    }

    #[test]
    fn a_queue_that_is_gone() {
        let mut run = HistoryBuilder::new();
        run.push("a");
        run.log().deleted = true;
        run.channels.clear();
        let mut broken = crate::check::testing::broken(&run.finish().history);
        // Its channel was deleted with it.
        broken.retain(|&promise| promise != crate::check::Promise::ChannelsSurvive);
        assert_eq!(broken, [Durable]);
    }

    #[test]
    fn messages_may_be_trimmed_deleted_or_lost_with_the_database() {
        // Trimmed; removed from behind a live message; removed while the clock was ahead; deleted; lost with the database.
        assert_kept(HistoryBuilder::new().push_for("a", 50).push("b").wait(100).trim(1).finish());

        let mut run = HistoryBuilder::new();
        run.push("a").push_for("b", 50).push("c").wait(100);
        run.log().left.remove(&2);
        assert_kept(run.finish());

        let mut run = HistoryBuilder::new();
        run.push_for("a", 5_000).push("b").set_clock(6_000).trim(1).set_clock(-6_000);
        assert_kept(run.finish());

        assert_kept(HistoryBuilder::new().push("a").delete().finish());

        let mut run = HistoryBuilder::new();
        run.push("a").push("b");
        run.record("database", Event::StoreRolledBack);
        run.log().left.remove(&2);
        run.log().end = 1;
        assert_kept(run.finish());
    }

    #[test]
    fn a_history_without_an_audit_misses_no_message() {
        assert_kept(HistoryBuilder::new().push("a").phase(Phase::Healed));
    }
}
