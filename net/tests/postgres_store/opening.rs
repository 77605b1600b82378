//! Databases that are refused, and what the texts say.

use std::sync::Arc;

use rmom_net::{
    store::{OpenError, PostgresOptions, PostgresStore},
    testing::PgServer,
};
use tokio::net::TcpListener;

use rmom_core::ports::Log as _;

use super::support::{Bench, Owner};

async fn refused(options: PostgresOptions) -> (OpenError, String) {
    let error = PostgresStore::connect(options).await.expect_err("it should be refused");
    let text = error.to_string();
    (error, text)
}

#[tokio::test]
async fn nobody_listens() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (error, text) = refused(PostgresOptions::new(format!("postgres://rmom:secret@{free}/rmom"))).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    assert!(text.contains(&free.to_string()) && text.contains("is the server running"), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn somebody_listens_and_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://rmom:secret@{}/rmom", silent.local_addr().unwrap());
    let connect_timeout = std::time::Duration::from_millis(200);
    let (error, text) = refused(PostgresOptions { connect_timeout, ..PostgresOptions::new(url) }).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    assert!(text.contains("no answer within 200ms"), "{text}");
}

#[tokio::test]
async fn a_bad_url() {
    let (error, text) = refused(PostgresOptions::new("localhost/rmom")).await;
    assert!(matches!(error, OpenError::BadUrl { .. }), "{error:?}");
    assert!(text.contains("postgres://USER:PASSWORD@HOST:5432/DATABASE"), "{text}");
}

#[tokio::test]
async fn a_wrong_password() {
    let server = PgServer::start();
    let url = format!("postgres://rmom:secret@{}/postgres", server.authority());
    let (error, text) = refused(PostgresOptions::new(url)).await;
    assert!(matches!(error, OpenError::WrongPassword { .. }), "{error:?}");
    assert!(text.contains("\"rmom\"") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_database_that_is_not_there() {
    let server = PgServer::shared();
    let (error, text) = refused(PostgresOptions::new(server.url("no_such_database"))).await;
    assert!(matches!(error, OpenError::NoSuchDatabase { .. }), "{error:?}");
    assert!(text.contains("createdb no_such_database"), "{text}");
}

/// The newest migration of the folder `migrations/postgres`.
fn known() -> i64 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/postgres");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.split_once('_')?.0.parse().ok()).max().unwrap()
}

/// What 0003 adds is taken away again, as if the database were from before.
#[tokio::test]
async fn what_was_stored_before_running_totals_is_counted() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    for _ in 0..3 {
        owner.stored().await;
    }
    for sql in [
        "ALTER TABLE batch DROP COLUMN bytes_through",
        "ALTER TABLE log_state DROP COLUMN trimmed_messages, DROP COLUMN trimmed_bytes, DROP COLUMN next_expiry, \
         DROP COLUMN next_expiry_through",
        "DELETE FROM _sqlx_migrations WHERE version = 3",
        "DELETE FROM batch WHERE first_offset = 1",
        "UPDATE log_state SET trimmed_through = 1",
    ] {
        bench.database.execute(sql).await;
    }
    owner.store = Arc::new(PostgresStore::connect(bench.direct()).await.unwrap());
    let told = async |owner: &Owner| {
        let tail = owner.store.tail(owner.queue).await.unwrap();
        (tail.messages, tail.bytes, tail.none_expires_before.millis())
    };
    assert_eq!(told(&owner).await, (2, 200, 0));
    owner.stored().await;
    assert_eq!(told(&owner).await, (3, 300, 0));
    // A queue that is made now begins with nothing that expires.
    bench.database.execute("INSERT INTO log_state (queue_id) VALUES (1000)").await;
    let mut conn = bench.database.connect().await;
    let sql = "SELECT next_expiry FROM log_state WHERE queue_id = 1000";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut conn).await.unwrap(), i64::MAX);
}

