//! The parts of scenarios, and how to leave some of them out.

use crate::scenario::{Host, Scenario, Step};

/// A part that occurs several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Steps,
    Consumers,
    Producers,
    /// With their users.
    Queues,
    /// Without their users, which move to the first remaining queue.
    QueuesOnly,
    Brokers,
    Managers,
}

impl Part {
    /// In the order in which they are left out: the parts that are easiest to understand come last.
    pub(super) const ALL: [Self; 7] =
        [Self::Steps, Self::Consumers, Self::Producers, Self::Queues, Self::QueuesOnly, Self::Brokers, Self::Managers];

    /// The number of these parts.
    pub(super) fn count(self, scenario: &Scenario) -> usize {
        match self {
            Self::Steps => scenario.steps.len(),
            Self::Consumers => scenario.workload.consumers.len(),
            Self::Producers => scenario.workload.producers.len(),
            Self::Queues | Self::QueuesOnly => scenario.workload.queues.into(),
            Self::Brokers => scenario.topology.brokers.into(),
            Self::Managers => scenario.topology.managers.into(),
        }
    }

    /// The least number that a scenario needs.
    pub(super) fn least(self) -> usize {
        match self {
            Self::Steps | Self::Consumers | Self::Producers => 0,
            Self::Queues | Self::QueuesOnly | Self::Brokers | Self::Managers => 1,
        }
    }

    /// The scenario with only these parts, counted from 0. The steps of the others are removed, and the remaining parts are
    /// renumbered.
    pub(super) fn only(self, scenario: &Scenario, kept: &[usize]) -> Scenario {
        let mut new = scenario.clone();
        let place = |number: u8| kept.iter().position(|&one| one + 1 == usize::from(number));
        let renumber = |number: u8| place(number).and_then(|place| u8::try_from(place + 1).ok());
        let number = u8::try_from(kept.len()).unwrap_or(u8::MAX);
        match self {
            Self::Steps => new.steps = pick(&scenario.steps, kept),
            Self::Consumers => new.workload.consumers = pick(&scenario.workload.consumers, kept),
            Self::Producers => new.workload.producers = pick(&scenario.workload.producers, kept),
            Self::Queues => return only_queues(scenario, kept),
            Self::QueuesOnly => {
                new.workload.queues = number;
                for producer in &mut new.workload.producers {
                    producer.queue = renumber(producer.queue).unwrap_or(1);
                }
                for consumer in &mut new.workload.consumers {
                    consumer.queue = renumber(consumer.queue).unwrap_or(1);
                }
            }
            Self::Brokers => new.topology.brokers = number,
            Self::Managers => new.topology.managers = number,
        }
        let host = |host: Host| match (self, host) {
            (Self::Consumers, Host::Consumer(number)) => renumber(number).map(Host::Consumer),
            (Self::Producers, Host::Producer(number)) => renumber(number).map(Host::Producer),
            (Self::Brokers, Host::Broker(number)) => renumber(number).map(Host::Broker),
            (Self::Managers, Host::Manager(number)) => renumber(number).map(Host::Manager),
            _ => Some(host),
        };
        let queue = |number: u8| match self {
            Self::Queues | Self::QueuesOnly => renumber(number),
            _ => Some(number),
        };
        let stays = |step: Step| step.action.renumbered(host, queue).map(|action| Step { action, ..step });
        new.steps = new.steps.into_iter().filter_map(stays).collect();
        new
    }
}

fn pick<T: Clone>(items: &[T], kept: &[usize]) -> Vec<T> {
    kept.iter().filter_map(|&number| items.get(number)).cloned().collect()
}

