//! Networks that lose answers, servers that die, statements that stall.

use std::{sync::Arc, time::Duration};

use rmom_core::{
    model::{Offset, QueueLabel},
    ports::{Appended, Catalog, ClaimError, CreateQueue, CreateQueueError, Log, LogError, StoreError, Trim},
};
use rmom_net::{
    store::PostgresOptions,
    testing::{Fault, PgServer},
};
use tokio::time::{Instant, timeout};

use super::support::{Bench, LEASE, Owner};

/// The next append meets `fault`; its outcome is not known. Then the owner takes over from itself.
async fn append_meets(bench: &Bench, owner: &mut Owner, fault: Fault) {
    owner.stored().await; // the statement is prepared, so that an append is one request
    bench.proxy.when(b"", fault);
    let connections = bench.proxy.accepted();
    let error = owner.append().await.unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    assert!(!bench.proxy.is_waiting());
    bench.proxy.heal();
    owner.take_over().await;
    assert!(bench.proxy.accepted() > connections, "the connection in doubt was used again");
}

#[tokio::test]
async fn a_commit_cut_before() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.proxied()).await;
    append_meets(&bench, &mut owner, Fault::LoseRequest).await;
    assert_eq!(owner.tail.end, Offset::new(1));
    owner.stored().await;
    assert_eq!(owner.check_log().await, Offset::new(2));
}

#[tokio::test]
async fn a_commit_cut_after() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.proxied()).await;
    append_meets(&bench, &mut owner, Fault::LoseAnswer).await;
    assert_eq!(owner.tail.end, Offset::new(2), "it was stored, and is found");
    owner.stored().await;
    assert_eq!(owner.check_log().await, Offset::new(3));
}

#[tokio::test]
async fn a_commit_that_arrives_after_the_next_claim() {
    let bench = Bench::start().await;
    let options = PostgresOptions { call_timeout: Duration::from_millis(300), ..bench.proxied() };
    let mut owner = bench.owner(options).await;
    owner.stored().await;
    // A successor that has a way of its own to the server.
    let mut successor = bench.owner(bench.direct()).await;
    owner.take_over().await;
    owner.stored().await;
    bench.proxy.stall();
    let error = owner.append().await.unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    successor.epoch = owner.epoch;
    successor.take_over().await;
    let end = successor.tail.end;
    assert_eq!(end, Offset::new(2));
    bench.proxy.heal();
    // What was under way arrives now, and is fenced. When it did, nobody can say: the server's sessions tell.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        successor.stored().await;
        assert!(Instant::now() < deadline, "the late append does not arrive");
        // What is left are the successor's two, and the one for the owner's lease, which is at rest.
        if bench.backends().await <= 3 {
            break;
        }
    }
    assert_eq!(successor.check_log().await, successor.tail.end);
    let headers = successor.store.headers(successor.queue, end, u32::MAX).await.unwrap();
    assert!(headers.iter().all(|header| header.epoch == successor.epoch));
}

#[tokio::test]
async fn a_server_killed_during_commits() {
    let server = Arc::new(PgServer::start());
    let bench = Bench::on(server).await;
    let mut owner = bench.owner(bench.direct()).await;
    for _ in 0..3 {
        let appending = async {
            loop {
                match owner.append().await {
                    Ok(answer) => assert!(matches!(answer, Appended::Stored { .. }), "{answer:?}"),
                    Err(error) => break (error, owner),
                }
            }
        };
        let appending = tokio::spawn(appending);
        // Once some of them are under way.
        let mut conn = bench.database.connect().await;
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM batch").fetch_one(&mut conn).await.unwrap();
        while sqlx::query_scalar::<_, i64>("SELECT count(*) FROM batch").fetch_one(&mut conn).await.unwrap() < seen + 20
        {
        }
        drop(conn);
        bench.database.server().kill9();
        let error;
        (error, owner) = timeout(Duration::from_secs(30), appending).await.unwrap().unwrap();
        assert!(error.is_unknown(), "{error:?}");
        let acknowledged = owner.tail.end;
        let error = owner.store.now().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        bench.database.server().restart();
        // Nobody has to open the store again.
        owner.take_over().await;
        let lost = acknowledged.since(owner.tail.end);
        assert_eq!(lost, 0, "acknowledged through {acknowledged}, stored through {}", owner.tail.end);
        assert!(owner.tail.end <= acknowledged.next());
        assert_eq!(owner.check_log().await, owner.tail.end);
    }
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_is_made_again() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.proxied()).await;
    bench.proxy.when(b"COMMIT\0", Fault::LoseAnswer);
    let Err(ClaimError::Store(error)) = owner.claim().await else { panic!("the answer was not lost") };
    assert!(error.is_unknown(), "{error:?}");
    assert_eq!(owner.claim().await.unwrap().epoch, owner.epoch.next());
    assert_eq!(owner.claim().await.unwrap().epoch, owner.epoch.next());
}

