//! The service that a queue owes its clients while no fault affects it: pushes are answered in time, and messages arrive
//! before they expire.
//!
//! A queue owes nothing in a history that sets no bound for answers.
//!
//! While a producer of our library waits for an answer, the messages passed to it wait as well, so each of its pushes is
//! owed its answer only in turn.
//!
//! A queue is well while one broker owns it and no fault affects that broker, the database or the client in question.

use std::collections::BTreeMap;

use rmom_core::model::Code;
use rmom_sim::DATABASE_HOST;

use super::{
    Promise, Violation,
    index::{Claim, Index, Message, Outcome, Push, Queue, Reader, accepts, brief, folded},
};
use crate::scenario::runs_on;

/// How long everything must have been well before a queue owes anything: by then clients have noticed broken connections.
const SETTLED_MICROS: u64 = 5_000_000;
/// The time within which a message reaches a subscriber that has received all earlier ones.
const DELIVERY_MICROS: u64 = 700_000;

/// The owner of a queue at `to`, if the queue and `host` were well from `from` to `to`.
fn well<'a>(index: &Index<'a>, queue: &Queue<'a>, host: &str, from: u64, to: u64) -> Option<Claim<'a>> {
    let last = queue.claims.partition_point(|claim| index.micros(claim.at) <= from).checked_sub(1)?;
    let claim = queue.claims[last];
    let by = |at: Option<usize>| at.is_some_and(|at| index.micros(at) <= to);
    let moved = queue.assignments.iter().any(|&(at, to)| at > claim.at && to != claim.broker_id && by(Some(at)));
    if by(queue.claims.get(last + 1).map(|next| next.at)) || moved || by(queue.tombstoned) {
        return None;
    }
    let broker = *index.brokers.get(&claim.broker_id)?;
    (!index.faults.began(&[broker, DATABASE_HOST, runs_on(host)], from, to)).then_some(claim)
}

/// A push that was not acknowledged in time, although the push before it was and the queue had been well since long before.
pub(super) fn unanswered(index: &Index<'_>) -> Vec<Violation> {
    // The last acknowledged push of each host and label.
    let mut acked: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut acknowledgements: Vec<(usize, &str, &str)> = Vec::new();
    for push in index.pushes.values() {
        if let Some((at, Outcome::Acked { .. })) = push.outcome {
            acknowledgements.push((at, index.history[push.at].host.as_str(), push.label));
        }
    }
    acknowledgements.sort_unstable();
    let answers = Answers::new(index);
    let mut acknowledgements = acknowledgements.into_iter().peekable();
    let mut violations = Vec::new();
    for (&number, push) in &index.pushes {
        while let Some((at, host, label)) = acknowledgements.next_if(|(at, ..)| *at < push.at) {
            acked.insert((host, label), index.micros(at));
        }
        let host = index.history[push.at].host.as_str();
        let Some(&since) = acked.get(&(host, push.label)) else { continue };
        violations.extend(late(index, &answers, number, push, host, since));
    }
    violations
}

/// When pushes were answered, by host, label and producer.
struct Answers<'a>(BTreeMap<(&'a str, &'a str, Option<&'a str>), Vec<usize>>);

impl<'a> Answers<'a> {
    fn new(index: &Index<'a>) -> Self {
        let mut answers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for push in index.pushes.values() {
            let host = index.history[push.at].host.as_str();
            answers.entry((host, push.label, push.producer)).or_default().extend(push.outcome.map(|(at, _)| at));
        }
        answers.values_mut().for_each(|answers| answers.sort_unstable());
        Self(answers)
    }

    /// The time from which a push waits for its own answer only. Our library keeps the order: after a refusal it pushes the
    /// messages one by one, and each waits for the answer to the one before.
    fn waits_since(&self, index: &Index<'_>, push: &Push<'_>, host: &str) -> u64 {
        let sent = index.micros(push.at);
        let answers = self.0.get(&(host, push.label, push.producer)).filter(|_| push.tries_millis.is_some());
        let until = push.outcome.map_or(usize::MAX, |(at, _)| at);
        let before = answers.and_then(|answers| answers[..answers.partition_point(|&at| at < until)].last());
        before.map_or(sent, |&at| index.micros(at).max(sent))
    }
}

