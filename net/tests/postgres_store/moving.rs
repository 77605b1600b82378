//! Queues are moved whoever else holds their rows.

use std::time::Duration;

use rmom_core::{
    model::{Assignment, ProducerEpoch, ProducerId, QueueLabel},
    ports::{Assign, Assigned, Catalog, ClaimError, CreateQueue, Log, MAX_NAMED_PRODUCERS, Opened},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::support::Bench;

const PATIENCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn one_queue_that_is_held_does_not_keep_the_others_where_they_are() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let mut group = Vec::new();
    for n in 0..100 {
        let label = QueueLabel::parse(&format!("q{n}")).unwrap();
        let create = CreateQueue { label, assignee: None, request: Uuid::from_u128(100 + n) };
        let queue = owner.store.create_queue(&create).await.unwrap().id;
        group.push(Assign { queue, expected: Assignment::ZERO, to: owner.broker });
    }
    group.sort_by_key(|assign| assign.queue);
    let mut holds = bench.database.connect().await;
    let sql = "BEGIN; SELECT * FROM queue WHERE label = 'q7' FOR SHARE";
    sqlx::raw_sql(sql).execute(&mut holds).await.unwrap();
    let assigned = timeout(PATIENCE, owner.store.assign_queues(&group)).await.expect("the moves were held up").unwrap();
    let made = assigned.iter().filter(|assigned| matches!(assigned, Assigned::Done(_))).count();
    let left = assigned.iter().position(|assigned| *assigned == Assigned::Changed);
    assert_eq!((made, left), (99, Some(7)));
    sqlx::raw_sql("COMMIT").execute(&mut holds).await.unwrap();
    let assigned = owner.store.assign_queues(&group).await.unwrap();
    assert!(matches!(assigned[7], Assigned::Done(_)), "{:?}", assigned[7]);
}

/// Producers come all the time: if each shared the row with the next, a move would never get it.
#[tokio::test]
async fn producers_and_moves_do_not_wait_for_each_other() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let producer = ProducerId::new(Uuid::from_u128(7));
    let mut moves = bench.database.connect().await;
    sqlx::raw_sql("BEGIN; UPDATE queue SET assignment = assignment").execute(&mut moves).await.unwrap();
    let opened = timeout(PATIENCE, owner.store.open_producer(owner.queue, producer, 1)).await;
    assert_eq!(opened.expect("the producer was held up").unwrap(), Opened::Given(ProducerEpoch::new(1)));
    sqlx::raw_sql("COMMIT").execute(&mut moves).await.unwrap();
}

#[tokio::test]
async fn the_end_of_a_log_has_so_many_named_producers_at_most() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let mut session = bench.database.connect().await;
    let entries = "INSERT INTO producer SELECT queue.id, gen_random_uuid(), 1 FROM queue, generate_series(1, 100100)";
    sqlx::raw_sql(entries).execute(&mut session).await.unwrap();
    let tail = owner.store.tail(owner.queue).await.unwrap();
    assert_eq!(tail.producer_epochs.len(), MAX_NAMED_PRODUCERS as usize + 1);
    let another = ProducerId::new(Uuid::from_u128(1));
    let opened = owner.store.open_producer(owner.queue, another, u32::MAX).await.unwrap();
    assert_eq!(opened, Opened::TooMany);
}

#[tokio::test]
async fn a_claim_that_is_refused_writes_nothing() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    let mut session = bench.database.connect().await;
    sqlx::raw_sql("UPDATE queue SET assignee = NULL").execute(&mut session).await.unwrap();
    let watch = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'written'; END $$; \
                 CREATE TRIGGER refuse BEFORE UPDATE ON log FOR EACH ROW EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(watch).execute(&mut session).await.unwrap();
    assert_eq!(owner.claim().await, Err(ClaimError::NotAssignee));
    sqlx::raw_sql("UPDATE broker SET incarnation = gen_random_uuid()").execute(&mut session).await.unwrap();
    assert_eq!(owner.claim().await, Err(ClaimError::Replaced));
}
