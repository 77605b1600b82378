//! Everything that grows has a limit, and a broker does not guess facts that it does not know.

use std::time::Duration;

use rmom_core::{
    broker::{BrokerError, BrokerSettings, ProducerStamp, PushRequest},
    model::{Offset, ProducerEpoch, ProducerId, ProducerKey, Sequence, Topic},
    ports::{Catalog as _, Log as _, QueueActivity, StoreError},
    store::faulty::{Calls, Fault, Kind},
};
use uuid::Uuid;

use super::{expect, label, numbered, push, take, world::World};

/// The first push of a producer.
fn first_push(producer: u128) -> PushRequest {
    let key = ProducerKey { id: ProducerId::new(Uuid::from_u128(producer)), epoch: ProducerEpoch::ZERO };
    let stamp = ProducerStamp { key, lowest_unacknowledged: Sequence::new(1) };
    PushRequest { producer: Some((stamp, Sequence::new(1))), ..push("x") }
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_is_not_taken_for_all_trimmed() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.queue_buffer_messages = 1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    for n in 1..=9_u64 {
        broker.push(push(&n.to_string())).await.unwrap();
    }
    world.store.stale(true);
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Unavailable(_))), "{error:?}");
    assert_eq!(broker.status().queues[0].counters.stale_reads, 1);
    world.store.stale(false);
    assert_eq!(take(&mut subscription, 9).await, expect(1..=9), "nothing was left out");
}

/// A gap of expired messages between live ones is crossed in several reads; live messages are not skipped.
#[tokio::test(start_paused = true)]
async fn a_hole_is_crossed_step_by_step() {
    let world = World::new();
    let settings = |settings: &mut BrokerSettings| {
        settings.queue_buffer_messages = 1;
        settings.tuning.read_span = 10;
    };
    let broker = world.broker_with(1, settings).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let lives = |secs| Some(Duration::from_secs(secs));
    for n in 1..=100_u64 {
        let mut push = push(&n.to_string());
        push.message.ttl = if n == 1 || n > 97 { lives(10_000) } else { lives(1) };
        broker.push(push).await.unwrap();
    }
    world.sleep(Duration::from_secs(10)).await;
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    let before = broker.status().queues[0].counters.store_reads;
    let taken =
        tokio::time::timeout(Duration::from_secs(60), take(&mut subscription, 4)).await.expect("nothing is lost");
    assert_eq!(taken.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 98, 99, 100]);
    let reads = broker.status().queues[0].counters.store_reads - before;
    assert!((10..=13).contains(&reads), "{reads} reads");
    assert_eq!(broker.status().queues[0].counters.stale_reads, 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_of_a_deleted_queue_comes_from_no_standby() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.queue_buffer_messages = 1).await;
    let queue = broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    for n in 1..=9_u64 {
        broker.push(push(&n.to_string())).await.unwrap();
    }
    // The broker has not learnt of it.
    assert!(world.store.delete_queue(queue).await.unwrap());
    world.store.purge_deleted(10).await.unwrap();
    // Two reads of an older copy would have the same answer, so the error is not permanent for a client.
    let gone = subscription.next().await.unwrap_err();
    assert!(matches!(&gone, BrokerError::Store(StoreError::Unavailable(why)) if why.contains("deleted")), "{gone:?}");
    assert_eq!(broker.status().queues[0].counters.stale_reads, 0);
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_does_not_know_a_queue_yet_is_not_believed_that_it_was_deleted() {
    let world = World::new();
    let broker = world.broker(1).await;
    world.store.outdated(Some(world.store.backup()));
    let mend = async {
        world.sleep(Duration::from_secs(1)).await;
        world.store.outdated(None);
    };
    let label = label("q");
    let (created, ()) = tokio::join!(broker.create_queue(&label), mend);
    created.unwrap();
    broker.push(push("1")).await.unwrap();
    assert!(broker.status().queues[0].counters.failed_activations > 0);
}

