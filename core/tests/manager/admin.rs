//! Administrative operations.

use std::time::Duration;

use rmom_core::{
    manager::{
        BrokerView, Health, ManagerError, ManagerStatus, NotDescribed, PlacedQueue, Problem,
        testing::{Behaviour, Call, Calls, Fault, LONG, World, addr, incarnation},
    },
    model::{
        BrokerId, ChannelId, ClaimId, Code, Coded as _, Epoch, NO_TOPIC, Offset, QueueId, Start, StoreTime, Topic,
    },
    ports::{
        AppendBatch, BrokerState, Catalog as _, Claim, CreateQueue, Log as _, QueueActivity, QueueDescription,
        QueueState, StoreError,
    },
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{A_WHILE, assignee, assignments, label, until, until_leading};

fn topic(raw: &str) -> Topic {
    Topic::parse(raw).unwrap()
}

#[tokio::test(start_paused = true)]
async fn queues_are_created_where_there_are_fewest() {
    let world = World::new();
    for n in 1..=3 {
        world.broker(n, LONG).await;
    }
    let (manager, _task) = world.manager(|_| {});
    let mut hosts = Vec::new();
    for n in 0..6 {
        let queue = manager.create_queue(&label(&format!("q{n}"))).await.unwrap();
        assert!(world.brokers.take_calls().contains(&Call::Rebuild(queue.addr.clone(), queue.label.clone())));
        assert_eq!(manager.queue(&queue.label).await.unwrap(), queue);
        hosts.push(queue.addr);
    }
    hosts.sort();
    assert_eq!(hosts, [addr(1), addr(1), addr(2), addr(2), addr(3), addr(3)]);
    let labels: Vec<String> = manager.queues().await.unwrap().iter().map(|queue| queue.label.to_string()).collect();
    assert_eq!(labels, ["q0", "q1", "q2", "q3", "q4", "q5"]);
}

#[tokio::test(start_paused = true)]
async fn a_label_is_taken_once_and_free_after_its_deletion() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    let PlacedQueue { id, .. } = manager.create_queue(&label("Q")).await.unwrap();
    assert_eq!(manager.create_queue(&label("q")).await, Err(ManagerError::QueueExists(label("q"))));
    world.brokers.take_calls();
    manager.delete_queue(&label("q")).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    assert!(world.brokers.take_calls().contains(&Call::Refresh(addr(1))), "the broker was not told");
    let gone = Err(ManagerError::QueueNotFound(label("q")));
    assert_eq!(manager.delete_queue(&label("q")).await, gone.clone());
    assert_eq!(manager.queue(&label("q")).await.map(drop), gone);
    assert_ne!(manager.create_queue(&label("q")).await.unwrap().id, id);
}

