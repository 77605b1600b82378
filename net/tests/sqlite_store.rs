//! The SQLite store: the conformance suite, and tests of SQLite's own behaviour.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU32, atomic::Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use rmom_core::{
    model::{BrokerAddr, ClaimId, Epoch, Incarnation, Offset, QueueId, QueueLabel, StoreTime},
    ports::{AppendBatch, Appended, Catalog, Claim, CreateQueue, Log, Register, Store, StoreError},
    store::conformance::{Harness, ManualClock, START},
};
use rmom_net::store::{OpenError, SqliteOptions, SqliteStore};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use uuid::Uuid;

struct SqliteHarness {
    folder: TempDir,
    clock: Arc<ManualClock>,
    made: AtomicU32,
}

impl SqliteHarness {
    fn start() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::new(START)), made: AtomicU32::new(0) }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.made.load(Ordering::SeqCst)))
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(SqliteOptions::new(self.file()), self.clock.clone()).await.unwrap()
    }
}

#[async_trait]
impl Harness for SqliteHarness {
    async fn fresh(&self) -> Arc<dyn Store> {
        self.made.fetch_add(1, Ordering::SeqCst);
        self.clock.set(START);
        Arc::new(self.open().await)
    }

    async fn set_clock(&self, now: StoreTime) {
        self.clock.set(now);
    }

    async fn reopen(&self) -> Arc<dyn Store> {
        Arc::new(self.open().await)
    }
}

rmom_core::conformance_tests!(SqliteHarness::start(), model_cases = 64);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

/// A store with one queue that a broker has claimed.
struct Claimed {
    store: SqliteStore,
    queue: QueueId,
    epoch: Epoch,
}

async fn claimed(options: SqliteOptions) -> Claimed {
    let store = SqliteStore::open(options, clock()).await.unwrap();
    let addr = BrokerAddr { host: "localhost".into(), port: 1 };
    let incarnation = Incarnation::new(Uuid::from_u128(1));
    let lease = std::time::Duration::from_secs(3);
    let register = Register { addr, incarnation, replaces: None, lease };
    let broker = store.register_broker(&register).await.unwrap().broker;
    let label = QueueLabel::parse("queue").unwrap();
    let create = CreateQueue { label, assignee: Some(broker), request: Uuid::from_u128(2) };
    let queue = store.create_queue(&create).await.unwrap().id;
    let claim = Claim { queue, broker, incarnation, claim: ClaimId::new(Uuid::from_u128(3)) };
    let epoch = store.claim(&claim).await.unwrap().epoch;
    Claimed { store, queue, epoch }
}

impl Claimed {
    /// A batch of one message in the `n`th place.
    fn batch(&self, n: u64, bytes: usize) -> AppendBatch {
        AppendBatch {
            queue: self.queue,
            epoch: self.epoch,
            first: Offset::new(n),
            last: Offset::new(n),
            previous: Offset::new(n - 1),
            not_before: START,
            lifetime_millis: None,
            format: 1,
            index: Bytes::from_static(b"index"),
            frames: vec![b'x'; bytes].into(),
            checksum: 0,
        }
    }

    async fn append(&self, n: u64, bytes: usize) -> Result<Appended, StoreError> {
        Ok(self.store.append(&[self.batch(n, bytes)]).await?.remove(0))
    }
}

async fn tamper(file: &Path, sql: &str) {
    let mut conn = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    conn.execute(AssertSqlSafe(sql)).await.unwrap();
    conn.close().await.unwrap();
}

async fn refused(options: SqliteOptions) -> (OpenError, String) {
    let error = SqliteStore::open(options, clock()).await.expect_err("it should be refused");
    let text = error.to_string();
    (error, text)
}

/// The newest migration of the folder `migrations/sqlite`.
fn known() -> i64 {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/sqlite");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.split_once('_')?.0.parse().ok()).max().unwrap()
}