#[tokio::test]
async fn what_is_cut_before_its_commit_is_not_in_doubt() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.proxied()).await;
    for fault in [Fault::LoseRequest, Fault::LoseAnswer] {
        bench.proxy.when(b"BEGIN", fault);
        let Err(ClaimError::Store(error)) = owner.claim().await else { panic!("the claim was not cut") };
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
    assert_eq!(owner.claim().await.unwrap().epoch, owner.epoch.next());
}

#[tokio::test]
async fn a_queue_whose_creation_is_in_doubt_is_created_once() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.proxied()).await;
    let create = CreateQueue {
        label: QueueLabel::parse("second").unwrap(),
        assignee: Some(owner.broker),
        request: uuid::Uuid::from_u128(77),
    };
    bench.proxy.when(b"COMMIT\0", Fault::LoseAnswer);
    let error = owner.store.create_queue(&create).await.unwrap_err();
    assert!(matches!(error, CreateQueueError::Store(StoreError::Unknown(_))), "{error:?}");
    let found = owner.store.create_queue(&create).await.unwrap();
    assert_eq!(owner.store.queue(&create.label).await.unwrap(), Some(found));
    assert_eq!(owner.store.queues().await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_append_that_stalls_in_the_server_cannot_block_a_claim() {
    let bench = Bench::start().await;
    let short = PostgresOptions {
        call_timeout: Duration::from_millis(600),
        lock_timeout: Duration::from_millis(200),
        statement_timeout: Duration::from_millis(1500),
        ..bench.direct()
    };
    let mut owner = bench.owner(short.clone()).await;
    owner.stored().await;
    bench
        .database
        .execute(
            "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'; \
             CREATE TRIGGER stall BEFORE INSERT ON batch FOR EACH ROW EXECUTE FUNCTION stall()",
        )
        .await;
    let begun = Instant::now();
    let error = owner.append().await.unwrap_err();
    assert!(error.is_unknown(), "{error:?}");
    // The statement still holds the fencing row: the claimant is told soon, and definitely.
    let waited = Instant::now();
    let Err(ClaimError::Store(error)) = owner.claim().await else { panic!("the claim did not wait") };
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("55P03")), "{error:?}");
    assert!(waited.elapsed() < Duration::from_millis(600));
    // It goes on as soon as the server has given the statement up.
    let claimed = loop {
        match owner.claim().await {
            Ok(claimed) => break claimed,
            Err(ClaimError::Store(StoreError::Unavailable(_))) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < LEASE, "the appender blocks the claim for longer than a lease");
    };
    assert_eq!(claimed.epoch, owner.epoch.next());
    assert_eq!(owner.store.tail(owner.queue).await.unwrap().end, Offset::new(1));
}

