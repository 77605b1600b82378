//! Ways to the database that lead to a server which is not the primary: one that lags behind, and cannot be written.

use std::{sync::Arc, time::Duration};

use rmom_core::{
    model::Offset,
    ports::{Appended, Catalog, Log, StoreError},
};
use rmom_net::{
    store::{OpenError, PostgresOptions, PostgresStore},
    testing::PgServer,
};
use tokio::time::{Instant, sleep};

use super::support::{Bench, Owner};

const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for everything that a standby could answer, and for a write: each has to fail, for now, and say why.
async fn nothing_is_answered(owner: &mut Owner, why: &str) {
    let (store, queue) = (&owner.store, owner.queue);
    let answers = [
        store.now().await.map(drop),
        store.queues().await.map(drop),
        store.queue_by_id(queue).await.map(drop),
        store.channels(None).await.map(drop),
        store.brokers().await.map(drop),
        store.tail(queue).await.map(drop),
        store.read(queue, Offset::ZERO, 1 << 20).await.map(drop),
        store.headers(queue, Offset::ZERO, 10).await.map(drop),
        owner.append().await.map(drop),
    ];
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(StoreError::Unavailable(text)) => assert!(text.contains(why), "{index}: {text}"),
            other => panic!("{index}: {other:?}"),
        }
    }
}

/// The name leads to the standby while the primary is away; then the standby is promoted.
#[tokio::test]
async fn a_standby_answers_nothing_until_it_is_promoted() {
    let primary = Arc::new(PgServer::start());
    let bench = Bench::on(Arc::clone(&primary)).await;
    let mut owner = bench.owner(bench.proxied()).await;
    owner.stored().await;
    let standby = primary.start_standby(&[]);
    owner.stored().await;
    bench.proxy.lead_to(standby.authority());
    bench.proxy.cut();
    let _ = owner.store.now().await;
    nothing_is_answered(&mut owner, "standby").await;

    let url = standby.url(bench.database.name());
    let deadline = Instant::now() + PATIENCE;
    let connect_standby = || async { <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap() };
    let mut conn = connect_standby().await;
    while sqlx::query_scalar::<_, i64>("SELECT count(*) FROM batch").fetch_one(&mut conn).await.unwrap() < 2 {
        assert!(Instant::now() < deadline, "the standby does not follow");
        sleep(Duration::from_millis(10)).await;
    }
    primary.kill9();
    standby.execute("SELECT pg_promote()").await;
    // Nobody has to open the store again.
    owner.take_over().await;
    assert_eq!(owner.tail.end, Offset::new(2));
    owner.stored().await;
    assert_eq!(owner.check_log().await, Offset::new(3));
}

#[tokio::test]
async fn a_standby_is_not_opened() {
    let primary = Arc::new(PgServer::start());
    let bench = Bench::on(Arc::clone(&primary)).await;
    drop(PostgresStore::connect(bench.direct()).await.unwrap());
    let standby = primary.start_standby(&[]);
    let error = PostgresStore::connect(PostgresOptions::new(standby.url("postgres"))).await.unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    assert!(error.to_string().contains("standby"), "{error}");
}

/// Sessions that begin from now on cannot write; those from before have ended.
#[tokio::test]
async fn a_read_only_database_answers_nothing() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    owner.stored().await;
    let name = bench.database.name();
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rmom' \
                        AND datname = current_database()";
    let read_only = |value: &str| format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
    bench.database.execute(&format!("{}; {end_sessions}", read_only("on"))).await;
    let _ = owner.store.now().await;
    nothing_is_answered(&mut owner, "read-only").await;
    // From another database, where the setting does not hold.
    bench.database.server().execute(&read_only("off")).await;
    owner.stored().await;
}

/// The sessions stay, and cannot write any more: that is definite, none of them is used again, and it passes.
#[tokio::test]
async fn a_server_that_becomes_read_only_stores_nothing_and_is_left() {
    let server = Arc::new(PgServer::start());
    let bench = Bench::on(Arc::clone(&server)).await;
    let patient = Duration::from_secs(20);
    let options =
        PostgresOptions { call_timeout: patient, lock_timeout: patient, statement_timeout: patient, ..bench.direct() };
    let mut owner = bench.owner(options).await;
    owner.stored().await;
    // Of three connections one is in use all the while.
    assert!(tokio::join!(owner.store.now(), owner.store.now(), owner.store.now()).0.is_ok());
    let mut locker = bench.database.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE channel IN ACCESS EXCLUSIVE MODE").execute(&mut locker).await.unwrap();
    let in_use = tokio::spawn({
        let store = Arc::clone(&owner.store);
        async move { store.channels(None).await }
    });
    bench.until_somebody_waits().await;
    // Another one stands by for certain: a session that began later would be refused for what it says of itself.
    owner.stored().await;
    let set = |value: &str| format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
    server.execute(&set("on")).await;
    server.execute("SELECT pg_reload_conf()").await;
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        // The sessions read the configuration when they come to it.
        match owner.append().await {
            Ok(Appended::Stored { .. }) => assert!(Instant::now() < deadline),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    let end = owner.tail.end;
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("25006")), "{error:?}");
    sqlx::raw_sql("COMMIT").execute(&mut locker).await.unwrap();
    assert_eq!(in_use.await.unwrap(), Ok(Vec::new()));
    nothing_is_answered(&mut owner, "read-only").await;
    server.execute(&set("off")).await;
    server.execute("SELECT pg_reload_conf()").await;
    let deadline = Instant::now() + PATIENCE;
    while owner.append().await.is_err() {
        assert!(Instant::now() < deadline, "it does not recover");
    }
    assert_eq!(owner.check_log().await, end.next());
}
