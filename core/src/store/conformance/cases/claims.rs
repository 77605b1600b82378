//! Claims: who may, and that no append lands behind one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    model::{Assignment, BrokerId, ClaimId, Epoch, Offset, QueueId},
    ports::{Appended, AssignError, Claim, ClaimError},
    store::conformance::{
        Harness,
        support::{Bench, Registered, Writer},
    },
};

/// How many claims each rival makes.
const CLAIMS_EACH: usize = 30;
/// How many claims are made against a busy appender.
const CLAIMS_AGAINST_APPENDER: usize = 60;

/// Epochs count 1, 2, 3 …, also across a crash, and each queue's by themselves.
pub async fn every_claim_creates_the_next_epoch(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("a").await;
    let other = bench.create("b", Some(broker.id)).await;
    assert_eq!(bench.claim(broker, queue).await.unwrap().epoch, Epoch::new(1));
    let now = bench.at(70).await;
    let second = bench.claim(broker, queue).await.unwrap();
    assert_eq!((second.epoch, second.store_time), (Epoch::new(2), now));
    bench.reopen().await;
    assert_eq!(bench.store.tail(queue).await.unwrap().epoch, Epoch::new(2));
    assert_eq!(bench.claim(broker, queue).await.unwrap().epoch, Epoch::new(3));
    assert_eq!(bench.claim(broker, other).await.unwrap().epoch, Epoch::new(1));
}

/// Who is not the assignee creates no epoch.
pub async fn only_the_assignee_claims(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("a").await;
    let other = bench.register("other").await;
    let unassigned = bench.create("b", None).await;
    assert_eq!(bench.claim(other, queue).await, Err(ClaimError::NotAssignee));
    assert_eq!(bench.claim(broker, unassigned).await, Err(ClaimError::NotAssignee));
    assert_eq!(bench.claim(broker, queue).await.unwrap().epoch, Epoch::new(1));
    bench.store.assign_queue(queue, Assignment::new(1), other.id).await.unwrap();
    assert_eq!(bench.claim(broker, queue).await, Err(ClaimError::NotAssignee));
    assert_eq!(bench.claim(other, queue).await.unwrap().epoch, Epoch::new(2));
}

/// A process that was replaced by another of the same host and port creates no epoch.
pub async fn a_replaced_run_does_not_claim(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (old, queue) = bench.hosted_queue("a").await;
    let new = bench.register("host").await;
    assert_eq!(old.id, new.id);
    assert_eq!(bench.claim(old, queue).await, Err(ClaimError::Replaced));
    assert_eq!(bench.claim(new, queue).await.unwrap().epoch, Epoch::new(1));
    // It is told so as well if it is not the assignee any more, since it has to exit.
    let other = bench.register("other").await;
    bench.store.assign_queue(queue, Assignment::new(1), other.id).await.unwrap();
    assert_eq!(bench.claim(old, queue).await, Err(ClaimError::Replaced));
    let nobody = Registered { id: BrokerId::new(1_000), ..old };
    assert_eq!(bench.claim(nobody, queue).await, Err(ClaimError::Replaced));
}

/// A claim of unknown outcome can be made again: it answers as it did, until a later one is made.
pub async fn a_claim_made_again_answers_alike_while_it_is_the_latest(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("a").await;
    let first = bench.new_claim(broker, queue);
    for _ in 0..3 {
        assert_eq!(bench.store.claim(&first).await.unwrap().epoch, Epoch::new(1));
        bench.reopen().await;
    }
    // What it created stands until the next claim, even if the queue is meant for somebody else by now.
    let other = bench.register("other").await;
    bench.store.assign_queue(queue, Assignment::new(1), other.id).await.unwrap();
    assert_eq!(bench.store.claim(&first).await.unwrap().epoch, Epoch::new(1));
    bench.store.assign_queue(queue, Assignment::new(2), broker.id).await.unwrap();

    assert_eq!(bench.claim(broker, queue).await.unwrap().epoch, Epoch::new(2));
    assert_eq!(bench.store.claim(&first).await.unwrap().epoch, Epoch::new(3));
    // The id names the attempt on one queue.
    let other_queue = bench.create("b", Some(broker.id)).await;
    assert_eq!(bench.store.claim(&Claim { queue: other_queue, ..first }).await.unwrap().epoch, Epoch::new(1));
}

/// An assignment alone fences nobody: the host goes on until the next one claims.
pub async fn an_assignment_confers_nothing_but_the_right_to_claim(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (old, queue) = bench.hosted_queue("a").await;
    let mut writer = bench.writer(old, queue).await;
    writer.append(2).await;
    let new = bench.register("new").await;
    bench.store.assign_queue(queue, Assignment::new(1), new.id).await.unwrap();
    writer.append(1).await;
    let mut next = bench.writer(new, queue).await;
    assert_eq!(next.end, Offset::new(3));
    assert_eq!(writer.try_append(writer.batch(1)).await, Appended::Fenced { epoch: Epoch::new(2) });
    next.append(1).await;
}

