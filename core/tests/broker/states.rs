//! A broker's summary of all its queues, for lists.

use rmom_core::{
    broker::BrokerError,
    model::Topic,
    ports::{QueueActivity, QueueState},
};

use super::{label, push, take, world::World};

#[tokio::test(start_paused = true)]
async fn each_queue_of_a_range_is_told_and_halted_ones_say_why() {
    let world = World::new();
    let broker = world.broker(1).await;
    for name in ["p", "q", "r"] {
        broker.create_queue(&label(name)).await.unwrap();
    }
    let states = |first: &str, last: &str| broker.states(label(first)..=label(last)).unwrap();
    assert_eq!((states("q", "r").len(), states("s", "z").len(), states("z", "a").len()), (2, 0, 0));

    let mut subscriptions = Vec::new();
    for _ in 0..2 {
        let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
        subscriptions.push(world.subscribe(&broker, channel, None).await.unwrap());
    }
    broker.push(push("1")).await.unwrap();
    let backup = world.store.backup();
    broker.push(push("2")).await.unwrap();
    broker.push(push("3")).await.unwrap();
    take(&mut subscriptions[0], 3).await;
    take(&mut subscriptions[1], 1).await;
    let QueueState { activity, reason, last_offset, depth_messages, subscribers, largest_lag, .. } =
        states("q", "q").remove(0);
    assert_eq!((activity, reason), (QueueActivity::Served, None));
    assert_eq!((last_offset.get(), depth_messages, subscribers, largest_lag), (3, 3, 2, 2));

    world.store.restore(backup);
    let error = broker.push(push("4")).await.unwrap_err();
    assert!(matches!(error, BrokerError::StoreRolledBack { .. }), "{error:?}");
    let halted = states("q", "q").remove(0);
    assert_eq!((halted.activity, halted.reason), (QueueActivity::Halted, Some(error.to_string())));
}
