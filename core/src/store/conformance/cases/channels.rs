//! Channels: where they start, and what their ids name.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    model::{Assignment, ChannelId, Offset, QueueId, Start, StoreTime, Topic},
    ports::{ChannelRecord, CreateChannel, CreateChannelError, StoreError},
    store::conformance::{
        Harness, START,
        support::{Bench, addr, label},
    },
};

/// A channel is found by its id and listed with its queue, also after a crash.
pub async fn a_channel_is_found_and_listed(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let other = bench.create("other", None).await;
    let topic = Topic::parse("Weather/Été").unwrap();
    let own = bench.create_channel(queue, topic.clone(), Start::Earliest).await.unwrap();
    let expected = ChannelRecord {
        id: own.id,
        queue,
        label: label("q"),
        topic,
        start: Offset::new(1),
        assignee: Some((broker.id, addr("host"))),
    };
    assert_eq!(own, expected);
    let others = bench.create_channel(other, Topic::NONE, Start::Latest).await.unwrap();
    assert_eq!((&others.topic, &others.assignee), (&Topic::NONE, &None));
    let second = bench.create_channel(queue, Topic::NONE, Start::Latest).await.unwrap();

    bench.reopen().await;
    assert_eq!(bench.store.channel(own.id).await.unwrap().as_ref(), Some(&own));
    let unknown = ChannelId::new(bench.uuid());
    assert_eq!(bench.store.channel(unknown).await.unwrap(), None);
    assert_eq!(bench.store.channels(Some(queue)).await.unwrap(), [own.clone(), second.clone()]);
    assert_eq!(bench.store.channels(None).await.unwrap(), [own.clone(), others.clone(), second]);
    assert_eq!(bench.store.channels(Some(other)).await.unwrap(), [others]);
    assert_eq!(bench.store.channels(Some(QueueId::new(1_000))).await.unwrap(), []);

    // It goes where its queue goes.
    let next = bench.register("next").await;
    bench.store.assign_queue(queue, Assignment::new(1), next.id).await.unwrap();
    let moved = bench.store.channel(own.id).await.unwrap().unwrap();
    assert_eq!(moved, ChannelRecord { assignee: Some((next.id, addr("next"))), ..own.clone() });

    assert!(bench.store.delete_channel(own.id).await.unwrap());
    assert!(!bench.store.delete_channel(own.id).await.unwrap());
    assert_eq!(bench.store.channel(own.id).await.unwrap(), None);
    assert_eq!(bench.store.channels(Some(queue)).await.unwrap().len(), 1);
}

/// Where a channel starts is decided when it is created, and does not move with the log.
pub async fn the_start_is_fixed_at_creation(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let queue = writer.queue;
    let start = async |bench: &mut Bench<'_>, start| {
        bench.create_channel(queue, Topic::NONE, start).await.map(|channel| channel.start.get())
    };
    // Of an empty queue, all are the same.
    for at in [Start::Earliest, Start::Latest, Start::At(Offset::new(1))] {
        assert_eq!(start(&mut bench, at).await, Ok(1));
    }
    let latest = bench.create_channel(queue, Topic::NONE, Start::Latest).await.unwrap();
    writer.append_with_lifetime(3, Some(0)).await;
    writer.append_with_lifetime(2, Some(0)).await;
    assert_eq!(bench.store.channel(latest.id).await.unwrap().unwrap().start, Offset::new(1));
    assert_eq!(start(&mut bench, Start::Earliest).await, Ok(1));
    assert_eq!(start(&mut bench, Start::Latest).await, Ok(6));
    for at in 1..=6 {
        assert_eq!(start(&mut bench, Start::At(Offset::new(at))).await, Ok(at));
    }
    for at in [7, 1 << 40] {
        let beyond = CreateChannelError::BeyondEnd { start: Offset::new(at), end: Offset::new(5) };
        assert_eq!(start(&mut bench, Start::At(Offset::new(at))).await, Err(beyond));
    }
    let listed = bench.store.channels(Some(queue)).await.unwrap().len();
    assert_eq!(listed, 12);

    // Trimmed in part, and trimmed to empty, the log has its end still.
    let trim = crate::ports::Trim { limit: 1, ..writer.new_trim() };
    bench.store.trim(&trim).await.unwrap();
    assert_eq!(start(&mut bench, Start::Earliest).await, Ok(4));
    bench.store.trim(&trim).await.unwrap();
    assert_eq!(start(&mut bench, Start::Earliest).await, Ok(6));
    assert_eq!(start(&mut bench, Start::Latest).await, Ok(6));
    assert_eq!(start(&mut bench, Start::At(Offset::new(2))).await, Ok(2));
    let beyond = CreateChannelError::BeyondEnd { start: Offset::new(7), end: Offset::new(5) };
    assert_eq!(start(&mut bench, Start::At(Offset::new(7))).await, Err(beyond));
}

