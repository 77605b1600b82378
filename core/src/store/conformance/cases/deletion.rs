//! Deletion: final for the id, and without a trace in the next queue of the label.

use std::sync::Arc;

use crate::{
    model::{ChannelId, Offset, ProducerEpoch, ProducerId, QueueId, Start, Topic},
    ports::{
        Appended, ClaimError, CreateChannel, CreateChannelError, CreateQueue, CreateQueueError, LogError, LogTail,
        Opened, Purged, REQUEST_MEMORY,
    },
    store::conformance::{
        Harness, START,
        support::{Bench, Registered, Writer, batch, label},
    },
};

/// Claim, append, trim and open a producer: a deleted queue refuses each.
async fn refuses_all_writes(bench: &mut Bench<'_>, broker: Registered, writer: &Writer) {
    assert_eq!(bench.claim(broker, writer.queue).await, Err(ClaimError::Deleted));
    assert_eq!(bench.store.append(&[writer.batch(1)]).await.unwrap(), [Appended::Deleted]);
    // Whatever else were wrong with it.
    let odd = batch(writer.queue, writer.epoch.next(), Offset::new(1), 1, Offset::ZERO, START);
    assert_eq!(bench.store.append(&[odd]).await.unwrap(), [Appended::Deleted]);
    assert_eq!(bench.store.trim(&writer.new_trim()).await, Err(LogError::Deleted));
    let producer = ProducerId::new(bench.uuid());
    assert_eq!(bench.store.open_producer(writer.queue, producer, 10).await.unwrap(), Opened::Deleted);
    let id = ChannelId::new(bench.uuid());
    let create =
        CreateChannel { id, queue: writer.queue, topic: Topic::NONE, start: Start::Earliest, disposable: false };
    assert_eq!(bench.store.create_channel(&create).await, Err(CreateChannelError::NoSuchQueue));
}

/// A deleted queue is not listed any more, and refuses all writes for ever.
pub async fn a_deleted_queue_refuses_all_writes(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let mut writer = bench.writer(broker, queue).await;
    writer.append(2).await;
    let kept = bench.create("kept", Some(broker.id)).await;
    assert!(bench.store.delete_queue(queue).await.unwrap());
    for _ in 0..2 {
        assert!(!bench.store.delete_queue(queue).await.unwrap());
        assert_eq!(bench.store.queue(&label("q")).await.unwrap(), None);
        assert_eq!(bench.store.queue_by_id(queue).await.unwrap(), None);
        for listed in [bench.store.queues().await.unwrap(), bench.store.assigned_queues(broker.id).await.unwrap()] {
            assert_eq!(listed.iter().map(|queue| queue.id).collect::<Vec<_>>(), [kept]);
        }
        refuses_all_writes(&mut bench, broker, &writer).await;
        bench.reopen().await;
    }
    assert!(!bench.store.delete_queue(QueueId::new(1_000)).await.unwrap());
}

/// A request that is made again after its queue was deleted creates nothing, nor later, when others deleted theirs.
pub async fn a_request_made_again_does_not_resurrect_its_queue(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let create = CreateQueue { label: label("q"), assignee: None, request: bench.uuid() };
    let queue = bench.store.create_queue(&create).await.unwrap().id;
    assert!(bench.store.delete_queue(queue).await.unwrap());
    assert_eq!(bench.store.create_queue(&create).await, Err(CreateQueueError::DeletedSince));
    let memory = u64::try_from(REQUEST_MEMORY.as_millis()).unwrap();
    bench.at(memory).await;
    let other = bench.create("q", None).await;
    assert_eq!(bench.store.create_queue(&create).await, Err(CreateQueueError::Exists));
    assert!(bench.store.delete_queue(other).await.unwrap());
    bench.store.purge_deleted(10).await.unwrap();
    bench.reopen().await;
    assert_eq!(bench.store.create_queue(&create).await, Err(CreateQueueError::DeletedSince));
    assert_eq!(bench.store.queues().await.unwrap(), []);
}

/// A queue that never was is as good as deleted.
pub async fn a_queue_that_never_was_refuses_all_writes(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let broker = bench.register("host").await;
    writer.queue = QueueId::new(1_000);
    refuses_all_writes(&mut bench, broker, &writer).await;
}

/// The same label again is a new queue: a new id, an empty log from offset 1, no channels, no producers.
pub async fn created_again_a_queue_is_new(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, old) = bench.hosted_queue("q").await;
    let mut old_writer = bench.writer(broker, old).await;
    old_writer.append_with_lifetime(2, Some(0)).await;
    old_writer.trim().await.unwrap();
    old_writer.append(2).await;
    let channel = bench.create_channel(old, Topic::NONE, Start::Earliest).await.unwrap();
    let producer = ProducerId::new(bench.uuid());
    bench.store.open_producer(old, producer, 10).await.unwrap();
    bench.store.delete_queue(old).await.unwrap();

    let new = bench.create("Q", Some(broker.id)).await;
    assert!(new > old);
    assert_eq!(bench.store.tail(new).await.unwrap(), LogTail::default());
    assert_eq!(bench.store.channel(channel.id).await.unwrap(), None);
    assert_eq!(bench.store.channels(None).await.unwrap(), []);
    assert!(!bench.store.delete_channel(channel.id).await.unwrap());
    let claimed = bench.claim(broker, new).await.unwrap();
    assert_eq!(claimed.epoch.get(), 1);
    // Who still holds the old id and its epoch does no harm to the new queue.
    refuses_all_writes(&mut bench, broker, &old_writer).await;
    let mut writer = Writer::after_claim(&bench.store, new, claimed.epoch).await;
    writer.append(1).await;
    assert_eq!(writer.end, Offset::new(1));
    assert_eq!(bench.store.open_producer(new, producer, 10).await.unwrap(), Opened::Given(ProducerEpoch::new(1)));
    // The id of a channel that went with its queue is free.
    let create =
        CreateChannel { id: channel.id, queue: new, topic: Topic::NONE, start: Start::Latest, disposable: false };
    assert_eq!(bench.store.create_channel(&create).await.unwrap().start, Offset::new(2));
}

