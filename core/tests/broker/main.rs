//! Brokers over the in-memory store, with faults between them.

mod bounded;
mod clocks;
mod idle;
mod logs;
mod looks;
mod returns;
mod states;
mod turns;
mod world;

use std::time::Duration;

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use rmom_core::{
    access::{Call, Caller, Right},
    broker::{
        Broker, BrokerError, CHANNELS_AT_ONCE, NewMessage, OpenPush, ProducerStamp, PushRequest, PushRun,
        SubscribeRequest, Subscription,
    },
    model::{
        ChannelId, Code, Coded, Epoch, Offset, Position, ProducerEpoch, ProducerId, ProducerKey, QueueLabel, Sequence,
        Topic,
    },
    ports::{AssignError, Catalog as _, Log as _, StoreError},
    store::faulty::{Calls, Fault, Kind},
};
use rmom_proto::messages::Message;
use uuid::Uuid;

use self::world::World;

/// The look-ups of channels.
const CHANNEL_LOOK_UPS: Calls = Calls::Of(&["channel", "channels", "known_channels"]);

fn label(raw: &str) -> QueueLabel {
    QueueLabel::parse(raw).unwrap()
}

fn message(content: &str) -> NewMessage {
    NewMessage { content: Bytes::copy_from_slice(content.as_bytes()), ..NewMessage::default() }
}

fn push(content: &str) -> PushRequest {
    PushRequest { label: label("q"), queue: None, producer: None, message: message(content) }
}

fn stamp(lowest: u64) -> ProducerStamp {
    let key = ProducerKey { id: ProducerId::new(Uuid::from_u128(77)), epoch: ProducerEpoch::ZERO };
    ProducerStamp { key, lowest_unacknowledged: Sequence::new(lowest) }
}

fn numbered(content: &str, sequence: u64) -> PushRequest {
    PushRequest { producer: Some((stamp(1), Sequence::new(sequence))), ..push(content) }
}

async fn take(subscription: &mut Subscription, n: usize) -> Vec<(u64, String)> {
    let mut taken = Vec::new();
    while taken.len() < n {
        let mut frames = subscription.next().await.unwrap();
        while frames.has_remaining() {
            frames.advance(1);
            let length = frames.get_u32() as usize;
            let message = Message::decode(frames.split_to(length)).unwrap();
            taken.push((message.offset, String::from_utf8(message.content.to_vec()).unwrap()));
        }
    }
    taken
}

fn expect(range: std::ops::RangeInclusive<u64>) -> Vec<(u64, String)> {
    range.map(|n| (n, n.to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_is_delivered_in_order() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    assert_eq!(broker.create_queue(&label("Q")).await, Err(BrokerError::QueueExists(label("q"))));
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    for n in 1..=3 {
        let receipt = broker.push(push(&n.to_string())).await.unwrap();
        assert_eq!((receipt.offset, receipt.duplicate), (Some(Offset::new(n)), false));
    }
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    assert_eq!(take(&mut subscription, 3).await, expect(1..=3));
    broker.push(push("4")).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(4..=4));
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_stored_once_also_by_another_broker() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let first = one.push(numbered("1", 1)).await.unwrap();
    let again = one.push(numbered("1", 1)).await.unwrap();
    assert_eq!((again.id, again.offset, again.duplicate), (first.id, first.offset, true));
    world.assign("q", 2).await.unwrap();
    let elsewhere = two.push(numbered("1", 1)).await.unwrap();
    assert_eq!((elsewhere.id, elsewhere.duplicate), (first.id, true));
    assert_eq!(two.push(numbered("2", 2)).await.unwrap().offset, Some(Offset::new(2)));
    let gap = BrokerError::SequenceGap { expected: Sequence::new(3), found: Sequence::new(4) };
    assert_eq!(two.push(numbered("4", 4)).await, Err(gap));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_broker_is_fenced_and_says_where_to_go() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    one.push(push("1")).await.unwrap();
    let mut subscription = world.subscribe(&one, channel, None).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(1..=1));
    world.assign("q", 2).await.unwrap();
    two.push(push("2")).await.unwrap();
    // The first broker does not know yet: its append finds the later epoch.
    let error = one.push(push("lost")).await.unwrap_err();
    assert!(matches!(error, BrokerError::Fenced | BrokerError::NotHosted { .. }), "{error:?}");
    assert!(subscription.next().await.is_err(), "its subscribers are sent away");
    assert_eq!(one.status().fenced_appends, 1, "also of queues that it no longer hosts");
    let moves = |broker: &Broker<Call>| broker.status().queues.iter().map(|queue| queue.moves).collect::<Vec<_>>();
    assert_eq!((moves(&one), moves(&two)), (vec![], vec![1]));
    let elsewhere = BrokerError::NotHosted { assignee: Some(world::addr(2)) };
    world.settle().await;
    assert_eq!(one.push(push("x")).await, Err(elsewhere));
    let position = Position { queue: subscription.queue(), epoch: subscription.epoch(), offset: Offset::new(1) };
    let mut moved = world.subscribe(&two, channel, Some(position)).await.unwrap();
    assert_eq!(take(&mut moved, 1).await, expect(2..=2));
}