#[tokio::test]
async fn a_newer_schema() {
    let bench = Bench::start().await;
    drop(PostgresStore::connect(bench.direct()).await.unwrap());
    bench
        .database
        .execute(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9999, 'later', true, '\\x00', 0)",
        )
        .await;
    let (error, text) = refused(bench.direct()).await;
    assert!(matches!(error, OpenError::NewerSchema { found: 9999, .. }), "{error:?}");
    assert!(text.contains("run the newer program") && text.contains(&format!("{}", known())), "{text}");
}

#[tokio::test]
async fn an_older_schema_with_migrations_off() {
    let bench = Bench::start().await;
    let off = PostgresOptions { migrate: false, ..bench.direct() };
    let (error, text) = refused(off.clone()).await;
    assert!(matches!(error, OpenError::OlderSchema { found: 0, .. }), "{error:?}");
    assert!(text.contains("sqlx migrate run --source migrations/postgres"), "{text}");
    drop(PostgresStore::connect(bench.direct()).await.unwrap());
    PostgresStore::connect(off).await.unwrap();
}

#[tokio::test]
async fn several_that_migrate_at_once() {
    let bench = Bench::start().await;
    let opening: Vec<_> = (0..4).map(|_| tokio::spawn(PostgresStore::connect(bench.direct()))).collect();
    for opened in opening {
        opened.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_written() {
    let bench = Bench::start().await;
    let name = bench.database.name();
    bench.database.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let (error, text) = refused(bench.direct()).await;
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    assert!(text.contains("read-only"), "{text}");
}

#[tokio::test]
async fn commits_that_a_crash_undoes() {
    let bench = Bench::start().await;
    let name = bench.database.name();
    bench.database.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    let (error, text) = refused(bench.direct()).await;
    assert!(matches!(&error, OpenError::UnsafeDurability { setting, .. } if setting == "synchronous_commit=off"));
    assert!(text.contains("allow_unsafe_durability"), "{text}");
    PostgresStore::connect(PostgresOptions { allow_unsafe_durability: true, ..bench.direct() }).await.unwrap();

    let server = Arc::new(PgServer::start_with(&[("fsync", "off")]));
    let (error, _) = refused(PostgresOptions::new(server.url("postgres"))).await;
    assert!(matches!(&error, OpenError::UnsafeDurability { setting, .. } if setting == "fsync=off"), "{error:?}");
}

#[tokio::test]
async fn an_encoding_that_does_not_hold_every_label() {
    let server = PgServer::start();
    server.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'").await;
    let (error, text) = refused(PostgresOptions::new(server.url("latin"))).await;
    assert!(matches!(error, OpenError::Unsuitable { .. }), "{error:?}");
    assert!(text.contains("LATIN1") && text.contains("--encoding=UTF8"), "{text}");
}

/// A backup reads the tables for an hour; meanwhile a newer program starts. It gives up soon, so that what queues behind it goes
/// on, and can be started again.
#[tokio::test]
async fn a_migration_does_not_hold_up_appends_behind_a_backup() {
    let bench = Bench::start().await;
    let mut owner = bench.owner(bench.direct()).await;
    owner.stored().await;
    // The tables as an earlier version has them.
    bench
        .database
        .execute(
            "ALTER TABLE leader DROP COLUMN lease; ALTER TABLE broker DROP COLUMN lease; \
             DELETE FROM _sqlx_migrations WHERE version = 4",
        )
        .await;
    let mut backup = bench.database.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE leader, broker, batch IN ACCESS SHARE MODE").execute(&mut backup).await.unwrap();
    let upgrade = tokio::spawn(PostgresStore::connect(bench.direct()));
    bench.until_somebody_waits().await;
    // What others write waits behind the change, for less than they can.
    let mut other = bench.database.connect().await;
    sqlx::raw_sql("SET lock_timeout = '1s'; UPDATE leader SET term = term").execute(&mut other).await.unwrap();
    let error = upgrade.await.unwrap().expect_err("the backup is under way");
    assert!(matches!(error, OpenError::MigrationBusy { .. }) && error.may_pass(), "{error:?}");
    assert!(error.to_string().contains("pg_dump"), "{error}");
    sqlx::raw_sql("COMMIT").execute(&mut backup).await.unwrap();
    PostgresStore::connect(bench.direct()).await.unwrap();
    owner.stored().await;
}
