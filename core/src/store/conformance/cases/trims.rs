//! Trimming: what has expired goes, the end of the log and the producers stay.

use bytes::Bytes;

use crate::{
    model::{Epoch, Offset, StoreTime},
    ports::{Appended, LogError, LogStats, Trim, Trimmed},
    store::conformance::{
        Harness, START,
        support::{Bench, END, Writer, batch},
    },
};

async fn firsts(writer: &Writer) -> Vec<u64> {
    let headers = writer.store().headers(writer.queue, Offset::ZERO, 1_000).await.unwrap();
    headers.into_iter().map(|header| header.first.get()).collect()
}

async fn trimmed_through(writer: &Writer) -> u64 {
    writer.store().tail(writer.queue).await.unwrap().trimmed_through.get()
}

/// At its expiry a batch has expired; a millisecond before, it has not.
pub async fn a_batch_expires_at_its_expiry_and_not_before(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let stored_at = bench.at(500).await;
    let bytes = writer.batch(3).frames.len() as u64;
    writer.append_with_lifetime(3, Some(1_000)).await;
    let now = bench.at(1_499).await;
    let nothing = Trimmed {
        trimmed_through: Offset::ZERO,
        batches: 0,
        messages: 0,
        bytes: 0,
        oldest: Some(stored_at),
        next_expiry: stored_at.plus_millis(1_000),
        store_time: now,
    };
    assert_eq!(writer.trim().await.unwrap(), nothing);
    assert_eq!(firsts(&writer).await, [1]);
    let now = bench.at(1_500).await;
    let expected = Trimmed {
        trimmed_through: Offset::new(3),
        batches: 1,
        messages: 3,
        bytes,
        oldest: None,
        next_expiry: StoreTime::NEVER,
        store_time: now,
    };
    assert_eq!(writer.trim().await.unwrap(), expected);
    assert_eq!(firsts(&writer).await, [0; 0]);
    let again = Trimmed { batches: 0, messages: 0, bytes: 0, ..expected };
    assert_eq!(writer.trim().await.unwrap(), again);
}

/// A batch without a lifetime stays for ever, one without any time left goes at once.
pub async fn what_lives_for_ever_is_never_trimmed(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    writer.append_with_lifetime(1, Some(0)).await;
    writer.append(1).await;
    assert_eq!(writer.trim().await.unwrap().batches, 1);
    harness.set_clock(StoreTime::from_millis(1 << 52)).await;
    assert_eq!(writer.trim().await.unwrap().batches, 0);
    assert_eq!(firsts(&writer).await, [2]);
    assert_eq!(trimmed_through(&writer).await, 1);
}

/// A trim removes the oldest first, and no more than it was allowed to.
pub async fn a_trim_keeps_to_its_limit(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for _ in 0..5 {
        writer.append_with_lifetime(2, Some(100)).await;
    }
    bench.at(100).await;
    let limited = |limit| Trim { limit, ..writer.new_trim() };
    assert_eq!(bench.store.trim(&limited(0)).await.unwrap().batches, 0);
    let trimmed = bench.store.trim(&limited(2)).await.unwrap();
    assert_eq!((trimmed.batches, trimmed.messages, trimmed.trimmed_through), (2, 4, Offset::new(4)));
    assert_eq!(firsts(&writer).await, [5, 7, 9]);
    bench.reopen().await;
    assert_eq!(bench.store.tail(writer.queue).await.unwrap().trimmed_through, Offset::new(4));
    let trimmed = bench.store.trim(&limited(100)).await.unwrap();
    assert_eq!((trimmed.batches, trimmed.messages, trimmed.trimmed_through), (3, 6, Offset::new(10)));
}