#[tokio::test(start_paused = true)]
async fn a_replaced_broker_notices_when_nobody_pushes() {
    let world = World::new();
    let (one, _two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&one, channel, None).await.unwrap();
    world.assign("q", 2).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(2), subscription.next()).await.unwrap().unwrap_err();
    assert_eq!(error, BrokerError::NotHosted { assignee: Some(world::addr(2)) });
}

#[tokio::test(start_paused = true)]
async fn an_unknown_append_is_found_out() {
    for fault in [Fault::RequestLost, Fault::AnswerLost] {
        let world = World::new();
        let broker = world.broker(1).await;
        broker.create_queue(&label("q")).await.unwrap();
        broker.push(numbered("1", 1)).await.unwrap();
        world.store.fail_next(1, Kind::Append, fault);
        let receipt = broker.push(numbered("2", 2)).await.unwrap();
        assert_eq!((receipt.offset, receipt.duplicate), (Some(Offset::new(2)), false), "{fault:?}");
        broker.push(numbered("3", 3)).await.unwrap();
        assert_eq!(world.log("q").await, expect(1..=3), "{fault:?}");
        assert_eq!(broker.status().queues[0].counters.unknown_appends, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_lands_late_is_fenced_by_the_claim() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::Late(Duration::from_secs(30)));
    broker.push(numbered("1", 1)).await.unwrap();
    broker.push(numbered("2", 2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.store.fenced(), 1, "the old append was tried again, after the claim");
    assert_eq!(world.log("q").await, expect(1..=2));
}

#[tokio::test(start_paused = true)]
async fn pushes_survive_a_store_that_is_away_for_a_while() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    broker.push(numbered("1", 1)).await.unwrap();
    world.store.fail(Calls::All, Fault::Unavailable);
    let pushing = tokio::spawn({
        let broker = broker.clone();
        async move { broker.push(numbered("2", 2)).await }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.store.repair(Calls::All);
    assert_eq!(pushing.await.unwrap().unwrap().offset, Some(Offset::new(2)));
    assert_eq!(world.log("q").await, expect(1..=2));
}

#[tokio::test(start_paused = true)]
async fn a_broker_cut_off_from_the_store_stops_serving_and_comes_back() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    world.store.fail(Calls::All, Fault::Unavailable);
    let error = tokio::time::timeout(Duration::from_secs(4), subscription.next()).await.unwrap().unwrap_err();
    assert_eq!(error, BrokerError::LeaseExpired);
    assert_eq!(broker.heartbeat(), Err(BrokerError::LeaseExpired));
    assert_eq!(broker.push(push("x")).await, Err(BrokerError::LeaseExpired));
    world.store.repair(Calls::All);
    tokio::time::sleep(Duration::from_secs(2)).await;
    broker.heartbeat().unwrap();
    broker.push(push("1")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_push_of_unknown_outcome_says_so_and_its_retry_is_stored_once() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::AnswerLost);
    world.store.fail(Kind::Claim, Fault::Unavailable);
    let error = broker.push(numbered("1", 1)).await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Unknown(_))), "{error:?}");
    world.store.repair(Kind::Claim);
    let receipt = broker.push(numbered("1", 1)).await.unwrap();
    assert!(receipt.duplicate);
    assert_eq!(world.log("q").await, expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn an_append_that_fails_again_and_again_is_given_up_in_time() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    world.store.fail(Kind::Append, Fault::Unavailable);
    let pushing = tokio::time::timeout(Duration::from_secs(15), broker.push(numbered("1", 1)));
    let error = pushing.await.expect("the limit is recovery_timeout, which is 10 s").unwrap_err();
    // Not an unknown outcome: the log was read after a claim, and the message is not there.
    assert!(matches!(error, BrokerError::Store(StoreError::Unavailable(_))), "{error:?}");
    let claims = broker.status().queues[0].counters.claims;
    assert!(claims < 40, "the store was asked {claims} times");
    world.store.repair(Kind::Append);
    let receipt = broker.push(numbered("1", 1)).await.unwrap();
    assert_eq!((receipt.offset, receipt.duplicate), (Some(Offset::new(1)), false));
    assert_eq!(world.log("q").await, expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_fails_the_push_and_all_behind() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::Refused);
    let mut session =
        broker.open_push(OpenPush { label: label("q"), queue: None, producer: Some(stamp(1)) }).await.unwrap();
    let mut answers = Vec::new();
    for n in 1..=3_u64 {
        let run =
            PushRun { first: Sequence::new(n), messages: vec![message(&n.to_string())], lowest_unacknowledged: None };
        answers.push(session.submit(run).await.unwrap());
        tokio::task::yield_now().await;
    }
    for answer in answers {
        answer.await.unwrap_err();
    }
    assert_eq!(world.log("q").await, []);
    let receipt = broker.push(numbered("1", 1)).await.unwrap();
    assert_eq!((receipt.offset, receipt.duplicate), (Some(Offset::new(1)), false));
}