#[tokio::test(start_paused = true)]
async fn headers_that_end_before_the_log_do_not_make_an_owner() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    broker.push(numbered("1", 1)).await.unwrap();
    let next = world.broker(2).await;
    world.store.stale(true);
    world.assign("q", 2).await.unwrap();
    let refused = next.push(numbered("1", 1)).await.unwrap_err();
    assert!(matches!(refused, BrokerError::ActivationTimeout(_)), "{refused:?}");
    let status = next.status().queues.remove(0);
    assert!(status.counters.stale_reads > 3 && status.counters.failed_activations > 3, "{status:?}");
    assert!(status.unserved.unwrap() >= Duration::from_secs(4), "{status:?}");
    let state = next.states(label("a")..=label("z")).unwrap().remove(0);
    assert_eq!((state.activity, state.epoch.get()), (QueueActivity::Waiting, 0));
    assert!(
        state.reason.as_ref().unwrap().starts_with("the broker has failed to activate the queue for "),
        "{state:?}"
    );
    assert!(next.has_broken_queue(Duration::from_secs(4)) && !next.has_broken_queue(Duration::from_secs(60)));
    world.store.stale(false);
    let again = next.push(numbered("1", 1)).await.unwrap();
    assert!(again.duplicate, "{again:?}");
    assert_eq!(next.status().queues[0].unserved, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_appended_beyond_what_a_new_owner_can_read() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.tuning.snapshot_every = 2).await;
    broker.create_queue(&label("q")).await.unwrap();
    world.store.fail(Kind::Trim, Fault::Unavailable);
    for n in 1..=20 {
        broker.push(numbered(&n.to_string(), n)).await.unwrap();
    }
    let held = broker.push(numbered("21", 21)).await.unwrap_err();
    assert!(matches!(held, BrokerError::Store(StoreError::Unavailable(_))), "{held:?}");
    assert!(broker.push(numbered("20", 20)).await.unwrap().duplicate, "what is stored is known");
    world.sleep(Duration::from_secs(60)).await;
    let failed = broker.status().queues[0].counters.failed_trims;
    assert!((5..20).contains(&failed), "{failed} attempts in a minute");
    world.store.repair(Kind::Trim);
    world.sleep(Duration::from_secs(20)).await;
    assert_eq!(broker.push(numbered("21", 21)).await.unwrap().offset, Some(Offset::new(21)));
}

#[tokio::test(start_paused = true)]
async fn producers_are_saved_when_it_is_needed_and_no_more_often_than_their_size_allows() {
    let world = World::new();
    let broker = world
        .broker_with(1, |settings| {
            settings.message_ttl = Some(Duration::from_secs(100));
            // A producer takes about 40 bytes: ten of them are saved once in ten seconds.
            settings.tuning.save_bytes_per_second = 40;
        })
        .await;
    broker.create_queue(&label("q")).await.unwrap();
    let second = async |n: u128| {
        broker.push(first_push(n % 10)).await.unwrap();
        world.sleep(Duration::from_secs(1)).await;
    };
    for n in 0..95 {
        second(n).await;
    }
    assert_eq!(world.store.saves(), 0, "nothing has expired");
    for n in 0..100 {
        second(n).await;
    }
    assert!((1..=2).contains(&world.store.saves()), "what expires was saved with what came before it");
    assert!(broker.status().queues[0].depth_messages <= 103, "it goes all the same");
    for n in 0..300 {
        second(n).await;
    }
    assert!(world.store.saves() <= 6, "{} saves", world.store.saves());
}

#[tokio::test(start_paused = true)]
async fn one_producer_too_many_is_refused_and_the_others_go_on() {
    let world = World::new();
    let broker = world
        .broker_with(1, |settings| {
            settings.max_producers_per_queue = 3;
            settings.max_named_producers_per_queue = 1;
        })
        .await;
    broker.create_queue(&label("q")).await.unwrap();
    for producer in 1..=3 {
        broker.push(first_push(producer)).await.unwrap();
    }
    let refused = broker.push(first_push(4)).await.unwrap_err();
    assert_eq!(refused, BrokerError::TooManyProducers { setting: "max_producers_per_queue", limit: 3 });
    assert!(broker.push(first_push(3)).await.unwrap().duplicate);
    broker.push(push("without a producer")).await.unwrap();
    assert_eq!(world.log("q").await.len(), 4, "nothing of the one that was refused is stored");
    // There is room once the others have been idle for long enough.
    world.sleep(Duration::from_secs(3_601)).await;
    broker.push(first_push(4)).await.unwrap();

    let name = |n| ProducerId::new(Uuid::from_u128(n));
    broker.open_producer(&label("q"), name(100)).await.unwrap();
    let refused = broker.open_producer(&label("q"), name(101)).await.unwrap_err();
    assert_eq!(refused, BrokerError::TooManyProducers { setting: "max_named_producers_per_queue", limit: 1 });
    assert_eq!(broker.open_producer(&label("q"), name(100)).await.unwrap().epoch, ProducerEpoch::new(2));
    let queue = broker.status().queues[0].queue;
    assert_eq!(world.store.tail(queue).await.unwrap().producer_epochs, [(name(100), ProducerEpoch::new(2))]);
}