#[tokio::test(start_paused = true)]
async fn without_a_broker_nothing_is_created() {
    let world = World::new();
    let (manager, _task) = world.manager(|_| {});
    assert_eq!(manager.create_queue(&label("q")).await, Err(ManagerError::NoBroker));
    // Registered but dead, draining, stopped, or silent with an expired lease: none of these is chosen.
    world.broker(1, LONG).await;
    world.brokers.set(&addr(1), Behaviour::Absent);
    let second = world.broker(2, LONG).await;
    manager.set_draining(second, true).await.unwrap();
    let third = world.broker(3, LONG).await;
    world.retire(3, third).await;
    world.broker(4, Duration::from_millis(1)).await;
    world.brokers.set(&addr(4), Behaviour::Hangs);
    sleep(A_WHILE).await;
    assert_eq!(manager.create_queue(&label("q")).await, Err(ManagerError::NoBroker));
    assert_eq!(manager.queues().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_follower_probes_before_it_places() {
    let world = World::new();
    for n in 1..=3 {
        world.broker(n, LONG).await;
    }
    let (leader, _task) = world.manager(|_| {});
    until_leading(&leader).await;
    let (follower, _task) = world.manager(|settings| settings.cycle = Duration::from_secs(60));
    world.brokers.set(&addr(1), Behaviour::Absent);
    world.brokers.set(&addr(3), Behaviour::Hangs);
    let begun = Instant::now();
    assert_eq!(follower.create_queue(&label("q")).await.unwrap().addr, addr(2));
    assert!(begun.elapsed() < Duration::from_millis(600), "took {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_was_deleted_before_its_creator_knew_stays_deleted() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    world.store.fail_next(1, Calls::Administration, Fault::AnswerLost);
    let creating = tokio::spawn({
        let manager = manager.clone();
        async move { manager.create_queue(&label("q")).await }
    });
    let created = loop {
        sleep(Duration::from_millis(1)).await;
        if let Some(queue) = world.store.queue(&label("q")).await.unwrap() {
            break queue;
        }
    };
    assert!(world.store.delete_queue(created.id).await.unwrap());
    assert_eq!(creating.await.unwrap(), Err(ManagerError::QueueNotFound(label("q"))));
    assert_eq!(manager.queues().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_creation_of_unknown_outcome_is_repeated_as_the_same_request() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let world = World::new();
        world.broker(1, LONG).await;
        let (manager, _task) = world.manager(|_| {});
        world.store.fail_next(2, Calls::Administration, fault);
        let queue = manager.create_queue(&label("q")).await.unwrap();
        assert_eq!(manager.queues().await.unwrap().len(), 1, "{fault:?}");
        world.store.fail_next(2, Calls::Administration, fault);
        let channel = manager.create_channel(&queue.label, topic("t"), Start::Latest).await.unwrap();
        assert_eq!(manager.channels(None).await.unwrap(), std::slice::from_ref(&channel.channel), "{fault:?}");
        // A deletion that finds its own earlier success succeeds, instead of "not found".
        world.store.fail_next(2, Calls::Administration, fault);
        manager.delete_channel(channel.channel.id).await.unwrap();
        world.store.fail_next(2, Calls::Administration, fault);
        manager.delete_queue(&queue.label).await.unwrap();
        assert_eq!(manager.queues().await.unwrap(), [], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_down_after_an_unknown_outcome_leaves_it_unknown() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    sleep(A_WHILE).await;
    world.store.fail_next(1, Calls::Administration, Fault::AnswerLost);
    let creation = tokio::spawn({
        let manager = manager.clone();
        async move { manager.create_queue(&label("q")).await }
    });
    sleep(Duration::from_millis(50)).await;
    world.store.fail(Calls::All, Fault::Unavailable);
    sleep(Duration::from_millis(500)).await;
    world.store.repair(Calls::All);
    creation.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_stays_unknown_is_said_to_be() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    sleep(A_WHILE).await;
    world.store.fail_next(u32::MAX, Calls::Administration, Fault::AnswerLost);
    let begun = Instant::now();
    let error = manager.create_queue(&label("q")).await.unwrap_err();
    assert_eq!(error.code(), Code::OutcomeUnknown);
    assert!(begun.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_an_error_in_time() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    manager.create_queue(&label("q")).await.unwrap();
    for (fault, code) in [(Fault::Unavailable, Code::StoreUnavailable), (Fault::Hangs, Code::StoreUnavailable)] {
        world.store.fail(Calls::All, fault);
        let begun = Instant::now();
        assert_eq!(manager.queue(&label("q")).await.unwrap_err().code(), code, "{fault:?}");
        assert_eq!(manager.delete_queue(&label("q")).await.unwrap_err().code(), code, "{fault:?}");
        assert!(begun.elapsed() <= Duration::from_secs(10), "{fault:?}");
    }
    world.store.repair(Calls::All);
    world.store.fail(Calls::Administration, Fault::Refused);
    sleep(A_WHILE).await;
    let full = Err(ManagerError::Store(StoreError::Refused("no room".into())));
    assert_eq!(manager.create_queue(&label("r")).await.map(drop), full);
    assert_eq!(manager.delete_queue(&label("q")).await, full);
    world.store.repair(Calls::All);
    manager.queue(&label("q")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_queue_whose_broker_dies_goes_to_another() {
    for death in [Behaviour::Absent, Behaviour::Hangs] {
        let world = World::new();
        // The leader reads the store once, and then not again during the test.
        let (leader, _task) = world.manager(|settings| settings.cycle = LONG);
        until_leading(&leader).await;
        world.broker(1, LONG).await;
        // Only this manager has to notice; its knowledge of broker 1 is fresh, but wrong.
        let (manager, _task) = world.manager(|settings| settings.cycle = Duration::from_secs(60));
        manager.create_queue(&label("first")).await.unwrap();
        world.broker(2, LONG).await;
        manager.create_queue(&label("second")).await.unwrap();
        manager.delete_queue(&label("first")).await.unwrap();
        world.brokers.set(&addr(1), death);
        let queue = manager.create_queue(&label("q")).await.unwrap();
        assert_eq!(queue.addr, addr(2), "{death:?}");
        assert_eq!(assignments(&world, "q").await, 2, "{death:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_nobody_serves_in_time_exists() {
    let world = World::new();
    world.broker(1, LONG).await;
    world.brokers.set(&addr(1), Behaviour::ServesNothing);
    let (manager, _task) = world.manager(|_| {});
    let begun = Instant::now();
    let error = manager.create_queue(&label("q")).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 5);
    let ManagerError::NotServedYet { queue, .. } = &error else { panic!("{error}") };
    assert_eq!(error.details(), [("queue_id", queue.to_string().into())]);
    assert!(error.to_string().contains("exists"), "{error}");
    assert_eq!(assignee(&world, "q").await, Some(addr(1)));
    assert_eq!(manager.create_queue(&label("q")).await, Err(ManagerError::QueueExists(label("q"))));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_deleted_while_it_is_created_is_gone() {
    let world = World::new();
    world.broker(1, LONG).await;
    world.brokers.set(&addr(1), Behaviour::ServesNothing);
    let (manager, _task) = world.manager(|_| {});
    let creation = tokio::spawn({
        let manager = manager.clone();
        async move { manager.create_queue(&label("q")).await }
    });
    sleep(Duration::from_secs(1)).await;
    manager.delete_queue(&label("q")).await.unwrap();
    assert_eq!(creation.await.unwrap(), Err(ManagerError::QueueNotFound(label("q"))));
}

#[tokio::test(start_paused = true)]
async fn a_queue_without_live_broker_is_not_shown_as_served() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    manager.create_queue(&label("q")).await.unwrap();
    let channel = manager.create_channel(&label("q"), Topic::NONE, Start::Earliest).await.unwrap().channel;
    world.brokers.set(&addr(1), Behaviour::Absent);
    sleep(A_WHILE).await;
    let none = ManagerError::NoBrokerFor { label: label("q") };
    assert_eq!(manager.queue(&label("q")).await, Err(none.clone()));
    assert_eq!(manager.channel(channel.id).await, Err(none.clone()));
    assert_eq!(manager.create_channel(&label("q"), topic("t"), Start::Earliest).await, Err(none));
    assert_eq!(manager.channels(None).await.unwrap(), [channel], "an error created a channel");
    assert_eq!(manager.describe_queue(&label("q")).await.unwrap().live, Err(NotDescribed::NoBroker));
    world.brokers.set(&addr(1), Behaviour::Well);
    sleep(A_WHILE).await;
    manager.queue(&label("q")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_does_not_probe_goes_by_the_leases() {
    let world = World::new();
    world.broker(1, Duration::from_secs(30)).await;
    let (leader, _task) = world.manager(|settings| settings.cycle = LONG);
    until_leading(&leader).await;
    let (follower, _task) = world.manager(|settings| settings.cycle = Duration::from_millis(100));
    follower.create_queue(&label("q")).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    follower.queue(&label("q")).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert_eq!(follower.queue(&label("q")).await.unwrap_err().code(), Code::NoBroker);
}

#[tokio::test(start_paused = true)]
async fn channels_and_their_topics() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    for name in ["q", "r"] {
        manager.create_queue(&label(name)).await.unwrap();
    }
    for raw in ["b", "A", NO_TOPIC, "a"] {
        let placed = manager.create_channel(&label("q"), topic(raw), Start::Earliest).await.unwrap();
        assert_eq!(placed.addr, addr(1));
        assert_eq!(manager.channel(placed.channel.id).await.unwrap(), placed);
    }
    let other = manager.create_channel(&label("r"), topic("c"), Start::Earliest).await.unwrap().channel;
    assert_eq!(manager.topics(&label("q")).await.unwrap(), [topic("a"), topic("b")]);
    assert_eq!(manager.channels(Some(&label("q"))).await.unwrap().len(), 4);
    assert_eq!(manager.channels(None).await.unwrap().len(), 5);
    world.brokers.take_calls();
    manager.delete_channel(other.id).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    assert!(world.brokers.take_calls().contains(&Call::Refresh(addr(1))), "the broker was not told");
    assert_eq!(manager.delete_channel(other.id).await, Err(ManagerError::ChannelNotFound(other.id)));
    let unknown = ChannelId::new(Uuid::nil());
    assert_eq!(manager.channel(unknown).await.map(drop), Err(ManagerError::ChannelNotFound(unknown)));
    let missing = Err(ManagerError::QueueNotFound(label("nope")));
    assert_eq!(manager.topics(&label("nope")).await.map(drop), missing);
    assert_eq!(manager.channels(Some(&label("nope"))).await.map(drop), missing);
    let created = manager.create_channel(&label("nope"), Topic::NONE, Start::Earliest).await;
    assert_eq!(created.map(drop), missing);
    let beyond = manager.create_channel(&label("q"), Topic::NONE, Start::At(Offset::new(7))).await.unwrap_err();
    assert_eq!(beyond, ManagerError::OffsetOutOfRange { start: Offset::new(7), end: Offset::ZERO });
    // A queue's channels are deleted with it, and no others.
    manager.delete_queue(&label("q")).await.unwrap();
    assert_eq!(manager.channels(None).await.unwrap(), []);
    assert_eq!(manager.channels(Some(&label("r"))).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn brokers_are_listed_whether_registered_or_not() {
    let world = World::new();
    let first = world.broker(1, LONG).await;
    world.brokers.set(&addr(2), Behaviour::Well);
    let (manager, _task) = world.manager(|settings| settings.moms = vec![addr(2), addr(1), addr(2), addr(3)]);
    until_leading(&manager).await;
    sleep(A_WHILE).await;
    let brokers = manager.brokers().await.unwrap();
    let seen: Vec<_> = brokers.iter().map(|b| (b.addr.clone(), b.registered.is_some(), b.live, b.configured)).collect();
    assert_eq!(seen, [(addr(1), true, true, true), (addr(2), false, false, true), (addr(3), false, false, true)]);
    let probe = |n: usize| brokers[n].probe.as_ref().unwrap();
    assert!(probe(0).last_success_age.is_some() && probe(1).last_success_age.is_some());
    assert!(probe(2).failures_in_a_row > 0 && probe(2).last_error.is_some());
    assert_eq!(manager.status().brokers.len(), 3);
    // A process that answers but never registered gets no queue.
    for name in ["a", "b"] {
        assert_eq!(manager.create_queue(&label(name)).await.unwrap().broker, first);
    }
    assert_eq!(
        manager.set_draining(BrokerId::new(99), true).await,
        Err(ManagerError::BrokerNotFound(BrokerId::new(99)))
    );
    manager.set_draining(first, true).await.unwrap();
    let registered = manager.brokers().await.unwrap()[0].registered.clone().unwrap();
    assert_eq!((registered.state, registered.queues), (BrokerState::Draining, 2));
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_described_by_its_broker() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    let PlacedQueue { id, .. } = manager.create_queue(&label("q")).await.unwrap();
    let description = QueueDescription {
        queue: id,
        epoch: Epoch::new(3),
        last_offset: Offset::new(7),
        depth_messages: 7,
        depth_bytes: 70,
        oldest_age: Duration::from_secs(1),
        subscribers: Vec::new(),
    };
    world.brokers.describe_as(&label("q"), description.clone());
    let details = manager.describe_queue(&label("q")).await.unwrap();
    assert_eq!((details.queue.id, details.live), (id, Ok(description.clone())));
    // A description of a deleted queue does not count for this one.
    world.brokers.describe_as(&label("q"), QueueDescription { queue: QueueId::new(99), ..description });
    assert_eq!(manager.describe_queue(&label("q")).await.unwrap().live, Err(NotDescribed::OtherQueue));
    world.brokers.set(&addr(1), Behaviour::Hangs);
    let begun = Instant::now();
    let live = manager.describe_queue(&label("q")).await.unwrap().live;
    assert!(matches!(live, Err(NotDescribed::Control(_))), "{live:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_list_asks_each_broker_once_and_waits_for_none_for_long() {
    let world = World::new();
    for broker in 1..=3 {
        world.broker(broker, LONG).await;
    }
    let (manager, _task) = world.manager(|_| {});
    let mut homes = std::collections::BTreeMap::new();
    for n in 0..9 {
        let placed = manager.create_queue(&label(&format!("q{n}"))).await.unwrap();
        let state = QueueState {
            queue: placed.id,
            activity: QueueActivity::Served,
            reason: None,
            epoch: Epoch::new(1),
            last_offset: Offset::new(n),
            depth_messages: n,
            depth_bytes: n,
            oldest_age: Duration::ZERO,
            subscribers: n,
            largest_lag: n,
        };
        world.brokers.state_as(&placed.label, state);
        homes.insert(placed.label, placed.addr);
    }
    world.brokers.set(&addr(1), Behaviour::Hangs);
    world.brokers.set(&addr(2), Behaviour::Absent);
    world.brokers.take_calls();
    let begun = Instant::now();
    let page = manager.live_queue_page(None, 8).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(page.more);
    for (n, listed) in page.items.iter().enumerate() {
        assert_eq!(listed.queue.label, label(&format!("q{n}")));
        let home = &homes[&listed.queue.label];
        match &listed.live {
            Ok(state) => assert_eq!((home, state.depth_messages), (&addr(3), n as u64)),
            Err(error) => {
                let says = error.to_string();
                assert!(*home != addr(3) && says.contains(&home.to_string()), "{says}");
            }
        }
    }
    let asked = world.brokers.take_calls().into_iter().filter(|call| matches!(call, Call::States(..))).count();
    assert_eq!((page.items.len(), asked), (8, 3), "one call for each broker");
}

#[tokio::test(start_paused = true)]
async fn every_live_broker_is_asked_how_it_is() {
    let world = World::new();
    for n in 1..=5 {
        world.broker(n, LONG).await;
        world.brokers.set(&addr(n), Behaviour::Well);
    }
    let (manager, _task) = world.manager(|_| {});
    while manager.status().brokers.iter().filter(|broker| broker.live).count() < 5 {
        sleep(Duration::from_millis(10)).await;
    }
    let health = manager.health(&manager.status()).await;
    assert_eq!(health, Health::default(), "all is well");
    world.brokers.complain(&addr(1), vec!["queue q: it is broken".into()]);
    world.brokers.set(&addr(2), Behaviour::IsOld);
    world.brokers.set(&addr(3), Behaviour::Hangs);
    world.brokers.complain(&addr(4), (0..13).map(|n| format!("queue {n}")).collect());
    let status = manager.status();
    world.brokers.take_calls();
    let begun = Instant::now();
    let health = manager.health(&status).await;
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    let asked = world.brokers.take_calls().into_iter().filter(|call| matches!(call, Call::Complaints(_))).count();
    assert_eq!(asked, 5, "one call for each broker");
    assert!(health.problems.iter().all(|problem| !problem.next.is_empty()));
    let whats: Vec<_> = health.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(whats.len(), 1 + 1 + 11, "{whats:?}");
    assert_eq!(whats[0], format!("broker 1 at {}: queue q: it is broken", addr(1)));
    assert_eq!(
        whats[1],
        format!("broker 3 lives and does not say how it is: the broker at {} did not answer within 1s", addr(3))
    );
    assert_eq!(whats[12], format!("broker 4 at {} has 3 more complaints", addr(4)));
    let [note] = &health.notes[..] else { panic!("{:?}", health.notes) };
    assert!(note.starts_with(&format!("broker 2 at {} is of an older version", addr(2))), "{note}");
    // A dead broker is not asked; the manager reports it.
    let status = ManagerStatus {
        brokers: status.brokers.into_iter().map(|broker| BrokerView { live: false, ..broker }).collect(),
        ..manager.status()
    };
    let health = manager.health(&status).await;
    assert!(!world.brokers.take_calls().iter().any(|call| matches!(call, Call::Complaints(_))));
    assert_eq!((health.problems.len(), health.notes.len()), (1 + 5, 0));
    // A manager that cannot ask reports it.
    manager.shutdown(Duration::from_secs(1)).await;
    let health = manager.health(&manager.status()).await;
    let unasked = |problem: &Problem| problem.what.starts_with("this manager did not ask the brokers");
    assert!(health.problems.iter().any(unasked), "{:?}", health.problems);
}

#[tokio::test(start_paused = true)]
async fn too_many_operations_at_once_are_refused() {
    let world = World::new();
    world.broker(1, LONG).await;
    world.brokers.set(&addr(1), Behaviour::ServesNothing);
    let (manager, _task) = world.manager(|settings| settings.max_admin_calls = 1);
    let creation = tokio::spawn({
        let manager = manager.clone();
        async move { manager.create_queue(&label("q")).await }
    });
    sleep(Duration::from_millis(100)).await;
    assert_eq!(manager.status().calls, (1, 1));
    assert_eq!(manager.queues().await, Err(ManagerError::Overloaded { limit: 1 }));
    manager.ready().await.unwrap();
    creation.await.unwrap().unwrap_err();
    manager.queues().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_leader_removes_what_deleted_queues_left_behind() {
    let world = World::new();
    let broker = world.broker(1, LONG).await;
    let create = CreateQueue { label: label("q"), assignee: Some(broker), request: Uuid::nil() };
    let queue = world.store.create_queue(&create).await.unwrap().id;
    let claim = Claim { queue, broker, incarnation: incarnation(1), claim: ClaimId::new(Uuid::nil()) };
    let epoch = world.store.claim(&claim).await.unwrap().epoch;
    for n in 1..=3 {
        let batch = AppendBatch {
            queue,
            epoch,
            first: Offset::new(n),
            last: Offset::new(n),
            previous: Offset::new(n - 1),
            not_before: StoreTime::default(),
            lifetime_millis: None,
            format: 1,
            index: bytes::Bytes::new(),
            frames: bytes::Bytes::new(),
            checksum: 0,
        };
        world.store.append(&[batch]).await.unwrap();
    }
    let (manager, _task) = world.manager(|settings| settings.purge_batches = 2);
    manager.delete_queue(&label("q")).await.unwrap();
    until("all batches are gone", A_WHILE * 2, async || manager.status().counters.purged_batches == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_up_reads_what_it_is_about_and_no_more() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|settings| settings.cycle = Duration::from_secs(3_600));
    until_leading(&manager).await;
    manager.create_queue(&label("q")).await.unwrap();
    let channel = manager.create_channel(&label("q"), Topic::NONE, Start::Earliest).await.unwrap().channel;
    world.store.take_calls();
    manager.queue(&label("q")).await.unwrap();
    manager.channel(channel.id).await.unwrap();
    manager.create_channel(&label("q"), Topic::NONE, Start::Earliest).await.unwrap();
    let mut calls = world.store.take_calls();
    // The leader's lease is renewed meanwhile.
    calls.retain(|name, _| *name != "lead");
    assert_eq!(calls, [("broker_life", 3), ("channel", 1), ("create_channel", 1), ("queue", 2)].into());
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages() {
    let world = World::new();
    world.broker(1, LONG).await;
    let (manager, _task) = world.manager(|_| {});
    until_leading(&manager).await;
    for name in ["a", "b", "c"] {
        manager.create_queue(&label(name)).await.unwrap();
        manager.create_channel(&label(name), Topic::NONE, Start::Earliest).await.unwrap();
    }
    let page = manager.queue_page(None, 2).await.unwrap();
    assert_eq!((page.items.len(), page.more), (2, true));
    let page = manager.queue_page(Some(label("b")), 1).await.unwrap();
    assert_eq!((page.items[0].label.as_str(), page.items.len(), page.more), ("c", 1, false));
    let all = manager.channels(None).await.unwrap();
    let page = manager.channel_page(None, Some(all[0].id), 2).await.unwrap();
    assert_eq!((page.items.as_slice(), page.more), (&all[1..], false));
    assert_eq!(manager.channel_page(Some(&label("a")), None, 1).await.unwrap().items.len(), 1);
}