/// Two brokers that snatch a queue from each other create distinct, growing epochs; the latest alone is obeyed.
pub async fn rival_claimants_create_distinct_epochs(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (bench.register("a").await, bench.register("b").await);
    let queue = bench.create("q", None).await;
    let rivals = [a, b].map(|own| {
        let claims: Vec<_> = (0..CLAIMS_EACH).map(|_| bench.new_claim(own, queue)).collect();
        let store = Arc::clone(&bench.store);
        tokio::spawn(async move {
            let mut epochs = Vec::new();
            while epochs.len() < claims.len() {
                let record = store.queue_by_id(queue).await.unwrap().unwrap();
                if record.assignee.is_none_or(|(assignee, _)| assignee != own.id)
                    && let Err(error) = store.assign_queue(queue, record.assignment, own.id).await
                {
                    assert_eq!(error, AssignError::Changed);
                }
                match store.claim(&claims[epochs.len()]).await {
                    Ok(claimed) => epochs.push(claimed.epoch),
                    Err(error) => assert_eq!(error, ClaimError::NotAssignee),
                }
                tokio::task::yield_now().await;
            }
            epochs
        })
    });
    let mut all = Vec::new();
    for rival in rivals {
        let epochs = rival.await.unwrap();
        assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
        all.extend(epochs);
    }
    all.sort_unstable();
    let expected: Vec<_> = (1..=2 * CLAIMS_EACH as u64).map(Epoch::new).collect();
    assert_eq!(all, expected);
    let latest = *all.last().unwrap();
    for epoch in &all[all.len() - 3..all.len() - 1] {
        let mut stale = Writer::after_claim(&bench.store, queue, *epoch).await;
        assert_eq!(stale.try_append(stale.batch(1)).await, Appended::Fenced { epoch: latest });
    }
    Writer::after_claim(&bench.store, queue, latest).await.append(1).await;
}

/// Rivals that make the same claim (a claim and its retry under way at once) create one epoch.
pub async fn a_claim_and_its_retry_at_once_create_one_epoch(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("q").await;
    for round in 1..=CLAIMS_EACH as u64 {
        let claim = bench.new_claim(broker, queue);
        let twice = [(); 2].map(|()| {
            let store = Arc::clone(&bench.store);
            tokio::spawn(async move { store.claim(&claim).await })
        });
        for attempt in twice {
            assert_eq!(attempt.await.unwrap().unwrap().epoch, Epoch::new(round));
        }
    }
}

/// Appends to all queues in groups, as fast as it can, going on at once under whatever epoch is the latest; until told to
/// stop. It reads the end of the log before it appends, as an owner that was paused does: only the fence protects the
/// log from it.
async fn busy_appender(mut writers: Vec<Writer>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let group: Vec<_> = writers.iter().map(|writer| writer.batch(2)).collect();
        let answers = writers[0].store().append(&group).await.unwrap();
        assert_eq!(answers.len(), group.len());
        for ((writer, batch), answer) in writers.iter_mut().zip(&group).zip(answers) {
            match answer {
                Appended::Stored { stored_at } => writer.stored(batch, stored_at),
                Appended::Fenced { epoch } => {
                    assert!(epoch > writer.epoch);
                    *writer = Writer::after_claim(&writer.store(), writer.queue, epoch).await;
                }
                // Another appender under the same epoch was faster.
                Appended::Conflict | Appended::RolledBack => {
                    *writer = Writer::after_claim(&writer.store(), writer.queue, writer.epoch).await;
                }
                Appended::Deleted => panic!("nobody deleted it"),
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Once a claim is committed, no append under an earlier epoch lands, however busy the earlier owner is: what the tail
/// says after the claim is all that earlier epochs ever stored.
pub async fn no_append_lands_behind_a_claim(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("host").await;
    let mut writers = Vec::new();
    for name in ["a", "b", "c"] {
        let queue = bench.create(name, Some(broker.id)).await;
        writers.push(bench.writer(broker, queue).await);
    }
    let queues: Vec<QueueId> = writers.iter().map(|writer| writer.queue).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let appenders = [(); 2].map(|()| tokio::spawn(busy_appender(writers.clone(), Arc::clone(&stop))));

    // Per queue, where each epoch began.
    let mut begun: BTreeMap<QueueId, Vec<(Epoch, Offset)>> = BTreeMap::new();
    for round in 0..CLAIMS_AGAINST_APPENDER {
        let queue = queues[round % queues.len()];
        let claimed = bench.claim(broker, queue).await.unwrap();
        let tail = bench.store.tail(queue).await.unwrap();
        begun.entry(queue).or_default().push((claimed.epoch, tail.end));
        // The next claim is made once appends land under this epoch, so that it meets others on their way; at one moment
        // or another of theirs.
        while bench.store.tail(queue).await.unwrap().last_epoch < claimed.epoch {
            tokio::task::yield_now().await;
        }
        for _ in 0..round % 5 {
            bench.store.now().await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    for appender in appenders {
        appender.await.unwrap();
    }

    for (queue, begun) in begun {
        let headers = bench.store.headers(queue, Offset::ZERO, u32::MAX >> 1).await.unwrap();
        let contiguous = headers.is_sorted_by(|a, b| a.last.next() == b.first && a.epoch <= b.epoch);
        assert!(contiguous, "a gap, an overlap, or an earlier epoch behind a later one");
        for (epoch, end) in begun {
            let late = headers.iter().find(|header| header.epoch < epoch && header.last > end);
            assert_eq!(late, None, "stored behind the claim of epoch {epoch}, which read {end} as the end");
        }
    }
}

/// A queue that is gone is not claimed, and neither is one that never was.
pub async fn a_deleted_queue_is_not_claimed(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (broker, queue) = bench.hosted_queue("a").await;
    let claim = bench.new_claim(broker, queue);
    bench.store.claim(&claim).await.unwrap();
    bench.store.delete_queue(queue).await.unwrap();
    assert_eq!(bench.claim(broker, queue).await, Err(ClaimError::Deleted));
    // Not even by its own claim made again, nor by a run that was replaced meanwhile.
    assert_eq!(bench.store.claim(&claim).await, Err(ClaimError::Deleted));
    bench.register("host").await;
    assert_eq!(bench.claim(broker, queue).await, Err(ClaimError::Deleted));
    let nothing = Claim { queue: QueueId::new(1_000), claim: ClaimId::new(bench.uuid()), ..claim };
    assert_eq!(bench.store.claim(&nothing).await, Err(ClaimError::Deleted));
}