#[tokio::test]
async fn a_transaction_whose_client_falls_silent_cannot_block_a_claim() {
    let bench = Bench::start().await;
    let short = |options| PostgresOptions {
        call_timeout: Duration::from_millis(400),
        lock_timeout: Duration::from_millis(200),
        idle_in_transaction_timeout: Duration::from_millis(1000),
        ..options
    };
    let owner = bench.owner(short(bench.proxied())).await;
    let successor = bench.owner(short(bench.direct())).await;
    // The second claim was the last one: this trim is under its epoch, by way of the proxy. It has locked the fencing
    // row when everything stalls.
    bench.proxy.when(b"UPDATE log_state", Fault::Stall);
    let trim = Trim {
        queue: owner.queue,
        epoch: successor.epoch,
        producers: Some("snapshot".into()),
        through: Offset::ZERO,
        none_expires_before: rmom_core::model::StoreTime::default(),
        limit: 10,
    };
    let begun = Instant::now();
    let Err(LogError::Store(error)) = owner.store.trim(&trim).await else { panic!("the trim did not stall") };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    let Err(ClaimError::Store(error)) = successor.claim().await else { panic!("the claim did not wait") };
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("55P03")), "{error:?}");
    while let Err(error) = successor.claim().await {
        assert!(matches!(error, ClaimError::Store(StoreError::Unavailable(_))), "{error:?}");
        assert!(begun.elapsed() < LEASE, "the silent transaction blocks the claim for longer than a lease");
    }
    bench.proxy.heal();
    assert_eq!(successor.store.tail(owner.queue).await.unwrap().producers, None, "what stalled was undone");
}

#[tokio::test]
async fn a_cancelled_append_takes_its_connection_with_it() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.proxied()).await;
    owner.stored().await;
    let connections = bench.proxy.accepted();
    bench.proxy.stall();
    assert!(timeout(Duration::from_millis(50), owner.append()).await.is_err());
    bench.proxy.heal();
    owner.take_over().await;
    assert!(bench.proxy.accepted() > connections, "the connection in doubt was used again");
    owner.stored().await;
    assert_eq!(owner.check_log().await, owner.tail.end);
}

#[tokio::test]
async fn a_terminated_backend_leaves_an_unknown_outcome() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    owner.stored().await;
    // The append waits for a row, until its backend is terminated.
    let mut blocker = bench.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM log FOR UPDATE").execute(&mut blocker).await.unwrap();
    let terminate = async {
        bench.until_somebody_waits().await;
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database()";
        bench.database.execute(sql).await;
    };
    let (answer, ()) = tokio::join!(owner.append(), terminate);
    assert!(matches!(&answer, Err(StoreError::Unknown(text)) if text.contains("57P01")), "{answer:?}");
    drop(blocker);
    owner.take_over().await;
    assert_eq!(owner.tail.end, Offset::new(1));
    owner.stored().await;
}

#[tokio::test]
async fn a_lock_that_is_not_given_is_a_definite_failure() {
    let bench = Bench::start().await;
    let options = PostgresOptions { lock_timeout: Duration::from_millis(100), ..bench.direct() };
    let mut owner = bench.owner(options).await;
    owner.stored().await;
    let mut blocker = bench.database.connect().await;
    sqlx::raw_sql("BEGIN; SELECT * FROM log FOR UPDATE").execute(&mut blocker).await.unwrap();
    let error = owner.append().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("55P03")), "{error:?}");
    sqlx::raw_sql("ROLLBACK").execute(&mut blocker).await.unwrap();
    // Not done, so it may simply be done again.
    owner.stored().await;
}

#[tokio::test]
async fn a_silent_network_is_unavailable_to_reads_and_unknown_to_writes() {
    let bench = Bench::start().await;
    let options = PostgresOptions { call_timeout: Duration::from_millis(200), ..bench.proxied() };
    let mut owner = bench.owner(options).await;
    owner.stored().await;
    bench.proxy.stall();
    let read = owner.store.tail(owner.queue).await.unwrap_err();
    assert!(matches!(read, StoreError::Unavailable(_)), "{read:?}");
    bench.proxy.heal();
    owner.take_over().await;
    owner.stored().await;
    bench.proxy.stall();
    let write = owner.append().await.unwrap_err();
    assert!(write.is_unknown(), "{write:?}");
    // Now there is no connection left, so nothing is sent any more: a definite failure.
    let next = owner.append().await.unwrap_err();
    assert!(matches!(next, StoreError::Unavailable(_)), "{next:?}");
}