/// A purge removes what is left of deleted queues, piece by piece, and nothing of live ones.
pub async fn a_purge_removes_deleted_queues_only(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, old) = bench.hosted_queue("q").await;
    let mut old_writer = bench.writer(broker, old).await;
    let producer = ProducerId::new(bench.uuid());
    for _ in 0..3 {
        old_writer.append(2).await;
    }
    old_writer.trim().await.unwrap();
    bench.store.open_producer(old, producer, 10).await.unwrap();
    assert_eq!(bench.store.purge_deleted(100).await.unwrap().batches, 0);
    assert_eq!(bench.store.tail(old).await.unwrap().messages, 6);
    bench.store.delete_queue(old).await.unwrap();

    let new = bench.create("q", Some(broker.id)).await;
    let mut writer = bench.writer(broker, new).await;
    writer.append_with_lifetime(1, Some(0)).await;
    writer.trim().await.unwrap();
    writer.append(3).await;
    bench.store.open_producer(new, producer, 10).await.unwrap();
    let channel = bench.create_channel(new, Topic::NONE, Start::Latest).await.unwrap();
    let (tail, stored) =
        (bench.store.tail(new).await.unwrap(), bench.store.read(new, Offset::ZERO, 1 << 20).await.unwrap());

    assert_eq!(bench.store.purge_deleted(2).await.unwrap(), Purged { batches: 2, more: true });
    refuses_all_writes(&mut bench, broker, &old_writer).await;
    assert_eq!(bench.store.purge_deleted(2).await.unwrap(), Purged { batches: 1, more: false });
    assert_eq!(bench.store.purge_deleted(2).await.unwrap(), Purged::default());
    bench.reopen().await;
    refuses_all_writes(&mut bench, broker, &old_writer).await;
    assert!(!bench.store.delete_queue(old).await.unwrap());
    assert_eq!(bench.store.tail(old).await.unwrap(), LogTail::default());
    assert_eq!(bench.store.read(old, Offset::ZERO, 1 << 20).await.unwrap().batches, []);

    assert_eq!(bench.store.tail(new).await.unwrap(), tail);
    assert_eq!(bench.store.read(new, Offset::ZERO, 1 << 20).await.unwrap(), stored);
    assert_eq!(bench.store.channel(channel.id).await.unwrap(), Some(channel));
}

/// One purge reaches several deleted queues.
pub async fn a_purge_reaches_several_queues(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("host").await;
    for name in ["a", "b", "c", "d"] {
        let queue = bench.create(name, Some(broker.id)).await;
        if name != "b" {
            bench.writer(broker, queue).await.append(1).await;
        }
        bench.store.delete_queue(queue).await.unwrap();
    }
    assert_eq!(bench.store.purge_deleted(2).await.unwrap().batches, 2);
    assert_eq!(bench.store.purge_deleted(100).await.unwrap().batches, 1);
    assert_eq!(bench.store.purge_deleted(100).await.unwrap().batches, 0);
}

/// An id is not given again, even after its queue was purged, the newest, and the store was opened anew.
pub async fn an_id_is_never_given_again(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut last = QueueId::ZERO;
    for _ in 0..4 {
        let queue = bench.create("q", None).await;
        assert!(queue > last, "{queue} after {last}");
        last = queue;
        bench.store.delete_queue(queue).await.unwrap();
        bench.store.purge_deleted(100).await.unwrap();
        bench.reopen().await;
    }
}

/// While a queue is deleted and created again by rivals, there is never more than one of it.
pub async fn rivals_delete_and_create_a_queue(harness: &dyn Harness) {
    const RIVALS: usize = 6;
    const ROUNDS: usize = 60;
    let mut bench = Bench::start(harness).await;
    let rivals: Vec<_> = (0..RIVALS)
        .map(|_| {
            let requests: Vec<_> = (0..ROUNDS).map(|_| bench.uuid()).collect();
            let store = Arc::clone(&bench.store);
            tokio::spawn(async move {
                let mut made = Vec::new();
                for request in requests {
                    let create = CreateQueue { label: label("q"), assignee: None, request };
                    match store.create_queue(&create).await {
                        Ok(record) => made.push(record.id),
                        Err(error) => assert_eq!(error, CreateQueueError::Exists),
                    }
                    if let Some(found) = store.queue(&label("q")).await.unwrap() {
                        store.delete_queue(found.id).await.unwrap();
                    }
                }
                made
            })
        })
        .collect();
    let mut made = Vec::new();
    for rival in rivals {
        made.extend(rival.await.unwrap());
    }
    let count = made.len();
    made.sort_unstable();
    made.dedup();
    assert_eq!(made.len(), count, "an id was given twice");
    // Who finds the other's queue removes it, so no queue is in the way of more than one attempt of each.
    assert!(count >= ROUNDS);
    assert!(bench.store.queues().await.unwrap().len() <= 1);
}
