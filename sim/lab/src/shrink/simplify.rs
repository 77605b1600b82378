//! Shorter and plainer variants of scenarios. Each function returns variants of one kind, the boldest first.

use std::iter;

use rmom_sim::DatabaseFault;

use crate::scenario::{Action, ConsumerKind, ConsumerPlan, Host, ProducerKind, ProducerPlan, Scenario, Step, Topology};

/// Times become multiples of this, in milliseconds, for readability.
const TIME_GRAIN: u64 = 100;
/// The usual size of bodies.
const BODY_BYTES: u32 = 16;
/// Like the next two, a value that most scenarios have; a shrunk one differs only if it matters.
const LATENCY_MILLIS: (u64, u64) = (1, 5);
/// See [`LATENCY_MILLIS`].
const QUEUE_BUFFER_MESSAGES: u64 = 1_000;
/// See [`LATENCY_MILLIS`].
const BATCH_MESSAGES: u64 = 8_192;

/// One way to make an item plainer.
type Simplification<T> = fn(&T) -> Vec<T>;

/// Ways for the whole scenario.
pub(super) const OF_ALL: [Simplification<Scenario>; 8] = [
    // The time before the first step matters least.
    |all| {
        let first = all.steps.iter().map(|step| step.at_millis).min().unwrap_or(0);
        each(all, lower(first, 0, TIME_GRAIN), |new, at| {
            new.steps.iter_mut().for_each(|step| step.at_millis -= first - at);
        })
    },
    |all| topology(all, |topology| topology.latency_millis = LATENCY_MILLIS),
    |all| topology(all, |topology| topology.message_ttl_millis = None),
    |all| topology(all, |topology| topology.queue_buffer_messages = QUEUE_BUFFER_MESSAGES),
    |all| topology(all, |topology| topology.batch_messages = BATCH_MESSAGES),
    |all| topology(all, |topology| topology.limits = None),
    |all| each(all, [None], |new, millis| new.workload.delivery_millis = millis),
    |all| each(all, [0], |new, millis| new.workload.linger_millis = millis),
];

/// Ways for a producer.
pub(super) const OF_PRODUCERS: [Simplification<ProducerPlan>; 7] = [
    |plan| each(plan, lower(plan.pushes.into(), 1, 1), |new, pushes| new.pushes = small(pushes)),
    |plan| each(plan, [ProducerKind::Library], |new, kind| new.kind = kind),
    |plan| each(plan, [None], |new, ttl| new.ttl_millis = ttl),
    |plan| each(plan, [0], |new, topics| new.topics = topics),
    |plan| each(plan, [1], |new, burst| new.burst = burst),
    |plan| each(plan, [0], |new, every| new.too_large_every = every),
    |plan| each(plan, [BODY_BYTES.min(plan.body_bytes)], |new, bytes| new.body_bytes = bytes),
];

/// Ways for a consumer.
pub(super) const OF_CONSUMERS: [Simplification<ConsumerPlan>; 4] = [
    |plan| each(plan, [ConsumerKind::Library], |new, kind| new.kind = kind),
    |plan| each(plan, [None], |new, topic| new.topic = topic),
    |plan| each(plan, [false], |new, latest| new.latest = latest),
    |plan| each(plan, [0], |new, work| new.work_millis = work),
];

/// Ways for a step.
pub(super) const OF_STEPS: [Simplification<Step>; 4] = [
    |step| {
        let actions = smaller_groups(&step.action);
        each(step, actions, |new, action| new.action = action)
    },
    |step| each(step, lower(step.for_millis, 0, TIME_GRAIN), |new, lasts| new.for_millis = lasts),
    |step| each(step, lower(step.at_millis, 0, TIME_GRAIN), |new, at| new.at_millis = at),
    |step| {
        let actions = milder(&step.action);
        each(step, actions, |new, action| new.action = action)
    },
];

/// A variant for each value.
fn each<T: Clone, V>(thing: &T, values: impl IntoIterator<Item = V>, set: impl Fn(&mut T, V)) -> Vec<T> {
    let variant = |value| {
        let mut new = thing.clone();
        set(&mut new, value);
        new
    };
    values.into_iter().map(variant).collect()
}

fn topology(scenario: &Scenario, set: impl Fn(&mut Topology)) -> Vec<Scenario> {
    each(scenario, [()], |new, ()| set(&mut new.topology))
}

