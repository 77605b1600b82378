//! Promise 11: every failure is reported, and reported truthfully.

use rmom_sim::history::{Event, Record};

use super::{
    Promise, Violation, certain, counted, giving_up,
    index::{At, Body, Call, CallKind, Index, Outcome, Push, Queue, Reader, brief, folded},
};

/// Every push and every call has an outcome at the end, and every failure has a code. Definite failures left nothing stored.
/// No client is told of a loss or a delete that did not happen, or that a queue exists or is served when it does not or is
/// not. Health reports the actual state.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if index.finished() {
        violations.extend(index.pushes.iter().filter_map(|(&number, push)| unanswered(index, number, push)));
        violations.extend(index.calls.values().filter_map(|call| unanswered_call(index, call)));
    }
    violations.extend(index.calls.values().filter_map(|call| wrongly_created(index, call)));
    violations.extend(certain::check(index));
    violations.extend(counted::check(index));
    violations.extend(index.pushes.iter().filter_map(|(&number, push)| giving_up::untrue(index, number, push)));
    violations.extend(index.bodies.iter().filter_map(|(text, body)| stored_all_the_same(index, text, body)));
    violations.extend(index.pushes.iter().filter_map(|(&number, push)| misinformed(index, number, push)));
    violations.extend(index.readers.iter().filter_map(|reader| without_reason(index, reader)));
    violations.extend(index.readers.iter().filter_map(|reader| wrong_reason(index, reader)));
    violations.extend(index.history.iter().enumerate().filter_map(|(at, record)| {
        let what = untrue(record)?;
        Some(index.violation(Promise::NothingSilent, what, [at]))
    }));
    violations
}

fn unanswered(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let done = index.milestones.audit_done.filter(|_| push.outcome.is_none())?;
    let what = format!("push {number} of {} to {:?} was never answered", brief(push.body), push.label);
    Some(index.violation(Promise::NothingSilent, what, [push.at, done]))
}

fn unanswered_call(index: &Index<'_>, call: &Call<'_>) -> Option<Violation> {
    let done = index.milestones.audit_done.filter(|_| call.outcome.is_none())?;
    let asked = match call.what {
        CallKind::CreateQueue(label) => format!("to create queue {label:?}"),
        CallKind::DeleteQueue(label) => format!("to delete queue {label:?}"),
        CallKind::CreateChannel { label, .. } => format!("to create a channel on queue {label:?}"),
        CallKind::DeleteChannel(channel) => format!("to delete channel {channel}"),
    };
    Some(index.violation(Promise::NothingSilent, format!("the call {asked} was never answered"), [call.at, done]))
}

/// A create call that was acknowledged before a broker served the queue, or refused because the call itself had succeeded.
fn wrongly_created(index: &Index<'_>, call: &Call<'_>) -> Option<Violation> {
    let CallKind::CreateQueue(label) = call.what else { return None };
    let answered = call.outcome?;
    let what = match &index.history[answered].event {
        Event::QueueCreated { queue_id, .. } => {
            let claims = &index.queues.get(queue_id)?.claims;
            let served = claims.first().is_some_and(|claim| claim.at < answered);
            (!served && index.rolled_back.is_empty()).then_some("was acknowledged before any broker had claimed it")?
        }
        Event::AdminFailed { code, .. } if code == "QUEUE_EXISTS" => {
            let is_of_label = |queue: &&Queue<'_>| queue.label.as_deref() == Some(folded(label).as_str());
            // One of the queues that exist now existed before the call, or another caller may have created it.
            let existed =
                index.queues.values().filter(is_of_label).any(|queue| {
                    queue.born < call.at && queue.tombstoned.is_none_or(|tombstoned| tombstoned > call.at)
                });
            let others = index.calls.values().any(|other| {
                let same = matches!(other.what, CallKind::CreateQueue(of) if folded(of) == folded(label));
                let unknown = |at: At| matches!(index.history[at].event, Event::AdminFailed { unknown: true, .. });
                same && other.at != call.at
                    && other.at < answered
                    && other.outcome.is_none_or(|at| at > call.at || unknown(at))
            });
            (!existed && !others).then_some("was refused with QUEUE_EXISTS, although no queue had the label")?
        }
        _ => return None,
    };
    Some(index.violation(
        Promise::NothingSilent,
        format!("the creation of queue {label:?} {what}"),
        [call.at, answered],
    ))
}

