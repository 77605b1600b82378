//! A broker's work while it reads the store, and the calls that it makes.

use std::time::Duration;

use rmom_core::{
    access::Call,
    broker::BrokerError,
    model::{ChannelId, Topic},
    ports::Catalog as _,
    store::faulty::{Calls, Fault},
};
use tokio::time::{Instant, timeout};

use super::{label, world::World};

/// A broker with this many queues, each with a channel and a subscriber.
async fn with_subscribers(world: &World, queues: usize) -> (rmom_core::broker::Broker<Call>, Vec<ChannelId>) {
    let broker = world.broker(1).await;
    let mut channels = Vec::new();
    for n in 0..queues {
        let label = label(&format!("q{n}"));
        broker.create_queue(&label).await.unwrap();
        channels.push(broker.create_channel(&label, Topic::NONE).await.unwrap());
    }
    channels.sort_unstable();
    (broker, channels)
}

#[tokio::test(start_paused = true)]
async fn the_lease_runs_out_at_its_instant_whatever_the_broker_waits_for() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    // Just below the deadline of one call, while the broker is nudged to read again and again.
    world.store.slow_requests(Calls::Of(&["assigned_queues"]), Duration::from_millis(1_900));
    for _ in 0..3 {
        let broker = broker.clone();
        tokio::spawn(async move {
            loop {
                let _ = broker.refresh().await;
                tokio::task::yield_now().await;
            }
        });
    }
    world.sleep(Duration::from_secs(10)).await;
    world.store.fail(Calls::All, Fault::Unavailable);
    // The lease was renewed at most a second ago.
    let down = Instant::now();
    let ended = timeout(Duration::from_secs(60), subscription.next()).await.expect("nobody saw the lease run out");
    assert_eq!(ended, Err(BrokerError::LeaseExpired));
    assert!(down.elapsed() <= Duration::from_secs(3), "it was seen after {:?}", down.elapsed());
    assert_eq!(broker.heartbeat(), Err(BrokerError::LeaseExpired));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_ends_does_not_wait_for_a_look() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    two.create_queue(&label("other")).await.unwrap();
    world.store.slow_requests(Calls::Of(&["assigned_queues"]), Duration::from_millis(1_900));
    let looking = tokio::spawn({
        let one = one.clone();
        async move { one.refresh().await }
    });
    world.sleep(Duration::from_millis(100)).await;
    // The other broker claims; the first finds out at its next push, while its own read of the store is still under way.
    world.assign("q", 2).await.unwrap();
    world.store.slow_requests(Calls::Of(&["assigned_queues"]), Duration::ZERO);
    two.rebuild_queue(&label("q")).await.unwrap();
    assert!(one.push(super::push("1")).await.is_err());
    world.settle().await;
    assert_eq!(one.status().queues.len(), 0, "it is not hosted any more");
    assert!(!looking.is_finished());
}

