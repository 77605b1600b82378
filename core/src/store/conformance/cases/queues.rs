//! Queues in the catalog: labels, requests, assignment, and whom a change concerns.

use std::sync::Arc;

use crate::{
    model::{
        Assignment, BrokerId, Generation, QueueId, Start, Topic,
        limits::{MAX_ASSIGNED_QUEUES, MAX_LOOKED_UP},
    },
    ports::{Assign, AssignError, Assigned, CreateQueue, CreateQueueError, QueueRecord, StoreError},
    store::conformance::{
        Harness,
        support::{Bench, LEASE, Registered, addr, label},
    },
};

/// How often concurrent callers are let loose on the same thing.
const ROUNDS: usize = 20;
/// How many they are.
const RIVALS: usize = 4;

/// A label names at most one live queue, whatever its case.
pub async fn a_label_names_one_live_queue(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("a").await;
    let create = CreateQueue { label: label("Orders"), assignee: Some(broker.id), request: bench.uuid() };
    let record = bench.store.create_queue(&create).await.unwrap();
    let assignee = Some((broker.id, addr("a")));
    assert_eq!(record, QueueRecord { id: record.id, label: label("orders"), assignee, assignment: Assignment::new(1) });
    assert!(record.id > QueueId::ZERO);

    let rival = CreateQueue { label: label("ORDERS"), assignee: None, request: bench.uuid() };
    assert_eq!(bench.store.create_queue(&rival).await, Err(CreateQueueError::Exists));
    let other = CreateQueue { label: label("orders2"), ..rival };
    let other = bench.store.create_queue(&other).await.unwrap();
    assert_eq!((other.assignee.clone(), other.assignment), (None, Assignment::ZERO));

    bench.reopen().await;
    assert_eq!(bench.store.queue(&label("orders")).await.unwrap(), Some(record.clone()));
    assert_eq!(bench.store.queue_by_id(record.id).await.unwrap(), Some(record));
    assert_eq!(bench.store.queue_by_id(other.id).await.unwrap(), Some(other));
    assert_eq!(bench.store.queue(&label("nothing")).await.unwrap(), None);
    assert_eq!(bench.store.queue_by_id(QueueId::new(1_000)).await.unwrap(), None);
}

/// A request of unknown outcome, made again, finds its own queue and changes nothing.
pub async fn the_same_request_again_finds_its_queue(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (bench.register("a").await, bench.register("b").await);
    let create = CreateQueue { label: label("q"), assignee: Some(a.id), request: bench.uuid() };
    let record = bench.store.create_queue(&create).await.unwrap();
    let generation = generation(&bench, a).await;
    assert_eq!(bench.store.create_queue(&create).await.unwrap(), record);
    bench.reopen().await;
    assert_eq!(bench.store.create_queue(&create).await.unwrap(), record);
    assert_eq!(self::generation(&bench, a).await, generation);
    let moved = bench.store.assign_queue(record.id, Assignment::new(1), b.id).await.unwrap();
    assert_eq!(bench.store.create_queue(&create).await.unwrap(), moved);
    assert_eq!(bench.store.queues().await.unwrap(), [moved]);
}

/// A queue is only created for, and assigned to, a broker that registered.
pub async fn an_unknown_broker_gets_no_queue(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let nobody = BrokerId::new(1_000);
    let create = CreateQueue { label: label("q"), assignee: Some(nobody), request: bench.uuid() };
    assert_eq!(bench.store.create_queue(&create).await, Err(CreateQueueError::NoSuchBroker(nobody)));
    assert_eq!(bench.store.queues().await.unwrap(), []);
    let queue = bench.create("q", None).await;
    assert_eq!(bench.store.assign_queue(queue, Assignment::ZERO, nobody).await, Err(AssignError::NoSuchBroker(nobody)));
    assert_eq!(bench.store.queue_by_id(queue).await.unwrap().unwrap().assignment, Assignment::ZERO);
}

/// Labels sort by their bytes, not by a language's rules.
pub async fn queues_are_listed_by_label(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let sorted = ["a", "a b", "a-b", "a_b", "ab", "b", "z", "é", "ß", "日本", "😀"];
    let mut sorted: Vec<_> = sorted.into_iter().map(label).collect();
    sorted.sort();
    for label in sorted.iter().rev().step_by(2).chain(sorted.iter().rev().skip(1).step_by(2)) {
        bench.create(label.as_str(), None).await;
    }
    let listed: Vec<_> = bench.store.queues().await.unwrap().into_iter().map(|queue| queue.label).collect();
    assert_eq!(listed, sorted);
}

