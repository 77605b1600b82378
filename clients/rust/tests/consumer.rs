//! What the application is given when brokers end streams, repeat themselves, move and refuse.

mod fake;

use std::time::Duration;

use fake::{EPOCH, QUEUE_ID, SubScript, World, refusal, soon};
use rmom_client::{Consumer, Position, Uuid};
use tokio_stream::StreamExt as _;
use tonic::Status;

const CHANNEL: Uuid = Uuid::from_u128(9);

fn world(messages: u64) -> World {
    let world = World::new();
    (1..=messages).for_each(|i| world.store(&i.to_string()));
    world
}

fn gone() -> Status {
    Status::unavailable("gone")
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        let message = soon(consumer.next()).await.unwrap();
        assert_eq!(message.content, message.offset.to_string());
        offsets.push(message.offset);
    }
    offsets
}

#[tokio::test(start_paused = true)]
async fn a_break_is_mended_at_the_position_and_repeated_messages_are_dropped() {
    let world = world(6);
    world.script_subscriptions([
        SubScript::Deliver(vec![1, 2, 3], gone()),
        SubScript::Deliver(vec![2, 3, 3, 4], refusal("LEASE_EXPIRED", &[])),
        SubScript::Deliver(vec![], Status::internal("h2 protocol error")),
    ]);
    let mut consumer = world.client().subscribe(CHANNEL).build();
    assert_eq!(consumer.position(), None);
    assert_eq!(take(&mut consumer, 6).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!((consumer.reconnects(), consumer.duplicates_dropped()), (3, 3));
    assert_eq!(
        world.seen(),
        [
            "b1: subscribe after start",
            "b1: subscribe after 7:3:3",
            "b1: subscribe after 7:3:4",
            "b1: subscribe after 7:3:4"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_position_moves_only_when_a_message_is_handed_over() {
    let world = world(3);
    let mut consumer = world.client().subscribe(CHANNEL).build();
    assert_eq!(take(&mut consumer, 1).await, [1]);
    let position = consumer.position().unwrap();
    assert_eq!(position, Position { queue_id: QUEUE_ID, epoch: EPOCH, offset: 1 });
    // Time enough for the others to have arrived.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(consumer.position(), Some(position));
    drop(consumer);
    let saved = position.to_string().parse().unwrap();
    let mut consumer = world.client().subscribe(CHANNEL).resume_from(saved).build();
    assert_eq!(consumer.position(), Some(position));
    assert_eq!(take(&mut consumer, 2).await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_loses_nothing() {
    let world = world(0);
    let mut consumer = world.client().subscribe(CHANNEL).build();
    for i in 1..=20_u64 {
        // Cancelled while it looks for the broker, while it connects, while it waits.
        for micros in [0, 1, 10] {
            let _ = tokio::time::timeout(Duration::from_micros(micros), consumer.next())
                .await
                .map(|_| panic!("no message yet"));
        }
        if i % 5 == 0 {
            world.cut("b1");
            let _ =
                tokio::time::timeout(Duration::from_millis(5), consumer.next()).await.map(|_| panic!("no message yet"));
        }
        world.store(&i.to_string());
        assert_eq!(take(&mut consumer, 1).await, [i]);
    }
    assert_eq!(consumer.reconnects(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_moved_is_found_again() {
    let world = world(2);
    world.script_subscriptions([SubScript::Refuse(refusal("NOT_HOSTED", &[("host", "b2"), ("port", "1")]))]);
    let mut consumer = world.client().subscribe(CHANNEL).build();
    let started = tokio::time::Instant::now();
    assert_eq!(take(&mut consumer, 2).await, [1, 2]);
    assert!(started.elapsed() < Duration::from_millis(10));
    assert_eq!(world.seen(), ["b1: subscribe after start", "b2: subscribe after start"]);
    world.state().up.retain(|&host| host != "b2");
    world.cut("b2");
    world.store("3");
    assert_eq!(take(&mut consumer, 1).await, [3]);
    assert_eq!(world.seen(), ["b1: subscribe after 7:3:2"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_comes_about_is_given_up_in_time() {
    let world = world(1);
    {
        let mut state = world.state();
        state.host = Some("b2");
        state.hanging.push("b2");
    }
    let mut consumer = world.client().subscribe(CHANNEL).build();
    let move_it = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.state().host = Some("b1");
    };
    let started = tokio::time::Instant::now();
    tokio::join!(async { assert_eq!(take(&mut consumer, 1).await, [1]) }, move_it);
    assert!(started.elapsed() < Duration::from_millis(1_100), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_makes_going_on_impossible_is_final() {
    for code in ["CHANNEL_NOT_FOUND", "QUEUE_REPLACED", "OFFSET_OUT_OF_RANGE", "STORE_ROLLED_BACK"] {
        let world = world(2);
        world.script_subscriptions([SubScript::Deliver(vec![1], refusal(code, &[]))]);
        let mut consumer = world.client().subscribe(CHANNEL).build();
        assert_eq!(take(&mut consumer, 1).await, [1]);
        for _ in 0..2 {
            assert_eq!(soon(consumer.next()).await.unwrap_err().code(), code);
        }
        assert_eq!(world.seen().len(), 1, "nothing is tried after {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_beyond_the_clients_own_limit_is_final_and_stays_the_next() {
    let world = world(1);
    world.store(&"x".repeat(200 << 10));
    let small = world.builder().max_message_bytes(1_024).build().unwrap();
    let mut consumer = small.subscribe(CHANNEL).build();
    assert_eq!(take(&mut consumer, 1).await, [1]);
    let error = soon(consumer.next()).await.unwrap_err();
    assert_eq!(error.code(), "MESSAGE_TOO_LARGE", "{error}");
    assert_eq!(world.seen().len(), 1, "the same message would come again");
    let position = consumer.position().unwrap();
    let mut larger = world.client().subscribe(CHANNEL).resume_from(position).build();
    assert_eq!(soon(larger.next()).await.unwrap().offset, 2);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_no_manager_knows_is_final() {
    let world = world(1);
    world.state().manager_error = Some((404, "CHANNEL_NOT_FOUND"));
    let mut consumer = world.client().subscribe(CHANNEL).build();
    assert_eq!(soon(consumer.next()).await.unwrap_err().code(), "CHANNEL_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn a_position_of_another_queue_is_refused() {
    let world = world(2);
    world.script_subscriptions([SubScript::Deliver(vec![1], gone()), SubScript::OtherQueue]);
    let mut consumer = world.client().subscribe(CHANNEL).build();
    assert_eq!(take(&mut consumer, 1).await, [1]);
    assert_eq!(soon(consumer.next()).await.unwrap_err().code(), "QUEUE_REPLACED");
    assert_eq!(consumer.position().unwrap().offset, 1);
}

#[tokio::test(start_paused = true)]
async fn managers_and_brokers_may_be_away_for_long() {
    let world = world(2);
    world.script_subscriptions([SubScript::NoHeaders, SubScript::Deliver(vec![1], gone())]);
    let mut consumer = world.client().subscribe(CHANNEL).build();
    assert_eq!(take(&mut consumer, 1).await, [1]);
    world.state().manager_error = Some((500, "INTERNAL"));
    world.state().up.retain(|&host| host != "b1");
    let back = async {
        tokio::time::sleep(Duration::from_secs(600)).await;
        world.state().up.push("b1");
    };
    let next = tokio::time::timeout(Duration::from_secs(610), consumer.next());
    let (next, ()) = tokio::join!(next, back);
    assert_eq!(next.unwrap().unwrap().offset, 2);
    let attempts = world.seen().len();
    assert!((600..1_300).contains(&attempts), "it backs off: {attempts} attempts in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_consumer_gives_up_if_it_is_told_to() {
    let world = world(1);
    world.script_subscriptions([SubScript::Deliver(vec![1], gone())]);
    let give_up_after = Duration::from_secs(20);
    let mut consumer = world.client().subscribe(CHANNEL).give_up_after(give_up_after).build();
    assert_eq!(take(&mut consumer, 1).await, [1]);
    world.state().up.clear();
    let started = tokio::time::Instant::now();
    let error = soon(consumer.next()).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("GAVE_UP", true));
    assert!((20..22).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn as_a_stream_it_ends_after_its_error() {
    let world = world(2);
    world.script_subscriptions([SubScript::Deliver(vec![1, 2], refusal("CHANNEL_NOT_FOUND", &[]))]);
    let consumer = world.client().subscribe(CHANNEL).build();
    let items: Vec<_> = soon(consumer.map(|item| item.map(|message| message.offset)).collect()).await;
    assert_eq!(items.len(), 3);
    assert_eq!((items[0].as_ref().ok(), items[1].as_ref().ok()), (Some(&1), Some(&2)));
    assert_eq!(items[2].as_ref().unwrap_err().code(), "CHANNEL_NOT_FOUND");
}
