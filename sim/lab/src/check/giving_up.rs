//! When a producer of our library may give a message up: it waits out transient failures, and a permanent failure must be
//! real.

use std::collections::BTreeMap;

use rmom_core::model::Code;
use rmom_sim::history::Event;

use super::{
    Promise, Violation,
    convergence::LOST,
    index::{At, Index, Outcome, Push, brief, folded},
};

/// The code with which our client gives up a message after its timeout.
const TIMEOUT: &str = "DELIVERY_TIMEOUT";
/// The codes that the run records for pushes whose process it killed or left behind.
const CUT_SHORT: [&str; 3] = ["CRASHED", "RUN_OVER", "ABANDONED"];
/// An application that reopens a named producer marks with this suffix the pushes it makes through the previous producer.
const LATE: &str = "-late";
/// Simulated hosts take turns; see [`clock`](super::clock).
const GRAIN_MICROS: u64 = 50_000;

/// The code with which a producer of our library gave a message up.
fn given_up<'a>(push: &Push<'a>) -> Option<(At, &'a str)> {
    push.tries_millis?;
    match push.outcome? {
        (at, Outcome::Failed { code, .. }) if !CUT_SHORT.contains(&code) => Some((at, code)),
        _ => None,
    }
}

/// The producer of a push, whatever name the push is recorded under.
fn producer<'a>(push: &Push<'a>) -> Option<&'a str> {
    push.producer.map(|name| name.strip_suffix(LATE).unwrap_or(name))
}

/// A message that was given up because of a transient failure, or before its timeout.
pub(super) fn too_early(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let (at, code) = given_up(push)?;
    let passes = LOST.contains(&code) || Code::from_wire(code).is_some_and(Code::is_retryable);
    let why = if passes {
        format!("received up for {code}, which is transient")
    } else if code == TIMEOUT && !was_over(index, push, at) {
        format!("received up with {code} before its timeout")
    } else {
        return None;
    };
    let what = format!("push {number} of {} to {:?} {why}", brief(push.body), push.label);
    Some(index.violation(Promise::Convergence, what, [push.at, at]))
}

/// The timeout had passed for an earlier message of the same producer that was still unsettled: later messages are given up
/// with it.
fn was_over(index: &Index<'_>, push: &Push<'_>, at: At) -> bool {
    let now = index.micros(at);
    let waited = |other: &Push<'_>| {
        let tries = other.tries_millis.unwrap_or(u64::MAX).saturating_mul(1_000);
        let open = other.outcome.is_none_or(|(ended, _)| index.micros(ended).saturating_add(GRAIN_MICROS) >= now);
        open && now.saturating_add(GRAIN_MICROS) >= index.micros(other.at).saturating_add(tries)
    };
    index.pushes.values().any(|other| other.at <= push.at && producer(other) == producer(push) && waited(other))
}

/// A message that was given up for a reason that is false or not sufficient.
pub(super) fn untrue(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let (at, code) = given_up(push)?;
    if code == TIMEOUT || LOST.contains(&code) || Code::from_wire(code).is_some_and(Code::is_retryable) {
        return None;
    }
    let why = match code {
        // See `misinformed`.
        "QUEUE_REPLACED" | "STORE_ROLLED_BACK" => return None,
        "QUEUE_NOT_FOUND" => {
            let is_meant = |label: &Option<String>| label.as_ref().is_none_or(|label| *label == folded(push.label));
            let mut meant = index.queues.values().filter(|queue| is_meant(&queue.label)).peekable();
            if meant.peek().is_none() || meant.any(|queue| queue.tombstoned.is_some_and(|gone| gone < at)) {
                return None;
            }
            "although the queue exists"
        }
        "PRODUCER_FENCED" | "PRODUCER_POISONED" => {
            let opened = openings(index, at).get(producer(push)?).copied().unwrap_or(0);
            // Events of one instant are recorded in any order.
            let is_over = |ended: At| index.micros(ended) <= index.micros(at);
            let timed_out = |other: &Push<'_>| matches!(other.outcome, Some((ended, Outcome::Failed { code: TIMEOUT, .. })) if is_over(ended));
            let timed_out = index.pushes.values().any(|other| producer(other) == producer(push) && timed_out(other));
            if opened > 1 || (code == "PRODUCER_POISONED" && timed_out) {
                return None;
            }
            "although no other producer had taken its place"
        }
        _ if push.expected == Some(code) => return None,
        _ => "although the message was valid",
    };
    let what = format!("push {number} of {} to {:?} received up with {code}, {why}", brief(push.body), push.label);
    Some(index.violation(Promise::NothingSilent, what, [push.at, at]))
}

/// How often each named producer was opened before a record.
fn openings<'a>(index: &Index<'a>, at: At) -> BTreeMap<&'a str, usize> {
    let mut openings = BTreeMap::new();
    for record in &index.history[..at] {
        if let Event::ProducerOpening { producer, .. } = &record.event {
            *openings.entry(producer.as_str()).or_default() += 1;
        }
    }
    openings
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::Event;

    use crate::check::{
        Promise::{Convergence, NothingSilent},
        testing::{HistoryBuilder, LABEL, assert_broken, assert_kept},
    };

    #[test]
    fn a_transient_error_is_not_a_reason_to_give_up() {
        for code in ["FENCED", "LEASE_EXPIRED", "UNAVAILABLE"] {
            let mut run = HistoryBuilder::new();
            let push = run.send_by_library("a", 2_000);
            assert_broken(run.fail(push, code, false), Convergence);
        }
        // A client on the raw wire tries again by itself.
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        assert_kept(run.fail(push, "FENCED", false));
    }

    #[test]
    fn a_producer_gives_up_at_its_timeout() {
        let mut run = HistoryBuilder::new();
        let push = run.send_by_library("a", 2_000);
        run.wait(500);
        let behind = run.send_by_library("b", 2_000);
        run.wait(1_400);
        assert!(
            assert_broken(run.clone().fail(push, "DELIVERY_TIMEOUT", true), Convergence).contains("before its time")
        );
        // The second message is given up together with the first.
        run.wait(100);
        assert_kept(run.fail(push, "DELIVERY_TIMEOUT", true).fail(behind, "DELIVERY_TIMEOUT", false));
    }

    #[test]
    fn a_producer_gives_up_for_a_false_reason() {
        for code in ["QUEUE_NOT_FOUND", "PRODUCER_FENCED", "PRODUCER_POISONED", "INTERNAL", "MESSAGE_TOO_LARGE"] {
            let mut run = HistoryBuilder::new();
            let push = run.send_by_library("a", 2_000);
            assert!(assert_broken(run.fail(push, code, false), NothingSilent).contains(code));
        }
        let mut run = HistoryBuilder::new();
        let push = run.send_by_library("a", 2_000);
        assert_kept(run.delete().create(2).fail(push, "QUEUE_NOT_FOUND", false));
        let mut run = HistoryBuilder::new();
        let opening = || Event::ProducerOpening { producer: "p1".into(), label: LABEL.into() };
        run.record("producer-1", opening());
        let push = run.send_by_library("a", 2_000);
        run.record("producer-1", opening());
        assert_kept(run.fail(push, "PRODUCER_FENCED", false));
    }
}