/// Opening a named producer proves that its broker owns the queue; it does not save all other producers.
#[tokio::test(start_paused = true)]
async fn a_named_producer_is_opened_without_saving_the_others() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    broker.push(first_push(1)).await.unwrap();
    for n in 10..20 {
        broker.open_producer(&label("q"), ProducerId::new(Uuid::from_u128(n))).await.unwrap();
    }
    assert_eq!(world.store.saves(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_from_before_the_claim_does_not_make_an_owner() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    broker.push(numbered("1", 1)).await.unwrap();
    let copy = world.store.backup();
    broker.push(numbered("2", 2)).await.unwrap();
    let next = world.broker(2).await;
    world.store.outdated(Some(copy.clone()));
    world.assign("q", 2).await.unwrap();
    let refused = next.push(numbered("2", 2)).await.unwrap_err();
    assert!(matches!(refused, BrokerError::ActivationTimeout(_)), "{refused:?}");
    assert!(next.status().queues[0].counters.stale_reads > 3);
    world.store.outdated(None);
    assert!(next.push(numbered("2", 2)).await.unwrap().duplicate);
    // The first broker knows that the copy is too old. It waits for the store, and does not halt.
    world.store.outdated(Some(copy));
    world.assign("q", 1).await.unwrap();
    world.sleep(Duration::from_secs(10)).await;
    let refused = broker.push(numbered("3", 3)).await.unwrap_err();
    assert!(matches!(refused, BrokerError::ActivationTimeout(_)), "{refused:?}");
    world.store.outdated(None);
    assert_eq!(broker.push(numbered("3", 3)).await.unwrap().offset, Some(Offset::new(3)));
}

#[tokio::test(start_paused = true)]
async fn an_end_from_before_the_claim_decides_no_recovery() {
    let world = World::new();
    let broker = world.broker(1).await;
    broker.create_queue(&label("q")).await.unwrap();
    broker.push(numbered("1", 1)).await.unwrap();
    world.store.outdated(Some(world.store.backup()));
    world.store.fail_next(1, Kind::Append, Fault::AnswerLost);
    let mend = async {
        world.sleep(Duration::from_secs(1)).await;
        world.store.outdated(None);
    };
    let (pushed, ()) = tokio::join!(broker.push(numbered("2", 2)), mend);
    assert_eq!(pushed.unwrap().offset, Some(Offset::new(2)));
    let counters = broker.status().queues.remove(0).counters;
    assert!(counters.stale_reads > 0 && counters.unknown_appends == 1, "{counters:?}");
}

/// Deletions that fail, because of a lock or because they take too long, cost disk space but delay no push.
#[tokio::test(start_paused = true)]
async fn producers_are_saved_while_removals_fail() {
    let world = World::new();
    let broker = world
        .broker_with(1, |settings| {
            settings.message_ttl = Some(Duration::from_secs(1));
            settings.tuning.snapshot_every = 10;
        })
        .await;
    broker.create_queue(&label("q")).await.unwrap();
    world.store.removals_fail(true);
    for n in 1..=3_000 {
        broker.push(numbered(&n.to_string(), n)).await.unwrap();
        world.sleep(Duration::from_millis(20)).await;
    }
    let status = broker.status().queues.remove(0);
    assert!((5..20).contains(&status.counters.failed_trims), "{status:?}");
    assert_eq!(status.depth_messages, 3_000);
    // Calls that save the producers succeed meanwhile, and must not hide the failures.
    let failing = status.trims_failing.unwrap();
    assert!((50..=70).contains(&failing.as_secs()), "{failing:?}");
    world.store.removals_fail(false);
    world.sleep(Duration::from_secs(60)).await;
    let status = broker.status().queues.remove(0);
    assert_eq!((status.depth_messages, status.trims_failing), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_delivered_is_told_until_it_can_or_is_gone() {
    let world = World::new();
    let broker = world
        .broker_with(1, |settings| {
            settings.queue_buffer_messages = 1;
            settings.message_ttl = Some(Duration::from_secs(100));
        })
        .await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    for n in 1..=9_u64 {
        broker.push(push(&n.to_string())).await.unwrap();
    }
    let is_broken = || broker.has_broken_queue(Duration::from_secs(4));
    let undeliverable = || broker.status().queues[0].undeliverable;
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    world.store.corrupt(true);
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Corrupt(_))), "{error:?}");
    assert_eq!((is_broken(), undeliverable()), (true, Some(Offset::new(1))));
    world.store.corrupt(false);
    assert_eq!(take(&mut subscription, 9).await, expect(1..=9));
    assert_eq!((is_broken(), undeliverable()), (false, None), "it was read");
    drop(subscription);
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    world.store.corrupt(true);
    subscription.next().await.unwrap_err();
    assert!(is_broken());
    world.sleep(Duration::from_secs(110)).await;
    assert_eq!((is_broken(), undeliverable()), (false, None), "it expired");
    assert_eq!(broker.status().queues[0].counters.corrupt_reads, 2);
}