/// Only who knows the latest assignment changes it.
pub async fn an_assignment_is_compared_and_set(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (bench.register("a").await, bench.register("b").await);
    let queue = bench.create("q", None).await;
    let first = bench.store.assign_queue(queue, Assignment::ZERO, a.id).await.unwrap();
    assert_eq!((first.assignee, first.assignment), (Some((a.id, addr("a"))), Assignment::new(1)));
    for stale in [0, 2, 7] {
        assert_eq!(bench.store.assign_queue(queue, Assignment::new(stale), b.id).await, Err(AssignError::Changed));
    }
    let second = bench.store.assign_queue(queue, Assignment::new(1), b.id).await.unwrap();
    assert_eq!((second.assignee.clone(), second.assignment), (Some((b.id, addr("b"))), Assignment::new(2)));
    // To the same broker again: still an assignment of its own.
    let third = bench.store.assign_queue(queue, Assignment::new(2), b.id).await.unwrap();
    assert_eq!(third, QueueRecord { assignment: Assignment::new(3), ..second });
    bench.reopen().await;
    assert_eq!(bench.store.queue_by_id(queue).await.unwrap(), Some(third));
    bench.store.delete_queue(queue).await.unwrap();
    assert_eq!(bench.store.assign_queue(queue, Assignment::new(3), a.id).await, Err(AssignError::Changed));
    assert_eq!(bench.store.assign_queue(QueueId::new(1_000), Assignment::ZERO, a.id).await, Err(AssignError::Changed));
}

/// A broker finds its live queues, and only those.
pub async fn assigned_queues_are_listed_by_id(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b) = (bench.register("a").await, bench.register("b").await);
    let mut own = Vec::new();
    for name in ["z", "y", "x", "w"] {
        own.push(bench.create(name, Some(a.id)).await);
    }
    let other = bench.create("v", Some(b.id)).await;
    bench.create("u", None).await;
    let moved = own.remove(1);
    bench.store.assign_queue(moved, Assignment::new(1), b.id).await.unwrap();
    let deleted = own.remove(2);
    bench.store.delete_queue(deleted).await.unwrap();
    let ids = |queues: Vec<QueueRecord>| queues.into_iter().map(|queue| queue.id).collect::<Vec<_>>();
    assert_eq!(ids(bench.store.assigned_queues(a.id).await.unwrap()), own);
    assert_eq!(ids(bench.store.assigned_queues(b.id).await.unwrap()), [moved, other]);
    assert_eq!(bench.store.assigned_queues(BrokerId::new(1_000)).await.unwrap(), []);
}

/// Each of a group has its own fate, and every broker hears of it once.
pub async fn several_queues_are_assigned_in_one_step(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b, c) = (bench.register("a").await, bench.register("b").await, bench.register("c").await);
    let mut queues = Vec::new();
    for name in ["z", "y", "x", "w", "v"] {
        queues.push(bench.create(name, Some(a.id)).await);
    }
    bench.store.delete_queue(queues[3]).await.unwrap();
    let before = [generation(&bench, a).await, generation(&bench, b).await, generation(&bench, c).await];
    let assign = |queue: usize, expected, to| Assign { queue: queues[queue], expected, to };
    let nobody = BrokerId::new(1_000);
    let group = [
        assign(0, Assignment::new(1), b.id),
        assign(1, Assignment::new(2), b.id),
        assign(2, Assignment::new(1), b.id),
        assign(3, Assignment::new(1), b.id),
        assign(4, Assignment::new(1), nobody),
    ];
    let assigned = bench.store.assign_queues(&group).await.unwrap();
    let done = |name: &str, queue: usize| {
        let assignee = Some((b.id, addr("b")));
        Assigned::Done(QueueRecord { id: queues[queue], label: label(name), assignee, assignment: Assignment::new(2) })
    };
    let (changed, unknown) = (Assigned::Changed, Assigned::NoSuchBroker);
    assert_eq!(assigned, [done("z", 0), changed.clone(), done("x", 2), changed.clone(), unknown]);
    bench.reopen().await;
    let ids = |queues: Vec<QueueRecord>| queues.into_iter().map(|queue| queue.id).collect::<Vec<_>>();
    assert_eq!(ids(bench.store.assigned_queues(a.id).await.unwrap()), [queues[1], queues[4]]);
    assert_eq!(ids(bench.store.assigned_queues(b.id).await.unwrap()), [queues[0], queues[2]]);
    let now = [generation(&bench, a).await, generation(&bench, b).await, generation(&bench, c).await];
    assert_eq!(now, [before[0].next(), before[1].next(), before[2]]);
    // Made again, nothing is left to do, and nobody is told.
    let again = bench.store.assign_queues(&group[..3]).await.unwrap();
    assert_eq!(again[0], changed);
    assert_eq!(bench.store.assign_queues(&[]).await, Ok(vec![]));
    assert_eq!(generation(&bench, c).await, before[2]);
}

