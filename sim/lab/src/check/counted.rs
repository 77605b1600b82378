//! Part of promise 11: stored, delivered, expired, refused and duplicate messages are counted, and the state of a queue that
//! a broker reports is correct.

use std::collections::BTreeMap;

use rmom_sim::history::Event;

use super::{
    Promise, Violation,
    index::{At, Claim, Index, Outcome, Queue, folded},
};

/// Events that are younger than this when a broker is asked need not be counted.
const YOUNG_MICROS: u64 = 2_000_000;
/// Reports about a second process under a broker's address begin like this; its counters are not read.
const TWIN: &str = "another process";

/// A broker's counters of a queue cover at least what other hosts observed since the broker's last claim of the queue, and
/// no more than was ever done.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let is_twin = |event: &Event| matches!(event, Event::FaultBegan { what, .. } if what.starts_with(TWIN));
    if index.history.iter().any(|record| is_twin(&record.event)) {
        return Vec::new();
    }
    let pages = index.history.iter().enumerate().filter_map(|(at, record)| match &record.event {
        Event::Counted { broker, queue, counted } => page(index, at, broker, queue, counted),
        _ => None,
    });
    pages.flatten().collect()
}

/// The first error in the counters of one queue.
fn page(
    index: &Index<'_>,
    at: At,
    broker: &str,
    label: &str,
    counted: &BTreeMap<String, u64>,
) -> Option<Vec<Violation>> {
    let is_meant = |queue: &&Queue<'_>| queue.label.as_deref() == Some(folded(label).as_str());
    let queue = index.queues.values().filter(is_meant).find(|queue| queue.tombstoned.is_none())?;
    let claim = queue.claims.last().filter(|claim| claim.at < at)?;
    if index.brokers.get(&claim.broker_id) != Some(&broker) || !index.rolled_back.is_empty() {
        return None;
    }
    let seen = Seen { index, queue, claim, label, broker, until: index.micros(at).saturating_sub(YOUNG_MICROS) };
    let expected = [
        ("pushed", seen.stored(), Some(queue.messages.iter().filter(|message| message.by == broker).count())),
        ("expired", seen.expired(), Some(queue.messages.len())),
        ("delivered", seen.delivered(), None),
        ("duplicates", seen.duplicates(), None),
        ("refused", seen.refused(), None),
    ];
    let is_old = index.micros(claim.at) <= seen.until;
    let epoch = usize::try_from(claim.epoch).unwrap_or(usize::MAX);
    let now = [
        ("depth_messages", seen.left(), Some(seen.stored_by(at))),
        ("last_offset", seen.end_by(seen.last_before(seen.until)), Some(seen.end_by(at))),
        ("epoch", epoch, Some(epoch)),
    ];
    // The broker knows nothing yet of a queue that it has just claimed.
    let now = is_old.then_some(now).into_iter().flatten();
    let expected = expected.into_iter().chain(now);
    let differing = expected.into_iter().filter_map(|(name, least, most)| {
        let Some(value) = counted.get(name) else {
            let what = format!("{broker} does not report {name} of queue {label:?}");
            return Some(index.violation(Promise::NothingSilent, what, [claim.at, at]));
        };
        let value = usize::try_from(*value).unwrap_or(usize::MAX);
        let why = if value < least {
            format!("at least {least}")
        } else if let Some(most) = most.filter(|most| value > *most) {
            format!("at most {most}")
        } else {
            return None;
        };
        let what = match name {
            "depth_messages" | "last_offset" | "epoch" => {
                format!("{broker} reports {name} {value} of queue {label:?}, but it is {why}")
            }
            _ => format!("{broker} counted {value} messages as {name} in queue {label:?}, but there were {why}"),
        };
        Some(index.violation(Promise::NothingSilent, what, [claim.at, at]))
    });
    Some(differing.collect())
}

/// Observations by other hosts of a broker's work on a queue, from its last claim until shortly before it was asked.
struct Seen<'i, 'a> {
    index: &'i Index<'a>,
    queue: &'i Queue<'a>,
    claim: &'i Claim<'a>,
    label: &'i str,
    broker: &'i str,
    until: u64,
}

impl Seen<'_, '_> {
    fn is_meant(&self, at: At) -> bool {
        at > self.claim.at && self.index.micros(at) <= self.until
    }

    fn stored(&self) -> usize {
        let mine = self.queue.messages.iter().filter(|message| message.epoch == self.claim.epoch);
        mine.filter(|message| self.is_meant(message.at)).count()
    }