fn late(
    index: &Index<'_>,
    answers: &Answers<'_>,
    number: u64,
    push: &Push<'_>,
    host: &str,
    since: u64,
) -> Option<Violation> {
    let sent = answers.waits_since(index, push, host);
    let due = sent.saturating_add(index.bounds.answer.saturating_mul(1_000));
    if due > index.end_micros() || push.expected.is_some() {
        return None;
    }
    let (at, why) = match push.outcome {
        Some((at, Outcome::Acked { .. })) if index.micros(at) <= due => return None,
        Some((at, Outcome::Failed { code, .. })) if index.micros(at) <= due => {
            // A gap is the producer's own fault; permanent failures are for other checkers.
            let passes = Code::from_wire(code).is_some_and(Code::is_retryable) && code != Code::SequenceGap.as_str();
            passes.then(|| (at, format!("was answered {code}")))?
        }
        Some((at, _)) => (at, format!("had no answer for {} ms", (index.micros(at) - sent) / 1_000)),
        None => (index.history.len() - 1, "had no answer".to_owned()),
    };
    let label = folded(push.label);
    let is_meant = |queue: &&Queue<'_>| queue.label.as_deref() == Some(label.as_str());
    let from = since.saturating_sub(SETTLED_MICROS);
    let owner = index.queues.values().filter(is_meant).find_map(|queue| well(index, queue, host, from, due))?;
    let broker = index.brokers.get(&owner.broker_id)?;
    let what = format!(
        "push {number} of {} to {:?} {why}, although no fault affected {broker}, which owned the queue",
        brief(push.body),
        push.label
    );
    Some(index.violation(Promise::Convergence, what, [owner.at, push.at, at]))
}

/// A message that expired before it reached a subscriber that had received all earlier ones, although there was time enough.
pub(super) fn withheld(index: &Index<'_>) -> Vec<Violation> {
    if index.bounds.answer == u64::MAX {
        return Vec::new();
    }
    index.readers.iter().filter_map(|reader| withheld_from(index, reader)).collect()
}