/// A stored message whose every attempt until then was reported as not stored.
fn stored_all_the_same(index: &Index<'_>, text: &str, body: &Body<'_>) -> Option<Violation> {
    body.stored.iter().find_map(|(queue, message)| {
        let mut tried =
            body.pushes.iter().map(|push| &index.pushes[push]).filter(|push| push.at < message.at).peekable();
        tried.peek()?;
        let mut records = vec![message.at];
        let mut codes = Vec::new();
        for push in tried {
            let Some((at, Outcome::Failed { code, unknown: false })) = push.outcome else { return None };
            records.extend([push.at, at]);
            codes.push(code);
        }
        let (queue, codes) = (index.queue_name(*queue), codes.join(", "));
        let offset = message.stored.offset;
        let what = format!(
            "{} is stored at offset {offset} of {queue}, although its pushes were answered {codes}",
            brief(text)
        );
        Some(index.violation(Promise::NothingSilent, what, records))
    })
}

/// A push that failed because of a loss or a delete that did not happen.
fn misinformed(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let Some((at, Outcome::Failed { code, .. })) = push.outcome else { return None };
    if !index.rolled_back.is_empty() {
        return None;
    }
    let meant = |id: u64, queue: &Queue<'_>| match push.queue_id {
        Some(meant) => meant == id,
        None => queue.label.as_ref().is_none_or(|label| *label == folded(push.label)),
    };
    let what = match code {
        "STORE_ROLLED_BACK" => "the database lost nothing",
        "QUEUE_REPLACED" => {
            let mut meant = index.queues.iter().filter(|(id, queue)| meant(**id, queue)).peekable();
            meant.peek()?;
            if meant.any(|(_, queue)| queue.tombstoned.is_some_and(|tombstoned| tombstoned < at)) {
                return None;
            }
            "no client had deleted the queue"
        }
        _ => return None,
    };
    let what = format!("push {number} of {} to {:?} was told {code}, although {what}", brief(push.body), push.label);
    Some(index.violation(Promise::NothingSilent, what, [push.at, at]))
}

/// A reader that was dismissed because of a delete that did not happen. For a loss, see [`no_loss`](super::no_loss).
fn wrong_reason(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let (at, code) = reader.ended?;
    code.filter(|code| *code == "QUEUE_REPLACED")?;
    let id = index.queue_of(reader)?;
    let queue = index.queues.get(&id)?;
    let deleted = queue.tombstoned.is_some_and(|tombstoned| tombstoned < at);
    if deleted || reader.after.is_some_and(|after| after.queue_id != id) || !index.rolled_back.is_empty() {
        return None;
    }
    let what = format!("{} was told QUEUE_REPLACED, although no client had deleted the queue", reader.name());
    Some(index.violation(Promise::NothingSilent, what, [reader.began, at]))
}

fn without_reason(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let (at, code) = reader.ended?;
    let what = code.filter(|code| code.is_empty()).map(|_| format!("{} ended without a code", reader.name()))?;
    Some(index.violation(Promise::NothingSilent, what, [reader.began, at]))
}