/// Nothing goes that the snapshot of the producers does not speak for.
pub async fn nothing_beyond_the_snapshot_is_trimmed(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for _ in 0..3 {
        writer.append_with_lifetime(2, Some(100)).await;
    }
    bench.at(100).await;
    for (through, left) in [(0, vec![1, 3, 5]), (1, vec![1, 3, 5]), (2, vec![3, 5]), (5, vec![5])] {
        let trim = Trim { through: Offset::new(through), ..writer.new_trim() };
        let trimmed = bench.store.trim(&trim).await.unwrap();
        assert_eq!(firsts(&writer).await, left, "through {through}");
        assert_eq!(trimmed.trimmed_through.get(), left[0] - 1);
    }
}

/// A log that was trimmed to empty keeps its end: the next owner goes on behind it, and what is gone is not given again.
pub async fn trimmed_to_empty_the_log_keeps_its_end(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let mut writer = bench.writer(broker, queue).await;
    writer.append_with_lifetime(2, Some(100)).await;
    writer.append_with_lifetime(3, Some(100)).await;
    bench.at(100).await;
    assert_eq!(writer.trim().await.unwrap().batches, 2);
    assert_eq!(bench.store.stats(queue, END).await.unwrap(), LogStats::default());

    bench.reopen().await;
    let epoch = bench.claim(broker, queue).await.unwrap().epoch;
    let tail = bench.store.tail(queue).await.unwrap();
    assert_eq!((tail.end, tail.trimmed_through), (Offset::new(5), Offset::new(5)));
    assert_eq!((tail.last_first, tail.last_epoch), (Offset::ZERO, Epoch::ZERO));
    for first in [1, 3, 4, 5] {
        let taken = batch(queue, epoch, Offset::new(first), 1, Offset::ZERO, START);
        assert_eq!(bench.store.append(&[taken]).await.unwrap(), [Appended::Conflict], "first {first}");
    }
    for previous in [0, 3, 6] {
        let lost = batch(queue, epoch, Offset::new(7), 1, Offset::new(previous), START);
        assert_eq!(bench.store.append(&[lost]).await.unwrap(), [Appended::WentBack], "previous {previous}");
    }
    let mut next = Writer::after_claim(&bench.store, queue, epoch).await;
    next.append(2).await;
    assert_eq!(firsts(&next).await, [6]);
    next.append(1).await;
    assert_eq!(next.end, Offset::new(8));
}

/// An owner goes on appending after the batch before was trimmed under its hands.
pub async fn the_batch_before_may_have_been_trimmed(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for round in 1..=3 {
        writer.append_with_lifetime(2, Some(100)).await;
        bench.at(100 * round).await;
        assert_eq!(writer.trim().await.unwrap().batches, 1);
    }
    assert_eq!((writer.end, trimmed_through(&writer).await), (Offset::new(6), 6));
}

/// Expired batches between live ones go; trimmed counts only what everything before is gone of.
pub async fn expired_batches_between_live_ones_go(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for lifetime in [Some(300), Some(100), Some(200), Some(100), None] {
        writer.append_with_lifetime(2, lifetime).await;
    }
    bench.at(100).await;
    let trimmed = writer.trim().await.unwrap();
    assert_eq!((trimmed.batches, trimmed.trimmed_through), (2, Offset::ZERO));
    assert_eq!(firsts(&writer).await, [1, 5, 9]);
    // What is gone in between is not given again.
    let gap = batch(writer.queue, writer.epoch, Offset::new(3), 1, Offset::new(1), START);
    assert_eq!(bench.store.append(&[gap]).await.unwrap(), [Appended::Conflict]);
    bench.at(200).await;
    assert_eq!(writer.trim().await.unwrap().trimmed_through, Offset::ZERO);
    assert_eq!(firsts(&writer).await, [1, 9]);
    bench.at(300).await;
    let trimmed = writer.trim().await.unwrap();
    assert_eq!((trimmed.batches, trimmed.messages, trimmed.trimmed_through), (1, 2, Offset::new(8)));
    assert_eq!(firsts(&writer).await, [9]);
    writer.append(1).await;
}

