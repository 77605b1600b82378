//! Queues that leave their broker and come back: during a recovery, or as another queue with the same label.

use std::time::Duration;

use rmom_core::{
    broker::{BrokerError, ProducerStamp, PushRequest},
    model::{ChannelId, Epoch, Offset, Position, ProducerKey, Sequence, Start, Topic},
    ports::{Catalog as _, CreateChannel, CreateQueue, Log as _},
    store::faulty::{Calls, Fault, Kind},
};
use uuid::Uuid;

use super::{expect, label, push, stamp, world::World};

#[tokio::test(start_paused = true)]
async fn an_append_is_not_made_again_after_somebody_else_owned_the_queue() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let id = stamp(1).key.id;
    let pushed = |epoch, content| {
        let key = ProducerKey { id, epoch };
        let producer = ProducerStamp { key, lowest_unacknowledged: Sequence::new(1) };
        PushRequest { producer: Some((producer, Sequence::new(1))), ..push(content) }
    };
    let first = one.open_producer(&label("q"), id).await.unwrap().epoch;
    world.store.fail_next(1, Kind::Append, Fault::RequestLost);
    world.store.fail(Kind::Claim, Fault::Unavailable);
    let pushing = tokio::spawn({
        let (one, push) = (one.clone(), pushed(first, "of the first epoch"));
        async move { one.push(push).await }
    });
    // By now the attempts to claim are far apart, so that the other broker owns the queue between two of them.
    world.sleep(Duration::from_secs(4)).await;
    world.store.repair(Kind::Claim);
    world.assign("q", 2).await.unwrap();
    let opened = two.open_producer(&label("q"), id).await.unwrap();
    world.assign("q", 1).await.unwrap();
    assert_eq!(opened.last_sequence, Sequence::ZERO);
    pushing.await.unwrap().expect_err("a later epoch was told that it is not stored");
    let receipt = loop {
        if let Ok(receipt) = one.push(pushed(opened.epoch, "1")).await {
            break receipt;
        }
        world.settle().await;
    };
    assert!(!receipt.duplicate);
    assert_eq!(world.log("q").await, expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_does_not_make_its_successor_accuse_the_store() {
    let world = World::new();
    let (one, _two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::AnswerLost);
    world.store.slow_requests(Kind::Claim, Duration::from_millis(500));
    let held_up = tokio::spawn({
        let one = one.clone();
        async move { one.push(push("1")).await }
    });
    world.settle().await;
    world.assign("q", 2).await.unwrap();
    one.refresh().await.unwrap();
    world.assign("q", 1).await.unwrap();
    // The new task's claim overtakes the old one's, which is still in flight; but it learns late where the log ends.
    world.store.slow_requests(Kind::Claim, Duration::ZERO);
    world.store.slow_answers(Calls::Of(&["tail"]), Duration::from_secs(1));
    one.refresh().await.unwrap();
    world.sleep(Duration::from_millis(10)).await;
    world.store.slow_answers(Calls::Of(&["tail"]), Duration::ZERO);
    held_up.await.unwrap().expect_err("there was another claim before it was found");
    world.sleep(Duration::from_secs(2)).await;
    one.push(push("2")).await.unwrap();
    assert_eq!(world.log("q").await, expect(1..=2));
}

#[tokio::test(start_paused = true)]
async fn a_position_from_another_owner_waits_for_the_recovery() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::RequestLost);
    world.store.fail(Kind::Claim, Fault::Unavailable);
    let pushing = tokio::spawn({
        let one = one.clone();
        async move { one.push(push("lost")).await }
    });
    // By now the attempts to claim are far apart, so that the other broker owns the queue between two of them.
    world.sleep(Duration::from_secs(4)).await;
    world.store.repair(Kind::Claim);
    world.assign("q", 2).await.unwrap();
    two.push(push("1")).await.unwrap();
    let elsewhere = world.subscribe(&two, channel, None).await.unwrap();
    let position = Position { queue: elsewhere.queue(), epoch: elsewhere.epoch(), offset: Offset::new(1) };
    world.assign("q", 1).await.unwrap();
    world.subscribe(&one, channel, Some(position)).await.unwrap();
    pushing.await.unwrap().expect_err("somebody else owned the queue");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_deleted_behind_a_claim_is_no_loss() {
    let world = World::new();
    let one = world.broker(1).await;
    let queue = one.create_queue(&label("q")).await.unwrap();
    one.push(push("1")).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::RequestLost);
    world.store.slow_requests(Calls::Of(&["tail"]), Duration::from_millis(500));
    let pushing = tokio::spawn({
        let one = one.clone();
        async move { one.push(push("2")).await }
    });
    // The queue has been claimed by now, and is gone when the broker reads its log.
    world.sleep(Duration::from_millis(250)).await;
    assert!(world.store.delete_queue(queue).await.unwrap());
    world.store.purge_deleted(10).await.unwrap();
    pushing.await.unwrap().expect_err("it is nowhere");
    world.settle().await;
    assert_eq!(one.push(push("3")).await.unwrap_err(), BrokerError::QueueNotFound(label("q")));
}

#[tokio::test(start_paused = true)]
async fn who_means_the_new_queue_is_not_taken_for_one_who_means_the_old() {
    let world = World::new();
    let one = world.broker(1).await;
    for (open, request) in [(true, 9), (false, 10)] {
        let old = one.create_queue(&label("q")).await.unwrap();
        let broker = world.store.queue_by_id(old).await.unwrap().unwrap().assignee.unwrap().0;
        // The broker has not learnt of it.
        assert!(world.store.delete_queue(old).await.unwrap());
        let create = CreateQueue { label: label("q"), assignee: Some(broker), request: Uuid::from_u128(request) };
        let queue = world.store.create_queue(&create).await.unwrap().id;
        if open {
            let meant = PushRequest { queue: Some(queue), ..push("1") };
            assert_eq!(one.push(meant).await.unwrap().queue, queue);
        } else {
            let (id, topic, start) = (ChannelId::new(Uuid::from_u128(7)), Topic::NONE, Start::Earliest);
            world.store.create_channel(&CreateChannel { id, queue, topic, start, disposable: false }).await.unwrap();
            assert_eq!(world.subscribe(&one, id, None).await.unwrap().queue(), queue);
        }
        // A push for the old queue is told that it is gone.
        let meant = PushRequest { queue: Some(old), ..push("1") };
        assert_eq!(one.push(meant).await.unwrap_err(), BrokerError::QueueReplaced { queue: old });
        let never = queue.next();
        let meant = PushRequest { queue: Some(never), ..push("1") };
        assert_eq!(one.push(meant).await.unwrap_err(), BrokerError::QueueReplaced { queue: never });
        one.delete_queue(&label("q")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_process_does_not_refuse_what_it_cannot_know() {
    let world = World::new();
    let old = world.broker(1).await;
    let queue = old.create_queue(&label("q")).await.unwrap();
    let (id, topic, start) = (ChannelId::new(Uuid::from_u128(7)), Topic::NONE, Start::Earliest);
    world.store.create_channel(&CreateChannel { id, queue, topic, start, disposable: false }).await.unwrap();
    // Under the same host and port, so that the assignment is the same, too. The old process's lease still runs.
    let new = world.broker(1).await;
    let offset = new.push(push("1")).await.unwrap().offset.unwrap();
    for epoch in [Epoch::ZERO, Epoch::new(2)] {
        let position = Some(Position { queue, epoch, offset });
        world.subscribe(&new, id, position).await.unwrap();
        assert_eq!(world.subscribe(&old, id, position).await.map(drop).unwrap_err(), BrokerError::Fenced);
    }
}