/// Leaves out queues with their producers and consumers.
fn only_queues(scenario: &Scenario, kept: &[usize]) -> Scenario {
    let stays = |queue: u8| kept.iter().any(|&one| one + 1 == usize::from(queue));
    let workload = &scenario.workload;
    let producers = (0..workload.producers.len()).filter(|&number| stays(workload.producers[number].queue));
    let consumers = (0..workload.consumers.len()).filter(|&number| stays(workload.consumers[number].queue));
    let fewer = Part::Producers.only(scenario, &producers.collect::<Vec<_>>());
    let fewer = Part::Consumers.only(&fewer, &consumers.collect::<Vec<_>>());
    Part::QueuesOnly.only(&fewer, kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Action, ConsumerPlan, ProducerPlan};

    fn scenario(actions: impl IntoIterator<Item = Action>) -> Scenario {
        let mut scenario = Scenario::from_seed(1);
        let (producer, consumer) = (scenario.workload.producers[0].clone(), scenario.workload.consumers[0].clone());
        (scenario.topology.brokers, scenario.topology.managers, scenario.workload.queues) = (3, 2, 3);
        scenario.workload.producers =
            [3, 1].map(|queue| ProducerPlan { queue, pushes: queue.into(), ..producer.clone() }).to_vec();
        scenario.workload.consumers = [2, 3].map(|queue| ConsumerPlan { queue, ..consumer.clone() }).to_vec();
        scenario.steps =
            actions.into_iter().map(|action| Step { at_millis: 1, for_millis: 1, action }).collect::<Vec<_>>();
        scenario
    }

    fn actions(scenario: &Scenario) -> Vec<Action> {
        scenario.steps.iter().map(|step| step.action.clone()).collect()
    }

    #[test]
    fn hosts_that_stay_move_up_and_others_take_their_steps_along() {
        use Host::{Broker, Database, Manager};
        let cut = |between: &[Host], and: &[Host]| Action::Cut { between: between.to_vec(), and: and.to_vec() };
        let before = scenario([
            Action::Crash(Broker(1)),
            Action::Freeze(Broker(3)),
            Action::PowerLoss(Manager(1)),
            cut(&[Broker(1)], &[Database]),
            cut(&[Manager(1), Broker(1)], &[Broker(2), Broker(3)]),
            Action::ClockJump { host: Broker(2), millis: -5 },
        ]);
        let after = Part::Brokers.only(&before, &[1, 2]);
        assert_eq!((after.topology.brokers, after.topology.managers), (2, 2));
        let expected = vec![
            Action::Freeze(Broker(2)),
            Action::PowerLoss(Manager(1)),
            cut(&[Manager(1)], &[Broker(1), Broker(2)]),
            Action::ClockJump { host: Broker(1), millis: -5 },
        ];
        assert_eq!(actions(&after), expected);
        assert_eq!(Part::Brokers.only(&before, &[0, 1, 2]), before);
    }

    #[test]
    fn clients_that_stay_move_up() {
        let before = scenario([
            Action::Crash(Host::Producer(2)),
            Action::Crash(Host::Consumer(2)),
            Action::StallConsumer(2),
            Action::LeaveConsumer(1),
        ]);
        let after = Part::Consumers.only(&Part::Producers.only(&before, &[0]), &[1]);
        assert_eq!(actions(&after), [Action::Crash(Host::Consumer(1)), Action::StallConsumer(1)]);
        assert_eq!(after.workload.producers, before.workload.producers[..1]);
        assert_eq!(after.workload.consumers, before.workload.consumers[1..]);
    }

    #[test]
    fn queues_go_with_or_without_their_users() {
        let before = scenario([
            Action::RecreateQueue(3),
            Action::ChurnChannels { queue: 1, count: 2 },
            Action::StallConsumer(2),
            Action::Crash(Host::Producer(2)),
        ]);
        let queues = |scenario: &Scenario| {
            let workload = &scenario.workload;
            let producers = workload.producers.iter().map(|plan| plan.queue).collect::<Vec<_>>();
            (workload.queues, producers, workload.consumers.iter().map(|plan| plan.queue).collect::<Vec<_>>())
        };
        let with = Part::Queues.only(&before, &[1, 2]);
        assert_eq!(queues(&with), (2, vec![2], vec![1, 2]));
        assert_eq!(actions(&with), [Action::RecreateQueue(2), Action::StallConsumer(2)]);
        let without = Part::QueuesOnly.only(&before, &[1, 2]);
        assert_eq!(queues(&without), (2, vec![2, 1], vec![1, 2]));
        let expected = [Action::RecreateQueue(2), Action::StallConsumer(2), Action::Crash(Host::Producer(2))];
        assert_eq!(actions(&without), expected);
    }
}
