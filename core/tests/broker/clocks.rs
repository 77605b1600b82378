//! A store's clock that is set forward and back.

use std::time::Duration;

use rmom_core::{
    broker::{BrokerError, NewMessage, PushRequest},
    model::Topic,
};

use super::{expect, label, message, numbered, push, take, world::World};

#[tokio::test(start_paused = true)]
async fn what_is_pushed_right_after_the_clock_was_set_back_is_delivered() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    world.sleep(Duration::from_millis(100)).await;
    world.set_clock_back(Duration::from_secs(100));
    // The broker has not read the clock since.
    let short = NewMessage { ttl: Some(Duration::from_secs(50)), ..message("1") };
    broker.push(PushRequest { message: short, ..push("") }).await.unwrap();
    let taken = tokio::time::timeout(Duration::from_secs(10), take(&mut subscription, 1)).await;
    assert_eq!(taken.expect("it has not expired"), expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_producer_is_remembered_when_the_clock_is_set_far_forward() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let first = one.push(numbered("1", 1)).await.unwrap();
    world.set_clock_forward(Duration::from_secs(2 * 3_600));
    // All messages have expired, and are trimmed.
    world.sleep(Duration::from_secs(70)).await;
    assert_eq!(world.log("q").await, []);
    let again = one.push(numbered("1", 1)).await.unwrap();
    assert!(again.duplicate, "its answer may have been lost a minute ago");
    assert_eq!(again.id, first.id);
    world.assign("q", 2).await.unwrap();
    assert!(two.push(numbered("1", 1)).await.unwrap().duplicate);
}

/// The broker's clock stood still during the sleep, without notice. A broker that trusts its lease must not deliver expired
/// messages.
#[tokio::test(start_paused = true)]
async fn a_broker_that_slept_delivers_nothing_before_it_asked_the_store() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let short = |content| NewMessage { ttl: Some(Duration::from_secs(60)), ..message(content) };
    broker.push(PushRequest { message: short("1"), ..push("") }).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    world.suspend(Duration::from_secs(3_600));
    assert!(matches!(subscription.next().await, Err(BrokerError::LeaseExpired)), "its lease is long over");
    assert!(matches!(broker.heartbeat(), Err(BrokerError::LeaseExpired)));
    // Each renewal of the lease also reads the store's clock.
    while broker.heartbeat().is_err() {
        world.settle().await;
    }
    broker.push(PushRequest { message: short("2"), ..push("") }).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(2..=2));
}
