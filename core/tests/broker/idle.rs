//! Channels without subscribers.

use std::time::Duration;

use rmom_core::{
    access::Call,
    broker::{Broker, BrokerError},
    model::{ChannelId, Start, StoreTime, Topic},
    ports::{Catalog as _, CreateChannel},
    store::faulty::{Calls, Fault},
};
use uuid::Uuid;

use super::{expect, label, push, take, world::World};

const EXPIRY: Duration = Duration::from_secs(3_600);

async fn broker(world: &World, n: u16) -> Broker<Call> {
    world.broker_with(n, |settings| settings.channel_idle_expiry = Some(EXPIRY)).await
}

async fn minutes(world: &World, n: u64) {
    world.sleep(Duration::from_secs(n * 60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_subscribes_to_goes_and_others_stay() {
    let world = World::new();
    let one = broker(&world, 1).await;
    let queue = one.create_queue(&label("q")).await.unwrap();
    let (idle, used) = (
        one.create_channel(&label("q"), Topic::NONE).await.unwrap(),
        one.create_channel(&label("q"), Topic::NONE).await.unwrap(),
    );
    let lasting = ChannelId::new(Uuid::from_u128(7));
    let (topic, start) = (Topic::NONE, Start::Earliest);
    world.store.create_channel(&CreateChannel { id: lasting, queue, topic, start, disposable: false }).await.unwrap();
    let mut subscription = world.subscribe(&one, used, None).await.unwrap();
    minutes(&world, 59).await;
    assert_eq!(world.store.channels(None).await.unwrap().len(), 3);
    minutes(&world, 30).await;
    assert_eq!(one.status().expired_channels, 1);
    let gone = world.subscribe(&one, idle, None).await.map(drop).unwrap_err();
    assert_eq!(gone, BrokerError::ChannelNotFound(idle));
    world.subscribe(&one, lasting, None).await.unwrap();
    minutes(&world, 600).await;
    one.push(push("1")).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(1..=1), "it was subscribed to all the while");
    drop(subscription);
    minutes(&world, 59).await;
    drop(world.subscribe(&one, used, None).await.unwrap());
    minutes(&world, 59).await;
    assert_eq!(one.status().expired_channels, 1, "somebody subscribed within the hour");
    minutes(&world, 30).await;
    assert_eq!(one.status().expired_channels, 2);
    assert!(world.store.channel(lasting).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_idle_unless_a_setting_says_so() {
    let world = World::new();
    let one = world.broker(1).await;
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    minutes(&world, 600).await;
    world.subscribe(&one, channel, None).await.unwrap();
}

/// A full database accepts no writes, but its messages can still be read.
#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_writes_keeps_nobody_from_reading() {
    let world = World::new();
    let one = broker(&world, 1).await;
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    one.push(push("1")).await.unwrap();
    world.store.fail(Calls::Of(&["use_channels"]), Fault::Refused);
    let mut subscription = world.subscribe(&one, channel, None).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(1..=1));
    minutes(&world, 300).await;
    world.store.repair(Calls::Of(&["use_channels"]));
    minutes(&world, 300).await;
    assert_eq!(one.status().expired_channels, 0, "it was subscribed to all the while");
    let missing = ChannelId::new(Uuid::from_u128(7));
    world.store.fail(Calls::Of(&["use_channels"]), Fault::Refused);
    let unknown = world.subscribe(&one, missing, None).await.map(drop).unwrap_err();
    assert_eq!(unknown, BrokerError::ChannelNotFound(missing));
}

/// The database fails over to a machine whose clock is a day ahead.
#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_ahead_lets_clients_come_back() {
    let world = World::new();
    let one = broker(&world, 1).await;
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    drop(world.subscribe(&one, channel, None).await.unwrap());
    minutes(&world, 30).await;
    world.set_clock_forward(Duration::from_secs(86_400));
    minutes(&world, 50).await;
    assert_eq!(one.status().expired_channels, 0);
    drop(world.subscribe(&one, channel, None).await.unwrap());
    minutes(&world, 90).await;
    assert_eq!(one.status().expired_channels, 1);
}

/// Channels that were in use before a failover get time for their clients to return.
#[tokio::test(start_paused = true)]
async fn a_new_owner_lets_clients_come_back() {
    let world = World::new();
    let (one, two) = (broker(&world, 1).await, broker(&world, 2).await);
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let subscription = world.subscribe(&one, channel, None).await.unwrap();
    minutes(&world, 90).await;
    // No broker reaches the database, and no client subscribes, for longer than a channel may be idle.
    world.store.fail(Calls::All, Fault::Unavailable);
    minutes(&world, 90).await;
    drop(subscription);
    world.store.repair(Calls::All);
    world.sleep(Duration::from_secs(10)).await;
    world.assign("q", 2).await.unwrap();
    minutes(&world, 50).await;
    world.subscribe(&two, channel, None).await.unwrap();
    minutes(&world, 50).await;
    world.subscribe(&two, channel, None).await.unwrap();
    assert_eq!((one.status().expired_channels, two.status().expired_channels), (0, 0));
    minutes(&world, 90).await;
    assert_eq!(two.status().expired_channels, 1);
}

/// The machine sleeps, or the database is down: the owner stays, but no client could subscribe.
#[tokio::test(start_paused = true)]
async fn an_owner_that_was_away_lets_clients_come_back() {
    let world = World::new();
    let one = broker(&world, 1).await;
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    drop(world.subscribe(&one, channel, None).await.unwrap());
    minutes(&world, 30).await;
    world.suspend(Duration::from_secs(7_200));
    minutes(&world, 50).await;
    drop(world.subscribe(&one, channel, None).await.unwrap());
    world.store.fail(Calls::All, Fault::Unavailable);
    minutes(&world, 120).await;
    world.store.repair(Calls::All);
    minutes(&world, 50).await;
    drop(world.subscribe(&one, channel, None).await.unwrap());
    assert_eq!(one.status().expired_channels, 0);
}

/// A replaced broker that does not know it yet deletes no channel that is in use elsewhere.
#[tokio::test(start_paused = true)]
async fn who_subscribes_elsewhere_keeps_the_channel() {
    let world = World::new();
    let one = broker(&world, 1).await;
    let queue = one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let assignee = world.store.queue_by_id(queue).await.unwrap().unwrap().assignee.unwrap().0;
    minutes(&world, 59).await;
    assert_eq!(world.store.use_channels(&[channel], Duration::from_secs(60)).await.unwrap(), [channel]);
    minutes(&world, 30).await;
    let late = world.store.delete_idle_channels(assignee, &[queue], EXPIRY, StoreTime::NEVER, 10).await.unwrap();
    assert_eq!((late.len(), one.status().expired_channels), (0, 0));
}