    /// The last record of that time.
    fn last_before(&self, micros: u64) -> At {
        self.index.history.partition_point(|record| record.at_micros <= micros)
    }

    /// Messages that were in the store when the broker was asked and shortly before: the audit still finds them.
    fn left(&self) -> usize {
        let left = self.queue.audit.map_or(&[][..], |audit| audit.messages).iter();
        let stored = left.filter_map(|left| self.queue.at_offset(left.offset).last());
        stored.filter(|message| self.index.micros(message.at) <= self.until).count()
    }

    /// Messages that can have been in the store. Those below an offset that was trimmed long before do not count: a broker
    /// that gets no answer to a trim counts anew with its next trim.
    fn stored_by(&self, at: At) -> usize {
        let trimming = self.index.bounds.trim.saturating_mul(1_000);
        let long_before = self.last_before(self.until.saturating_sub(trimming));
        let trimmed = self.queue.trims.iter().filter(|trim| trim.at < long_before).map(|trim| trim.through).max();
        self.queue.between(trimmed.unwrap_or(0), u64::MAX).filter(|message| message.at < at).count()
    }

    /// The offset of the newest message at that time.
    fn end_by(&self, at: At) -> usize {
        let stored = self.queue.messages.iter().filter(|message| message.at < at);
        usize::try_from(stored.map(|message| message.stored.offset).max().unwrap_or(0)).unwrap_or(usize::MAX)
    }

    /// Expired messages are counted only while there was no fault: if a trim's answer is lost, no broker learns how many it
    /// removed.
    fn expired(&self) -> usize {
        let Some(healed) = self.index.milestones.healed else { return 0 };
        let trims = self.queue.trims.iter().filter(|trim| trim.at > healed && self.is_meant(trim.at));
        let mut through = self.queue.trims.iter().filter(|trim| trim.at < healed).map(|trim| trim.through).max();
        let mut expired = 0;
        for trim in trims {
            let trimmed = self.queue.between(through.unwrap_or(0), trim.through.saturating_add(1));
            // No other broker can have trimmed messages that this one stored.
            expired += trimmed.filter(|message| message.epoch == self.claim.epoch && message.at > healed).count();
            through = through.max(Some(trim.through));
        }
        expired
    }

    fn delivered(&self) -> usize {
        let readers = self.index.readers.iter().filter(|reader| {
            reader.broker == Some(self.broker)
                && reader.asked.is_some_and(|asked| asked > self.claim.at)
                && reader.position.is_some_and(|position| position.epoch == self.claim.epoch)
                && self
                    .index
                    .queue_of(reader)
                    .and_then(|id| self.index.queues.get(&id))
                    .is_some_and(|queue| queue.claims.last().map(|claim| claim.at) == Some(self.claim.at))
        });
        readers.flat_map(|reader| &reader.received).filter(|received| self.is_meant(received.at)).count()
    }

