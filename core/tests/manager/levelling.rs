//! Brokers are levelled: a few queues at a time, and only while nothing else is wrong.

use std::time::Duration;

use rmom_core::{
    access,
    manager::{
        Manager, ManagerError,
        testing::{Behaviour, Call, LONG, World, addr},
    },
    model::BrokerId,
    ports::{Catalog as _, CreateQueue},
};
use tokio::time::sleep;
use uuid::Uuid;

use super::{A_WHILE, assignments, label, until, until_leading};

const AFTER: Duration = Duration::from_secs(30);

/// Creates queues `q0`, `q1` … on one broker.
async fn give(world: &World, to: BrokerId, count: u32) {
    let present = world.store.queues().await.unwrap().len() as u32;
    for n in present..present + count {
        let (label, request) = (label(&format!("q{n}")), Uuid::from_u128(1_000 + u128::from(n)));
        world.store.create_queue(&CreateQueue { label, assignee: Some(to), request }).await.unwrap();
    }
}

async fn spread(world: &World) -> Vec<u64> {
    world.store.brokers().await.unwrap().iter().map(|broker| broker.queues).collect()
}

/// Three brokers, of which the first has all queues.
async fn lopsided(count: u32) -> (World, Manager<access::Call>) {
    let world = World::new();
    let first = world.broker(1, LONG).await;
    world.broker(2, LONG).await;
    world.broker(3, LONG).await;
    give(&world, first, count).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    (world, manager)
}

#[tokio::test(start_paused = true)]
async fn queues_are_spread_a_few_at_a_time_once_all_has_been_well_for_a_while() {
    let (world, manager) = lopsided(30).await;
    sleep(AFTER - A_WHILE).await;
    assert_eq!(spread(&world).await, [30, 0, 0], "moved before the brokers had been the same for long enough");
    world.brokers.take_calls();
    until("something moves", A_WHILE * 2, async || spread(&world).await[0] < 30).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(spread(&world).await, [22, 4, 4]);
    let calls = world.brokers.take_calls();
    assert!(calls.contains(&Call::Refresh(addr(1))), "the old broker was not told");
    assert_eq!(calls.iter().filter(|call| matches!(call, Call::Rebuild(..))).count(), 8);
    sleep(A_WHILE * 2).await;
    assert_eq!(spread(&world).await, [10, 10, 10]);
    // Each was moved once, and then stays.
    sleep(AFTER * 4).await;
    assert_eq!(manager.status().counters.rebalanced, 20);
    assert_eq!(manager.status().counters.handovers, 0);
    for n in 0..30 {
        assert!(assignments(&world, &format!("q{n}")).await <= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_back_gets_its_share_again() {
    let (world, manager) = lopsided(0).await;
    for id in 1..=3 {
        give(&world, BrokerId::new(id), 10).await;
    }
    world.brokers.set(&addr(1), Behaviour::Absent);
    until("it is relieved", A_WHILE, async || spread(&world).await == [0, 15, 15]).await;
    sleep(AFTER * 2).await;
    assert_eq!(spread(&world).await, [0, 15, 15], "a dead broker was given queues");
    world.brokers.set(&addr(1), Behaviour::Well);
    let back = AFTER + A_WHILE * 2;
    until("it has its share", back, async || spread(&world).await == [10, 10, 10]).await;
    assert_eq!(manager.status().counters.rebalanced, 10);
}

#[tokio::test(start_paused = true)]
async fn a_small_difference_moves_nothing() {
    let (world, manager) = lopsided(2).await;
    sleep(AFTER * 2).await;
    assert_eq!(spread(&world).await, [2, 0, 0]);
    give(&world, BrokerId::new(1), 1).await;
    until("three are too many", A_WHILE, async || spread(&world).await == [1, 1, 1]).await;
    assert_eq!(manager.status().counters.rebalanced, 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_levelled_during_a_failover() {
    let (world, manager) = lopsided(30).await;
    // A broker that does not answer, although it has no queues and its lease runs.
    world.brokers.set(&addr(3), Behaviour::Hangs);
    sleep(AFTER * 2).await;
    assert_eq!(spread(&world).await, [30, 0, 0]);
    world.brokers.set(&addr(3), Behaviour::Well);
    sleep(AFTER - A_WHILE).await;
    assert_eq!(spread(&world).await, [30, 0, 0], "moved before the broker had been alive for long enough");
    until("a step is made", A_WHILE * 2, async || spread(&world).await[0] < 30).await;
    // The broker dies during the levelling: its new queues move to the others, and the levelling waits.
    world.brokers.set(&addr(3), Behaviour::Absent);
    until("it is relieved", A_WHILE, async || spread(&world).await[2] == 0).await;
    let moved = manager.status().counters.rebalanced;
    sleep(AFTER).await;
    assert_eq!(manager.status().counters.rebalanced, moved);
}

#[tokio::test(start_paused = true)]
async fn a_draining_broker_is_given_nothing_back_until_it_is_taken_back() {
    let (world, manager) = lopsided(0).await;
    for id in 1..=3 {
        give(&world, BrokerId::new(id), 10).await;
    }
    manager.set_draining(BrokerId::new(1), true).await.unwrap();
    sleep(AFTER * 2).await;
    assert_eq!(spread(&world).await, [0, 15, 15]);
    manager.set_draining(BrokerId::new(1), false).await.unwrap();
    until("it has its share", AFTER + A_WHILE * 2, async || spread(&world).await == [10, 10, 10]).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_serves_nothing_is_not_given_more() {
    let (world, manager) = lopsided(60).await;
    world.brokers.set(&addr(2), Behaviour::ServesNothing);
    sleep(AFTER + A_WHILE * 3).await;
    assert_eq!(manager.status().counters.rebalanced, 8);
    assert_eq!(spread(&world).await, [52, 4, 4]);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_switched_off_and_done_by_hand() {
    let world = World::new();
    let first = world.broker(1, LONG).await;
    world.broker(2, LONG).await;
    give(&world, first, 50).await;
    let (manager, _task) = world.manager(|settings| settings.rebalance = false);
    until_leading(&manager).await;
    sleep(AFTER * 2).await;
    assert_eq!(spread(&world).await, [50, 0]);
    // By hand, a limited number at a time, without a pause.
    let done = manager.rebalance().await.unwrap();
    assert_eq!((done.moved.len(), done.left), (16, 9));
    assert!(done.moved.iter().all(|moved| moved.served && moved.from == addr(1) && moved.to == addr(2)));
    let done = manager.rebalance().await.unwrap();
    assert_eq!((done.moved.len(), done.left), (9, 0));
    assert_eq!(spread(&world).await, [25, 25]);
    assert_eq!(manager.rebalance().await.unwrap().moved, []);
    // Not while a broker does not answer, either.
    world.brokers.set(&addr(2), Behaviour::Hangs);
    assert!(matches!(manager.rebalance().await.unwrap_err(), ManagerError::Unsettled(_)));
}
