//! Many queues at once: they take turns at the store.

use std::time::Duration;

use rmom_core::{
    access::Call,
    broker::{Broker, BrokerError, NewMessage, PushRequest, QueuePhase},
    model::ProducerId,
    store::faulty::{Calls, Kind},
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{label, message, world::World};

fn named(n: usize) -> String {
    format!("q{n}")
}

/// Creates queues on broker 1, which then crashes.
async fn left_behind(world: &World, queues: usize) {
    let (broker, task) = world.spawn(1, |_| {});
    while broker.heartbeat().is_err() {
        world.settle().await;
    }
    for n in 0..queues {
        broker.create_queue(&label(&named(n))).await.unwrap();
    }
    task.abort();
    world.settle().await;
    world.store.take_most_at_once("claim");
}

fn served(broker: &Broker<Call>) -> usize {
    broker.status().queues.iter().filter(|queue| queue.phase == QueuePhase::Serving).count()
}

#[tokio::test(start_paused = true)]
async fn queues_that_are_taken_back_are_activated_a_few_at_a_time() {
    let world = World::new();
    left_behind(&world, 40).await;
    world.store.slow_requests(Kind::Claim, Duration::from_millis(500));
    let broker = world.broker_with(1, |settings| settings.max_activations = 3).await;
    let began = Instant::now();
    while served(&broker) < 40 {
        world.sleep(Duration::from_millis(100)).await;
        broker.heartbeat().expect("taking queues back looks like death");
        assert!(!broker.has_broken_queue(Duration::from_secs(1)), "waiting for its turn is not failing");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(world.store.take_most_at_once("claim"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_somebody_asks_for_is_activated_before_the_others() {
    let world = World::new();
    left_behind(&world, 40).await;
    world.store.slow_requests(Kind::Claim, Duration::from_millis(500));
    let broker = world.broker_with(1, |settings| settings.max_activations = 1).await;
    world.sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    let push = PushRequest { label: label(&named(39)), queue: None, producer: None, message: message("1") };
    broker.push(push).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "it was served after {:?}", began.elapsed());
    assert!(served(&broker) < 10);
}

#[tokio::test(start_paused = true)]
async fn trims_take_turns_and_who_opens_a_producer_does_not_wait_for_all() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.max_trims = 2).await;
    for n in 0..60 {
        broker.create_queue(&label(&named(n))).await.unwrap();
        let message = NewMessage { ttl: Some(Duration::from_secs(5)), ..message("1") };
        broker.push(PushRequest { label: label(&named(n)), queue: None, producer: None, message }).await.unwrap();
    }
    world.store.slow_requests(Kind::Trim, Duration::from_millis(400));
    world.store.take_most_at_once("trim");
    // All queues have batches to remove, which takes twelve seconds in all.
    world.sleep(Duration::from_secs(7)).await;
    let began = Instant::now();
    let producer = ProducerId::new(Uuid::from_u128(5));
    broker.open_producer(&label(&named(59)), producer).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "it was opened after {:?}", began.elapsed());
    world.sleep(Duration::from_secs(20)).await;
    assert_eq!(world.store.take_most_at_once("trim"), 2);
    for n in 0..60 {
        assert_eq!(world.log(&named(n)).await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn named_producers_are_opened_a_few_at_a_time() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    world.store.slow_requests(Calls::Of(&["open_producer"]), Duration::from_millis(50));
    let open = |n| {
        let broker = broker.clone();
        async move { broker.open_producer(&label("q"), ProducerId::new(Uuid::from_u128(n))).await }
    };
    let opened = futures_util::future::join_all((0..40).map(open)).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(world.store.take_most_at_once("open_producer"), 2);
    world.store.slow_requests(Calls::Of(&["open_producer"]), Duration::from_millis(900));
    // Callers for which it takes too long get an error.
    let opened = futures_util::future::join_all((40..80).map(open)).await;
    let refused: Vec<_> = opened.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|error| matches!(error, BrokerError::Overloaded { limit: 2, .. })), "{refused:?}");
}
