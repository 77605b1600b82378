//! Appends: the fence, the offsets, the clock.

use std::slice;

use bytes::Bytes;

use crate::{
    model::{
        Epoch, Offset, QueueId, StoreTime,
        limits::{MAX_BATCH_BYTES, MAX_GROUP_QUEUES, MAX_TTL},
    },
    ports::{AppendBatch, Appended, BatchHeader, MAX_CLOCK_AHEAD_MILLIS, StoreError, StoredBatch},
    store::conformance::{
        Harness, START,
        support::{Bench, batch},
    },
};

fn as_stored(batch: &AppendBatch, stored_at: StoreTime, expires_at: StoreTime) -> StoredBatch {
    StoredBatch {
        header: BatchHeader {
            first: batch.first,
            last: batch.last,
            epoch: batch.epoch,
            stored_at,
            expires_at,
            format: batch.format,
            index: batch.index.clone(),
        },
        frames: batch.frames.clone(),
        checksum: batch.checksum,
    }
}

async fn everything(bench: &Bench<'_>, queue: QueueId) -> Vec<StoredBatch> {
    bench.store.read(queue, Offset::ZERO, usize::MAX >> 1).await.unwrap().batches
}

/// What was appended is read back, to the byte, also after a crash.
pub async fn what_was_appended_is_read_back(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let all_bytes: Vec<u8> = (0..=u8::MAX).cycle().take(MAX_BATCH_BYTES).collect();
    let first = AppendBatch {
        index: Bytes::from_iter((0..=u8::MAX).rev()),
        frames: all_bytes.into(),
        format: u16::MAX,
        checksum: u32::MAX,
        lifetime_millis: Some(u64::try_from(MAX_TTL.as_millis()).unwrap()),
        ..writer.batch(3)
    };
    let now = bench.at(250).await;
    assert_eq!(writer.try_append(first.clone()).await, Appended::Stored { stored_at: now });
    let second = AppendBatch { index: Bytes::new(), lifetime_millis: Some(0), ..writer.batch(1) };
    assert_eq!(writer.try_append(second.clone()).await, Appended::Stored { stored_at: now });
    let third = AppendBatch { lifetime_millis: Some(u64::MAX), ..writer.batch(2) };
    assert_eq!(writer.try_append(third.clone()).await, Appended::Stored { stored_at: now });
    let century = now.plus_millis(u64::try_from(MAX_TTL.as_millis()).unwrap());
    let expected =
        [as_stored(&first, now, century), as_stored(&second, now, now), as_stored(&third, now, StoreTime::NEVER)];
    assert_eq!(everything(&bench, writer.queue).await, expected);
    bench.reopen().await;
    assert_eq!(everything(&bench, writer.queue).await, expected);
    let tail = bench.store.tail(writer.queue).await.unwrap();
    assert_eq!(
        (tail.end, tail.last_first, tail.last_epoch, tail.last_stored_at, tail.trimmed_through),
        (Offset::new(6), Offset::new(5), Epoch::new(1), now, Offset::ZERO)
    );
}

/// After a claim, the earlier epoch stores nothing and is told the later one.
pub async fn a_stale_epoch_is_fenced(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let mut stale = bench.writer(broker, queue).await;
    stale.append(1).await;
    bench.claim(broker, queue).await.unwrap();
    let mut latest = bench.writer(broker, queue).await;
    let fenced = Appended::Fenced { epoch: Epoch::new(3) };
    assert_eq!(stale.try_append(stale.batch(1)).await, fenced);
    latest.append(1).await;
    assert_eq!(stale.try_append(stale.batch(1)).await, fenced);
    bench.reopen().await;
    let mut stale = stale.on(&bench.store);
    assert_eq!(stale.try_append(stale.batch(1)).await, fenced);
    // Being fenced comes before being in the way.
    let taken = batch(queue, Epoch::new(1), Offset::new(1), 1, Offset::ZERO, START);
    assert_eq!(stale.try_append(taken).await, fenced);
    let epochs: Vec<_> = everything(&bench, queue).await.iter().map(|batch| batch.header.epoch.get()).collect();
    assert_eq!(epochs, [1, 3]);
}

