//! Trimming: what has expired goes, the end of the log and the producers stay.

use bytes::Bytes;

use crate::{
    model::{Epoch, Offset, StoreTime},
    ports::{AppendBatch, Appended, LogError, LogTail, MAX_TRIM_SPAN, Removed, Trim, Trimmed},
    store::conformance::{
        Harness, START,
        support::{Bench, Writer, batch},
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
        removed: Removed::default(),
        oldest: Some(stored_at),
        next_expiry: stored_at.plus_millis(1_000),
        more: false,
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
        removed: Removed { messages: 3, bytes: bytes.cast_signed() },
        oldest: None,
        next_expiry: StoreTime::NEVER,
        more: false,
        store_time: now,
    };
    assert_eq!(writer.trim().await.unwrap(), expected);
    assert_eq!(firsts(&writer).await, [0; 0]);
    let again = Trimmed { batches: 0, messages: 0, bytes: 0, ..expected };
    assert_eq!(writer.trim().await.unwrap(), again);
    bench.reopen().await;
    assert_eq!(bench.store.tail(writer.queue).await.unwrap().removed, expected.removed);
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
    assert_eq!(writer.totals().await, (0, 0, None));

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
        assert_eq!(bench.store.append(&[lost]).await.unwrap(), [Appended::RolledBack], "previous {previous}");
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
    let bytes = writer.totals().await.1;
    let snapshots = [Bytes::from_static(b"\0\xffone"), Bytes::new(), Bytes::from(vec![7; 1 << 20])];
    for ((through, limit), producers) in [(2, 0), (3, 1), (4, 100)].into_iter().zip(snapshots) {
        let through = Offset::new(through);
        let trim = Trim { through, limit, producers: Some(producers.clone()), ..writer.new_trim() };
        bench.store.trim(&trim).await.unwrap();
        bench.reopen().await;
        assert_eq!(bench.store.tail(writer.queue).await.unwrap().producers, Some((through, producers)));
    }
    let writer = writer.on(&bench.store);
    assert_eq!(writer.totals().await, (4, bytes, Some(START)));
}