/// The last batch of a log stays until all before it are gone.
pub async fn the_last_batch_stays_until_all_before_it_are_gone(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for lifetime in [Some(200), Some(100), Some(100)] {
        writer.append_with_lifetime(2, lifetime).await;
    }
    bench.at(100).await;
    assert_eq!(writer.trim().await.unwrap().batches, 1);
    assert_eq!(firsts(&writer).await, [1, 5]);
    assert_eq!(bench.store.tail(writer.queue).await.unwrap().last_first, Offset::new(5));
    bench.at(200).await;
    // One at a time, the last goes last; with room for both, both go.
    let trimmed = bench.store.trim(&Trim { limit: 1, ..writer.new_trim() }).await.unwrap();
    assert_eq!((trimmed.batches, trimmed.trimmed_through), (1, Offset::new(4)));
    assert_eq!(firsts(&writer).await, [5]);
    let trimmed = writer.trim().await.unwrap();
    assert_eq!((trimmed.batches, trimmed.trimmed_through), (1, Offset::new(6)));
}

/// Every trim saves the producers, whether it removes anything or not.
pub async fn the_producers_are_saved_and_read_back(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    assert_eq!(bench.store.tail(writer.queue).await.unwrap().producers, None);
    writer.append(4).await;
    let snapshots = [Bytes::from_static(b"\0\xffone"), Bytes::new(), Bytes::from(vec![7; 1 << 20])];
    for ((through, limit), producers) in [(2, 0), (3, 1), (4, 100)].into_iter().zip(snapshots) {
        let through = Offset::new(through);
        let trim = Trim { through, limit, producers: producers.clone(), ..writer.new_trim() };
        bench.store.trim(&trim).await.unwrap();
        bench.reopen().await;
        assert_eq!(bench.store.tail(writer.queue).await.unwrap().producers, Some((through, producers)));
    }
    assert_eq!(bench.store.stats(writer.queue, END).await.unwrap().messages, 4);
}

/// A trim that lands after its successor does not bring back what that replaced.
pub async fn older_producers_do_not_replace_newer_ones(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    writer.append(4).await;
    let save = |through, producers: &'static [u8]| Trim {
        through: Offset::new(through),
        producers: Bytes::from_static(producers),
        ..writer.new_trim()
    };
    for trim in [save(4, b"newer"), save(2, b"late")] {
        bench.store.trim(&trim).await.unwrap();
    }
    let saved = bench.store.tail(writer.queue).await.unwrap().producers;
    assert_eq!(saved, Some((Offset::new(4), Bytes::from_static(b"newer"))));
    bench.store.trim(&save(4, b"same")).await.unwrap();
    let saved = bench.store.tail(writer.queue).await.unwrap().producers;
    assert_eq!(saved, Some((Offset::new(4), Bytes::from_static(b"same"))));
}

/// Who was fenced neither removes nor saves anything.
pub async fn a_trim_is_fenced(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let mut stale = bench.writer(broker, queue).await;
    stale.append_with_lifetime(2, Some(100)).await;
    bench.claim(broker, queue).await.unwrap();
    bench.at(100).await;
    let fenced = LogError::Fenced { epoch: Epoch::new(2) };
    assert_eq!(stale.trim().await, Err(fenced.clone()));
    let mut early = stale.clone();
    early.epoch = Epoch::new(3);
    assert_eq!(early.trim().await, Err(fenced));
    let tail = bench.store.tail(queue).await.unwrap();
    assert_eq!((tail.trimmed_through, tail.producers), (Offset::ZERO, None));
    assert_eq!(firsts(&stale).await, [1]);
    let mut latest = stale.clone();
    latest.epoch = Epoch::new(2);
    assert_eq!(latest.trim().await.unwrap().batches, 1);
    bench.store.delete_queue(queue).await.unwrap();
    assert_eq!(latest.trim().await, Err(LogError::Deleted));
    assert_eq!(stale.trim().await, Err(LogError::Deleted));
}