#[tokio::test(start_paused = true)]
async fn a_stream_pushes_runs_in_order_and_counts_duplicates() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let open = OpenPush { label: label("q"), queue: None, producer: Some(stamp(1)) };
    let mut session = broker.open_push(open).await.unwrap();
    let run = |from: u64, to: u64| PushRun {
        first: Sequence::new(from),
        messages: (from..=to).map(|n| message(&n.to_string())).collect(),
        lowest_unacknowledged: None,
    };
    let (first, second) = (session.submit(run(1, 5)).await.unwrap(), session.submit(run(4, 8)).await.unwrap());
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.through.get(), first.offset, first.duplicates), (5, Some(Offset::new(5)), 0));
    assert_eq!((second.through.get(), second.offset, second.duplicates), (8, Some(Offset::new(8)), 2));
    assert_eq!(world.log("q").await, expect(1..=8));
}

#[tokio::test(start_paused = true)]
async fn slow_subscribers_read_from_the_store_and_lose_nothing() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.queue_buffer_messages = 5).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    for n in 1..=100_u64 {
        broker.push(push(&n.to_string())).await.unwrap();
    }
    assert_eq!(take(&mut subscription, 100).await, expect(1..=100));
    assert!(broker.status().queues[0].counters.store_reads > 0);
}

#[tokio::test(start_paused = true)]
async fn expired_messages_are_not_delivered_and_leave_the_store() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.message_ttl = Some(Duration::from_secs(10))).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    broker.push(push("1")).await.unwrap();
    let forever = NewMessage { ttl: Some(Duration::from_secs(1_000_000)), ..message("2") };
    broker.push(PushRequest { message: forever, ..push("") }).await.unwrap();
    world.sleep(Duration::from_secs(15)).await;
    assert_eq!(world.log("q").await, [(2, "2".to_owned())]);
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, [(2, "2".to_owned())]);
    assert_eq!(broker.status().queues[0].counters.expired, 1);
    assert_eq!(broker.status().queues[0].depth_messages, 1);
}

