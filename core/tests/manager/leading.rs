//! Leadership, and the start and end of a manager.

use std::time::Duration;

use rmom_core::{
    manager::{
        ManagerError, ManagerExit, ManagerSettings,
        testing::{Behaviour, Call, Calls, FakeBrokers, Fault, LONG, World, addr},
    },
    ports::Catalog as _,
};
use tokio::time::{Instant, sleep};

use super::{A_WHILE, assignee, label, until, until_leading};

#[tokio::test(start_paused = true)]
async fn only_the_leader_probes() {
    let world = World::new();
    world.broker(1, LONG).await;
    let seen_by_second = FakeBrokers::default();
    seen_by_second.set(&addr(1), Behaviour::Well);
    let (first, _task) = world.manager(|_| {});
    until_leading(&first).await;
    let (second, _task) = world.manager_over(&seen_by_second, |_| {});
    sleep(Duration::from_secs(10)).await;
    assert!(world.brokers.take_calls().contains(&Call::Heartbeat(addr(1))));
    assert_eq!(seen_by_second.take_calls(), []);
    let status = second.status();
    assert_eq!(
        (status.leading, status.leader, status.term),
        (false, Some(first.status().manager), first.status().term)
    );
    // The follower still knows the brokers from the store.
    assert!(status.brokers[0].live);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_leader_is_replaced_when_its_lease_runs_out() {
    let world = World::new();
    world.broker(1, LONG).await;
    world.broker(2, LONG).await;
    let (first, task) = world.manager(|_| {});
    until_leading(&first).await;
    let (second, _task) = world.manager(|_| {});
    let queue = second.create_queue(&label("q")).await.unwrap();
    sleep(A_WHILE).await;
    task.abort();
    world.brokers.set(&queue.addr, Behaviour::Absent);
    let settings = ManagerSettings::default();
    let bound = settings.lease * 4 / 3 + settings.cycle + Duration::from_millis(200);
    until("the queue is elsewhere", bound, async || assignee(&world, "q").await != Some(queue.addr.clone())).await;
    assert!(second.status().leading);
    assert!(second.status().term > first.status().term);
    assert!(!first.is_running() && !first.status().leading);
    assert_eq!(first.queues().await, Err(ManagerError::ShuttingDown));
    assert_eq!(first.ready().await, Err(ManagerError::ShuttingDown));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_hands_the_lead_over_at_once() {
    let world = World::new();
    let (first, task) = world.manager(|_| {});
    until_leading(&first).await;
    let (second, _task) = world.manager(|_| {});
    sleep(A_WHILE).await;
    first.shutdown(Duration::from_secs(5)).await;
    assert_eq!(task.await.unwrap(), ManagerExit::Stopped);
    assert_eq!(first.queues().await, Err(ManagerError::ShuttingDown));
    let settings = ManagerSettings::default();
    let limit = settings.lease / 3 + Duration::from_millis(50);
    until("the second leads", limit, async || second.status().leading).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_stops_leading_before_the_store_gives_its_lease_away() {
    let world = World::new();
    // A slow link to the store: the lease begins there well after the request.
    world.store.set_latency(Duration::from_millis(200));
    let (first, _task) = world.manager(|_| {});
    until_leading(&first).await;
    sleep(A_WHILE).await;
    world.store.fail(Calls::All, Fault::Hangs);
    until("the first steps down", Duration::from_secs(4), async || !first.status().leading).await;
    world.store.repair(Calls::All);
    world.store.set_latency(Duration::ZERO);
    let other = rmom_core::model::ManagerId::new(uuid::Uuid::from_u128(9));
    let held = world.store.lead(other, Duration::from_secs(3)).await.unwrap();
    assert_ne!(held.leader, other, "the lease was free while its holder still believed in it");
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_operations_finish_but_not_for_ever() {
    let world = World::new();
    world.broker(1, LONG).await;
    world.brokers.set(&addr(1), Behaviour::ServesNothing);
    for (patience, expected) in [(Duration::from_secs(60), false), (Duration::from_secs(1), true)] {
        let (manager, task) = world.manager(|_| {});
        let creation = tokio::spawn({
            let manager = manager.clone();
            let name = label(&format!("q{}", patience.as_secs()));
            async move { manager.create_queue(&name).await }
        });
        sleep(Duration::from_millis(500)).await;
        assert!(manager.status().leading);
        let begun = Instant::now();
        let stopping = tokio::spawn({
            let manager = manager.clone();
            async move { manager.shutdown(patience).await }
        });
        sleep(Duration::from_millis(10)).await;
        let status = manager.status();
        assert!(status.running && status.stopping && !status.leading);
        stopping.await.unwrap();
        let cut_off = matches!(creation.await.unwrap(), Err(ManagerError::ShuttingDown));
        assert_eq!(cut_off, expected, "{patience:?}");
        assert!(begun.elapsed() <= patience.min(Duration::from_secs(5)));
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_starts_without_a_store() {
    let world = World::new();
    world.broker(1, LONG).await;
    world.store.fail(Calls::All, Fault::Unavailable);
    let (manager, _task) = world.manager(|_| {});
    sleep(A_WHILE).await;
    assert!(manager.is_running());
    assert!(matches!(manager.create_queue(&label("q")).await, Err(ManagerError::Store(_))));
    world.store.repair(Calls::All);
    until_leading(&manager).await;
    manager.create_queue(&label("q")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_defect_in_a_part_ends_the_whole() {
    let world = World::new();
    let (manager, task) = world.manager(|_| {});
    until_leading(&manager).await;
    world.store.fail(Calls::All, Fault::Panics);
    assert!(task.await.unwrap_err().is_panic());
    assert!(!manager.is_running());
}

/// It leads or follows and the store answers reads, but no write succeeds: the manager reports when that begins and ends.
#[tokio::test(start_paused = true)]
async fn a_manager_that_cannot_write_is_not_ready() {
    let world = World::new();
    let (first, _task) = world.manager(|_| {});
    until_leading(&first).await;
    let (second, _task) = world.manager(|_| {});
    sleep(A_WHILE).await;
    let settings = ManagerSettings::default();
    world.store.fail(Calls::Writes, Fault::ReadOnly);
    for manager in [&first, &second] {
        assert_eq!(manager.ready().await, Ok(()), "one failure may pass");
    }
    sleep(settings.lease * 2).await;
    for manager in [&first, &second] {
        let error = manager.ready().await.unwrap_err().to_string();
        assert!(error.contains("nothing could be written for") && error.contains("read-only"), "{error}");
    }
    world.store.repair(Calls::All);
    sleep(settings.lease).await;
    for manager in [&first, &second] {
        assert_eq!(manager.ready().await, Ok(()));
    }
}