/// An epoch that nobody created stores nothing.
pub async fn an_epoch_that_never_was_is_fenced(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let append = async |epoch: u64| {
        let batch = batch(queue, Epoch::new(epoch), Offset::new(1), 1, Offset::ZERO, START);
        bench.store.append(&[batch]).await.unwrap()
    };
    // Nobody has claimed yet: there is no epoch at all, not even 0.
    for epoch in [0, 1, 2] {
        assert_eq!(append(epoch).await, [Appended::Fenced { epoch: Epoch::ZERO }], "epoch {epoch}");
    }
    let claim = crate::ports::Claim {
        queue,
        broker: broker.id,
        incarnation: broker.incarnation,
        claim: crate::model::ClaimId::new(uuid::Uuid::from_u128(99)),
    };
    bench.store.claim(&claim).await.unwrap();
    for epoch in [0, 2, 7] {
        assert_eq!(append(epoch).await, [Appended::Fenced { epoch: Epoch::new(1) }], "epoch {epoch}");
    }
    assert_eq!(everything(&bench, queue).await, []);
    assert_eq!(append(1).await, [Appended::Stored { stored_at: START }]);
}

/// Each queue of a group has its own fate, and is told it in its place.
pub async fn each_queue_of_a_group_has_its_own_fate(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("host").await;
    let mut writers = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f"] {
        let queue = bench.create(name, Some(broker.id)).await;
        let mut writer = bench.writer(broker, queue).await;
        writer.append(1).await;
        writers.push(writer);
    }
    bench.claim(broker, writers[1].queue).await.unwrap();
    bench.store.delete_queue(writers[2].queue).await.unwrap();
    let mut group: Vec<_> = writers.iter().map(|writer| writer.batch(2)).collect();
    group[3] = batch(writers[3].queue, Epoch::new(1), Offset::new(1), 1, Offset::ZERO, START);
    group[4] = batch(writers[4].queue, Epoch::new(1), Offset::new(9), 1, Offset::new(8), START);
    let stored = Appended::Stored { stored_at: START };
    let fenced = Appended::Fenced { epoch: Epoch::new(2) };
    let expected = [stored, fenced, Appended::Deleted, Appended::Conflict, Appended::RolledBack, stored];
    assert_eq!(bench.store.append(&group).await.unwrap(), expected);
    for (writer, end) in writers.iter().zip([3, 1, 0, 1, 1, 3]) {
        if end > 0 {
            assert_eq!(bench.store.tail(writer.queue).await.unwrap().end, Offset::new(end));
        }
    }
    assert_eq!(bench.store.append(&[]).await.unwrap(), []);
}

/// A group that is not in order, names a queue twice or holds a batch of no messages is refused as a whole: its author
/// is at fault.
pub async fn a_malformed_group_is_refused(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("host").await;
    let mut batches = Vec::new();
    for name in ["a", "b"] {
        let queue = bench.create(name, Some(broker.id)).await;
        batches.push(bench.writer(broker, queue).await.batch(1));
    }
    let [a, b] = &batches[..] else { unreachable!() };
    let empty = AppendBatch { last: Offset::ZERO, ..b.clone() };
    let nowhere = AppendBatch { first: Offset::ZERO, ..b.clone() };
    for malformed in [[b, a], [a, a], [a, &empty], [a, &nowhere]] {
        let group = malformed.map(Clone::clone);
        assert!(matches!(bench.store.append(&group).await, Err(StoreError::Refused(_))), "{group:?}");
    }
    for batch in &batches {
        assert_eq!(everything(&bench, batch.queue).await, []);
    }
}

/// The largest group.
pub async fn a_group_may_hold_as_many_queues_as_the_limit(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("host").await;
    let mut writers = Vec::new();
    for number in 0..MAX_GROUP_QUEUES {
        let queue = bench.create(&format!("q{number}"), Some(broker.id)).await;
        writers.push(bench.writer(broker, queue).await);
    }
    // Not in any order of rows: every third is stale.
    for writer in writers.iter().step_by(3) {
        bench.claim(broker, writer.queue).await.unwrap();
    }
    let group: Vec<_> = writers.iter().map(|writer| writer.batch(1)).collect();
    let answers = bench.store.append(&group).await.unwrap();
    assert_eq!(answers.len(), group.len());
    for (number, answer) in answers.into_iter().enumerate() {
        let fenced = Appended::Fenced { epoch: Epoch::new(2) };
        let expected = if number % 3 == 0 { fenced } else { Appended::Stored { stored_at: START } };
        assert_eq!(answer, expected, "queue {number}");
    }
    for writer in writers.iter().take(6) {
        let stored = everything(&bench, writer.queue).await;
        assert!(stored.iter().all(|batch| batch.frames == writer.batch(1).frames));
    }
}