#[tokio::test(start_paused = true)]
async fn offsets_go_on_after_everything_expired_and_the_owner_changed() {
    let world = World::new();
    let short = |settings: &mut rmom_core::broker::BrokerSettings| settings.message_ttl = Some(Duration::from_secs(1));
    let (one, two) = (world.broker_with(1, short).await, world.broker_with(2, short).await);
    one.create_queue(&label("q")).await.unwrap();
    one.push(numbered("1", 1)).await.unwrap();
    world.sleep(Duration::from_secs(10)).await;
    assert_eq!(world.log("q").await, []);
    world.assign("q", 2).await.unwrap();
    assert!(two.push(numbered("1", 1)).await.unwrap().duplicate, "producers outlive their messages");
    assert_eq!(two.push(numbered("2", 2)).await.unwrap().offset, Some(Offset::new(2)));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_queue_stays_deleted() {
    let world = World::new();
    let broker = world.broker(1).await;
    let old = broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    broker.push(push("1")).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    take(&mut subscription, 1).await;
    broker.delete_queue(&label("q")).await.unwrap();
    assert_eq!(subscription.next().await, Err(BrokerError::QueueReplaced { queue: old }));
    assert_eq!(broker.delete_queue(&label("q")).await, Err(BrokerError::QueueNotFound(label("q"))));
    assert_eq!(broker.push(push("x")).await, Err(BrokerError::QueueNotFound(label("q"))));
    let new = broker.create_queue(&label("q")).await.unwrap();
    assert_ne!(old, new);
    let replaced = broker.push(PushRequest { queue: Some(old), ..push("x") }).await;
    assert_eq!(replaced, Err(BrokerError::QueueReplaced { queue: old }));
    let error = world.subscribe(&broker, channel, None).await.unwrap_err();
    assert_eq!(error, BrokerError::ChannelNotFound(channel));
}

#[tokio::test(start_paused = true)]
async fn subscriptions_of_a_deleted_channel_end() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let gone = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let stays = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut ends = world.subscribe(&broker, gone, None).await.unwrap();
    let mut goes_on = world.subscribe(&broker, stays, None).await.unwrap();
    broker.delete_channel(gone).await.unwrap();
    assert_eq!(ends.next().await, Err(BrokerError::ChannelNotFound(gone)));
    broker.push(push("1")).await.unwrap();
    assert_eq!(take(&mut goes_on, 1).await, expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_created_while_the_broker_looks_is_not_taken_for_deleted() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let old = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, old, None).await.unwrap();
    world.store.slow_answers(CHANNEL_LOOK_UPS, Duration::from_secs(1));
    let looking = tokio::spawn({
        let broker = broker.clone();
        async move { broker.refresh().await }
    });
    world.sleep(Duration::from_millis(100)).await;
    world.store.slow_answers(CHANNEL_LOOK_UPS, Duration::ZERO);
    let new = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut another = world.subscribe(&broker, new, None).await.unwrap();
    assert!(!looking.is_finished());
    looking.await.unwrap().unwrap();
    broker.push(push("1")).await.unwrap();
    assert_eq!(take(&mut another, 1).await, expect(1..=1));
    assert_eq!(take(&mut subscription, 1).await, expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_deleted_while_somebody_subscribes_is_gone() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    world.store.slow_answers(CHANNEL_LOOK_UPS, Duration::from_secs(1));
    let subscribing = tokio::spawn({
        let (broker, request) = (broker.clone(), SubscribeRequest { channel, position: None });
        async move { broker.subscribe(request).await.map(drop) }
    });
    world.sleep(Duration::from_millis(100)).await;
    world.store.slow_answers(CHANNEL_LOOK_UPS, Duration::ZERO);
    broker.delete_channel(channel).await.unwrap();
    assert!(!subscribing.is_finished());
    assert_eq!(subscribing.await.unwrap(), Err(BrokerError::ChannelNotFound(channel)));
}

/// A broker that cannot read the store tells no client permanently that messages were lost.
#[tokio::test(start_paused = true)]
async fn a_position_ahead_is_no_loss_while_the_store_cannot_be_read() {
    let world = World::new();
    let broker = world.broker(1).await;
    let queue = broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let ahead = Position { queue, epoch: Epoch::new(2), offset: Offset::new(7) };
    world.store.fail(Calls::Of(&["assigned_queues"]), Fault::Unavailable);
    let error = world.subscribe(&broker, channel, Some(ahead)).await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Unavailable(_))), "{error:?}");
    broker.delete_channel(channel).await.expect("it is deleted, whatever the broker can see of that");
}

#[tokio::test(start_paused = true)]
async fn a_position_ahead_is_no_loss_to_a_broker_that_was_replaced() {
    let world = World::new();
    let one = world.broker(1).await;
    let queue = one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    // Another process under its host and port, which it will notice at the next renewal of its lease.
    let twin = world.broker(1).await;
    twin.push(push("1")).await.unwrap();
    let ahead = Position { queue, epoch: Epoch::new(2), offset: Offset::new(1) };
    assert_eq!(world.subscribe(&one, channel, Some(ahead)).await.unwrap_err(), BrokerError::Fenced);
    let mut subscription = world.subscribe(&twin, channel, None).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn positions_are_checked() {
    let world = World::new();
    let broker = world.broker(1).await;
    let queue = broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    broker.push(push("1")).await.unwrap();
    let at = |epoch, offset| Position { queue, epoch: Epoch::new(epoch), offset: Offset::new(offset) };
    let refused = async |position| world.subscribe(&broker, channel, Some(position)).await.unwrap_err();
    assert!(matches!(refused(at(0, 2)).await, BrokerError::OffsetOutOfRange { .. }));
    assert!(matches!(refused(at(1, 2)).await, BrokerError::StoreRolledBack { .. }));
    assert!(matches!(refused(at(9, 1)).await, BrokerError::StoreRolledBack { .. }));
    let other = Position { queue: queue.next(), ..at(1, 1) };
    assert_eq!(refused(other).await, BrokerError::QueueReplaced { queue: queue.next() });
}

#[tokio::test(start_paused = true)]
async fn a_restored_older_store_halts_the_queue() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    broker.push(push("1")).await.unwrap();
    let backup = world.store.backup();
    broker.push(push("2")).await.unwrap();
    broker.push(push("3")).await.unwrap();
    world.store.restore(backup);
    let error = broker.push(push("4")).await.unwrap_err();
    assert!(matches!(error, BrokerError::StoreRolledBack { .. }), "{error:?}");
    assert!(broker.push(push("5")).await.is_err());
    assert_eq!(world.log("q").await, expect(1..=1), "nothing is reused, nothing deleted");
}

