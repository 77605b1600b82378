//! The reconcile loop: queues leave dead, stopped and draining brokers, and no others.

use std::time::Duration;

use rmom_core::{
    manager::{
        ManagerSettings,
        testing::{Behaviour, Call, Calls, FakeBrokers, Fault, LONG, World, addr},
    },
    model::Code,
    ports::{Catalog as _, CreateQueue},
};
use tokio::time::sleep;
use uuid::Uuid;

use super::{A_WHILE, assignee, assignments, label, until, until_leading};

/// Brokers 1 to 3, and a queue on the first.
async fn three_brokers(world: &World) -> rmom_core::model::BrokerId {
    let first = world.broker(1, LONG).await;
    world.broker(2, LONG).await;
    world.broker(3, LONG).await;
    let create = CreateQueue { label: label("q"), assignee: Some(first), request: Uuid::from_u128(1) };
    world.store.create_queue(&create).await.unwrap();
    first
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_is_noticed_within_a_cycle_and_its_retries() {
    let world = World::new();
    three_brokers(&world).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    assert_eq!(assignments(&world, "q").await, 1, "a healthy queue was moved");
    world.brokers.take_calls();
    world.brokers.set(&addr(1), Behaviour::Absent);
    let bound = Duration::from_millis(1_000 + 3 * 33 + 100);
    until("the queue is elsewhere", bound, async || assignee(&world, "q").await != Some(addr(1))).await;
    sleep(Duration::from_millis(100)).await;
    let refreshed = Call::Refresh(assignee(&world, "q").await.unwrap());
    assert!(world.brokers.take_calls().contains(&refreshed), "the new broker was not hurried up");
    let status = manager.status();
    assert_eq!((status.counters.failovers, status.counters.handovers), (1, 0));
    assert!(status.counters.probes_failed >= 4);
    // Then it stays.
    sleep(A_WHILE).await;
    assert_eq!(assignments(&world, "q").await, 2);
    let cycle = manager.status().last_cycle.unwrap();
    assert_eq!((cycle.led, cycle.live_brokers, cycle.queues, cycle.stranded), (true, 2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_process_is_noticed_within_the_documented_bound() {
    let world = World::new();
    three_brokers(&world).await;
    let settings = ManagerSettings::default();
    let bound = settings.cycle
        + settings.probe_deadline * settings.probe_attempts()
        + settings.life_probe_retry_delay * settings.life_probe_max_retries
        + Duration::from_millis(100);
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    world.brokers.set(&addr(1), Behaviour::Hangs);
    until("the queue is elsewhere", bound, async || assignee(&world, "q").await != Some(addr(1))).await;
}

#[tokio::test(start_paused = true)]
async fn any_error_of_a_probe_counts_as_a_failure() {
    let world = World::new();
    three_brokers(&world).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    world.brokers.set(&addr(1), Behaviour::Refuses(Code::LeaseExpired));
    until("the queue is elsewhere", A_WHILE, async || assignee(&world, "q").await != Some(addr(1))).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_succeeds_at_the_last_attempt_moves_nothing() {
    let world = World::new();
    three_brokers(&world).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    world.brokers.fail_heartbeats(&addr(1), 3);
    sleep(A_WHILE).await;
    assert_eq!(manager.status().counters.probes_failed, 3);
    assert_eq!(assignments(&world, "q").await, 1);
    world.brokers.fail_heartbeats(&addr(1), 4);
    sleep(A_WHILE).await;
    assert_eq!(assignments(&world, "q").await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_broker_whose_lease_ran_out_is_probed_once_only() {
    let world = World::new();
    three_brokers(&world).await;
    world.broker(1, Duration::from_millis(10)).await;
    sleep(Duration::from_millis(20)).await;
    world.brokers.set(&addr(1), Behaviour::Hangs);
    let (manager, _task) = world.manager(|settings| settings.cycle = Duration::from_secs(60));
    until_leading(&manager).await;
    let took = until("the queue is elsewhere", A_WHILE, async || assignee(&world, "q").await != Some(addr(1))).await;
    assert!(took < Duration::from_millis(700), "took {took:?}");
    let probes = world.brokers.take_calls().into_iter().filter(|call| *call == Call::Heartbeat(addr(1))).count();
    assert_eq!(probes, 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_long_gone_and_hosts_nothing_is_not_asked_any_more() {
    let world = World::new();
    world.broker(1, LONG).await;
    world.broker(2, Duration::from_secs(3)).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    world.brokers.set(&addr(2), Behaviour::Absent);
    let asked = async |world: &World| {
        world.brokers.take_calls();
        sleep(A_WHILE).await;
        let calls = world.brokers.take_calls();
        [1, 2].map(|n| calls.contains(&Call::Heartbeat(addr(n))))
    };
    sleep(Duration::from_secs(60)).await;
    assert_eq!(asked(&world).await, [true, true]);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(asked(&world).await, [true, false]);
    // The broker is not forgotten, and is probed again when it comes back.
    assert_eq!(manager.brokers().await.unwrap().len(), 2);
    world.broker(2, LONG).await;
    assert_eq!(asked(&world).await, [true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_stores_clock_alone_moves_nothing() {
    let world = World::new();
    three_brokers(&world).await;
    // By the store's clock the lease has expired; the broker, which counts its lease by its own clock, answers.
    world.broker(1, Duration::from_millis(10)).await;
    sleep(Duration::from_millis(20)).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    assert_eq!(assignments(&world, "q").await, 1);
    assert!(manager.queue(&label("q")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_hands_over_without_probing() {
    let world = World::new();
    let first = three_brokers(&world).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    world.retire(1, first).await;
    world.brokers.take_calls();
    until("the queue is elsewhere", A_WHILE, async || assignee(&world, "q").await != Some(addr(1))).await;
    sleep(A_WHILE).await;
    assert_eq!(manager.status().counters.handovers, 1);
    assert!(!world.brokers.take_calls().contains(&Call::Heartbeat(addr(1))), "a stopped broker was probed");
}

#[tokio::test(start_paused = true)]
async fn a_draining_broker_is_relieved_and_told() {
    let world = World::new();
    let first = three_brokers(&world).await;
    let (manager, _task) = world.manager(|settings| settings.cycle = Duration::from_secs(60));
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    world.brokers.take_calls();
    // The leader does not wait for its next cycle.
    manager.set_draining(first, true).await.unwrap();
    let limit = Duration::from_millis(100);
    until("the queue is elsewhere", limit, async || assignee(&world, "q").await != Some(addr(1))).await;
    sleep(limit).await;
    assert!(world.brokers.take_calls().contains(&Call::Refresh(addr(1))), "the old broker was not told");
    assert_eq!(manager.status().counters.handovers, 1);
    // New queues go elsewhere too, until the drain is undone.
    for name in ["a", "b", "c"] {
        assert_ne!(manager.create_queue(&label(name)).await.unwrap().addr, addr(1));
    }
    manager.set_draining(first, false).await.unwrap();
    assert_eq!(manager.create_queue(&label("d")).await.unwrap().addr, addr(1));
}

#[tokio::test(start_paused = true)]
async fn without_a_live_broker_nothing_changes_until_one_is_back() {
    let world = World::new();
    three_brokers(&world).await;
    for n in 1..=3 {
        world.brokers.set(&addr(n), Behaviour::Absent);
    }
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    assert_eq!((assignee(&world, "q").await, assignments(&world, "q").await), (Some(addr(1)), 1));
    assert_eq!(manager.status().last_cycle.unwrap().stranded, 1);
    // A queue stays at its own broker when that one is the first to return.
    world.brokers.set(&addr(1), Behaviour::Well);
    sleep(A_WHILE).await;
    assert_eq!(assignments(&world, "q").await, 1);
    world.brokers.set(&addr(1), Behaviour::Absent);
    world.brokers.set(&addr(3), Behaviour::Well);
    until("the queue is at broker 3", A_WHILE, async || assignee(&world, "q").await == Some(addr(3))).await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_broker_gets_one_and_a_lost_nudge_undoes_nothing() {
    let world = World::new();
    let create = CreateQueue { label: label("q"), assignee: None, request: Uuid::from_u128(1) };
    world.store.create_queue(&create).await.unwrap();
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    assert_eq!(assignee(&world, "q").await, None);
    world.broker(1, LONG).await;
    world.brokers.set(&addr(1), Behaviour::ServesNothing);
    sleep(A_WHILE).await;
    assert_eq!((assignee(&world, "q").await, assignments(&world, "q").await), (Some(addr(1)), 1));
    let counters = manager.status().counters;
    assert_eq!((counters.placed, counters.nudges_failed, counters.failovers), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_assignment_of_unknown_outcome_is_looked_up_by_the_next_cycle() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let world = World::new();
        three_brokers(&world).await;
        let (manager, _task) = world.manager(|_| {});
        until_leading(&manager).await;
        sleep(A_WHILE).await;
        world.store.fail_next(1, Calls::Administration, fault);
        world.brokers.set(&addr(1), Behaviour::Absent);
        sleep(A_WHILE * 2).await;
        assert_ne!(assignee(&world, "q").await, Some(addr(1)), "{fault:?}");
        assert_eq!(assignments(&world, "q").await, 2, "{fault:?}");
        assert_eq!(manager.status().counters.cycles_failed, 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_queues_are_spread_evenly() {
    let world = World::new();
    let first = three_brokers(&world).await;
    for n in 0..99 {
        let create =
            CreateQueue { label: label(&format!("q{n}")), assignee: Some(first), request: Uuid::from_u128(100 + n) };
        world.store.create_queue(&create).await.unwrap();
    }
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    world.brokers.set(&addr(1), Behaviour::Absent);
    sleep(A_WHILE).await;
    let counts: Vec<u64> = world.store.brokers().await.unwrap().iter().map(|broker| broker.queues).collect();
    assert_eq!(counts, [0, 50, 50]);
    assert_eq!(manager.status().counters.failovers, 100);
}

#[tokio::test(start_paused = true)]
async fn a_cycle_outlives_a_store_that_is_down_or_hangs() {
    let world = World::new();
    three_brokers(&world).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    for fault in [Fault::Unavailable, Fault::Hangs] {
        let before = manager.status().counters.cycles_failed;
        world.store.fail(Calls::All, fault);
        sleep(Duration::from_secs(20)).await;
        let status = manager.status();
        assert!(status.counters.cycles_failed > before + 5, "{fault:?}");
        assert!(!status.leading, "still leads after its lease ran out");
        assert!(manager.ready().await.is_err());
        world.store.repair(Calls::All);
        until_leading(&manager).await;
        manager.ready().await.unwrap();
    }
    // Results of calls behind the fault must not have moved anything.
    assert_eq!(assignments(&world, "q").await, 1);
}

#[tokio::test(start_paused = true)]
async fn two_managers_that_both_lead_move_a_queue_once() {
    let world = World::new();
    three_brokers(&world).await;
    let other_view = FakeBrokers::default();
    for n in 2..=3 {
        other_view.set(&addr(n), Behaviour::Well);
    }
    let (a, _task) = world.manager(|settings| settings.lease = LONG);
    until_leading(&a).await;
    // The second takes the lease before the first notices its loss.
    world.store.resign(a.status().manager).await.unwrap();
    world.brokers.set(&addr(1), Behaviour::Absent);
    let (b, _task) = world.manager_over(&other_view, |_| {});
    until_leading(&b).await;
    assert!(a.status().leading && b.status().leading);
    sleep(A_WHILE).await;
    assert_eq!(assignments(&world, "q").await, 2);
    assert_eq!(a.status().counters.failovers + b.status().counters.failovers, 1);
}

/// Creates queues on broker 1.
async fn many_queues(world: &World, queues: u128) {
    let first = three_brokers(world).await;
    for n in 1..queues {
        let create =
            CreateQueue { label: label(&format!("q{n}")), assignee: Some(first), request: Uuid::from_u128(100 + n) };
        world.store.create_queue(&create).await.unwrap();
    }
}

async fn queues_by_broker(world: &World) -> Vec<u64> {
    world.store.brokers().await.unwrap().iter().map(|broker| broker.queues).collect()
}

/// A broker with 1,000 queues dies. While they are moved, one of the brokers that receive them dies too.
#[tokio::test(start_paused = true)]
async fn a_second_death_is_noticed_while_the_queues_of_the_first_are_moved() {
    let world = World::new();
    many_queues(&world, 1_000).await;
    let (manager, _task) = world.manager(|settings| settings.max_moves_per_cycle = 100);
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    // Each call of the store takes so long that the moves take ten seconds in all.
    world.store.set_latency(Duration::from_millis(200));
    world.brokers.set(&addr(1), Behaviour::Absent);
    until("some have moved", A_WHILE * 10, async || queues_by_broker(&world).await[1] > 0).await;
    world.brokers.set(&addr(2), Behaviour::Absent);
    // At most the moves of one cycle still go to the dead broker.
    sleep(Duration::from_secs(3)).await;
    let at_two = queues_by_broker(&world).await[1];
    assert!(at_two <= 150, "{at_two} queues were moved to a broker that was dead");
    until("all are at broker 3", A_WHILE * 20, async || queues_by_broker(&world).await == [0, 0, 1_000]).await;
}

/// A number of moves does not bound their time. However slow the store is, the brokers are probed again after a cycle.
#[tokio::test(start_paused = true)]
async fn a_second_death_is_noticed_however_slow_the_store_is() {
    let world = World::new();
    many_queues(&world, 2_000).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    // The moves take four seconds in all.
    world.store.set_latency(Duration::from_millis(200));
    world.brokers.set(&addr(1), Behaviour::Absent);
    until("some have moved", A_WHILE * 10, async || queues_by_broker(&world).await[1] > 0).await;
    world.brokers.set(&addr(2), Behaviour::Absent);
    sleep(Duration::from_secs(3)).await;
    let at_two = queues_by_broker(&world).await[1];
    assert!(at_two <= 300, "{at_two} queues were moved to a broker that was dead");
    until("all are at broker 3", A_WHILE * 20, async || queues_by_broker(&world).await == [0, 0, 2_000]).await;
}

/// The group delays no other move, neither in the cycle in which it fails nor, where it fills a cycle's limit, in the next
/// one.
#[tokio::test(start_paused = true)]
async fn a_group_of_moves_that_fails_holds_up_no_other() {
    for (most, limit) in [(5_000, Duration::from_millis(1_000 + 3 * 33 + 100)), (100, A_WHILE * 2)] {
        let world = World::new();
        many_queues(&world, 300).await;
        let (manager, _task) = world.manager(|settings| settings.max_moves_per_cycle = most);
        until_leading(&manager).await;
        sleep(A_WHILE).await;
        // This queue is one of the first to be moved.
        let stuck = world.store.queue(&label("q")).await.unwrap().unwrap().id;
        world.store.lock_queue(stuck);
        world.brokers.set(&addr(1), Behaviour::Absent);
        until("the others have moved", limit, async || queues_by_broker(&world).await == [100, 100, 100]).await;
        sleep(A_WHILE).await;
        assert!(manager.status().counters.cycles_failed >= 1, "the failure was not reported");
    }
}

/// The queues of a draining broker are served until they move, so only a few pause at once.
#[tokio::test(start_paused = true)]
async fn a_drain_moves_few_queues_at_a_time() {
    let world = World::new();
    many_queues(&world, 100).await;
    let first = world.store.brokers().await.unwrap()[0].id;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    world.brokers.take_calls();
    manager.set_draining(first, true).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(queues_by_broker(&world).await, [84, 8, 8]);
    let calls = world.brokers.take_calls();
    assert!(calls.contains(&Call::Refresh(addr(1))), "the old broker was not told");
    assert_eq!(calls.iter().filter(|call| matches!(call, Call::Rebuild(..))).count(), 16);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(queues_by_broker(&world).await, [68, 16, 16]);
    until("it is relieved", Duration::from_secs(7), async || queues_by_broker(&world).await == [0, 50, 50]).await;
    assert_eq!(manager.status().counters.handovers, 100);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_until_the_new_brokers_serve_what_they_were_given() {
    for behaviour in [Behaviour::ServesNothing, Behaviour::Hangs] {
        let world = World::new();
        many_queues(&world, 100).await;
        let first = world.store.brokers().await.unwrap()[0].id;
        // A broker that hangs counts as alive for the duration of a step.
        let (manager, _task) = world.manager(|settings| settings.life_probe_max_retries = 100);
        until_leading(&manager).await;
        sleep(A_WHILE).await;
        manager.set_draining(first, true).await.unwrap();
        until("a step is made", A_WHILE, async || queues_by_broker(&world).await[0] < 100).await;
        world.brokers.set(&addr(2), behaviour);
        sleep(Duration::from_secs(20)).await;
        let left = queues_by_broker(&world).await[0];
        assert!(left >= 68, "{behaviour:?}: {left} are left");
        // The drain continues after a pause: one queue that cannot be served does not stop it.
        world.brokers.set(&addr(2), Behaviour::Well);
        until("it is relieved", A_WHILE * 20, async || queues_by_broker(&world).await[0] == 0).await;
    }
}

/// Many queues take little longer than one: a few calls of the store per hundred, and a call for each broker.
#[tokio::test(start_paused = true)]
async fn queues_are_moved_many_at_once() {
    let world = World::new();
    many_queues(&world, 1_000).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    world.store.set_latency(Duration::from_millis(20));
    world.brokers.take_calls();
    world.brokers.set(&addr(1), Behaviour::Absent);
    let bound = Duration::from_millis(1_000 + 3 * 33 + 10 * 20 + 200);
    until("all have moved", bound, async || queues_by_broker(&world).await == [0, 500, 500]).await;
    sleep(A_WHILE).await;
    let refreshes = world.brokers.take_calls().into_iter().filter(|call| matches!(call, Call::Refresh(_))).count();
    assert_eq!(refreshes, 2, "calls to hurry two brokers up");
    assert_eq!(manager.status().counters.failovers, 1_000);
}

/// The store takes too long to purge the remains of deleted queues: cycles go on regardless.
#[tokio::test(start_paused = true)]
async fn a_purge_that_fails_holds_up_no_failover() {
    let world = World::new();
    three_brokers(&world).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    world.store.fail(Calls::Of(&["purge_deleted"]), Fault::Hangs);
    sleep(Duration::from_secs(10)).await;
    let status = manager.status();
    assert!(status.counters.purges_failed >= 2, "{:?}", status.counters);
    assert_eq!(status.counters.cycles_failed, 0);
    world.brokers.set(&addr(1), Behaviour::Absent);
    let bound = Duration::from_millis(1_000 + 3 * 33 + 100);
    until("the queue is elsewhere", bound, async || assignee(&world, "q").await != Some(addr(1))).await;
}