/// Such a group is refused before anything is done.
pub async fn a_malformed_group_of_assignments_is_refused(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let a = bench.register("a").await;
    let (first, second) = (bench.create("a", None).await, bench.create("b", None).await);
    let assign = |queue| Assign { queue, expected: Assignment::ZERO, to: a.id };
    let long: Vec<_> = (1..=MAX_ASSIGNED_QUEUES as u64 + 1).map(|id| assign(QueueId::new(id))).collect();
    for group in [&[assign(second), assign(first)][..], &[assign(first), assign(first)], &long] {
        let refused = bench.store.assign_queues(group).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
    }
    assert_eq!(bench.store.assigned_queues(a.id).await.unwrap(), []);
}

/// Those that live are found, in order, and the rest is left out.
pub async fn several_queues_are_looked_up_at_once(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let a = bench.register("a").await;
    let (first, second) = (bench.create("z", Some(a.id)).await, bench.create("y", None).await);
    let (deleted, last) = (bench.create("x", None).await, bench.create("w", None).await);
    bench.store.delete_queue(deleted).await.unwrap();
    let ids = |queues: Vec<QueueRecord>| queues.into_iter().map(|queue| queue.id).collect::<Vec<_>>();
    let asked = [first, second, deleted, QueueId::new(1_000)];
    let found = bench.store.queues_by_ids(&asked).await.unwrap();
    assert_eq!(found[0], bench.store.queue_by_id(first).await.unwrap().unwrap());
    assert_eq!(ids(found), [first, second]);
    assert_eq!(bench.store.queues_by_ids(&[]).await, Ok(vec![]));
    assert!(matches!(bench.store.queues_by_ids(&[second, first]).await, Err(StoreError::Refused(_))));
    let long: Vec<_> = (1..=MAX_LOOKED_UP as u64 + 1).map(QueueId::new).collect();
    assert!(matches!(bench.store.queues_by_ids(&long).await, Err(StoreError::Refused(_))));
    assert_eq!(ids(bench.store.queues_by_ids(&long[1..]).await.unwrap()).last(), Some(&last));
}

