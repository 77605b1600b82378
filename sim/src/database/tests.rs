//! Each fault has the effect that its name says, and its victim is told the true outcome.

use std::{future::Future, time::Duration};

use rmom_core::{
    broker::NewMessage,
    frame::{BatchBuilder, FORMAT},
    model::{
        BrokerAddr, BrokerId, ClaimId, Epoch, Incarnation, Offset, ProducerEpoch, ProducerId, ProducerKey, QueueId,
        QueueLabel, Sequence, StoreTime, Topic,
    },
    ports::{
        AppendBatch, Appended, Catalog as _, Claim, ClaimError, Claimed, CreateQueue, Log as _, Register, StoreError,
    },
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{DATABASE_HOST, Database, RemoteStore};
use crate::{
    Cluster, DatabaseFault,
    history::{Event, StoredMessage},
    isolated,
};

const HOST: &str = "owner";

/// The owner of a queue, from the store's point of view.
struct Owner {
    store: RemoteStore,
    broker: BrokerId,
    queue: QueueId,
    epoch: Epoch,
    /// The number of stored batches.
    end: u64,
    stored_at: StoreTime,
}

impl Owner {
    async fn new(database: &Database) -> Self {
        let store = RemoteStore::new(database.clone(), HOST.into());
        let addr = BrokerAddr { host: HOST.into(), port: 1 };
        let lease = Duration::from_secs(3);
        let register = Register { addr, incarnation: incarnation(), replaces: None, lease };
        let broker = store.register_broker(&register).await.unwrap().broker;
        let create = CreateQueue { label: label(), assignee: Some(broker), request: Uuid::from_u128(2) };
        let queue = store.create_queue(&create).await.unwrap().id;
        let mut owner = Self { store, broker, queue, epoch: Epoch::ZERO, end: 0, stored_at: StoreTime::default() };
        owner.epoch = owner.claim().await.unwrap().epoch;
        owner
    }

    /// Another connection to the same database, with the same knowledge.
    fn rival(&self) -> Self {
        let store = RemoteStore::new(self.store.database().clone(), HOST.into());
        Self { store, ..*self }
    }

    async fn claim(&self) -> Result<Claimed, ClaimError> {
        let claim = ClaimId::new(Uuid::from_u128(100 + u128::from(self.epoch.get())));
        let claim = Claim { queue: self.queue, broker: self.broker, incarnation: incarnation(), claim };
        self.store.claim(&claim).await
    }

    /// The next batch, of one message.
    fn batch(&self) -> AppendBatch {
        let (first, key) = (Offset::new(self.end + 1), producer());
        let sequence = Sequence::new(self.end + 1);
        let message = NewMessage {
            content: format!("message {first}").into(),
            topic: Topic::parse("News").unwrap(),
            ttl: Some(Duration::from_secs(9)),
            ..NewMessage::default()
        };
        let mut builder = BatchBuilder::new(first);
        builder.push(key, sequence, key.message_id(self.queue, sequence), &message);
        let encoded = builder.finish();
        AppendBatch {
            queue: self.queue,
            epoch: self.epoch,
            first,
            last: encoded.last,
            previous: Offset::new(self.end),
            not_before: self.stored_at,
            lifetime_millis: encoded.lifetime_millis,
            format: FORMAT,
            index: encoded.index,
            frames: encoded.frames,
            checksum: encoded.checksum,
        }
    }

    async fn append(&mut self) -> Result<Appended, StoreError> {
        let outcome = self.store.append(&[self.batch()]).await?[0];
        if let Appended::Stored { stored_at } = outcome {
            self.end += 1;
            self.stored_at = stored_at;
        }
        Ok(outcome)
    }

    /// The number of messages that the database really has.
    fn stored(&self) -> u64 {
        self.store.database().snapshot().tail(self.queue).end.get()
    }
}

fn label() -> QueueLabel {
    QueueLabel::parse("orders").unwrap()
}

fn incarnation() -> Incarnation {
    Incarnation::new(Uuid::from_u128(1))
}

fn producer() -> ProducerKey {
    ProducerKey { id: ProducerId::new(Uuid::from_u128(7)), epoch: ProducerEpoch::ZERO }
}

/// A cluster of a database only.
fn alone(seed: u64) -> Cluster {
    Cluster::builder(seed).brokers(0).managers(0).limit(Duration::from_secs(60)).build()
}

/// Runs the calls of a database client to their end.
fn simulate<F>(seed: u64, script: impl FnOnce(Database) -> F + Send) -> Evidence
where
    F: Future<Output = ()> + 'static,
{
    isolated(|| {
        let mut cluster = alone(seed);
        let script = script(cluster.database().clone());
        cluster.host(HOST, async move {
            script.await;
            Ok(())
        });
        cluster.run().unwrap();
        cluster.recorder().records().into_iter().map(|record| record.event).collect()
    })
}

/// The events that the database recorded.
type Evidence = Vec<Event>;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn what_is_committed_is_evidence() {
    let evidence = simulate(1, |database| async move {
        let mut owner = Owner::new(&database).await;
        owner.append().await.unwrap();
        let again = Owner { epoch: Epoch::ZERO, ..owner.rival() }.claim().await.unwrap();
        assert_eq!(again.epoch, owner.epoch);
        let fenced = Owner { epoch: Epoch::new(7), ..owner.rival() }.append().await.unwrap();
        assert_eq!(fenced, Appended::Fenced { epoch: owner.epoch });
        let stored_at_millis = owner.stored_at.millis();
        let message = StoredMessage {
            id: producer().message_id(owner.queue, Sequence::new(1)).uuid(),
            offset: 1,
            topic: "news".into(),
            body: "message 1".into(),
            producer: producer().id.uuid(),
            sequence: 1,
            expires_at_millis: Some(stored_at_millis + 9_000),
        };
        let audit = database.audit();
        let [Event::AuditQueue { end: 1, trimmed_through: 0, epoch: 1, messages, .. }, Event::AuditDone { .. }] =
            &audit[..]
        else {
            panic!("{audit:?}")
        };
        assert_eq!(*messages, [message]);
        assert!(owner.store.delete_queue(owner.queue).await.unwrap());
    });
    let (id, broker) = (1, HOST.to_owned());
    let incarnation = incarnation().to_string();
    let Some(Event::Stored { messages, stored_at_millis, .. }) = evidence.get(4) else { panic!("{evidence:?}") };
    let expected = [
        Event::Registered { broker, broker_id: id, incarnation: incarnation.clone() },
        Event::QueueAdded { queue_id: 1, label: "orders".into() },
        Event::Assigned { queue_id: 1, broker_id: id },
        Event::Claimed { queue_id: 1, epoch: 1, broker_id: id, incarnation },
        Event::Stored {
            queue_id: 1,
            epoch: 1,
            stored_at_millis: *stored_at_millis,
            messages: messages.clone(),
            by: HOST.into(),
        },
        // The second claim repeated the first one.
        Event::AppendRefused { queue_id: 1, epoch: 7, why: "fenced".into(), by: HOST.into() },
        Event::QueueTombstoned { queue_id: 1 },
    ];
    assert_eq!(evidence, expected);
}

#[test]
fn a_full_database_refuses_and_changes_nothing() {
    simulate(2, |database| async move {
        let mut owner = Owner::new(&database).await;
        database.begin_fault(DatabaseFault::Full);
        assert!(matches!(owner.append().await, Err(StoreError::Refused(_))));
        assert_eq!(owner.stored(), 0);
        owner.store.tail(owner.queue).await.expect("it can be read");
        database.end_fault(DatabaseFault::Full);
        owner.append().await.unwrap();
    });
}

#[test]
fn a_database_that_refuses_connections_ends_those_there_are() {
    simulate(3, |database| async move {
        let mut owner = Owner::new(&database).await;
        database.begin_fault(DatabaseFault::Refuse);
        sleep(millis(20)).await;
        // The idle connection is dead, which shows only when it is used.
        assert!(matches!(owner.append().await, Err(StoreError::Unknown(_))));
        // Now no connection is left.
        assert!(matches!(owner.append().await, Err(StoreError::Unavailable(_))));
        database.end_fault(DatabaseFault::Refuse);
        owner.append().await.unwrap();
    });
}

#[test]
fn an_answer_is_lost_and_the_commit_is_there() {
    for seed in 10..14 {
        simulate(seed, |database| async move {
            let mut owner = Owner::new(&database).await;
            database.begin_fault(DatabaseFault::LoseReplies);
            assert!(matches!(owner.append().await, Err(StoreError::Unknown(_))));
            assert_eq!(owner.stored(), 1);
            let claimed = Owner { epoch: Epoch::new(1), ..owner.rival() }.claim().await;
            assert!(matches!(claimed, Err(ClaimError::Store(StoreError::Unknown(_)))));
            assert_eq!(database.snapshot().epoch(owner.queue), Some(Epoch::new(2)));
            owner.store.now().await.expect("answers to reads are not lost");
        });
    }
}

#[test]
fn every_other_write_is_aborted() {
    simulate(4, |database| async move {
        let mut owner = Owner::new(&database).await;
        database.begin_fault(DatabaseFault::AbortWrites);
        for stored in 0..3 {
            assert!(matches!(owner.append().await, Err(StoreError::Unknown(_))));
            assert_eq!(owner.stored(), stored);
            owner.append().await.unwrap();
        }
    });
}

#[test]
fn appends_are_aborted_and_claims_are_not() {
    simulate(4, |database| async move {
        let mut owner = Owner::new(&database).await;
        database.begin_fault(DatabaseFault::AbortAppends);
        for _ in 0..3 {
            assert!(matches!(owner.append().await, Err(StoreError::Unknown(_))));
            owner.rival().claim().await.unwrap();
        }
        assert_eq!(owner.stored(), 0);
    });
}

#[test]
fn a_claim_waits_for_a_stalled_append() {
    simulate(5, |database| async move {
        let mut owner = Owner::new(&database).await;
        let rival = owner.rival();
        database.begin_fault(DatabaseFault::StallWrites);
        let append = tokio::spawn(async move { (owner.append().await, owner) });
        sleep(millis(100)).await;
        let claim = tokio::spawn(async move { (rival.claim().await, rival) });
        sleep(millis(500)).await;
        assert!(!append.is_finished() && !claim.is_finished());
        database.end_fault(DatabaseFault::StallWrites);
        let (appended, owner) = append.await.unwrap();
        assert!(matches!(appended, Ok(Appended::Stored { .. })));
        let (claimed, rival) = claim.await.unwrap();
        assert_eq!(claimed.unwrap().epoch, Epoch::new(2));
        assert_eq!(rival.store.tail(owner.queue).await.unwrap().end, Offset::new(1));
    });
}

#[test]
fn a_stall_ends_by_the_timeouts_of_production() {
    simulate(6, |database| async move {
        let mut owner = Owner::new(&database).await;
        let rival = owner.rival();
        database.begin_fault(DatabaseFault::StallWrites);
        let start = Instant::now();
        let append = tokio::spawn(async move { (owner.append().await, start.elapsed(), owner) });
        sleep(millis(100)).await;
        let claimed = rival.claim().await;
        assert!(matches!(claimed, Err(ClaimError::Store(StoreError::Unavailable(_)))), "{claimed:?}");
        assert!((millis(1_100)..millis(1_200)).contains(&start.elapsed()), "{:?}", start.elapsed());
        let (appended, took, owner) = append.await.unwrap();
        assert!(matches!(appended, Err(StoreError::Unknown(_))), "{appended:?}");
        assert_eq!(took, millis(2_000));
        // The statement arrived a little after the call began, so its timeout ends a little later: in between, it could
        // still commit.
        sleep(millis(100)).await;
        database.end_fault(DatabaseFault::StallWrites);
        sleep(millis(3_000)).await;
        assert_eq!(owner.stored(), 0);
    });
}

#[test]
fn a_write_may_land_after_its_client_gave_up() {
    let landed = |seed| {
        let evidence = simulate(seed, |database| async move {
            let mut owner = Owner::new(&database).await;
            database.begin_fault(DatabaseFault::Slow { millis: 5_000 });
            assert!(owner.append().await.is_err_and(|error| error.is_unknown()));
            assert_eq!(owner.stored(), 0);
            sleep(millis(5_000)).await;
        });
        evidence.iter().any(|event| matches!(event, Event::Stored { .. }))
    };
    let landed = (20..30).filter(|&seed| landed(seed)).count();
    assert!((1..10).contains(&landed), "{landed} of 10");
}

#[test]
fn a_read_across_a_cut_is_unavailable() {
    isolated(|| {
        let mut cluster = alone(7);
        let database = cluster.database().clone();
        cluster.host(HOST, async move {
            let owner = Owner::new(&database).await;
            database.begin_fault(DatabaseFault::Slow { millis: 100 });
            sleep(millis(50)).await;
            // In flight when the link is cut.
            let read = owner.store.tail(owner.queue).await;
            assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
            let read = owner.store.tail(owner.queue).await;
            assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
            Ok(())
        });
        let ready = |cluster: &Cluster| cluster.database().snapshot().epoch(QueueId::new(1)) == Some(Epoch::new(1));
        cluster.run_until(ready).unwrap();
        cluster.run_for(millis(100)).unwrap();
        cluster.cut(HOST, DATABASE_HOST);
        cluster.run().unwrap();
    });
}

#[test]
fn a_crash_loses_what_is_not_committed_and_its_locks() {
    isolated(|| {
        let mut cluster = alone(8);
        let database = cluster.database().clone();
        cluster.host(HOST, async move {
            let mut owner = Owner::new(&database).await;
            owner.append().await.unwrap();
            database.begin_fault(DatabaseFault::StallWrites);
            // The crash ends the connection.
            assert!(owner.append().await.is_err_and(|error| error.is_unknown()));
            database.end_fault(DatabaseFault::StallWrites);
            let start = Instant::now();
            assert_eq!(owner.rival().claim().await.unwrap().epoch, Epoch::new(2));
            assert!(start.elapsed() < millis(900), "it waited for a lock");
            assert_eq!(owner.stored(), 1);
            Ok(())
        });
        cluster.run_until(|cluster| cluster.database().snapshot().tail(QueueId::new(1)).end == Offset::new(1)).unwrap();
        cluster.run_for(millis(200)).unwrap();
        cluster.crash(DATABASE_HOST);
        cluster.restart(DATABASE_HOST);
        cluster.run().unwrap();
    });
}

/// If a client dies between lock and commit, its transaction is rolled back, but a statement is carried out.
#[test]
fn a_transaction_dies_with_its_client_and_a_statement_does_not() {
    isolated(|| {
        // A service's client waits until it hears from a manager.
        let mut cluster = Cluster::builder(9).brokers(0).build();
        let database = cluster.database().clone();
        cluster.service(HOST, move |_| {
            let database = database.clone();
            async move {
                let mut owner = Owner::new(&database).await;
                let claimant = Owner { epoch: Epoch::new(9), ..owner.rival() };
                database.begin_fault(DatabaseFault::StallWrites);
                let _ = tokio::join!(biased; owner.append(), claimant.claim());
                panic!("it was to crash");
            }
        });
        let claimed = |cluster: &Cluster| cluster.database().snapshot().epoch(QueueId::new(1)) == Some(Epoch::new(1));
        cluster.run_until(claimed).unwrap();
        cluster.run_for(millis(200)).unwrap();
        cluster.crash(HOST);
        cluster.run_for(millis(50)).unwrap();
        assert_eq!(cluster.database().snapshot().tail(QueueId::new(1)).end, Offset::ZERO);
        cluster.database().end_fault(DatabaseFault::StallWrites);
        cluster.run_for(millis(50)).unwrap();
        assert_eq!(cluster.database().snapshot().tail(QueueId::new(1)).end, Offset::new(1));
        assert!(claimed(&cluster), "the claim was rolled back");
    });
}

#[test]
fn the_clock_jumps_and_a_backup_is_restored() {
    let evidence = simulate(11, |database| async move {
        let mut owner = Owner::new(&database).await;
        let backup = database.snapshot();
        owner.append().await.unwrap();
        let before = owner.store.now().await.unwrap();
        database.set_clock(-60_000);
        assert!(owner.store.now().await.unwrap() < before);
        let stored_at = owner.stored_at;
        owner.append().await.unwrap();
        assert_eq!(owner.stored_at, stored_at, "time does not go back within a queue");
        database.restore(backup);
        assert_eq!(owner.append().await.unwrap(), Appended::RolledBack);
    });
    let clocks: Vec<_> = evidence
        .iter()
        .filter_map(|event| match event {
            Event::StoreClock { from_millis, to_millis } => Some((*from_millis, *to_millis)),
            _ => None,
        })
        .collect();
    assert!(matches!(clocks[..], [(from, to)] if from - to == 60_000), "{clocks:?}");
    assert_eq!(evidence.iter().filter(|event| **event == Event::StoreRolledBack).count(), 1);
}
