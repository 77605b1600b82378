//! Promise 10: when faults stop, everything proceeds within the bound.

use rmom_core::model::Code;
use rmom_sim::history::Event;

use super::{
    Promise, Violation, giving_up,
    index::{Index, Push, Queue, Reader, brief},
    served,
};

/// The codes that our client reports for a broker that it lost, besides the [codes](Code) that mean trying again.
pub(super) const LOST: [&str; 2] = ["UNAVAILABLE", "UNREACHABLE"];

/// The run did not run out of time. After it was healed, everything was in order within the bound and every push had its
/// answer. (A push that is never answered is for [`nothing_silent`](super::nothing_silent).) No consumer ended, and no
/// producer gave a message up, because of a transient failure.
pub(super) fn check(index: &Index<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if let Some(at) = index.milestones.time_up
        && let Event::TimeUp { pending } = &index.history[at].event
    {
        violations.push(index.violation(
            Promise::Convergence,
            format!("the time limit was reached; still missing: {pending}"),
            [at],
        ));
    }
    violations.extend(in_order_late(index));
    violations.extend(index.queues.iter().filter_map(|(&id, queue)| restless(index, id, queue)));
    violations.extend(index.pushes.iter().filter_map(|(&number, push)| answered_late(index, number, push)));
    violations.extend(served::unanswered(index));
    violations.extend(index.readers.iter().filter_map(|reader| gave_up(index, reader)));
    violations.extend(index.pushes.iter().filter_map(|(&number, push)| giving_up::too_early(index, number, push)));
    violations
}

/// How often a queue may be assigned once the faults are over: away from a broker that was dead, from another one that was
/// still starting, from a broker that was drained, and for levelling.
const ASSIGNMENTS: usize = 4;

/// A queue that managers move from broker to broker although nothing is wrong.
fn restless(index: &Index<'_>, id: u64, queue: &Queue<'_>) -> Option<Violation> {
    let healed = index.milestones.healed?;
    let after: Vec<_> = queue.assignments.iter().map(|&(at, _)| at).filter(|&at| at > healed).collect();
    let last = *after.last().filter(|_| after.len() > ASSIGNMENTS)?;
    let what = format!("queue {id} was assigned {} times after all faults were over", after.len());
    Some(index.violation(Promise::Convergence, what, [healed, last]))
}

/// The time by which everything that was due at `micros` has to be done.
fn deadline(index: &Index<'_>, micros: u64) -> u64 {
    micros.saturating_add(index.bounds.convergence.saturating_mul(1_000))
}

fn in_order_late(index: &Index<'_>) -> Option<Violation> {
    let healed = index.milestones.healed?;
    let bound = index.bounds.convergence;
    if let Some(converged) = index.milestones.converged {
        let took = (index.micros(converged) - index.micros(healed)) / 1_000;
        let what = format!("recovery took {took} ms; the bound is {bound} ms");
        return (index.micros(converged) > deadline(index, index.micros(healed)))
            .then(|| index.violation(Promise::Convergence, what, [healed, converged]));
    }
    // A history that breaks off before the deadline proves nothing.
    let over = index.milestones.drain.is_some() || index.end_micros() > deadline(index, index.micros(healed));
    if !over || index.milestones.time_up.is_some() {
        return None;
    }
    let what = format!("the cluster did not recover within {bound} ms of the last fault");
    Some(index.violation(Promise::Convergence, what, [healed, index.history.len() - 1]))
}

fn answered_late(index: &Index<'_>, number: u64, push: &Push<'_>) -> Option<Violation> {
    let healed = index.micros(index.milestones.healed?);
    let (at, _) = push.outcome?;
    let due = deadline(index, healed.max(index.micros(push.at)));
    if index.micros(at) <= due {
        return None;
    }
    let late = (index.micros(at) - due) / 1_000;
    let what = format!("push {number} of {} to {:?} was answered {late} ms too late", brief(push.body), push.label);
    Some(index.violation(Promise::Convergence, what, [push.at, at]))
}

/// A consumer object ended for an error after which it had to connect again: it would never have proceeded.
fn gave_up(index: &Index<'_>, reader: &Reader<'_>) -> Option<Violation> {
    let (at, code) = reader.ended.filter(|_| reader.is_consumer())?;
    let code = code.filter(|code| LOST.contains(code) || Code::from_wire(code).is_some_and(Code::is_retryable))?;
    let what = format!("{} ended with {code}, which is transient", reader.name());
    Some(index.violation(Promise::Convergence, what, [reader.began, at]))
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::{Event, Phase};

    use crate::check::{
        Promise::Convergence,
        testing::{HistoryBuilder, assert_broken, assert_kept},
    };

    #[test]
    fn recovery_within_the_bound_is_accepted() {
        let mut run = HistoryBuilder::new();
        let push = run.fault(0).send("a");
        run.wait(60_000).end_fault(0).phase(Phase::Healed).wait(4_000);
        run.store("a").ack(push).record("runner", Event::Converged);
        assert_kept(run.phase(Phase::Drain).phase(Phase::Audit).audit());
    }

    #[test]
    fn time_runs_out() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.phase(Phase::Healed).wait(30_000);
        run.record("runner", Event::TimeUp { pending: format!("push {push}") });
        assert_eq!(
            assert_broken(run.phase(Phase::Audit).audit(), Convergence),
            "the time limit was reached; still missing: push 1"
        );
    }

    #[test]
    fn recovery_takes_too_long() {
        let mut run = HistoryBuilder::new();
        run.phase(Phase::Healed).wait(5_500).record("runner", Event::Converged);
        assert!(assert_broken(&run, Convergence).starts_with("recovery took 5501 ms"));
    }

    #[test]
    fn the_cluster_never_recovers() {
        assert_kept(HistoryBuilder::new().phase(Phase::Healed).push("a"));
        assert_broken(HistoryBuilder::new().phase(Phase::Healed).push("a").phase(Phase::Drain), Convergence);
        assert_broken(HistoryBuilder::new().phase(Phase::Healed).wait(6_000).push("a"), Convergence);
    }

    #[test]
    fn a_queue_is_moved_again_and_again() {
        let mut run = HistoryBuilder::new();
        run.take_over(2).phase(Phase::Healed);
        for broker in [1, 2, 1, 2] {
            run.take_over(broker);
        }
        run.record("runner", Event::Converged);
        assert_kept(&run);
        run.take_over(1);
        assert_eq!(assert_broken(&run, Convergence), "queue 1 was assigned 5 times after all faults were over");
    }

    #[test]
    fn a_push_waits_too_long() {
        let mut run = HistoryBuilder::new();
        let push = run.send("a");
        run.store("a").phase(Phase::Healed).record("runner", Event::Converged);
        run.phase(Phase::Drain).wait(6_000);
        assert!(
            assert_broken(run.ack(push).phase(Phase::Audit).audit(), Convergence)
                .ends_with("was answered 1003 ms too late")
        );
    }

    #[test]
    fn a_consumer_gives_up() {
        for code in [None, Some("MESSAGE_TOO_LARGE"), Some("CRASHED")] {
            assert_kept(HistoryBuilder::new().consumer("b1", None).stop("b1", code));
        }
        for code in ["UNAVAILABLE", "LEASE_EXPIRED", "DEADLINE_EXCEEDED"] {
            assert_broken(HistoryBuilder::new().consumer("b1", None).stop("b1", Some(code)), Convergence);
        }
        // A client on the raw wire connects again by itself.
        assert_kept(HistoryBuilder::new().stream(1).end(1, "UNAVAILABLE").stream(2));
    }
}