#[tokio::test(start_paused = true)]
async fn bad_messages_are_refused_and_change_nothing() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.max_message_bytes = 1_000).await;
    broker.create_queue(&label("q")).await.unwrap();
    let large = PushRequest { message: message(&"x".repeat(1_000)), ..numbered("", 1) };
    assert!(matches!(broker.push(large).await, Err(BrokerError::MessageTooLarge { limit: 1_000, .. })));
    assert!(matches!(broker.push(numbered("x", 0)).await, Err(BrokerError::Invalid { field: "sequence", .. })));
    assert_eq!(broker.push(numbered("1", 1)).await.unwrap().offset, Some(Offset::new(1)));
    let unknown = PushRequest { label: label("nowhere"), ..push("x") };
    assert_eq!(broker.push(unknown).await, Err(BrokerError::QueueNotFound(label("nowhere"))));
    assert_eq!(world.log("q").await, expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_goes_on_where_it_stopped() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let id = stamp(1).key.id;
    let push_as = |epoch, sequence: u64| {
        let key = ProducerKey { id, epoch: ProducerEpoch::new(epoch) };
        let producer = ProducerStamp { key, lowest_unacknowledged: Sequence::new(sequence) };
        PushRequest { producer: Some((producer, Sequence::new(sequence))), ..push(&sequence.to_string()) }
    };
    let first = one.open_producer(&label("q"), id).await.unwrap();
    assert_eq!((first.epoch, first.last_sequence), (ProducerEpoch::new(1), Sequence::ZERO));
    one.push(push_as(1, 1)).await.unwrap();
    let second = one.open_producer(&label("q"), id).await.unwrap();
    assert_eq!((second.epoch, second.last_sequence), (ProducerEpoch::new(2), Sequence::new(1)));
    // The next owner also knows that the first epoch is fenced, though the second has not pushed yet.
    world.assign("q", 2).await.unwrap();
    let fenced = BrokerError::ProducerFenced { current: ProducerEpoch::new(2), found: ProducerEpoch::new(1) };
    assert_eq!(two.push(push_as(1, 2)).await, Err(fenced));
    assert_eq!(two.push(push_as(2, 2)).await.unwrap().offset, Some(Offset::new(2)));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_broker_stores_what_it_accepted_and_retires() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    let pushing = broker.push(push("1"));
    let stopping = async {
        tokio::task::yield_now().await;
        broker.shutdown(Duration::from_secs(10)).await;
    };
    let (pushed, ()) = tokio::join!(pushing, stopping);
    pushed.unwrap();
    assert_eq!(world.log("q").await, expect(1..=1));
    assert_eq!(broker.push(push("x")).await, Err(BrokerError::ShuttingDown));
    let mut ended = subscription.next().await;
    if ended.is_ok() {
        ended = subscription.next().await;
    }
    assert_eq!(ended, Err(BrokerError::ShuttingDown));
    let brokers = world.store.brokers().await.unwrap();
    assert_eq!(brokers[0].state, rmom_core::ports::BrokerState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_twin_on_the_same_address_takes_over_and_the_first_exits() {
    let world = World::new();
    let (_broker, task) = world.spawn(1, |_| {});
    world.settle().await;
    let twin = world.broker(1).await;
    let exit = tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    assert_eq!(exit, rmom_core::broker::BrokerExit::Replaced);
    twin.heartbeat().unwrap();
}

#[tokio::test(start_paused = true)]
async fn assignments_are_compare_and_set() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let record = world.store.queue(&label("q")).await.unwrap().unwrap();
    let (me, _) = record.assignee.clone().unwrap();
    let stale = world.store.assign_queue(record.id, record.assignment.next(), me).await;
    assert_eq!(stale.unwrap_err(), AssignError::Changed);
    assert!(world.store.tail(record.id).await.unwrap().end == Offset::ZERO);
    let request = SubscribeRequest { channel: rmom_core::model::ChannelId::new(Uuid::from_u128(9)), position: None };
    assert!(matches!(broker.subscribe(request).await, Err(BrokerError::ChannelNotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn sequences_at_the_end_of_their_range_are_refused() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    for producer in [Some(stamp(1)), None] {
        let mut session = broker.open_push(OpenPush { label: label("q"), queue: None, producer }).await.unwrap();
        let run = PushRun {
            first: Sequence::new(i64::MAX as u64),
            messages: vec![message("x"), message("y")],
            lowest_unacknowledged: None,
        };
        let refused = session.submit(run).await.err();
        assert!(matches!(refused, Some(BrokerError::Invalid { field: "sequence", .. })), "{refused:?}");
    }
    assert_eq!(world.log("q").await, []);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_comes_back_while_its_old_task_ends_is_served_by_the_new_one() {
    let world = World::new();
    let (one, _two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::Slow(Duration::from_millis(1_500)));
    let held_up = tokio::spawn({
        let one = one.clone();
        async move { one.push(push("held up")).await }
    });
    world.settle().await;
    world.assign("q", 2).await.unwrap();
    one.refresh().await.unwrap();
    world.assign("q", 1).await.unwrap();
    one.refresh().await.unwrap();
    let mut subscription = world.subscribe(&one, channel, None).await.unwrap();
    assert_eq!(held_up.await.unwrap(), Err(BrokerError::Fenced));
    world.sleep(Duration::from_secs(1)).await;
    one.push(push("1")).await.unwrap();
    let taken = tokio::time::timeout(Duration::from_secs(1), take(&mut subscription, 1)).await;
    assert_eq!(taken.expect("the subscriber is served by the task that takes the pushes"), expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_stuck_does_not_hold_up_its_broker() {
    let world = World::new();
    let (one, _two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    world.store.fail_next(1, Kind::Append, Fault::RequestLost);
    world.store.fail(Kind::Claim, Fault::Unavailable);
    for n in 0..1_000 {
        if n == 1 {
            // The first push is in flight; the others find the queue in recovery.
            world.settle().await;
        }
        let one = one.clone();
        tokio::spawn(async move { one.push(push("x")).await });
    }
    world.sleep(Duration::from_secs(30)).await;
    world.assign("q", 2).await.unwrap();
    tokio::time::timeout(Duration::from_secs(1), one.refresh()).await.expect("nothing waits for the queue").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_comes_back_is_let_in_and_who_asks_at_random_is_not() {
    const CROWD: usize = 20_000;
    let world = World::new();
    let broker = world
        .broker_with(1, |settings| {
            settings.max_lookups_per_second = 100;
            settings.max_subscriptions = 2 * CROWD;
        })
        .await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    world.store.slow_answers(CHANNEL_LOOK_UPS, Duration::from_millis(1));
    let request = |channel| SubscribeRequest { channel, position: None };
    let begun = tokio::time::Instant::now();
    let consumer = |peer: &str| Call::new(Caller::anonymous(&peer.into(), true), Right::Consume);
    let crowd = broker.on_behalf_of(consumer("10.0.0.1:1"));
    let subscriptions = futures_util::future::join_all((0..CROWD).map(|_| crowd.subscribe(request(channel))));
    let stranger = broker.on_behalf_of(consumer("10.0.0.2:1"));
    let strange = (0..1_000).map(|n| stranger.subscribe(request(ChannelId::new(Uuid::from_u128(n)))));
    let (subscriptions, strange) = tokio::join!(subscriptions, futures_util::future::join_all(strange));
    assert_eq!(subscriptions.into_iter().filter(Result::is_ok).count(), CROWD);
    // This many at once, a millisecond each, plus up to one for the timer.
    let bound = Duration::from_millis(2 * (CROWD + 1_000) as u64 / CHANNELS_AT_ONCE as u64);
    assert!(begun.elapsed() <= bound, "{:?}", begun.elapsed());
    let refused =
        |code| strange.iter().filter(|subscribed| subscribed.as_ref().err().map(Coded::code) == Some(code)).count();
    let (unknown, overloaded) = (refused(Code::ChannelNotFound), refused(Code::Overloaded));
    assert_eq!(unknown + overloaded, 1_000);
    // One address may make a quarter of the look-ups per second, plus those already in flight.
    let most = 25 * (begun.elapsed().as_secs() as usize + 2) + CHANNELS_AT_ONCE;
    assert!((1..=most).contains(&unknown), "{unknown}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_rolled_back_is_noticed_also_if_the_broker_only_read() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let backup = world.store.backup();
    one.push(push("1")).await.unwrap();
    world.assign("q", 2).await.unwrap();
    two.rebuild_queue(&label("q")).await.unwrap();
    world.sleep(Duration::from_secs(5)).await;
    world.store.restore(backup);
    world.assign("q", 2).await.unwrap();
    world.sleep(Duration::from_secs(5)).await;
    let error = two.push(push("2")).await.unwrap_err();
    assert!(matches!(error, BrokerError::StoreRolledBack { .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn message_ids_are_not_used_again_after_a_long_silence() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.producer_retention = Duration::from_secs(100)).await;
    broker.create_queue(&label("q")).await.unwrap();
    let first = broker.push(push("1")).await.unwrap();
    world.sleep(Duration::from_secs(1_000)).await;
    let second = broker.push(push("2")).await.unwrap();
    assert_ne!(first.id, second.id);
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_goes_on_where_it_stopped_long_ago() {
    let world = World::new();
    let short =
        |settings: &mut rmom_core::broker::BrokerSettings| settings.producer_retention = Duration::from_secs(100);
    let (one, two) = (world.broker_with(1, short).await, world.broker_with(2, short).await);
    one.create_queue(&label("q")).await.unwrap();
    let id = stamp(1).key.id;
    let key = ProducerKey { id, epoch: one.open_producer(&label("q"), id).await.unwrap().epoch };
    let producer = ProducerStamp { key, lowest_unacknowledged: Sequence::new(1) };
    one.push(PushRequest { producer: Some((producer, Sequence::new(1))), ..push("1") }).await.unwrap();
    world.sleep(Duration::from_secs(1_000)).await;
    assert_eq!(one.open_producer(&label("q"), id).await.unwrap().last_sequence, Sequence::new(1));
    world.assign("q", 2).await.unwrap();
    assert_eq!(two.open_producer(&label("q"), id).await.unwrap().last_sequence, Sequence::new(1));
}

#[tokio::test(start_paused = true)]
async fn a_trim_under_way_survives_the_recovery_of_an_append() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.message_ttl = Some(Duration::from_secs(3))).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    world.store.slow_requests(Kind::Trim, Duration::from_secs(1));
    broker.push(push("1")).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(1..=1));
    world.sleep(Duration::from_millis(3_500)).await;
    world.store.fail_next(1, Kind::Append, Fault::AnswerLost);
    broker.push(push("2")).await.unwrap();
    world.sleep(Duration::from_secs(2)).await;
    broker.push(push("3")).await.unwrap();
    assert_eq!(take(&mut subscription, 2).await, expect(2..=3));
    assert_eq!(broker.status().queues[0].counters.claims, 2, "one to activate it, one to recover the append");
    world.sleep(Duration::from_secs(10)).await;
    assert_eq!(world.log("q").await, []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_before_its_fate_is_known() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.queue_buffer_messages = 1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    for n in 1..=3 {
        broker.push(push(&n.to_string())).await.unwrap();
    }
    world.store.fail_next(1, Kind::Append, Fault::AnswerLost);
    world.store.fail(Kind::Claim, Fault::Unavailable);
    let pushing = tokio::spawn({
        let broker = broker.clone();
        async move { broker.push(push("4")).await }
    });
    world.sleep(Duration::from_secs(1)).await;
    assert_eq!(world.log("q").await, expect(1..=4));
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    let mut seen = Vec::new();
    while let Ok(taken) = tokio::time::timeout(Duration::from_secs(1), take(&mut subscription, 1)).await {
        seen.extend(taken);
    }
    assert_eq!(seen, expect(1..=3));
    let position = Position {
        queue: subscription.queue(),
        epoch: subscription.epoch(),
        offset: Offset::new(seen.last().unwrap().0),
    };
    let mut again = world.subscribe(&broker, channel, Some(position)).await.unwrap();
    world.store.repair(Kind::Claim);
    pushing.await.unwrap().unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(4..=4));
    assert_eq!(take(&mut again, 1).await, expect(4..=4));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_nothing_expire_early() {
    let world = World::new();
    let broker = world.broker(1).await;
    for queue in ["q", "r"] {
        broker.create_queue(&label(queue)).await.unwrap();
    }
    let channel = broker.create_channel(&label("r"), Topic::NONE).await.unwrap();
    broker.push(push("1")).await.unwrap();
    world.set_clock_back(Duration::from_secs(100));
    world.sleep(Duration::from_secs(2)).await;
    let short = NewMessage { ttl: Some(Duration::from_secs(50)), ..message("1") };
    broker.push(PushRequest { label: label("r"), message: short, ..push("") }).await.unwrap();
    // Only this queue continues from its old time.
    broker.push(push("2")).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    let taken = tokio::time::timeout(Duration::from_secs(10), take(&mut subscription, 1)).await;
    assert_eq!(taken.expect("it has not expired"), expect(1..=1));
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_is_not_told_of_messages_that_are_not_stored() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let id = stamp(1).key.id;
    let key = ProducerKey { id, epoch: broker.open_producer(&label("q"), id).await.unwrap().epoch };
    let producer = ProducerStamp { key, lowest_unacknowledged: Sequence::new(1) };
    world.store.fail_next(1, Kind::Append, Fault::RefusedLate(Duration::from_millis(10)));
    let pushing = broker.push(PushRequest { producer: Some((producer, Sequence::new(1))), ..push("1") });
    let opening = async {
        tokio::task::yield_now().await;
        broker.open_producer(&label("q"), id).await
    };
    let (pushed, opened) = tokio::join!(pushing, opening);
    assert!(matches!(pushed, Err(BrokerError::Store(StoreError::Refused(_)))), "{pushed:?}");
    assert_eq!(opened.unwrap().last_sequence, Sequence::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_is_not_opened_by_an_owner_that_was_replaced() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let id = stamp(1).key.id;
    let key = ProducerKey { id, epoch: one.open_producer(&label("q"), id).await.unwrap().epoch };
    let producer = ProducerStamp { key, lowest_unacknowledged: Sequence::new(1) };
    world.assign("q", 2).await.unwrap();
    two.push(PushRequest { producer: Some((producer, Sequence::new(1))), ..push("1") }).await.unwrap();
    // The first owner does not know yet. Its last sequence is outdated.
    let opened = one.open_producer(&label("q"), id).await;
    assert!(matches!(opened, Err(BrokerError::Fenced | BrokerError::NotHosted { .. })), "{opened:?}");
    assert_eq!(two.open_producer(&label("q"), id).await.unwrap().last_sequence, Sequence::new(1));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_elsewhere_between_two_looks_is_claimed_again() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&one, channel, None).await.unwrap();
    world.assign("q", 2).await.unwrap();
    two.push(push("1")).await.unwrap();
    world.assign("q", 1).await.unwrap();
    let taken = tokio::time::timeout(Duration::from_secs(2), take(&mut subscription, 1)).await;
    assert_eq!(taken.expect("what the other stored is delivered"), expect(1..=1));
    assert_eq!(one.push(push("2")).await.unwrap().offset, Some(Offset::new(2)));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_was_replaced_does_not_accuse_the_store() {
    let world = World::new();
    let (one, two) = (world.broker(1).await, world.broker(2).await);
    one.create_queue(&label("q")).await.unwrap();
    let channel = one.create_channel(&label("q"), Topic::NONE).await.unwrap();
    world.assign("q", 2).await.unwrap();
    two.push(push("1")).await.unwrap();
    let mut subscription = world.subscribe(&two, channel, None).await.unwrap();
    assert_eq!(take(&mut subscription, 1).await, expect(1..=1));
    let position = Position { queue: subscription.queue(), epoch: subscription.epoch(), offset: Offset::new(1) };
    let error = world.subscribe(&one, channel, Some(position)).await.unwrap_err();
    assert_eq!(error, BrokerError::NotHosted { assignee: Some(world::addr(2)) });
    world.assign("q", 1).await.unwrap();
    world.subscribe(&one, channel, Some(position)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_lost_answer_does_not_cost_the_lease() {
    let world = World::new();
    let broker = world.broker(1).await;
    world.store.fail_next(1, Calls::Of(&["renew_broker"]), Fault::Hangs);
    for _ in 0..60 {
        world.sleep(Duration::from_millis(100)).await;
        broker.heartbeat().unwrap();
    }
    assert_eq!(broker.status().failed_renewals, 1);
}