/// Lower numbers: first the lowest permitted, then half-way to it, and ever nearer to `number`, up to the next lower one.
/// All but the lowest are multiples of `grain`.
fn lower(number: u64, lowest: u64, grain: u64) -> Vec<u64> {
    let gaps = iter::successors(Some(number.saturating_sub(lowest)), |gap| Some(gap / 2).filter(|gap| *gap >= grain));
    let round = |number: u64| (number / grain * grain).max(lowest);
    let mut numbers: Vec<u64> = gaps.map(|gap| round(number - gap)).chain([round(number.saturating_sub(1))]).collect();
    numbers.retain(|new| *new < number);
    numbers.dedup();
    numbers
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The action's groups, each without one of its members.
fn smaller_groups(action: &Action) -> Vec<Action> {
    let smaller = |one: &Vec<Host>, other: &Vec<Host>, remake: &dyn Fn(Vec<Host>, Vec<Host>) -> Action| {
        let of_one = without_each(one).into_iter().map(|one| remake(one, other.clone()));
        let of_other = without_each(other).into_iter().map(|other| remake(one.clone(), other));
        of_one.chain(of_other).collect::<Vec<_>>()
    };
    match action {
        Action::Cut { between, and } => smaller(between, and, &|between, and| Action::Cut { between, and }),
        Action::CutOneway { from, to } => smaller(from, to, &|from, to| Action::CutOneway { from, to }),
        Action::Hold { between, and } => smaller(between, and, &|between, and| Action::Hold { between, and }),
        Action::Slow { between, and, latency_millis } => {
            smaller(between, and, &|between, and| Action::Slow { between, and, latency_millis: *latency_millis })
        }
        _ => Vec::new(),
    }
}

/// The group without one of its members, for each of them; never empty.
fn without_each(group: &[Host]) -> Vec<Vec<Host>> {
    if group.len() < 2 {
        return Vec::new();
    }
    (0..group.len()).map(|left_out| [&group[..left_out], &group[left_out + 1..]].concat()).collect()
}

/// The same action with lower numbers.
fn milder(action: &Action) -> Vec<Action> {
    match action {
        Action::Slow { between, and, latency_millis } => {
            let slow = |latency_millis| Action::Slow { between: between.clone(), and: and.clone(), latency_millis };
            lower(*latency_millis, 1, 10).into_iter().map(slow).collect()
        }
        Action::ClockJump { host, millis } => {
            let jump =
                |by: u64| Action::ClockJump { host: *host, millis: i64::try_from(by).unwrap_or(0) * millis.signum() };
            lower(millis.unsigned_abs(), 1, 10).into_iter().map(jump).collect()
        }
        Action::Database(DatabaseFault::Slow { millis }) => {
            let slow = |millis| Action::Database(DatabaseFault::Slow { millis });
            lower(*millis, 1, 10).into_iter().map(slow).collect()
        }
        Action::ChurnChannels { queue, count } => {
            let churn = |count| Action::ChurnChannels { queue: *queue, count: u8::try_from(count).unwrap_or(u8::MAX) };
            lower((*count).into(), 1, 1).into_iter().map(churn).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_numbers_are_lower_and_round() {
        assert_eq!(lower(300, 1, 1), [1, 151, 226, 263, 282, 291, 296, 298, 299]);
        assert_eq!(lower(8, 0, 100), [0]);
        assert_eq!(lower(1_234, 0, 100), [0, 600, 900, 1_000, 1_200]);
        assert_eq!(lower(1_200, 0, 100), [0, 600, 900, 1_000, 1_100]);
        for (number, lowest, grain) in [(0, 0, 100), (1, 1, 1), (0, 1, 1), (3, 5, 10)] {
            assert!(lower(number, lowest, grain).is_empty(), "{number}");
        }
    }

    #[test]
    fn groups_lose_members_but_not_the_last() {
        let hosts = [Host::Manager(1), Host::Manager(2)];
        let cut = |from: &[Host], to: &[Host]| Action::CutOneway { from: from.to_vec(), to: to.to_vec() };
        let [one, other] = hosts;
        let expected = [cut(&[other], &[Host::Database]), cut(&[one], &[Host::Database])];
        assert_eq!(smaller_groups(&cut(&hosts, &[Host::Database])), expected);
        assert_eq!(smaller_groups(&cut(&[one], &[Host::Database])), []);
    }

    #[test]
    fn a_clock_jumps_less_far_the_same_way() {
        let jump = |millis| Action::ClockJump { host: Host::Database, millis };
        assert_eq!(milder(&jump(-40)), [jump(-1), jump(-20), jump(-30)]);
        assert_eq!(milder(&jump(-1)), []);
    }
}