/// A trim that lands after its successor does not bring back what that replaced.
pub async fn older_producers_do_not_replace_newer_ones(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    writer.append(4).await;
    let save = |through, producers: &'static [u8]| Trim {
        through: Offset::new(through),
        producers: Some(Bytes::from_static(producers)),
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

/// What expired first goes first, wherever it lies.
pub async fn what_expired_first_goes_first(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for lifetime in [300, 100, 200, 100, 400, 500] {
        writer.append_with_lifetime(1, Some(lifetime)).await;
    }
    bench.at(1_000).await;
    for (left, next) in [(vec![1, 3, 4, 5, 6], 100), (vec![1, 3, 5, 6], 200), (vec![1, 5, 6], 300), (vec![5, 6], 400)] {
        let trimmed = bench.store.trim(&Trim { limit: 1, ..writer.new_trim() }).await.unwrap();
        assert_eq!(firsts(&writer).await, left);
        assert_eq!((trimmed.batches, trimmed.next_expiry, trimmed.more), (1, START.plus_millis(next), true));
        assert_eq!(trimmed.trimmed_through.get(), left[0] - 1);
    }
    let trimmed = writer.trim().await.unwrap();
    assert_eq!((trimmed.batches, trimmed.next_expiry, trimmed.more), (2, StoreTime::NEVER, false));
}

/// A trim does not look at what its owner knows to be gone, and says from where on the next has to look.
pub async fn a_trim_looks_from_its_bound_on(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for lifetime in [Some(100), Some(200), Some(300), None] {
        writer.append_with_lifetime(1, lifetime).await;
    }
    bench.at(200).await;
    let from = |millis| Trim { none_expires_before: START.plus_millis(millis), ..writer.new_trim() };
    let trimmed = bench.store.trim(&from(101)).await.unwrap();
    assert_eq!((firsts(&writer).await, trimmed.next_expiry), (vec![1, 3, 4], START.plus_millis(300)));
    assert_eq!(bench.store.tail(writer.queue).await.unwrap().none_expires_before, START.plus_millis(300));
    // Without anything to remove it does not look at all.
    let trimmed = bench.store.trim(&Trim { limit: 0, ..from(7) }).await.unwrap();
    assert_eq!(trimmed.next_expiry, START.plus_millis(7));
    let trimmed = bench.store.trim(&from(100)).await.unwrap();
    assert_eq!((firsts(&writer).await, trimmed.next_expiry), (vec![3, 4], START.plus_millis(300)));
}

/// The next owner learns when something expires, of all that the snapshot speaks for.
pub async fn the_end_tells_when_something_expires(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let told = async |writer: &Writer| {
        let tail = writer.store().tail(writer.queue).await.unwrap();
        (tail.none_expires_before, tail.last_expires_at)
    };
    assert_eq!(told(&writer).await, (StoreTime::NEVER, StoreTime::NEVER), "nothing was stored");
    for lifetime in [Some(100), Some(200), Some(50)] {
        writer.append_with_lifetime(1, lifetime).await;
    }
    assert_eq!(told(&writer).await, (StoreTime::NEVER, START.plus_millis(50)), "nothing was saved");
    writer.trim().await.unwrap();
    assert_eq!(told(&writer).await, (START.plus_millis(100), START.plus_millis(50)), "the last one speaks for itself");
    bench.at(100).await;
    let unsaved = Trim { producers: None, ..writer.new_trim() };
    assert_eq!(bench.store.trim(&unsaved).await.unwrap().batches, 1);
    assert_eq!(told(&writer).await.0, START.plus_millis(200), "also a trim that saves nothing looked");
    writer.trim().await.unwrap();
    assert_eq!(told(&writer).await.0, START.plus_millis(200));
    // What lands late does not speak for what came since.
    let late = Trim { through: Offset::new(2), none_expires_before: StoreTime::NEVER, ..writer.new_trim() };
    bench.store.trim(&late).await.unwrap();
    assert_eq!(told(&writer).await.0, START.plus_millis(200));
}

/// Without new producers what the saved ones speak for goes, and nothing beyond; they stay.
pub async fn a_trim_without_producers_keeps_to_those_that_are_saved(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    writer.append_with_lifetime(2, Some(100)).await;
    writer.append_with_lifetime(2, Some(100)).await;
    let unsaved = |writer: &Writer| Trim { producers: None, ..writer.new_trim() };
    bench.at(100).await;
    assert_eq!(bench.store.trim(&unsaved(&writer)).await.unwrap().batches, 0);
    assert_eq!(bench.store.tail(writer.queue).await.unwrap().producers, None);
    bench.at(50).await;
    let saves = Trim { through: Offset::new(2), limit: 0, ..writer.new_trim() };
    bench.store.trim(&saves).await.unwrap();
    bench.at(100).await;
    assert_eq!(bench.store.trim(&unsaved(&writer)).await.unwrap().batches, 1);
    assert_eq!(firsts(&writer).await, [3]);
    let saved = bench.store.tail(writer.queue).await.unwrap().producers;
    assert_eq!(saved, Some((Offset::new(2), Bytes::from_static(b"producers"))));
    let fenced = Trim { epoch: writer.epoch.next(), limit: 0, ..unsaved(&writer) };
    assert_eq!(bench.store.trim(&fenced).await, Err(LogError::Fenced { epoch: writer.epoch }));
}

/// A batch of so many offsets in a row, which is not what a broker stores; for gaps.
fn wide(writer: &Writer, offsets: u64, lifetime_millis: Option<u64>) -> AppendBatch {
    let batch = writer.batch(1);
    AppendBatch { last: batch.first.plus(offsets - 1), lifetime_millis, ..batch }
}

/// Where much is gone in a row, a trim passes over a part of it, and says that there is more.
pub async fn a_gap_is_passed_over_step_by_step(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    writer.append_with_lifetime(1, Some(200)).await;
    for _ in 0..3 {
        let batch = wide(&writer, MAX_TRIM_SPAN, Some(100));
        writer.try_append(batch).await;
    }
    writer.append_with_lifetime(1, Some(300)).await;
    bench.at(100).await;
    let trimmed = writer.trim().await.unwrap();
    assert_eq!((trimmed.batches, trimmed.trimmed_through, trimmed.more), (3, Offset::ZERO, false));
    bench.at(300).await;
    for (batches, through) in [(1, MAX_TRIM_SPAN), (0, 2 * MAX_TRIM_SPAN), (0, 3 * MAX_TRIM_SPAN)] {
        let trimmed = writer.trim().await.unwrap();
        assert_eq!((trimmed.batches, trimmed.trimmed_through.get(), trimmed.more), (batches, through, true));
        assert_eq!((trimmed.oldest, trimmed.next_expiry), (None, StoreTime::NEVER));
        let tail = bench.store.tail(writer.queue).await.unwrap();
        let found = 3 * MAX_TRIM_SPAN + 1 - through < MAX_TRIM_SPAN;
        assert_eq!((tail.end, tail.oldest.is_some()), (writer.end, found), "through {through}");
    }
    let trimmed = writer.trim().await.unwrap();
    assert_eq!((trimmed.batches, trimmed.trimmed_through, trimmed.more), (1, writer.end, false));
}

/// What is counted stays right, however a log was emptied and filled again.
pub async fn totals_survive_trims_and_crashes(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    for round in 1..=3_u64 {
        let (first, second) = (writer.batch(3).frames.len() as u64, 100 * round);
        writer.append_with_lifetime(3, Some(50)).await;
        let more = writer.batch(2).frames.len() as u64;
        writer.append_with_lifetime(2, Some(70)).await;
        assert_eq!((writer.totals().await.0, writer.totals().await.1), (5, first + more));
        let now = bench.at(second - 40).await;
        writer.trim().await.unwrap();
        assert_eq!((writer.totals().await.0, writer.totals().await.1), (2, more), "at {now}");
        bench.at(second).await;
        writer.trim().await.unwrap();
        assert_eq!(writer.totals().await, (0, 0, None));
        bench.reopen().await;
        writer = writer.on(&bench.store);
    }
    let tail = bench.store.tail(writer.queue).await.unwrap();
    assert_eq!((tail.messages, tail.bytes, tail.end), (0, 0, Offset::new(15)));
    assert_ne!(tail, LogTail::default());
}