/// A request of unknown outcome, made again, is answered as it would have been, and a channel starts where it did.
pub async fn the_same_request_again_finds_its_channel(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let id = ChannelId::new(bench.uuid());
    let create = CreateChannel { id, queue: writer.queue, topic: Topic::NONE, start: Start::Latest, disposable: false };
    let made = bench.store.create_channel(&create).await.unwrap();
    writer.append(3).await;
    assert_eq!(bench.store.create_channel(&create).await.unwrap(), made);
    bench.reopen().await;
    assert_eq!(bench.store.create_channel(&create).await.unwrap(), made);
    assert_eq!(bench.store.channels(None).await.unwrap(), [made]);
}

/// An id names one channel.
pub async fn an_id_names_one_channel(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (queue, other) = (bench.create("q", None).await, bench.create("other", None).await);
    let id = ChannelId::new(bench.uuid());
    let create = CreateChannel { id, queue, topic: Topic::NONE, start: Start::Earliest, disposable: false };
    let made = bench.store.create_channel(&create).await.unwrap();
    let elsewhere = CreateChannel { queue: other, ..create.clone() };
    let of_another_topic = CreateChannel { topic: Topic::parse("t").unwrap(), ..create };
    for taken in [elsewhere, of_another_topic.clone()] {
        assert_eq!(bench.store.create_channel(&taken).await, Err(CreateChannelError::IdTaken));
    }
    assert_eq!(bench.store.channels(None).await.unwrap(), [made]);
    assert!(bench.store.delete_channel(id).await.unwrap());
    assert_eq!(bench.store.create_channel(&of_another_topic).await.unwrap().topic, of_another_topic.topic);
}

/// There is no channel without a queue.
pub async fn a_channel_needs_a_live_queue(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let queue = bench.create("q", None).await;
    let channel = bench.create_channel(queue, Topic::NONE, Start::Earliest).await.unwrap();
    bench.store.delete_queue(queue).await.unwrap();
    assert_eq!(bench.store.channel(channel.id).await.unwrap(), None);
    assert_eq!(bench.store.channels(Some(queue)).await.unwrap(), []);
    for queue in [queue, QueueId::new(1_000)] {
        let created = bench.create_channel(queue, Topic::NONE, Start::Earliest).await;
        assert_eq!(created, Err(CreateChannelError::NoSuchQueue));
    }
}

/// Those that exist are told, in order; those of deleted queues do not.
pub async fn several_channels_are_looked_up_at_once(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (queue, deleted) = (bench.create("q", None).await, bench.create("d", None).await);
    let mut live = Vec::new();
    for _ in 0..4 {
        live.push(bench.create_channel(queue, Topic::NONE, Start::Earliest).await.unwrap().id);
    }
    let of_deleted = bench.create_channel(deleted, Topic::NONE, Start::Earliest).await.unwrap().id;
    bench.store.delete_queue(deleted).await.unwrap();
    let gone = live.pop().unwrap();
    assert!(bench.store.delete_channel(gone).await.unwrap());
    live.sort_unstable();
    let mut asked = [live.as_slice(), &[gone, of_deleted, ChannelId::new(Uuid::from_u128(1))]].concat();
    asked.sort_unstable();
    assert_eq!(bench.store.known_channels(&asked).await.unwrap(), live);
    assert_eq!(bench.store.known_channels(&[]).await, Ok(vec![]));
    asked.reverse();
    assert!(matches!(bench.store.known_channels(&asked).await, Err(StoreError::Refused(_))));
}

