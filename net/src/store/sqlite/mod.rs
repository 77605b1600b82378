//! The store as one SQLite file: for `rmom dev` and small installations.
//!
//! One connection writes, some others read: in WAL mode they do not wait for each other. A lock file beside the database
//! keeps other processes out; the brokers and managers that share the store are tasks of one process.

mod backend;
mod catalog;
mod channels;
mod idle;
mod log;
mod queues;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use rmom_core::{
    model::StoreTime,
    ports::{Clock, StoreError},
};
use sqlx::{
    ConnectOptions, Connection, Row, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use self::backend::SqliteBackend;
use super::{
    OpenError,
    migrate::Schema,
    pool::{End, Lanes, Pool, PoolLimits, Session},
};
use crate::metrics::Lane;

type Statement = Query<'static, Sqlite, SqliteArguments>;
type Tx<'a> = Session<'a, SqliteBackend>;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new("sqlite", rmom_migrations::SQLITE));

/// Connections that read.
const READERS: usize = 4;

/// How to open a [`SqliteStore`]. [`SqliteOptions::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The database file; made if it is not there. Its folder has to be there. Beside it lie `-wal`, `-shm` and `.lock`.
    pub file: PathBuf,
    /// Bring an older schema up to date; otherwise refuse it. Default: true.
    pub migrate: bool,
    /// Deadline of one call. Default: 5 s.
    pub call_timeout: Duration,
    /// The database file grows to this size at most; then writes are refused, as on a full disk. Default: no limit.
    pub max_bytes: Option<u64>,
}

impl SqliteOptions {
    /// The defaults, for this file.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), migrate: true, call_timeout: Duration::from_secs(5), max_bytes: None }
    }
}

/// Catalog and logs in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    /// One connection. Leases wait for one write that runs, and one more, however many there are.
    writer: Pool<SqliteBackend>,
    lanes: Vec<Arc<Lane>>,
    readers: Pool<SqliteBackend>,
    clock: Arc<dyn Clock>,
    /// Keeps other processes out for as long as it is open. The last field, so that it is dropped last.
    _lock: File,
}

impl SqliteStore {
    /// Opens the file, or makes it. `clock` is the store's clock.
    ///
    /// # Errors
    /// [`OpenError`], of which `File`, `InUse`, `ReadOnly`, `NewerSchema`, `OlderSchema`, `ChangedSchema`,
    /// `MigrationFailed` and `Failed` can happen here.
    pub async fn open(options: SqliteOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let lock = lock(&options.file)?;
        let limits = PoolLimits {
            min_connections: READERS,
            max_connections: READERS,
            connect_timeout: options.call_timeout,
            idle_timeout: Duration::MAX,
            call_timeout: options.call_timeout,
        };
        let writing = SqliteBackend::new(&options, false);
        let at = options.file.display().to_string();
        let mut conn = writing.connect_options().connect().await.map_err(|e| open_error(&options.file, &e))?;
        prepare(&mut conn, &at, options.migrate).await.map_err(|error| match error {
            Prepare::Sql(error) => open_error(&options.file, &error),
            Prepare::Schema(error) => error,
        })?;
        conn.close().await.map_err(|e| open_error(&options.file, &e))?;
        let (reads, writes, leases) = (Lane::new("reads"), Lane::new("writes"), Lane::new("leases"));
        let one = PoolLimits { min_connections: 1, max_connections: 1, ..limits };
        let writing_lanes = Lanes { first: Arc::clone(&leases), second: Arc::clone(&writes) };
        let reading_lanes = Lanes { first: Arc::clone(&reads), second: Arc::clone(&reads) };
        Ok(Self {
            writer: Pool::new(Arc::new(writing), one, writing_lanes),
            readers: Pool::new(Arc::new(SqliteBackend::new(&options, true)), limits, reading_lanes),
            lanes: vec![reads, writes, leases],
            clock,
            _lock: lock,
        })
    }

    /// How long calls wait for a connection: those of leases, other writes, and reads.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    /// One statement that reads.
    async fn select(&self, statement: Statement) -> Result<Vec<SqliteRow>, StoreError> {
        let mut session = self.readers.read().await?;
        let rows = session.rows(statement).await?;
        session.done();
        Ok(rows)
    }

    /// A transaction that writes. There is one at a time, and none of them goes back before the clock's reading at its
    /// beginning. It is rolled back if `work` fails.
    async fn transact<T, E: From<StoreError>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx<'_>, StoreTime) -> Result<End<T>, E>,
    ) -> Result<T, E> {
        self.transact_over(self.writer.write().await?, work).await
    }

    /// As [`SqliteStore::transact`], for a lease.
    async fn transact_lease<T, E: From<StoreError>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx<'_>, StoreTime) -> Result<End<T>, E>,
    ) -> Result<T, E> {
        self.transact_over(self.writer.write_first().await?, work).await
    }

    async fn transact_over<T, E: From<StoreError>>(
        &self,
        mut tx: Tx<'_>,
        work: impl AsyncFnOnce(&mut Tx<'_>, StoreTime) -> Result<End<T>, E>,
    ) -> Result<T, E> {
        tx.begin().await?;
        let done = work(&mut tx, self.clock.now()).await;
        tx.end(done).await
    }
}

enum Prepare {
    Sql(sqlx::Error),
    Schema(OpenError),
}

impl From<sqlx::Error> for Prepare {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

async fn prepare(conn: &mut SqliteConnection, at: &str, migrate: bool) -> Result<(), Prepare> {
    let tables =
        sqlx::query("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'").fetch_one(&mut *conn).await?;
    let exists = tables.try_get::<i64, _>(0)? > 0;
    // A database that cannot be written says so here, and not at the first push.
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await?;
    sqlx::query("ROLLBACK").execute(&mut *conn).await?;
    SCHEMA.bring_up(conn, at, exists, migrate, |_| Box::pin(std::future::ready(Ok(())))).await.map_err(Prepare::Schema)
}

/// Takes the lock file beside the database.
fn lock(file: &Path) -> Result<File, OpenError> {
    let mut path = file.as_os_str().to_owned();
    path.push(".lock");
    let file_error = |error: io::Error| OpenError::File { file: file.to_owned(), reason: error.to_string() };
    let lock = File::options().create(true).write(true).truncate(false).open(path).map_err(file_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { file: file.to_owned() }),
        Err(TryLockError::Error(error)) => Err(file_error(error)),
    }
}

fn open_error(file: &Path, error: &sqlx::Error) -> OpenError {
    let at = file.display().to_string();
    let reason = error.to_string();
    match backend::primary_code(error) {
        Some(backend::READONLY) => OpenError::ReadOnly { at, reason },
        Some(backend::BUSY) => OpenError::InUse { file: file.to_owned() },
        Some(backend::CANTOPEN | backend::NOTADB | backend::PERM) => OpenError::File { file: file.to_owned(), reason },
        _ => OpenError::Failed { at, reason },
    }
}