#[tokio::test]
async fn a_busy_pool_is_unavailable() {
    let bench = Bench::start().await;
    let options = PostgresOptions { max_connections: 1, call_timeout: Duration::from_millis(300), ..bench.proxied() };
    let mut owner = bench.owner(options).await;
    owner.stored().await;
    bench.proxy.stall();
    // One waits for an answer, the other for the connection.
    for error in <[_; 2]>::from(tokio::join!(owner.store.now(), owner.store.now())) {
        assert!(matches!(error, Err(StoreError::Unavailable(_))), "{error:?}");
    }
    bench.proxy.heal();
    owner.stored().await;
}

#[tokio::test]
async fn what_the_server_forbids_is_refused() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    owner.stored().await;
    bench.database.execute("ALTER TABLE batch RENAME TO batch_moved").await;
    let error = owner.append().await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused(text) if text.contains("42P01")), "{error:?}");
    bench.database.execute("ALTER TABLE batch_moved RENAME TO batch").await;
    owner.stored().await;
}

/// The server says "disk full" as it would if the file system had no room: nothing is stored, and once there is room the
/// same append goes through, in the same place.
#[tokio::test]
async fn a_full_disk_refuses_writes_and_changes_nothing() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    owner.stored().await;
    bench
        .database
        .execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$; \
             CREATE TRIGGER no_room BEFORE INSERT ON batch FOR EACH ROW EXECUTE FUNCTION no_room()",
        )
        .await;
    let error = owner.append().await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused(text) if text.contains("53100")), "{error:?}");
    bench.database.execute("DROP TRIGGER no_room ON batch").await;
    owner.stored().await;
}

#[tokio::test]
async fn damaged_content_is_called_corrupt() {
    let bench = Bench::start().await;
    let owner = bench.owner(bench.direct()).await;
    bench.database.execute("UPDATE queue SET label = chr(10)").await;
    let error = owner.store.queues().await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("label")), "{error:?}");
}

#[tokio::test]
async fn sessions_are_pinned_whatever_the_database_says() {
    let bench = Bench::start().await;
    let name = bench.database.name();
    bench.database.execute(&format!("ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")).await;
    let mut owner = bench.owner(bench.direct()).await;
    owner.stored().await;
    // An append that waited for a claim sees the claim's epoch, which it would not under a snapshot of its own.
    let mut claimant = bench.database.connect().await;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED; UPDATE log SET epoch = epoch + 1")
        .execute(&mut claimant)
        .await
        .unwrap();
    let commit = async {
        bench.until_somebody_waits().await;
        sqlx::raw_sql("COMMIT").execute(&mut claimant).await.unwrap();
    };
    let (answer, ()) = tokio::join!(owner.append(), commit);
    assert_eq!(answer, Ok(Appended::Fenced { epoch: owner.epoch.next() }));
}

/// A newer server migrates while this one runs.
#[tokio::test]
async fn a_new_column_disturbs_no_prepared_statement() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(PostgresOptions { max_connections: 1, ..bench.direct() }).await;
    owner.stored().await;
    // A statement is prepared at its first use.
    for n in 0..2 {
        assert_eq!(owner.store.read(owner.queue, Offset::ZERO, 1 << 20).await.unwrap().batches.len(), 1, "{n}");
        assert_eq!(owner.check_log().await, owner.tail.end);
        bench.database.execute(&format!("ALTER TABLE batch ADD COLUMN later_{n} bigint NOT NULL DEFAULT 0")).await;
    }
    assert_eq!(owner.store.read(owner.queue, Offset::ZERO, 1 << 20).await.unwrap().batches.len(), 1);
    owner.stored().await;
}

#[tokio::test]
async fn a_statement_that_answers_differently_is_prepared_again() {
    let bench = Bench::start().await;
    let owner = bench.owner(PostgresOptions { max_connections: 1, ..bench.direct() }).await;
    let found = async || owner.store.queue(&QueueLabel::parse("queue").unwrap()).await;
    assert!(found().await.unwrap().is_some());
    bench.database.execute("ALTER TABLE queue ALTER COLUMN label TYPE varchar COLLATE \"C\"").await;
    let error = found().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("0A000")), "{error:?}");
    assert!(found().await.unwrap().is_some());
}