/// A batch whose place is taken changes nothing.
pub async fn a_taken_offset_is_a_conflict(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let first = writer.batch(3);
    writer.append(3).await;
    let second = writer.batch(2);
    writer.append(2).await;
    let before = everything(&bench, writer.queue).await;
    let (queue, epoch) = (writer.queue, writer.epoch);
    let at = |offset, count, previous| batch(queue, epoch, Offset::new(offset), count, Offset::new(previous), START);
    let other_content = AppendBatch { frames: Bytes::from_static(b"other"), ..second.clone() };
    // The same once more; other content; shorter; longer; inside a batch; across two; the last one's end.
    let taken = [first, second, other_content, at(1, 1, 0), at(4, 9, 1), at(2, 1, 1), at(3, 2, 1), at(5, 1, 4)];
    for batch in taken {
        assert_eq!(bench.store.append(slice::from_ref(&batch)).await.unwrap(), [Appended::Conflict], "{batch:?}");
    }
    assert_eq!(everything(&bench, queue).await, before);
    writer.append(1).await;
}

/// A store that lost what it had confirmed is found out by the batch that would have followed.
pub async fn a_store_that_was_rolled_back_is_found_out(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut writer = bench.hosted_writer("q").await;
    let (queue, epoch) = (writer.queue, writer.epoch);
    let at = |offset, previous| batch(queue, epoch, Offset::new(offset), 1, Offset::new(previous), START);
    // Nothing is stored at all.
    for lost in [at(2, 1), at(9, 4), at(2, 0)] {
        assert_eq!(bench.store.append(&[lost]).await.unwrap(), [Appended::RolledBack]);
    }
    writer.append(2).await;
    writer.append(2).await;
    // Beyond the end, after a batch that is or is not there; at the end, after one that is not there or ends elsewhere.
    for lost in [at(6, 3), at(6, 5), at(9, 3), at(5, 1), at(5, 4), at(5, 2), at(5, 0)] {
        assert_eq!(bench.store.append(slice::from_ref(&lost)).await.unwrap(), [Appended::RolledBack], "{lost:?}");
    }
    assert_eq!(bench.store.tail(queue).await.unwrap().end, Offset::new(4));
    assert_eq!(bench.store.append(&[at(5, 3)]).await.unwrap(), [Appended::Stored { stored_at: START }]);
}

/// Within a queue the clock never goes back, whatever the store's does; other queues do not matter.
pub async fn stored_at_never_goes_back(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let mut writer = bench.writer(broker, queue).await;
    let other = bench.create("other", Some(broker.id)).await;
    let mut other = bench.writer(broker, other).await;
    let late = bench.at(5_000).await;
    assert_eq!(writer.append(1).await, late);
    bench.at(1_000).await;
    assert_eq!(writer.append_with_lifetime(1, Some(10)).await, late);
    let header = bench.store.headers(queue, Offset::new(1), 1).await.unwrap().remove(0);
    assert_eq!((header.stored_at, header.expires_at), (late, late.plus_millis(10)));
    assert_eq!(other.append(1).await, START.plus_millis(1_000));

    // It is the store that sees to it, not the owner.
    let forgetful = AppendBatch { not_before: StoreTime::default(), ..writer.batch(1) };
    assert_eq!(writer.try_append(forgetful).await, Appended::Stored { stored_at: late });

    // A new owner learns from the log what time it was.
    bench.reopen().await;
    let mut writer = bench.writer(broker, queue).await;
    assert_eq!(writer.append(1).await, late);
    let later = bench.at(5_001).await;
    assert_eq!(writer.append(1).await, later);

    // An owner that saw a later time says so, even where nothing is stored.
    let seen = START.plus_millis(9_000);
    let batch = AppendBatch { not_before: seen, ..writer.batch(1) };
    assert_eq!(writer.try_append(batch).await, Appended::Stored { stored_at: seen });
}

/// What was stored while the clock was far ahead does not keep what comes after it for as long.
pub async fn stored_at_does_not_follow_a_clock_that_was_far_ahead(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    let mut writer = bench.writer(broker, queue).await;
    let other = bench.create("other", Some(broker.id)).await;
    let other = bench.writer(broker, other).await;
    let ahead = bench.at(MAX_CLOCK_AHEAD_MILLIS + 1_000).await;
    assert_eq!(writer.append(1).await, ahead);
    bench.at(1_000).await;
    assert_eq!(writer.append(1).await, ahead, "as far as it is followed");
    let now = bench.at(999).await;
    let group = [writer.batch(1), other.batch(1)];
    let stored = Appended::Stored { stored_at: now };
    assert_eq!(bench.store.append(&group).await.unwrap(), [stored, stored]);
    writer.stored(&group[0], now);
    assert_eq!(writer.append_with_lifetime(1, Some(10)).await, now);
    let header = bench.store.headers(queue, Offset::new(3), 1).await.unwrap().remove(0);
    assert_eq!((header.stored_at, header.expires_at), (now, now.plus_millis(10)));
    // The same where nothing is stored, and the owner alone remembers.
    let batch = AppendBatch { not_before: ahead, ..writer.batch(1) };
    assert_eq!(writer.try_append(batch).await, Appended::Stored { stored_at: now });
}