/// Removes the additions of 0003, as if the database were older.
#[tokio::test]
async fn what_was_stored_before_running_totals_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmom.db");
    let (queue, epoch) = {
        let claimed = claimed(SqliteOptions::new(&file)).await;
        for n in 1..=3 {
            claimed.append(n, 100 * usize::try_from(n).unwrap()).await.unwrap();
        }
        (claimed.queue, claimed.epoch)
    };
    tamper(
        &file,
        "ALTER TABLE batch DROP COLUMN bytes_through; ALTER TABLE log_state DROP COLUMN trimmed_messages; \
         ALTER TABLE log_state DROP COLUMN trimmed_bytes; ALTER TABLE log_state DROP COLUMN next_expiry; \
         ALTER TABLE log_state DROP COLUMN next_expiry_through; DELETE FROM _sqlx_migrations WHERE version = 3; \
         DELETE FROM batch WHERE first_offset = 1; UPDATE log_state SET trimmed_through = 1",
    )
    .await;
    let store = SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap();
    let tail = store.tail(queue).await.unwrap();
    assert_eq!((tail.messages, tail.bytes, tail.none_expires_before), (2, 500, StoreTime::default()));
    let claimed = Claimed { store, queue, epoch };
    claimed.append(4, 1_000).await.unwrap();
    let tail = claimed.store.tail(queue).await.unwrap();
    assert_eq!((tail.messages, tail.bytes, tail.end), (3, 1_500, Offset::new(4)));
}

#[tokio::test]
async fn a_second_store_on_the_same_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmom.db");
    let first = SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap();
    let (error, text) = refused(SqliteOptions::new(&file)).await;
    assert_eq!(error, OpenError::InUse { file: file.clone() });
    assert!(text.contains(file.to_str().unwrap()), "{text}");
    // The first store is unharmed, and the file is free when it closes.
    first.queues().await.unwrap();
    drop(first);
    SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmom.db");
    drop(SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap());
    tamper(
        &file,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', true, x'00', 0)",
    )
    .await;
    let (error, text) = refused(SqliteOptions::new(&file)).await;
    let at = file.display().to_string();
    assert_eq!(error, OpenError::NewerSchema { at, found: 9999, known: known() });
    assert!(text.contains("run the newer program"), "{text}");
}

#[tokio::test]
async fn an_older_schema_is_refused_if_migrations_are_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmom.db");
    let off = SqliteOptions { migrate: false, ..SqliteOptions::new(&file) };
    let (error, text) = refused(off.clone()).await;
    let at = file.display().to_string();
    assert_eq!(error, OpenError::OlderSchema { at, found: 0, known: known(), folder: "sqlite" });
    assert!(text.contains("sqlx migrate run --source migrations/sqlite"), "{text}");
    drop(SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap());
    SqliteStore::open(off, clock()).await.unwrap();
}

#[tokio::test]
async fn a_changed_migration_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmom.db");
    drop(SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap());
    tamper(&file, "UPDATE _sqlx_migrations SET checksum = x'00'").await;
    let (error, _) = refused(SqliteOptions::new(&file)).await;
    assert_eq!(error, OpenError::ChangedSchema { at: file.display().to_string(), version: 1 });
}

#[tokio::test]
async fn a_file_that_cannot_be_a_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no-such-folder").join("rmom.db");
    let (error, text) = refused(SqliteOptions::new(&missing)).await;
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
    assert!(text.contains("no-such-folder"), "{text}");
    let text_file = folder.path().join("letter.txt");
    std::fs::write(&text_file, "Dear Sir or Madam, ".repeat(1000)).unwrap();
    let (error, _) = refused(SqliteOptions::new(&text_file)).await;
    assert!(matches!(error, OpenError::File { .. }), "{error:?}");
}