/// An older broker in a rolling upgrade: messages that it cannot read are not lost, and a newer broker may read them.
#[tokio::test(start_paused = true)]
async fn what_a_newer_version_stored_halts_no_queue() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.queue_buffer_messages = 1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let channel = broker.create_channel(&label("q"), Topic::NONE).await.unwrap();
    for n in 1..=3 {
        broker.push(numbered(&n.to_string(), n)).await.unwrap();
    }
    world.store.newer(true);
    let mut subscription = world.subscribe(&broker, channel, None).await.unwrap();
    let error = subscription.next().await.unwrap_err();
    assert!(matches!(error, BrokerError::Store(StoreError::Unavailable(_))), "{error:?}");
    let status = broker.status().queues.remove(0);
    assert!(status.newer && status.undeliverable.is_some(), "{status:?}");
    drop(subscription);
    let next = world.broker(2).await;
    world.assign("q", 2).await.unwrap();
    let refused = next.push(numbered("3", 3)).await.unwrap_err();
    assert!(matches!(refused, BrokerError::ActivationTimeout(_)), "{refused:?}");
    let status = next.status().queues.remove(0);
    assert!(status.newer && status.unserved.is_some(), "{status:?}");
    // From now on it can read them.
    world.store.newer(false);
    assert!(next.push(numbered("3", 3)).await.unwrap().duplicate);
    let status = next.status().queues.remove(0);
    assert!(!status.newer && status.unserved.is_none(), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_named_producer_that_the_store_did_not_enter_takes_no_room() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.max_named_producers_per_queue = 1).await;
    broker.create_queue(&label("q")).await.unwrap();
    let name = |n| ProducerId::new(Uuid::from_u128(n));
    world.store.fail(Calls::All, Fault::Unavailable);
    broker.open_producer(&label("q"), name(1)).await.unwrap_err();
    world.store.repair(Calls::All);
    assert_eq!(broker.open_producer(&label("q"), name(2)).await.unwrap().epoch, ProducerEpoch::new(1));
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_without_an_answer_does_not_count_as_stored() {
    let world = World::new();
    let broker = world.broker_with(1, |settings| settings.message_ttl = Some(Duration::from_secs(10))).await;
    broker.create_queue(&label("q")).await.unwrap();
    let depth = || {
        let status = broker.status().queues.remove(0);
        (status.depth_messages, status.depth_bytes, status.counters.failed_trims)
    };
    for n in 1..=5 {
        broker.push(push(&n.to_string())).await.unwrap();
    }
    let (_, five, _) = depth();
    world.sleep(Duration::from_secs(9)).await;
    world.store.fail(Kind::Trim, Fault::AnswerLost);
    for n in 6..=8 {
        broker.push(push(&n.to_string())).await.unwrap();
    }
    world.sleep(Duration::from_secs(4)).await;
    let (messages, _, failed) = depth();
    assert!(failed > 0 && messages == 8, "nobody knows yet what became of {messages}");
    world.store.repair(Kind::Trim);
    world.sleep(Duration::from_secs(4)).await;
    assert_eq!((depth().0, depth().1), (3, five / 5 * 3), "the next that is answered tells of all");
    world.sleep(Duration::from_secs(30)).await;
    assert_eq!((depth().0, depth().1), (0, 0));
}