/// Page by page one sees what the whole list has, of one queue and of all.
pub async fn channels_come_in_pages(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (q, other) = (bench.create("q", None).await, bench.create("other", None).await);
    let gone = bench.create("gone", None).await;
    for queue in [q, other, q, gone, q, other, q] {
        let id = ChannelId::new(bench.uuid());
        let create = CreateChannel { id, queue, topic: Topic::NONE, start: Start::Earliest, disposable: false };
        bench.store.create_channel(&create).await.unwrap();
    }
    bench.store.delete_queue(gone).await.unwrap();
    for queue in [None, Some(q), Some(other), Some(gone)] {
        let all = bench.store.channels(queue).await.unwrap();
        for limit in 1..8 {
            let mut seen: Vec<ChannelRecord> = Vec::new();
            loop {
                let after = seen.last().map(|channel| channel.id);
                let page = bench.store.channel_page(queue, after, limit).await.unwrap();
                assert!(page.len() <= limit as usize);
                if page.is_empty() {
                    break;
                }
                seen.extend(page);
            }
            assert_eq!(seen, all, "{queue:?} {limit}");
        }
    }
}

/// A channel that may be deleted is so once it is idle for long, and no other.
pub async fn channels_that_are_idle_go(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let (second, unassigned) = (bench.create("r", Some(broker.id)).await, bench.create("s", None).await);
    let seconds = Duration::from_secs;
    let mut made = Vec::new();
    for (queue, disposable) in [(queue, true), (queue, true), (queue, false), (second, true), (unassigned, true)] {
        let id = ChannelId::new(bench.uuid());
        let create = CreateChannel { id, queue, topic: Topic::NONE, start: Start::Earliest, disposable };
        bench.store.create_channel(&create).await.unwrap();
        made.push(id);
    }
    let [old, used, lasting, of_second, of_nobody] = made[..] else { unreachable!() };
    let all = [queue, second, unassigned];
    let store = bench.store.clone();
    let delete = async |queues: &[QueueId], limit| {
        store.delete_idle_channels(broker.id, queues, seconds(5), StoreTime::NEVER, limit).await.unwrap()
    };
    let generation = async || store.renew_broker(broker.id, broker.incarnation, seconds(60)).await.unwrap().generation;
    bench.at(4_999).await;
    let before = generation().await;
    assert_eq!(delete(&all, 10).await, []);
    assert_eq!(generation().await, before, "nothing changed");
    // What was entered within two seconds is not entered again.
    let none = ChannelId::new(Uuid::from_u128(1 << 100));
    assert_eq!(store.use_channels(&[used, lasting, none], seconds(2)).await.unwrap(), [used, lasting]);
    bench.at(6_998).await;
    assert_eq!(store.use_channels(&[used], seconds(2)).await.unwrap(), [used]);
    let other = bench.register("other").await;
    assert_eq!(store.delete_idle_channels(other.id, &all, seconds(5), StoreTime::NEVER, 10).await.unwrap(), []);
    assert_eq!(delete(&[unassigned], 10).await, []);
    // Its clock was set forward since the caller looked at it.
    let seen = START.plus_millis(4_000);
    assert_eq!(store.delete_idle_channels(broker.id, &all, seconds(5), seen, 10).await.unwrap(), []);
    assert_eq!(delete(&all, 1).await, [old]);
    assert_eq!(generation().await, before.next());
    assert_eq!(store.use_channels(&[old], seconds(2)).await.unwrap(), []);
    assert_eq!(store.channel(old).await.unwrap(), None);
    bench.at(9_998).await;
    assert_eq!(delete(&all, 10).await, [of_second]);
    bench.at(9_999).await;
    assert_eq!(delete(&all, 10).await, [used]);
    assert_eq!(delete(&all, 10).await, []);
    let mut left: Vec<_> = store.channels(None).await.unwrap().iter().map(|channel| channel.id).collect();
    left.sort_unstable();
    assert_eq!(left, [lasting, of_nobody]);
    assert!(matches!(store.use_channels(&[used, old], seconds(2)).await, Err(StoreError::Refused(_))));
    let twice = store.delete_idle_channels(broker.id, &[queue, queue], seconds(5), StoreTime::NEVER, 1).await;
    assert!(matches!(twice, Err(StoreError::Refused(_))));
}
