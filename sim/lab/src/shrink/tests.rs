use rmom_sim::DatabaseFault;

use super::*;
use crate::scenario::{Action, ConsumerKind, Host, ProducerKind, Step};

const ATTEMPTS: usize = 2_000;

/// The scenario of a seed, with these steps added.
fn scenario(seed: u64, steps: impl IntoIterator<Item = Step>) -> Scenario {
    let mut scenario = Scenario::from_seed(seed);
    scenario.topology.brokers = 5;
    scenario.steps.extend(steps);
    scenario.steps.sort_by_key(|step| step.at_millis);
    scenario
}

/// Shrinks a scenario, and checks that the result fails as well.
fn smallest(scenario: &Scenario, fails: impl Fn(&Scenario) -> bool) -> Scenario {
    assert!(fails(scenario));
    let smallest = shrink(scenario, ATTEMPTS, &fails);
    assert!(fails(&smallest));
    smallest
}

/// A broker crashes in the middle of a cut between it and the database.
fn crash_within_a_cut(scenario: &Scenario) -> bool {
    scenario.steps.iter().any(|crash| {
        let Action::Crash(broker @ Host::Broker(_)) = crash.action else { return false };
        scenario.steps.iter().any(|cut| {
            let Action::Cut { between, and } = &cut.action else { return false };
            let cuts = |one: &[Host], other: &[Host]| one.contains(&broker) && other.contains(&Host::Database);
            let (from, to) = (cut.at_millis + 150, cut.at_millis + cut.for_millis);
            (cuts(between, and) || cuts(and, between)) && (from..to).contains(&crash.at_millis)
        })
    })
}

#[test]
fn only_what_a_failure_needs_is_left() {
    let hosts = vec![Host::Manager(1), Host::Database, Host::Consumer(1)];
    let cut = Action::Cut { between: vec![Host::Broker(1), Host::Broker(4)], and: hosts };
    for seed in 0..20 {
        let steps = [
            Step { at_millis: 3_210, for_millis: 4_000, action: cut.clone() },
            Step { at_millis: 4_321, for_millis: 987, action: Action::Crash(Host::Broker(4)) },
        ];
        let Scenario { topology, workload, steps, .. } = smallest(&scenario(seed, steps), crash_within_a_cut);
        assert_eq!((topology.managers, topology.brokers, workload.queues), (1, 1, 1));
        assert_eq!((workload.producers.len(), workload.consumers.len()), (0, 0));
        let [cut, crash] = &steps[..] else { panic!("seed {seed}: {steps:?}") };
        let (broker, database) = (Host::Broker(1), Host::Database);
        assert_eq!(cut.action, Action::Cut { between: vec![broker], and: vec![database] }, "seed {seed}");
        assert_eq!((&crash.action, crash.for_millis), (&Action::Crash(broker), 0));
        assert_eq!((cut.at_millis, crash.at_millis, cut.for_millis), (0, 200, 300), "seed {seed}");
    }
}

#[test]
fn needed_parts_of_the_workload_stay() {
    let scenario = Scenario::from_seed(3);
    let fails = |scenario: &Scenario| {
        let producers = &scenario.workload.producers;
        let stamped = producers.iter().any(|plan| plan.kind == ProducerKind::RawStamped && plan.pushes >= 17);
        stamped && scenario.topology.brokers >= 2 && scenario.workload.consumers.len() >= 2
    };
    let mut scenario = scenario;
    scenario.workload.producers[0].kind = ProducerKind::RawStamped;
    let Scenario { topology, workload, steps, .. } = smallest(&scenario, fails);
    assert_eq!((topology.brokers, topology.latency_millis, topology.message_ttl_millis), (2, (1, 5), None));
    assert_eq!((workload.producers.len(), workload.producers[0].pushes, workload.producers[0].topics), (1, 17, 0));
    assert_eq!(workload.consumers.len(), 2);
    assert!(workload.consumers.iter().all(|plan| plan.kind == ConsumerKind::Library && plan.work_millis == 0));
    assert_eq!(steps, []);
}

#[test]
fn two_on_different_queues_turn_to_one() {
    let mut scenario = Scenario::from_seed(5);
    let plan = scenario.workload.producers[0].clone();
    scenario.workload.queues = 3;
    scenario.workload.producers = vec![plan.clone(), plan];
    scenario.workload.producers[0].queue = 3;
    scenario.workload.producers[1].queue = 2;
    let left = smallest(&scenario, |scenario| scenario.workload.producers.len() == 2);
    assert_eq!(left.workload.queues, 1);
    assert!(left.workload.producers.iter().all(|plan| plan.queue == 1));
}

#[test]
fn a_scenario_that_always_fails_becomes_nothing() {
    let left = smallest(&Scenario::from_seed(11), |_| true);
    assert_eq!((left.steps.len(), left.workload.producers.len(), left.workload.consumers.len()), (0, 0, 0));
    assert_eq!((left.topology.managers, left.topology.brokers, left.seed), (1, 1, 11));
}

#[test]
fn a_scenario_that_needs_everything_stays() {
    let scenario = Scenario::from_seed(12);
    assert_eq!(shrink(&scenario, ATTEMPTS, |candidate| *candidate == scenario), scenario);
    assert_eq!(shrink(&scenario, ATTEMPTS, |_| false), scenario);
}

#[test]
fn attempts_are_counted_and_none_is_made_twice() {
    let database = |step: &Step| matches!(step.action, Action::Database(DatabaseFault::LoseReplies));
    let step = Step { at_millis: 5_000, for_millis: 3_000, action: Action::Database(DatabaseFault::LoseReplies) };
    let scenario = scenario(17, [step]);
    let fails = |candidate: &Scenario| candidate.steps.iter().any(|step| database(step) && step.for_millis > 500);
    let run = |attempts: usize| {
        let mut tried: Vec<Scenario> = Vec::new();
        let smallest = shrink(&scenario, attempts, |candidate| {
            assert!(!tried.contains(candidate), "tried twice: {candidate:?}");
            tried.push(candidate.clone());
            fails(candidate)
        });
        assert!(fails(&smallest));
        (smallest, tried)
    };
    let (smallest, all) = run(ATTEMPTS);
    assert_eq!((smallest.steps.len(), smallest.steps[0].for_millis), (1, 600));
    assert!(all.len() < 100, "{} attempts", all.len());
    for attempts in 0..all.len() {
        // With fewer attempts, the search takes the same path.
        assert_eq!(run(attempts).1, all[..attempts]);
    }
}