#[tokio::test]
async fn a_read_only_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmom.db");
    drop(SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap());
    // File permissions do not bind root, but the file's own version numbers do: bytes 18 and 19 are the versions that a
    // program has to know to write and to read it.
    tamper(&file, "PRAGMA journal_mode = DELETE").await;
    let mut content = std::fs::read(&file).unwrap();
    content[18] = 3;
    std::fs::write(&file, content).unwrap();
    let (error, text) = refused(SqliteOptions::new(&file)).await;
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error:?}");
    assert!(text.contains("cannot be written"), "{text}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { max_bytes: Some(512 << 10), ..SqliteOptions::new(folder.path().join("rmom.db")) };
    let claimed = claimed(options).await;
    let mut stored = 0;
    let error = loop {
        match claimed.append(stored + 1, 64 << 10).await {
            Ok(Appended::Stored { .. }) => stored += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        assert!(stored < 10, "half a megabyte does not hold {stored} batches");
    };
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    let tail = claimed.store.tail(claimed.queue).await.unwrap();
    assert_eq!(tail.end, Offset::new(stored));
    // Operations that take no room still work, and so does the refused write once it fits.
    assert!(matches!(claimed.append(stored + 1, 64 << 10).await, Err(StoreError::Refused(_))));
    assert!(matches!(claimed.append(stored + 1, 10).await, Ok(Appended::Stored { .. })));
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (folder.path().join("before.db"), folder.path().join("after.db"));
    let claimed = claimed(SqliteOptions::new(&before)).await;
    for n in 1..=20 {
        assert!(matches!(claimed.append(n, 1000).await, Ok(Appended::Stored { .. })));
        // The files that a crash at this moment would leave: the database and its log, without this process.
        for suffix in ["", "-wal"] {
            std::fs::copy(format!("{}{suffix}", before.display()), format!("{}{suffix}", after.display())).unwrap();
        }
        let recovered = SqliteStore::open(SqliteOptions::new(&after), clock()).await.unwrap();
        assert_eq!(recovered.tail(claimed.queue).await.unwrap().end, Offset::new(n));
        drop(recovered);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", after.display()));
        }
    }
}

#[tokio::test]
async fn a_cancelled_append_leaves_a_store_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let claimed = claimed(SqliteOptions::new(folder.path().join("rmom.db"))).await;
    let mut end = 0;
    for polls in 0..40 {
        let batch = [claimed.batch(end + 1, 100)];
        let mut append = std::pin::pin!(claimed.store.append(&batch));
        // Dropped at a different point each time.
        for _ in 0..polls {
            tokio::select! {
                biased;
                _ = &mut append => break,
                () = tokio::task::yield_now() => {}
            }
        }
    }
    // Regardless of their outcomes, the next operation finds the log in order. A claim waits for those under way.
    let claim = Claim {
        queue: claimed.queue,
        broker: claimed.store.brokers().await.unwrap()[0].id,
        incarnation: Incarnation::new(Uuid::from_u128(1)),
        claim: ClaimId::new(Uuid::from_u128(4)),
    };
    let epoch = claimed.store.claim(&claim).await.unwrap().epoch;
    assert_eq!(epoch, claimed.epoch.next());
    end = claimed.store.tail(claimed.queue).await.unwrap().end.get();
    let batch = AppendBatch { epoch, ..claimed.batch(end + 1, 100) };
    assert!(matches!(claimed.store.append(&[batch]).await.unwrap()[0], Appended::Stored { .. }));
    let headers = claimed.store.headers(claimed.queue, Offset::ZERO, 1_000).await.unwrap();
    assert_eq!(headers.len() as u64, end + 1);
}

#[tokio::test]
async fn damaged_content_is_called_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rmom.db");
    drop(claimed(SqliteOptions::new(&file)).await);
    tamper(&file, "UPDATE queue SET label = char(10)").await;
    let store = SqliteStore::open(SqliteOptions::new(&file), clock()).await.unwrap();
    let error = store.queues().await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(text) if text.contains("label")), "{error:?}");
}

/// Only one connection writes. A lease waits for the write that is running, and at most one more.
#[tokio::test]
async fn a_lease_does_not_wait_for_the_writes_that_wait() {
    let folder = tempfile::tempdir().unwrap();
    let owner = claimed(SqliteOptions::new(folder.path().join("rmom.db"))).await;
    let store = Arc::new(owner.store);
    let (broker, run) = (store.brokers().await.unwrap()[0].id, Incarnation::new(Uuid::from_u128(1)));
    let done = Arc::new(AtomicU32::new(0));
    let mut writes = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        writes.spawn(async move {
            let label = QueueLabel::parse(&format!("queue-{n}")).unwrap();
            let create = CreateQueue { label, assignee: None, request: Uuid::from_u128(100 + n) };
            store.create_queue(&create).await.unwrap();
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    let waiting = || store.lanes().iter().find(|lane| lane.name() == "writes").unwrap().waiting();
    while waiting() < 150 {
        tokio::task::yield_now().await;
    }
    let before = done.load(Ordering::SeqCst);
    store.renew_broker(broker, run, std::time::Duration::from_secs(3)).await.unwrap();
    let passed = done.load(Ordering::SeqCst) - before;
    assert!(passed <= 3, "{passed} writes went before the lease");
    while let Some(written) = writes.join_next().await {
        written.unwrap();
    }
}
