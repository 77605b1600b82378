//! Reads: pages, headers, counts, and the producers' epochs.

use crate::{
    model::{Offset, ProducerEpoch, ProducerId, QueueId},
    ports::{LogTail, Opened, Page},
    store::conformance::{
        Harness, START,
        support::{Bench, Writer},
    },
};

/// Five batches: 1-2, 3-5, 6, 7-10, 11-12.
async fn filled(bench: &mut Bench<'_>) -> Writer {
    let mut writer = bench.hosted_writer("q").await;
    for count in [2, 3, 1, 4, 2] {
        writer.append(count).await;
    }
    writer
}

/// A read begins with the batch that reaches beyond the offset, be the offset within it.
pub async fn a_read_begins_with_what_reaches_beyond_the_offset(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let writer = filled(&mut bench).await;
    let all = bench.store.read(writer.queue, Offset::ZERO, 1 << 20).await.unwrap().batches;
    let bounds: Vec<_> = all.iter().map(|batch| (batch.header.first.get(), batch.header.last.get())).collect();
    assert_eq!(bounds, [(1, 2), (3, 5), (6, 6), (7, 10), (11, 12)]);
    let expected = [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 4, 4, 5, 5, 5];
    for (after, first) in expected.into_iter().enumerate() {
        let after = Offset::new(after as u64);
        assert_eq!(
            bench.store.read(writer.queue, after, 1 << 20).await.unwrap().batches,
            all[first..],
            "after {after}"
        );
        let headers = bench.store.headers(writer.queue, after, 100).await.unwrap();
        let expected: Vec<_> = all[first..].iter().map(|batch| batch.header.clone()).collect();
        assert_eq!(headers, expected, "after {after}");
    }
}

/// A page holds at least one batch, and no more than fit.
pub async fn a_read_keeps_to_its_bytes_but_gives_at_least_one_batch(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let writer = filled(&mut bench).await;
    let all = bench.store.read(writer.queue, Offset::ZERO, 1 << 20).await.unwrap().batches;
    let bytes: Vec<_> = all.iter().map(|batch| batch.frames.len()).collect();
    for max_bytes in [0, 1, bytes[0] - 1, bytes[0], bytes[0] + bytes[1] - 1] {
        let page = bench.store.read(writer.queue, Offset::ZERO, max_bytes).await.unwrap().batches;
        assert_eq!(page, all[..1], "{max_bytes} bytes");
    }
    for count in 2..=5 {
        let max_bytes = bytes[..count].iter().sum();
        assert_eq!(bench.store.read(writer.queue, Offset::ZERO, max_bytes).await.unwrap().batches, all[..count]);
    }
    // From within a batch, which counts in full; and one that is larger than the page ends it, whatever comes behind.
    let max_bytes = bytes[1] + bytes[2];
    assert_eq!(bench.store.read(writer.queue, Offset::new(4), max_bytes).await.unwrap().batches, all[1..3]);
    assert_eq!(bench.store.read(writer.queue, Offset::new(5), bytes[2] + bytes[4]).await.unwrap().batches, all[2..3]);

    let (mut after, mut read) = (Offset::ZERO, Vec::new());
    while let page = bench.store.read(writer.queue, after, bytes[3]).await.unwrap().batches
        && let Some(last) = page.last()
    {
        after = last.header.last;
        read.extend(page);
    }
    assert_eq!(read, all);
}

/// Headers come in pages too.
pub async fn headers_keep_to_their_limit(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let writer = filled(&mut bench).await;
    let all = bench.store.headers(writer.queue, Offset::ZERO, 1_000).await.unwrap();
    assert_eq!(all.len(), 5);
    assert_eq!(bench.store.headers(writer.queue, Offset::ZERO, 2).await.unwrap(), all[..2]);
    assert_eq!(bench.store.headers(writer.queue, Offset::new(5), 2).await.unwrap(), all[2..4]);
    assert_eq!(bench.store.headers(writer.queue, Offset::new(10), 2).await.unwrap(), all[4..]);
    assert_eq!(bench.store.headers(writer.queue, Offset::new(12), 2).await.unwrap(), []);
    assert_eq!(bench.store.headers(writer.queue, Offset::ZERO, 0).await.unwrap(), []);
}