#[tokio::test(start_paused = true)]
async fn all_queues_that_went_are_asked_for_at_once() {
    let world = World::new();
    let (one, _) = with_subscribers(&world, 5).await;
    let _two = world.broker(2).await;
    for n in 0..4 {
        world.assign(&format!("q{n}"), 2).await.unwrap();
    }
    world.store.take_queues_by_ids();
    one.refresh().await.unwrap();
    let asked = world.store.take_queues_by_ids();
    assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [4], "{asked:?}");
    assert_eq!(one.status().queues.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn channels_without_a_subscriber_here_are_not_read() {
    let world = World::new();
    let (broker, channels) = with_subscribers(&world, 20).await;
    let mut subscriptions = Vec::new();
    for &channel in &channels {
        subscriptions.push((channel, world.subscribe(&broker, channel, None).await.unwrap()));
    }
    for _ in 0..50 {
        broker.create_channel(&label("q0"), Topic::NONE).await.unwrap();
    }
    world.sleep(Duration::from_secs(3)).await;
    world.store.take_known_channels();
    broker.refresh().await.unwrap();
    assert_eq!(world.store.take_known_channels(), channels);
    let (gone, mut ends) = subscriptions.remove(7);
    world.store.delete_channel(gone).await.unwrap();
    broker.refresh().await.unwrap();
    assert_eq!(ends.next().await, Err(BrokerError::ChannelNotFound(gone)));
    for (_, subscription) in &mut subscriptions {
        assert!(timeout(Duration::from_millis(10), subscription.next()).await.is_err(), "it was ended, too");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_deleted_elsewhere_is_forgotten() {
    let world = World::new();
    let (one, _) = with_subscribers(&world, 1).await;
    let _two = world.broker(2).await;
    world.assign("q0", 2).await.unwrap();
    one.refresh().await.unwrap();
    world.sleep(Duration::from_secs(3)).await;
    let queue = world.store.queue(&label("q0")).await.unwrap().unwrap().id;
    let asked_by_a_look = async || {
        world.store.take_queues_by_ids();
        one.refresh().await.unwrap();
        world.store.take_queues_by_ids().concat()
    };
    assert_eq!(asked_by_a_look().await, [], "looks that others wait for ask for what nobody waits for");
    world.sleep(Duration::from_secs(60)).await;
    assert_eq!(asked_by_a_look().await, [queue], "it may come back, and must not have lost anything then");
    assert!(world.store.delete_queue(queue).await.unwrap());
    assert_eq!(asked_by_a_look().await, []);
    world.sleep(Duration::from_secs(60)).await;
    assert_eq!(asked_by_a_look().await, [queue]);
    world.sleep(Duration::from_secs(60)).await;
    assert_eq!(asked_by_a_look().await, []);
}

/// A failover waits for the new broker's read of its assignments, and for no other call of the refresh.
#[tokio::test(start_paused = true)]
async fn what_is_assigned_is_hosted_before_the_broker_asks_for_what_it_lost() {
    let world = World::new();
    let (one, _) = with_subscribers(&world, 1).await;
    let two = world.broker(2).await;
    two.create_queue(&label("comes")).await.unwrap();
    world.assign("q0", 2).await.unwrap();
    world.assign("comes", 1).await.unwrap();
    world.store.slow_requests(Calls::Of(&["queues_by_ids"]), Duration::from_millis(1_900));
    let looking = tokio::spawn({
        let one = one.clone();
        async move { one.refresh().await }
    });
    world.sleep(Duration::from_millis(100)).await;
    assert!(one.status().queues.iter().any(|queue| queue.label == label("comes")), "it waits");
    assert!(!looking.is_finished());
}

/// The label of a deleted queue that is hosted here names another queue, between two reads of the store.
#[tokio::test(start_paused = true)]
async fn a_queue_that_was_replaced_is_let_go_at_once() {
    let world = World::new();
    let (one, channels) = with_subscribers(&world, 1).await;
    let mut subscription = world.subscribe(&one, channels[0], None).await.unwrap();
    let old = world.store.queue(&label("q0")).await.unwrap().unwrap();
    world.store.fail(Calls::Of(&["assigned_queues"]), Fault::Unavailable);
    world.store.delete_queue(old.id).await.unwrap();
    let assignee = old.assignee.map(|(id, _)| id);
    let request = uuid::Uuid::from_u128(77);
    let create = rmom_core::ports::CreateQueue { label: label("q0"), assignee, request };
    let new = world.store.create_queue(&create).await.unwrap();
    world.store.slow_requests(Calls::Of(&["queues_by_ids"]), Duration::from_millis(1_900));
    world.store.repair(Calls::Of(&["assigned_queues"]));
    let _looking = tokio::spawn({
        let one = one.clone();
        async move { one.refresh().await }
    });
    world.sleep(Duration::from_millis(500)).await;
    let ended = timeout(Duration::from_millis(1), subscription.next()).await.expect("the old queue's stream goes on");
    assert_eq!(ended, Err(BrokerError::QueueReplaced { queue: old.id }));
    let hosted = one.status().queues;
    assert_eq!(hosted.iter().map(|queue| queue.queue).collect::<Vec<_>>(), [new.id]);
}

/// The store is down, and streams that read from it wait for each other.
#[tokio::test(start_paused = true)]
async fn streams_that_wait_for_the_store_end_with_the_lease() {
    let world = World::new();
    let broker = world
        .broker_with(1, |settings| {
            settings.max_store_reads = 1;
            settings.queue_buffer_messages = 1;
        })
        .await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    for n in 0..10 {
        broker.push(super::push(&n.to_string())).await.unwrap();
    }
    let mut subscriptions = Vec::new();
    for _ in 0..20 {
        subscriptions.push(world.subscribe(&broker, channel, None).await.unwrap());
    }
    world.store.fail(Calls::All, Fault::Hangs);
    let began = Instant::now();
    let mut reading = tokio::task::JoinSet::new();
    for mut subscription in subscriptions {
        reading.spawn(async move { (subscription.next().await.map(drop), Instant::now()) });
    }
    let ended = timeout(Duration::from_secs(60), reading.join_all()).await.expect("some do not end");
    let last = ended.iter().map(|(_, at)| *at).max().unwrap().duration_since(began);
    assert!(last <= Duration::from_secs(3) + Duration::from_millis(10), "the last ended after {last:?}");
    // One stream had its turn and may have seen the deadline of the read before.
    let with_lease = ended.iter().filter(|(ended, _)| *ended == Err(BrokerError::LeaseExpired)).count();
    assert!(with_lease >= 18, "{ended:?}");
}
