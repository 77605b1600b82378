//! The store on PostgreSQL, for production: any number of brokers and managers, on any machines.
//!
//! Connect to the server itself, not through a pooler in transaction mode: sessions are configured.

mod backend;
mod catalog;
mod channels;
mod idle;
mod log;
mod queues;
mod url;

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rmom_core::ports::StoreError;
use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, Postgres, Row,
    postgres::{PgArguments, PgConnectOptions, PgRow},
    query::Query,
};
use tokio::time::timeout;

use self::backend::{PostgresBackend, Server, SessionTimeouts};
use super::{
    OpenError,
    migrate::Schema,
    pool::{End, Lanes, Pool, PoolLimits, Session},
};
use crate::metrics::Lane;

type Statement = Query<'static, Postgres, PgArguments>;
type Tx<'a> = Session<'a, PostgresBackend>;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::new("postgres", rmom_migrations::POSTGRES));

/// The oldest server that knows everything used here.
const OLDEST_SERVER: i64 = 130_000;
/// How long a migration may take, waiting for another process that migrates included.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);
/// Connections that only leases use, beyond `max_connections`: one for whoever renews, one in case that it hangs.
const LEASE_CONNECTIONS: usize = 2;
/// A change of a table waits for everybody who uses it, such as a backup, and all that comes later waits behind the change,
/// appends included. So it waits for less than they can, and is tried again later.
fn hurry(conn: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move { conn.execute("SET lock_timeout = '500ms'").await.map(drop) })
}

/// How often connecting is tried again while the server starts or stops, within `connect_timeout`.
const RETRY_CONNECT: Duration = Duration::from_millis(100);

/// How to open a [`PostgresStore`]. [`PostgresOptions::new`] has the defaults.
///
/// Times are to stay below the brokers' lease (3 s by default): a broker that stopped in the middle of an append must
/// not be able to block a claim for longer than that.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Where the database is: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; libpq's environment variables fill in what
    /// is missing, and its parameters (`sslmode`, `host` for a socket's folder …) can follow a `?`.
    pub url: String,
    /// Bring an older schema up to date; otherwise refuse it. Default: true.
    pub migrate: bool,
    /// Go on although a crash of the server may undo what was confirmed. Default: false.
    pub allow_unsafe_durability: bool,
    /// Connections that are kept, however long they rest. Default: 2.
    pub min_connections: usize,
    /// Most connections at once for all but leases, which have two of their own. Default: 8.
    pub max_connections: usize,
    /// Deadline of opening a connection. Default: 2 s.
    pub connect_timeout: Duration,
    /// Connections beyond `min_connections` are closed after they rested for this long. Default: 60 s.
    pub idle_timeout: Duration,
    /// Deadline of one call, waiting for a connection included. Default: 2 s.
    pub call_timeout: Duration,
    /// How long the server lets a statement wait for a row. Below `call_timeout`, so that the answer is a definite "not
    /// done". Default: 1 s.
    pub lock_timeout: Duration,
    /// How long the server lets a statement take. Not below `call_timeout`. Default: 2 s.
    pub statement_timeout: Duration,
    /// How long the server keeps a transaction whose client has gone silent. Default: 2 s.
    pub idle_in_transaction_timeout: Duration,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the URL: it may hold a password.
        f.debug_struct("PostgresOptions").field("migrate", &self.migrate).finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// Checks a URL without connecting. The text says what would be right, and never holds the URL.
    ///
    /// # Errors
    /// [`OpenError::BadUrl`].
    pub fn check_url(url: &str) -> Result<(), OpenError> {
        url::parse(url).map(drop)
    }

    /// The defaults, for this database.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            migrate: true,
            allow_unsafe_durability: false,
            min_connections: 2,
            max_connections: 8,
            connect_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            call_timeout: Duration::from_secs(2),
            lock_timeout: Duration::from_secs(1),
            statement_timeout: Duration::from_secs(2),
            idle_in_transaction_timeout: Duration::from_secs(2),
        }
    }
}

/// Catalog and logs in one PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    pool: Pool<PostgresBackend>,
    /// For the leases of brokers and of the leading manager alone: whatever occupies the other connections, for however long,
    /// does not look like the death of their holder.
    leases: Pool<PostgresBackend>,
    lanes: Vec<Arc<Lane>>,
}

impl PostgresStore {
    /// Connects, checks that the server does, and brings the schema up to date.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::may_pass`] tells which may pass.
    pub async fn connect(options: PostgresOptions) -> Result<Self, OpenError> {
        let connect = url::parse(&options.url)?.disable_statement_logging();
        let connect = match connect.get_application_name() {
            Some(_) => connect,
            None => connect.application_name("rmom"),
        };
        let backend = PostgresBackend {
            options: connect,
            timeouts: SessionTimeouts {
                lock: options.lock_timeout,
                statement: options.statement_timeout,
                idle_in_transaction: options.idle_in_transaction_timeout,
            },
            allow_unsafe_durability: options.allow_unsafe_durability,
        };
        prepare(&backend, &options).await?;
        let limits = PoolLimits {
            min_connections: options.min_connections,
            max_connections: options.max_connections,
            connect_timeout: options.connect_timeout,
            idle_timeout: options.idle_timeout,
            call_timeout: options.call_timeout,
        };
        let backend = Arc::new(backend);
        let (work, leases) = (Lane::new("work"), Lane::new("leases"));
        let lanes = |lane: &Arc<Lane>| Lanes { first: Arc::clone(lane), second: Arc::clone(lane) };
        let lease_limits = PoolLimits { min_connections: 1, max_connections: LEASE_CONNECTIONS, ..limits };
        Ok(Self {
            pool: Pool::new(Arc::clone(&backend), limits, lanes(&work)),
            leases: Pool::new(backend, lease_limits, lanes(&leases)),
            lanes: vec![work, leases],
        })
    }