/// Page by page all live queues are read, each once.
pub async fn queues_are_read_page_by_page(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut live = Vec::new();
    for name in ["z", "y", "x", "w", "v"] {
        live.push(bench.create(name, None).await);
    }
    bench.store.delete_queue(live.remove(2)).await.unwrap();
    let (mut after, mut read) = (QueueId::default(), Vec::new());
    loop {
        let page = bench.store.queues_after(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = last.id;
        read.extend(page.into_iter().map(|queue| queue.id));
    }
    assert_eq!(read, live);
}

async fn generation(bench: &Bench<'_>, broker: Registered) -> Generation {
    bench.store.renew_broker(broker.id, broker.incarnation, LEASE).await.unwrap().generation
}

/// Each change grows the generation of the brokers it concerns, and nothing else does.
pub async fn a_change_grows_the_generation_of_those_it_concerns(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let (a, b, idle) = (bench.register("a").await, bench.register("b").await, bench.register("c").await);
    let mut seen = [generation(&bench, a).await, generation(&bench, b).await, generation(&bench, idle).await];
    let begun = seen[2];
    macro_rules! grew {
        ($a:literal, $b:literal) => {
            bench.reopen().await;
            let now = [generation(&bench, a).await, generation(&bench, b).await, generation(&bench, idle).await];
            assert_eq!([now[0] > seen[0], now[1] > seen[1]], [$a, $b]);
            assert!(now[0] >= seen[0] && now[1] >= seen[1]);
            assert_eq!(now[2], begun);
            seen = now;
        };
    }
    grew!(false, false);
    let queue = bench.create("q", Some(a.id)).await;
    grew!(true, false);
    bench.store.assign_queue(queue, Assignment::new(1), b.id).await.unwrap();
    grew!(true, true);
    let channel = bench.create_channel(queue, Topic::NONE, Start::Earliest).await.unwrap().id;
    seen = [generation(&bench, a).await, generation(&bench, b).await, seen[2]];
    assert!(bench.store.delete_channel(channel).await.unwrap());
    grew!(false, true);
    assert!(!bench.store.delete_channel(channel).await.unwrap());
    assert_eq!(bench.store.assign_queue(queue, Assignment::new(1), a.id).await, Err(AssignError::Changed));
    let free = bench.create("free", None).await;
    grew!(false, false);
    bench.store.assign_queue(free, Assignment::ZERO, a.id).await.unwrap();
    grew!(true, false);
    assert!(bench.store.delete_queue(queue).await.unwrap());
    grew!(false, true);
    assert!(!bench.store.delete_queue(queue).await.unwrap());
    grew!(false, false);
    assert_eq!(seen[2], begun);

    // A new run goes on from there.
    let a = bench.register("a").await;
    assert!(generation(&bench, a).await >= seen[0]);
}

/// Of several creators of one label, one makes the queue and the others are told.
pub async fn one_of_several_creators_makes_the_queue(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let broker = bench.register("a").await;
    for round in 0..ROUNDS {
        let mut tasks = Vec::new();
        for _ in 0..RIVALS {
            let store = Arc::clone(&bench.store);
            let label = label(&format!("q{round}"));
            let create = CreateQueue { label, assignee: Some(broker.id), request: bench.uuid() };
            tasks.push(tokio::spawn(async move { store.create_queue(&create).await }));
        }
        let mut made = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(record) => made.push(record),
                Err(error) => assert_eq!(error, CreateQueueError::Exists),
            }
        }
        assert_eq!(made.len(), 1);
        assert_eq!(bench.store.queue(&made[0].label).await.unwrap().as_ref(), made.first());
    }
    assert_eq!(bench.store.queues().await.unwrap().len(), ROUNDS);
}

/// Of several managers that assign a queue, one does.
pub async fn one_of_several_assignments_is_made(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let mut brokers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        brokers.push(bench.register(name).await);
    }
    let queue = bench.create("q", None).await;
    for assignment in (0..ROUNDS as u64).map(Assignment::new) {
        let assign = |broker: &Registered| {
            let (store, to) = (Arc::clone(&bench.store), broker.id);
            tokio::spawn(async move { store.assign_queue(queue, assignment, to).await })
        };
        let tasks: Vec<_> = brokers.iter().map(assign).collect();
        let mut made = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(record) => made.push(record),
                Err(error) => assert_eq!(error, AssignError::Changed),
            }
        }
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].assignment, assignment.next());
        assert_eq!(bench.store.queue_by_id(queue).await.unwrap().as_ref(), made.first());
    }
}

/// Page by page one sees what the whole list has, in its order, whatever is deleted or created meanwhile elsewhere.
pub async fn queues_come_in_pages(harness: &dyn Harness) {
    let mut bench = Bench::start(harness).await;
    let a = bench.register("a").await;
    assert_eq!(bench.store.queue_page(None, 3).await.unwrap(), []);
    for name in ["ab", "b", "a", "c", "ä", "a-", "a1"] {
        bench.create(name, (name != "c").then_some(a.id)).await;
    }
    let deleted = bench.create("aa", Some(a.id)).await;
    bench.store.delete_queue(deleted).await.unwrap();
    let all = bench.store.queues().await.unwrap();
    for limit in 1..9 {
        let mut seen: Vec<QueueRecord> = Vec::new();
        loop {
            let after = seen.last().map(|queue| queue.label.clone());
            let page = bench.store.queue_page(after, limit).await.unwrap();
            assert!(page.len() <= limit as usize);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, all, "{limit}");
    }
    // It need not be a queue after which a page begins.
    let labels: Vec<_> = bench.store.queue_page(Some(label("aa")), 2).await.unwrap();
    assert_eq!(labels.into_iter().map(|queue| queue.label).collect::<Vec<_>>(), [label("ab"), label("b")]);
}