/// What is stored is counted, expired or not, until it is trimmed.
pub async fn the_end_tells_what_is_stored(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    assert_eq!(writer.totals().await, (0, 0, None));
    let bytes = writer.batch(3).frames.len() as u64;
    writer.append_with_lifetime(3, Some(100)).await;
    let now = bench.at(1_000).await;
    let more = writer.batch(2).frames.len() as u64;
    writer.append(2).await;
    assert_eq!(writer.totals().await, (5, bytes + more, Some(START)));
    writer.trim().await.unwrap();
    assert_eq!(writer.totals().await, (2, more, Some(now)));
}

/// A page says through where its source knows that there is nothing else, above all one that is empty.
pub async fn a_page_tells_what_it_proves(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let page = async |writer: &Writer, after| {
        let page = writer.store().read(writer.queue, Offset::new(after), 1 << 20).await.unwrap();
        (page.batches.len(), page.looked_through.get())
    };
    assert_eq!(page(&writer, 0).await, (0, 0));
    writer.append_with_lifetime(2, Some(10)).await;
    writer.append_with_lifetime(2, Some(20)).await;
    assert_eq!((page(&writer, 0).await, page(&writer, 4).await), ((2, 4), (0, 4)));
    // What lies beyond the end may be stored later.
    assert_eq!(page(&writer, 9).await, (0, 4));
    bench.at(10).await;
    writer.trim().await.unwrap();
    assert_eq!((page(&writer, 0).await, page(&writer, 4).await), ((1, 4), (0, 4)));
    bench.at(20).await;
    writer.trim().await.unwrap();
    assert_eq!((page(&writer, 0).await, page(&writer, 9).await), ((0, 4), (0, 4)));
}

/// Where batches between others are gone, a read looks as far as it is told to, and the next goes on there.
pub async fn a_read_looks_through_a_span(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    // 1-2 and 15-17 stay.
    writer.append(2).await;
    for _ in 0..4 {
        writer.append_with_lifetime(3, Some(10)).await;
    }
    writer.append(3).await;
    let span = async |writer: &Writer, after, span| {
        let page = writer.store().read_within(writer.queue, Offset::new(after), span, 1 << 20).await.unwrap();
        (page.batches.iter().map(|batch| batch.header.first.get()).collect::<Vec<_>>(), page.looked_through.get())
    };
    assert_eq!(span(&writer, 0, 1).await, (vec![1], 2));
    assert_eq!(span(&writer, 0, 3).await, (vec![1, 3], 5), "a batch that begins within the span belongs to it");
    assert_eq!(span(&writer, 3, 1).await, (vec![3], 5), "and one that reaches into it");
    bench.at(10).await;
    writer.trim().await.unwrap();
    assert_eq!(span(&writer, 0, 5).await, (vec![1], 2));
    assert_eq!(span(&writer, 2, 5).await, (vec![], 7));
    assert_eq!(span(&writer, 7, 5).await, (vec![], 12));
    assert_eq!(span(&writer, 12, 2).await, (vec![], 14));
    assert_eq!(span(&writer, 12, 3).await, (vec![15], 17));
    assert_eq!(span(&writer, 14, 1).await, (vec![15], 17));
    assert_eq!(span(&writer, 16, 1).await, (vec![15], 17));
    assert_eq!(span(&writer, 17, 5).await, (vec![], 17));
    for after in [0, 2, 17] {
        assert_eq!(span(&writer, after, u64::MAX >> 2).await.1, 17);
    }
}

/// Each queue has a log of its own.
pub async fn queues_do_not_see_each_others_messages(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("a").await;
    let mut writer = bench.writer(broker, queue).await;
    let other = bench.create("b", Some(broker.id)).await;
    let mut other = bench.writer(broker, other).await;
    writer.append(2).await;
    other.append(5).await;
    writer.append_with_lifetime(1, Some(0)).await;
    assert_eq!(bench.store.headers(queue, Offset::ZERO, 100).await.unwrap().len(), 2);
    assert_eq!(bench.store.tail(other.queue).await.unwrap().messages, 5);
    assert_eq!(bench.store.tail(other.queue).await.unwrap().end, Offset::new(5));
    writer.trim().await.unwrap();
    assert_eq!(bench.store.tail(other.queue).await.unwrap().producers, None);
}