    /// How long calls wait for a connection: those of leases, and all others.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    /// One statement that reads.
    async fn select(&self, statement: Statement) -> Result<Vec<PgRow>, StoreError> {
        let mut session = self.pool.read().await?;
        let rows = session.rows(statement).await?;
        session.done();
        Ok(rows)
    }

    /// One statement that commits by itself.
    async fn change(&self, statement: Statement) -> Result<Option<PgRow>, StoreError> {
        let mut session = self.pool.write().await?;
        let row = session.row(statement).await?;
        session.done();
        Ok(row)
    }

    /// As [`PostgresStore::change`], for a lease.
    async fn change_lease(&self, statement: Statement) -> Result<Option<PgRow>, StoreError> {
        let mut session = self.leases.write().await?;
        let row = session.row(statement).await?;
        session.done();
        Ok(row)
    }

    /// A transaction that writes. It is rolled back if `work` fails.
    async fn transact<T, E: From<StoreError>>(
        &self,
        work: impl AsyncFnOnce(&mut Tx<'_>) -> Result<End<T>, E>,
    ) -> Result<T, E> {
        let mut tx = self.pool.write().await?;
        tx.begin().await?;
        let done = work(&mut tx).await;
        tx.end(done).await
    }
}

/// Checks the server and its database on a connection of its own, and migrates.
async fn prepare(backend: &PostgresBackend, options: &PostgresOptions) -> Result<(), OpenError> {
    let at = place(&backend.options);
    let patient = SessionTimeouts {
        lock: MIGRATION_TIMEOUT,
        statement: MIGRATION_TIMEOUT,
        idle_in_transaction: MIGRATION_TIMEOUT,
    };
    let connecting = async {
        loop {
            match backend.establish(patient).await {
                // Starting up or shutting down; or all connections taken.
                Err(error)
                    if backend::postgres_error(&error).is_some_and(|e| ["57P03", "53300"].contains(&e.code())) =>
                {
                    tokio::time::sleep(RETRY_CONNECT).await;
                }
                other => return other,
            }
        }
    };
    let (mut conn, server) = match timeout(options.connect_timeout, connecting).await {
        Ok(answer) => answer.map_err(|error| connect_error(&backend.options, &error))?,
        Err(_) => {
            return Err(OpenError::Unreachable {
                at,
                reason: format!("no answer within {:?}", options.connect_timeout),
            });
        }
    };
    check(&server, &at, options.allow_unsafe_durability)?;
    let failed = |error: sqlx::Error| OpenError::Failed { at: at.clone(), reason: error.to_string() };
    let exists = table_exists(&mut conn).await.map_err(failed)?;
    match timeout(MIGRATION_TIMEOUT, SCHEMA.bring_up(&mut conn, &at, exists, options.migrate, hurry)).await {
        Ok(done) => done?,
        Err(_) => {
            let reason = format!("not done within {MIGRATION_TIMEOUT:?}");
            return Err(OpenError::MigrationFailed { at, reason });
        }
    }
    // Nothing depends on the goodbye.
    let _ = timeout(options.connect_timeout, conn.close()).await;
    Ok(())
}

async fn table_exists(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(conn).await?.try_get(0)
}

fn check(server: &Server, at: &str, allow_unsafe_durability: bool) -> Result<(), OpenError> {
    let at = at.to_owned();
    if server.version < OLDEST_SERVER {
        let reason = format!("its version is {}; {OLDEST_SERVER} or later is needed", server.version);
        return Err(OpenError::Unsuitable { at, reason });
    }
    if server.encoding != "UTF8" {
        let reason = format!("its encoding is {}; create it with: createdb --encoding=UTF8", server.encoding);
        return Err(OpenError::Unsuitable { at, reason });
    }
    if let Some(reason) = server.read_only() {
        return Err(OpenError::ReadOnly { at, reason: reason.into() });
    }
    match server.unsafe_setting() {
        Some(setting) if !allow_unsafe_durability => Err(OpenError::UnsafeDurability { at, setting: setting.into() }),
        Some(setting) => {
            tracing::warn!(database = at, setting, "a crash of the database server may undo what was confirmed");
            Ok(())
        }
        None => Ok(()),
    }
}

fn place(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => format!("{} (port {})", socket.display(), options.get_port()),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

fn connect_error(options: &PgConnectOptions, error: &sqlx::Error) -> OpenError {
    let at = place(options);
    let Some(database) = backend::postgres_error(error) else {
        let reason = error.to_string();
        return match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) => OpenError::Unreachable { at, reason },
            _ => OpenError::Failed { at, reason },
        };
    };
    let reason = database.message().to_owned();
    match database.code() {
        code if code.starts_with("28") => {
            OpenError::WrongPassword { at, user: options.get_username().to_owned(), reason }
        }
        "3D000" => OpenError::NoSuchDatabase {
            at,
            database: options.get_database().unwrap_or_else(|| options.get_username()).to_owned(),
        },
        // Shutting down, starting up, out of something, or a connection that broke.
        code if ["57P", "53", "08"].iter().any(|class| code.starts_with(class)) => {
            OpenError::Unreachable { at, reason }
        }
        _ => OpenError::Failed { at, reason },
    }
}