fn withheld_from(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let opened = reader.opened?;
    let (id, channel) = (index.queue_of(reader)?, index.channel(reader.channel)?);
    let queue = index.queues.get(&id)?;
    let host = index.history[reader.began].host.as_str();
    let ended = reader.ended.map_or(index.history.len() - 1, |(at, _)| at);
    let matching = |message: &&Message<'_>| accepts(channel.topic, &message.stored.topic);
    let mut before: Option<&Message<'_>> = None;
    for message in queue.messages.iter().filter(matching) {
        let previous = before.replace(message);
        let Some(expiry) = message.stored.expires_at_millis.filter(|_| message.at > opened && message.at < ended)
        else {
            continue;
        };
        let stored = index.micros(message.at);
        let due = stored + DELIVERY_MICROS;
        let short = expiry.saturating_sub(message.stored_at_millis).saturating_mul(1_000) < 2 * DELIVERY_MICROS;
        let given = |offset: u64| reader.received.iter().any(|received| received.offset == offset);
        let given_before =
            |offset: u64| reader.received.iter().any(|received| received.offset == offset && received.at < message.at);
        if short || due >= index.micros(ended) || given(message.stored.offset) {
            continue;
        }
        // A message may reach a subscriber that is behind too late.
        let has_all = previous.is_none_or(|previous| previous.at < opened || given_before(previous.stored.offset));
        let from = stored.saturating_sub(SETTLED_MICROS);
        if !has_all || index.micros(opened) > from || well(index, queue, host, from, due).is_none() {
            continue;
        }
        let what = format!(
            "{} did not receive offset {} of {} ({}), which lived for {} ms, although no fault affected the delivery",
            reader.name(),
            message.stored.offset,
            index.queue_name(id),
            brief(&message.stored.body),
            expiry.saturating_sub(message.stored_at_millis),
        );
        return Some(index.violation(Promise::NoLoss, what, [opened, message.at, ended]));
    }
    None
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;

    use crate::{
        check::{
            Promise::{Convergence, NoLoss},
            testing::{CHANNEL, HistoryBuilder, assert_broken, assert_kept},
        },
        scenario::WATCH,
    };

    fn begin_fault(run: &mut HistoryBuilder, host: &str) {
        let hosts = vec![host.to_owned()];
        run.record("runner", Event::FaultBegan { step: 0, what: "something".into(), hosts });
    }

    #[test]
    fn a_push_to_a_queue_without_faults_is_answered() {
        let mut run = HistoryBuilder::new();
        run.demand_answers();
        run.wait(6_000).push("a").wait(10);
        let push = run.send("b");
        let late = |run: &mut HistoryBuilder| {
            run.wait(3_000).store("b").ack(push);
            run.clone()
        };
        assert!(assert_broken(&late(&mut run.clone()), Convergence).contains("had no answer for 3"));
        assert!(
            assert_broken(run.clone().fail(push, "LEASE_EXPIRED", false).wait(3_000).push("c"), Convergence)
                .contains("LEASE")
        );
        assert_kept(run.clone().fail(push, "SEQUENCE_GAP", false).wait(3_000).push("c"));
        // Faults of other hosts are no excuse; faults of the owner, the database or the producer are.
        let mut other = run.clone();
        begin_fault(&mut other, "manager-1");
        assert_broken(&late(&mut other), Convergence);
        for host in ["broker-1", "database", "producer-1"] {
            let mut own = run.clone();
            begin_fault(&mut own, host);
            assert_kept(&late(&mut own));
        }
        // Another broker took over.
        let mut moved = run.clone();
        assert_kept(&late(moved.take_over(2)));
    }

    #[test]
    fn a_push_of_our_library_waits_for_those_before_it() {
        let mut run = HistoryBuilder::new();
        run.demand_answers();
        run.wait(6_000).push("a").wait(10);
        let pushes = ["b", "c", "d"].map(|body| (body, run.send_by_library(body, 60_000)));
        let mut stuck = run.clone();
        for (body, push) in pushes {
            run.wait(1_500).store(body).ack(push);
        }
        assert_kept(run.wait(3_000).push("e"));
        let mut among_others = stuck.clone();
        assert!(
            assert_broken(stuck.wait(3_000).store("b").ack(pushes[0].1), Convergence).contains("had no answer for 3")
        );
        // Answers to another producer of the same host do not excuse a wait.
        for body in ["x", "y", "z"] {
            let push = among_others.wait(1_000).send_plain(body);
            among_others.store(body).ack(push);
        }
        let answered = among_others.wait(10).store("b").ack(pushes[0].1);
        assert!(assert_broken(answered, Convergence).contains("had no answer for 3"));
    }

    #[test]
    fn present_subscribers_receive_messages_before_they_expire() {
        let mut run = HistoryBuilder::new();
        run.demand_answers();
        run.stream(1).wait(6_000).push("a").see(1, [1]).wait(10).push_for("b", 3_000);
        let mut missed = run.clone();
        missed.wait(5_000);
        assert!(assert_broken(missed.clone().push("c").see(1, [3]), NoLoss).contains("did not receive offset 2"));
        assert_kept(run.clone().see(1, [2]).wait(5_000).push("c").see(1, [3]));
        // The subscriber was behind, or a fault was in the way.
        let mut behind = HistoryBuilder::new();
        behind.demand_answers();
        behind.stream(1).wait(6_000).push("a").push_for("b", 3_000).wait(5_000).push("c").see(1, [1, 3]);
        assert_kept(&behind);
        for host in ["broker-1", "database", "consumer-1"] {
            let mut own = run.clone();
            begin_fault(&mut own, host);
            assert_kept(own.wait(5_000).push("c").see(1, [3]));
        }
        // The subscriber that watches all queues runs on the operator's host.
        let mut watching = HistoryBuilder::new();
        watching.demand_answers();
        watching.stream_by(WATCH, 7, CHANNEL, None);
        watching.wait(6_000).push("a").see(7, [1]).wait(10).push_for("b", 3_000);
        assert_broken(watching.clone().wait(5_000).push("c").see(7, [3]), NoLoss);
        begin_fault(&mut watching, "operator");
        assert_kept(watching.wait(5_000).push("c").see(7, [3]));
    }
}