/// There is nothing to read of a queue that never was.
pub async fn a_queue_that_never_was_reads_as_empty(harness: &dyn Harness) {
    let bench = Bench::start(harness).await;
    let nothing = QueueId::new(1_000);
    assert_eq!(bench.store.tail(nothing).await.unwrap(), LogTail::default());
    assert_eq!(bench.store.headers(nothing, Offset::ZERO, 10).await.unwrap(), []);
    assert_eq!(bench.store.read(nothing, Offset::ZERO, 10).await.unwrap(), Page::default());
}

const fn given(epoch: u64) -> Opened {
    Opened::Given(ProducerEpoch::new(epoch))
}

/// A named producer counts 1, 2, 3 … in each queue by itself, across crashes and trims.
pub async fn a_named_producer_gets_one_epoch_after_another(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("a").await;
    let queue = writer.queue;
    let other = bench.create("b", None).await;
    let (p1, p2) = (ProducerId::new(bench.uuid()), ProducerId::new(bench.uuid()));
    assert_eq!(bench.store.open_producer(queue, p1, 10).await.unwrap(), given(1));
    assert_eq!(bench.store.open_producer(queue, p1, 10).await.unwrap(), given(2));
    assert_eq!(bench.store.open_producer(queue, p2, 10).await.unwrap(), given(1));
    assert_eq!(bench.store.open_producer(other, p1, 10).await.unwrap(), given(1));
    writer.append_with_lifetime(1, Some(0)).await;
    writer.trim().await.unwrap();
    bench.reopen().await;
    assert_eq!(bench.store.open_producer(queue, p1, 10).await.unwrap(), given(3));
    let mut epochs = bench.store.tail(queue).await.unwrap().producer_epochs;
    epochs.sort_unstable();
    assert_eq!(epochs, [(p1, ProducerEpoch::new(3)), (p2, ProducerEpoch::new(1))]);
    assert_eq!(bench.store.tail(other).await.unwrap().producer_epochs, [(p1, ProducerEpoch::new(1))]);
    assert_eq!(bench.store.open_producer(QueueId::new(1_000), p1, 10).await.unwrap(), Opened::Deleted);
}

/// Concurrent openers of one name get distinct epochs.
pub async fn concurrent_openers_get_distinct_epochs(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let queue = bench.create("a", None).await;
    let producer = ProducerId::new(bench.uuid());
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let store = std::sync::Arc::clone(&bench.store);
            tokio::spawn(async move { store.open_producer(queue, producer, 10).await })
        })
        .collect();
    let mut epochs = Vec::new();
    for opener in openers {
        let Opened::Given(epoch) = opener.await.unwrap().unwrap() else { panic!("it got none") };
        epochs.push(epoch);
    }
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 3, 4, 5, 6, 7, 8].map(ProducerEpoch::new));
}

/// The store counts, so neither a race nor a limit that was lowered lets more in. Those that are there go on.
pub async fn there_are_no_more_named_producers_than_may_be(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (queue, other) = (bench.create("a", None).await, bench.create("b", None).await);
    let names: Vec<_> = (0..8).map(|_| ProducerId::new(bench.uuid())).collect();
    let openers: Vec<_> = names
        .iter()
        .map(|&producer| {
            let store = std::sync::Arc::clone(&bench.store);
            tokio::spawn(async move { store.open_producer(queue, producer, 3).await })
        })
        .collect();
    let mut known = Vec::new();
    for (opener, &producer) in openers.into_iter().zip(&names) {
        match opener.await.unwrap().unwrap() {
            Opened::Given(epoch) if epoch == ProducerEpoch::new(1) => known.push(producer),
            Opened::TooMany => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(known.len(), 3);
    for &producer in &names {
        let expected = if known.contains(&producer) { given(2) } else { Opened::TooMany };
        assert_eq!(bench.store.open_producer(queue, producer, 1).await.unwrap(), expected);
    }
    assert_eq!(bench.store.open_producer(other, names[0], 1).await.unwrap(), given(1));
    known.sort_unstable();
    let mut epochs = bench.store.tail(queue).await.unwrap().producer_epochs;
    epochs.sort_unstable();
    assert_eq!(epochs, known.iter().map(|&producer| (producer, ProducerEpoch::new(2))).collect::<Vec<_>>());
}
