//! Part of promise 11: a call that an operator was told had definitely failed did not take effect.

use rmom_sim::history::Event;

use super::{
    Promise, Violation,
    index::{At, Call, CallKind, Index, folded},
};

/// For each change that the database made for operators, at least one caller was told that it is done or may be done, or has
/// no answer yet.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let done = index.history.iter().enumerate().filter_map(|(at, record)| done(index, at, &record.event));
    done.filter_map(|done| done.denied(index)).collect()
}

/// A change that the database made.
struct Done<'i> {
    at: At,
    what: String,
    /// True for a call that can have caused this change.
    call: Box<dyn Fn(CallKind<'_>) -> bool + 'i>,
    /// True for an answer that reports this change, and not another one of the same name.
    confirms: Box<dyn Fn(&Event) -> bool + 'i>,
}

fn done<'i>(index: &'i Index<'_>, at: At, event: &'i Event) -> Option<Done<'i>> {
    let label = |id: u64| index.queues.get(&id).and_then(|queue| queue.label.clone());
    Some(match event {
        Event::QueueAdded { queue_id, label } => Done {
            at,
            what: format!("{} was created", index.queue_name(*queue_id)),
            call: Box::new(move |call| matches!(call, CallKind::CreateQueue(of) if folded(of) == folded(label))),
            confirms: Box::new(
                move |answer| matches!(answer, Event::QueueCreated { queue_id: id, .. } if id == queue_id),
            ),
        },
        Event::QueueTombstoned { queue_id } => {
            let label = label(*queue_id)?;
            Done {
                at,
                what: format!("{} was deleted", index.queue_name(*queue_id)),
                call: Box::new(move |call| matches!(call, CallKind::DeleteQueue(of) if folded(of) == label)),
                confirms: Box::new(|answer| matches!(answer, Event::QueueDeleted { .. })),
            }
        }
        Event::ChannelAdded { channel, queue_id, topic, .. } => {
            let label = label(*queue_id)?;
            let call = move |call: CallKind<'_>| {
                matches!(call, CallKind::CreateChannel { label: on, topic: of, .. }
                    if folded(on) == label && folded(of) == folded(topic))
            };
            Done {
                at,
                what: format!("channel {channel} of {} was created", index.queue_name(*queue_id)),
                call: Box::new(call),
                confirms: Box::new(
                    move |answer| matches!(answer, Event::ChannelCreated { channel: id, .. } if id == channel),
                ),
            }
        }
        Event::ChannelRemoved { channel } => Done {
            at,
            what: format!("channel {channel} was deleted"),
            call: Box::new(move |call| matches!(call, CallKind::DeleteChannel(id) if id == *channel)),
            confirms: Box::new(|answer| matches!(answer, Event::ChannelDeleted { .. })),
        },
        _ => return None,
    })
}

impl Done<'_> {
    /// Every caller that had asked for the change by then was told that it was not made.
    fn denied(&self, index: &Index<'_>) -> Option<Violation> {
        let mut records = vec![self.at];
        let mut codes = Vec::new();
        for Call { at, outcome, .. } in index.calls.values().filter(|call| call.at < self.at && (self.call)(call.what))
        {
            match outcome.map(|outcome| (outcome, &index.history[outcome].event)) {
                Some((outcome, Event::AdminFailed { code, unknown: false, .. })) => {
                    // This call made the change, or no call did: an earlier call that failed would have to have taken effect
                    // this late.
                    if outcome > self.at {
                        // The change was made, and another caller undid it before the answer; or the queue exists, and no
                        // broker serves it yet.
                        if code.ends_with("NOT_FOUND") || code == "QUEUE_REPLACED" || code == "NOT_HOSTED" {
                            return None;
                        }
                        codes.push(code.as_str());
                        records.extend([*at, outcome]);
                    }
                }
                Some((outcome, Event::AdminFailed { .. })) => {
                    let _ = outcome;
                    return None;
                }
                Some((outcome, answer)) => {
                    if outcome > self.at || (self.confirms)(answer) {
                        return None;
                    }
                }
                None => return None,
            }
        }
        // Changes that no caller had asked for are reported by the checkers of deletes and of channels.
        let code = codes.last()?;
        let what = format!("{}, although the call for it was answered {code}", self.what);
        Some(index.violation(Promise::NothingSilent, what, records))
    }
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;
    use uuid::Uuid;

    use crate::check::{
        Promise::NothingSilent,
        testing::{HistoryBuilder, LABEL, assert_broken, assert_kept},
    };

    fn failed(op: u64, unknown: bool) -> Event {
        Event::AdminFailed { op, code: "STORE_UNAVAILABLE".into(), unknown }
    }

    #[test]
    fn a_queue_is_created_although_the_call_failed() {
        let asked = |run: &mut HistoryBuilder| {
            let op = run.next_op();
            run.record("operator", Event::QueueCreating { op, label: "Bills".into() });
            run.record("database", Event::QueueAdded { queue_id: 7, label: "bills".into() });
            op
        };
        let mut run = HistoryBuilder::new();
        let op = asked(&mut run);
        run.record("operator", failed(op, false));
        assert_eq!(
            assert_broken(&run, NothingSilent),
            r#"queue "bills" (7) was created, although the call for it was answered STORE_UNAVAILABLE"#
        );
        let mut run = HistoryBuilder::new();
        let op = asked(&mut run);
        run.record("operator", failed(op, true));
        assert_kept(&run);
        // Two callers asked for it.
        let mut run = HistoryBuilder::new();
        let first = run.next_op();
        run.record("operator", Event::QueueCreating { op: first, label: "Bills".into() });
        let second = asked(&mut run);
        run.record("operator", failed(second, false));
        run.record("operator", failed(first, true));
        assert_kept(&run);
    }

    #[test]
    fn a_queue_is_deleted_although_the_call_failed() {
        let mut run = HistoryBuilder::new();
        let op = run.next_op();
        run.record("operator", Event::QueueDeleting { op, label: LABEL.into() });
        run.record("database", Event::QueueTombstoned { queue_id: 1 });
        run.log().deleted = true;
        run.channels.clear();
        run.record("operator", failed(op, false));
        assert!(assert_broken(&run, NothingSilent).contains("was deleted, although the call"));
    }

    #[test]
    fn a_channel_is_created_and_deleted_although_the_calls_failed() {
        let (channel, label, topic) = (Uuid::from_u128(9), LABEL.to_owned(), String::new());
        let mut run = HistoryBuilder::new();
        let op = run.next_op();
        run.record("operator", Event::ChannelCreating { op, label, topic: topic.clone(), latest: false });
        run.record("database", Event::ChannelAdded { channel, queue_id: 1, topic, disposable: false });
        let mut unknown = run.clone();
        unknown.record("operator", failed(op, true));
        assert_kept(&unknown);
        run.record("operator", failed(op, false));
        assert!(assert_broken(&run, NothingSilent).contains("was created, although the call"));

        let op = unknown.next_op();
        unknown.record("operator", Event::ChannelDeleting { op, channel });
        unknown.record("database", Event::ChannelRemoved { channel });
        unknown.record("operator", failed(op, false));
        assert!(assert_broken(&unknown, NothingSilent).contains("was deleted, although the call"));
    }
}