/// A falsehood that a single record proves.
fn untrue(record: &Record) -> Option<String> {
    match &record.event {
        Event::PushFailed { push, code, .. } if code.is_empty() => Some(format!("push {push} failed without a code")),
        Event::AdminFailed { op, code, .. } if code.is_empty() => Some(format!("call {op} failed without a code")),
        Event::Health { of, healthy, expected: Some(expected) } if healthy != expected => {
            let (says, is) = if *healthy { ("well", "not") } else { ("not well", "well") };
            Some(format!("{of} reports that it is {says}, but is {is}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;

    use crate::check::{
        Promise::NothingSilent,
        testing::{HistoryBuilder, LABEL, assert_broken, assert_kept},
    };

    #[test]
    fn a_push_is_never_answered() {
        let mut run = HistoryBuilder::new();
        run.send("a");
        assert_kept(&run);
        assert_broken(run.finish(), NothingSilent);
    }

    #[test]
    fn a_call_is_never_answered() {
        let mut run = HistoryBuilder::new();
        let op = run.next_op();
        run.record("operator", Event::QueueDeleting { op, label: LABEL.into() });
        assert_eq!(
            assert_broken(run.finish(), NothingSilent),
            r#"the call to delete queue "orders" was never answered"#
        );
    }

    #[test]
    fn a_queue_is_said_to_exist_because_it_was_just_created() {
        let creating = |run: &mut HistoryBuilder| {
            let op = run.next_op();
            run.record("operator", Event::QueueCreating { op, label: "Bills".into() });
            op
        };
        let refused = |op, unknown| Event::AdminFailed { op, code: "QUEUE_EXISTS".into(), unknown };
        let added = || Event::QueueAdded { queue_id: 7, label: "bills".into() };

        let mut run = HistoryBuilder::new();
        let op = creating(&mut run);
        run.record("database", added());
        run.record("operator", refused(op, false));
        assert_eq!(
            assert_broken(&run, NothingSilent),
            r#"the creation of queue "Bills" was refused with QUEUE_EXISTS, although no queue had the label"#
        );
        // The queue existed before.
        let mut run = HistoryBuilder::new();
        run.record("database", added());
        let op = creating(&mut run);
        run.record("operator", refused(op, false));
        assert_kept(&run);
        // An earlier call may have created it late.
        let mut run = HistoryBuilder::new();
        let (first, second) = (creating(&mut run), creating(&mut run));
        run.record("operator", Event::AdminFailed { op: first, code: "OUTCOME_UNKNOWN".into(), unknown: true });
        run.record("database", added());
        run.record("operator", refused(second, false));
        assert_kept(&run);
    }

    #[test]
    fn a_queue_is_said_to_be_served_before_it_is() {
        let mut run = HistoryBuilder::new();
        let op = run.next_op();
        run.record("operator", Event::QueueCreating { op, label: "bills".into() });
        run.record("database", Event::QueueAdded { queue_id: 7, label: "bills".into() });
        run.record("operator", Event::QueueCreated { op, label: "bills".into(), queue_id: 7 });
        assert!(assert_broken(&run, NothingSilent).ends_with("was acknowledged before any broker had claimed it"));
    }

    #[test]
    fn a_push_that_failed_definitely_is_stored() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a");
        assert_kept(run.clone().fail(push, "OUTCOME_UNKNOWN", true).finish());
        assert!(
            assert_broken(run.fail(push, "FENCED", false).finish(), NothingSilent).ends_with("were answered FENCED")
        );
    }

    #[test]
    fn a_push_that_failed_definitely_is_retried() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.fail(push, "FENCED", false);
        assert_kept(run.clone().finish());
        let again = run.retry(push);
        assert_kept(run.clone().store("a").ack(again).finish());
        // One of the two attempts created it.
        let third = run.retry(push);
        assert_kept(run.store("a").fail(again, "OUTCOME_UNKNOWN", true).fail(third, "SEQUENCE_GAP", false).finish());
    }

    #[test]
    fn a_message_was_stored_before_its_retry() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.fail(push, "FENCED", false).store("a");
        let again = run.retry(push);
        assert_broken(run.ack(again).finish(), NothingSilent);
    }

    #[test]
    fn a_failure_has_no_code() {
        assert_broken(HistoryBuilder::new().stream(1).end(1, ""), NothingSilent);
        assert_broken(HistoryBuilder::new().consumer("b1", None).stop("b1", Some("")), NothingSilent);
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        assert_broken(run.fail(push, "", true), NothingSilent);
        assert_kept(HistoryBuilder::new().consumer("b1", None).stop("b1", None));
    }

    #[test]
    fn a_push_fails_for_a_reason_that_did_not_happen() {
        for code in ["STORE_ROLLED_BACK", "QUEUE_REPLACED"] {
            let mut run = HistoryBuilder::new();
            let push = run.send("a");
            assert!(assert_broken(run.fail(push, code, false), NothingSilent).contains(code));
        }
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        assert_kept(run.delete().create(2).fail(push, "QUEUE_REPLACED", false));
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.record("database", Event::StoreRolledBack);
        assert_kept(run.fail(push, "STORE_ROLLED_BACK", false));
    }

    #[test]
    fn a_reader_is_refused_for_a_delete_that_did_not_happen() {
        assert_broken(HistoryBuilder::new().stream(1).end(1, "QUEUE_REPLACED"), NothingSilent);
        assert_broken(HistoryBuilder::new().consumer("b1", None).stop("b1", Some("QUEUE_REPLACED")), NothingSilent);
        assert_kept(HistoryBuilder::new().stream(1).delete().end(1, "QUEUE_REPLACED"));
    }

    #[test]
    fn a_stream_of_a_host_that_crashed_needs_no_reason() {
        assert_kept(HistoryBuilder::new().stream(1).stream(2));
    }

    #[test]
    fn a_health_report_is_false() {
        let health = |healthy, expected| {
            let mut run = HistoryBuilder::new();
            run.record("operator", Event::Health { of: "broker-1".into(), healthy, expected });
            run
        };
        assert_broken(&health(true, Some(false)), NothingSilent);
        assert_broken(&health(false, Some(true)), NothingSilent);
        assert_kept(&health(true, Some(true)));
        assert_kept(&health(false, Some(false)));
        assert_kept(&health(true, None));
    }
}