    /// Pushes of this queue since the claim whose outcome is certain.
    fn pushes(&self, ended: impl Fn(Outcome<'_>) -> bool) -> usize {
        // Before the run was healed, another broker may have believed that it owned the queue.
        let Some(healed) = self.index.milestones.healed else { return 0 };
        let pushes = self.index.pushes.values().filter(|push| {
            push.tries_millis.is_none()
                && push.at > healed
                && self.is_meant(push.at)
                && folded(push.label) == folded(self.label)
        });
        pushes.filter(|push| push.outcome.is_some_and(|(at, outcome)| self.is_meant(at) && ended(outcome))).count()
    }

    fn duplicates(&self) -> usize {
        self.pushes(|outcome| matches!(outcome, Outcome::Acked { duplicate: true, .. }))
    }

    fn refused(&self) -> usize {
        self.pushes(|outcome| matches!(outcome, Outcome::Failed { code: "SEQUENCE_GAP" | "MESSAGE_TOO_LARGE", .. }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rmom_sim::history::{Event, Phase};

    use crate::check::{
        Promise::NothingSilent,
        testing::{HistoryBuilder, LABEL, assert_broken, assert_kept},
    };

    /// A broker's report of a queue that works well, with three messages stored and delivered.
    const ALL: [(&str, u64); 8] = [
        ("pushed", 3),
        ("expired", 0),
        ("delivered", 3),
        ("duplicates", 0),
        ("refused", 0),
        ("depth_messages", 3),
        ("last_offset", 3),
        ("epoch", 1),
    ];

    fn says(run: &mut HistoryBuilder, all: &[(&str, u64)]) -> HistoryBuilder {
        let counted: BTreeMap<_, _> = all.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        run.record("operator", Event::Counted { broker: "broker-1".into(), queue: LABEL.into(), counted });
        run.clone()
    }

    /// All of them, with one value replaced.
    fn but(all: &[(&'static str, u64)], name: &str, value: u64) -> Vec<(&'static str, u64)> {
        assert!(all.iter().any(|(known, _)| *known == name));
        all.iter().map(|&(known, right)| (known, if known == name { value } else { right })).collect()
    }

    #[test]
    fn stored_and_delivered_messages_are_counted() {
        let mut run = HistoryBuilder::new();
        run.push("a").push("b").stream(1).see(1, [1, 2]).wait(3_000).push("c").see(1, [3]);
        for (name, right) in [("pushed", 2..=3), ("delivered", 2..=9)] {
            for value in right.clone() {
                assert_kept(&says(&mut run.clone(), &but(&ALL, name, value)));
            }
            assert_broken(&says(&mut run.clone(), &but(&ALL, name, right.start() - 1)), NothingSilent);
        }
        assert_eq!(
            assert_broken(&says(&mut run.clone(), &but(&ALL, "pushed", 4)), NothingSilent),
            r#"broker-1 counted 4 messages as pushed in queue "orders", but there were at most 3"#
        );
        // The broker has started anew, or another one owns the queue.
        assert_kept(&says(run.clone().take_over(1), &but(&ALL, "pushed", 0)));
        assert_kept(&says(run.take_over(2), &but(&ALL, "pushed", 0)));
    }

    #[test]
    fn a_broker_reports_every_counter_of_a_queue() {
        let mut run = HistoryBuilder::new();
        run.take_over(1).push("a").push("b").push("c").wait(5_000);
        let all = [("epoch", 2), ("delivered", 0)];
        let all = all.into_iter().fold(ALL.to_vec(), |all, (name, value)| but(&all, name, value));
        assert_kept(&says(&mut run.clone(), &all));
        for (name, _) in ALL {
            let some: Vec<_> = all.iter().copied().filter(|(known, _)| *known != name).collect();
            assert_eq!(
                assert_broken(&says(&mut run.clone(), &some), NothingSilent),
                format!(r#"broker-1 does not report {name} of queue "orders""#)
            );
        }
    }

    #[test]
    fn the_reported_state_of_a_queue_is_correct() {
        let mut run = HistoryBuilder::new();
        run.take_over(1).push_for("a", 100).push_for("b", 100).push("c").wait(200).trim(2).wait(5_000).push("d");
        let all = [("pushed", 4), ("epoch", 2), ("depth_messages", 2), ("delivered", 0), ("expired", 2)];
        let all = all.into_iter().fold(ALL.to_vec(), |all, (name, value)| but(&all, name, value));
        let says_but = |name: &str, value| {
            let mut run = run.clone();
            says(&mut run, &but(&all, name, value)).finish().clone()
        };
        for (name, right) in [("depth_messages", 1..=2), ("last_offset", 3..=4), ("epoch", 2..=2)] {
            for value in right.clone() {
                assert_kept(&says_but(name, value));
            }
            for value in [right.start() - 1, right.end() + 1] {
                assert_broken(&says_but(name, value), NothingSilent);
            }
        }
        assert_eq!(
            assert_broken(&says_but("depth_messages", 3), NothingSilent),
            r#"broker-1 reports depth_messages 3 of queue "orders", but it is at most 2"#
        );
        // The broker does not know yet of a claim that was made just now.
        assert_kept(&says(run.clone().take_over(1), &all));
    }

    #[test]
    fn expired_and_refused_messages_are_counted() {
        let mut run = HistoryBuilder::new();
        run.phase(Phase::Healed);
        run.record("runner", Event::Converged);
        run.push_for("a", 100).push("b").wait(200).trim(1);
        let (again, gap) = (run.send("c"), run.send("e"));
        run.store("c").ack(again).fail(gap, "SEQUENCE_GAP", false).wait(3_000);
        let all = [("expired", 1), ("refused", 1), ("depth_messages", 2), ("delivered", 0)];
        let all = all.into_iter().fold(ALL.to_vec(), |all, (name, value)| but(&all, name, value));
        assert_kept(&says(&mut run.clone(), &all));
        for name in ["expired", "refused"] {
            assert_broken(&says(&mut run.clone(), &but(&all, name, 0)), NothingSilent);
        }
    }
}
