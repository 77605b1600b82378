//! PostgreSQL's connections and sessions, and what its errors mean.

use std::time::Duration;

use rmom_core::ports::StoreError;
use sqlx::{
    ConnectOptions, Executor, PgConnection, Postgres,
    postgres::{PgConnectOptions, PgDatabaseError, PgRow, PgSeverity},
};

use crate::store::{
    column,
    pool::{Backend, Failure},
};

/// Opens connections to one database.
#[derive(Debug)]
pub(super) struct PostgresBackend {
    pub(super) options: PgConnectOptions,
    pub(super) timeouts: SessionTimeouts,
    pub(super) allow_unsafe_durability: bool,
}

/// `read_only_sql_transaction`: on a standby, and where transactions are read-only. It is definite: nothing was stored.
const READ_ONLY: &str = "25006";

/// `feature_not_supported`: among others "cached plan must not change result type". It is definite, too.
const CHANGED_RESULT: &str = "0A000";

/// What the server itself enforces, so that a broker that stopped cannot block a claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionTimeouts {
    pub(super) lock: Duration,
    pub(super) statement: Duration,
    pub(super) idle_in_transaction: Duration,
}

/// What a fresh session says about the server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) version: i64,
    pub(super) encoding: String,
    pub(super) in_recovery: bool,
    pub(super) read_only: String,
    fsync: String,
    synchronous_commit: String,
}

impl Server {
    fn read(row: &PgRow) -> Result<Self, StoreError> {
        Ok(Self {
            version: column::get(row, "version")?,
            encoding: column::get(row, "encoding")?,
            in_recovery: column::get(row, "in_recovery")?,
            read_only: column::get(row, "read_only")?,
            fsync: column::get(row, "fsync")?,
            synchronous_commit: column::get(row, "synchronous_commit")?,
        })
    }

    /// The setting that lets a crash undo what was committed, if there is one.
    pub(super) fn unsafe_setting(&self) -> Option<&'static str> {
        match (self.fsync.as_str(), self.synchronous_commit.as_str()) {
            ("off", _) => Some("fsync=off"),
            (_, "off") => Some("synchronous_commit=off"),
            _ => None,
        }
    }

    /// Why nothing can be written through this session, if so. What is read through it may be old as well.
    pub(super) fn read_only(&self) -> Option<&'static str> {
        match (self.in_recovery, self.read_only.as_str()) {
            (true, _) => Some("the server is a standby; connect to the primary"),
            (_, "on") => Some("transactions are read-only there (default_transaction_read_only=on)"),
            _ => None,
        }
    }
}

/// A connection led to a server that is not the primary, or not for now: the name will lead to it again.
#[derive(Debug, thiserror::Error)]
#[error("the database cannot be written: {0}")]
struct NotThePrimary(&'static str);

impl PostgresBackend {
    /// Opens a connection and pins what appends rely on: see the head of `log/mod.rs`.
    pub(super) async fn establish(&self, timeouts: SessionTimeouts) -> Result<(PgConnection, Server), sqlx::Error> {
        let mut conn = self.options.connect().await?;
        let row = conn
            .fetch_one(
                // A setting that is set in the session no longer follows the server's configuration file.
                //
                // Every statement here is a loop over an index. Left to choose, the planner scans tables that were
                // empty when it looked, and goes on doing so while they grow, until somebody analyzes them: a hundred
                // times slower. A sort of all that has expired would not be done in time; what comes out of an index nearly in
                // order is sorted piece by piece. JIT would take longer than any statement.
                sqlx::query(
                    "SELECT set_config('default_transaction_isolation', 'read committed', false), \
                     set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false), \
                     set_config('idle_in_transaction_session_timeout', $3, false), set_config('jit', 'off', false), \
                     set_config('plan_cache_mode', 'force_generic_plan', false), \
                     set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false), \
                     set_config('enable_sort', 'off', false), \
                     set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false), \
                     set_config('client_min_messages', 'warning', false), \
                     set_config('synchronous_commit', current_setting('synchronous_commit'), false) \
                     AS synchronous_commit, current_setting('fsync') AS fsync, \
                     current_setting('server_version_num')::bigint AS version, \
                     current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS in_recovery, \
                     current_setting('transaction_read_only') AS read_only",
                )
                .persistent(false)
                .bind(millis(timeouts.lock))
                .bind(millis(timeouts.statement))
                .bind(millis(timeouts.idle_in_transaction)),
            )
            .await?;
        let server = Server::read(&row).map_err(|error| sqlx::Error::Configuration(error.into()))?;
        Ok((conn, server))
    }
}

/// A timeout as PostgreSQL reads it; 0 would switch it off.
fn millis(timeout: Duration) -> String {
    format!("{}ms", timeout.as_millis().clamp(1, i32::MAX as u128))
}

impl Backend for PostgresBackend {
    type Driver = Postgres;

    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";

    const WARNS: bool = true;

    /// A record in the log, which is of no table. Its commit waits for synchronous standbys as any other.
    const SMALL_WRITE: Option<&'static str> = Some("SELECT pg_logical_emit_message(true, 'rmom', '')");

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let (conn, server) = self.establish(self.timeouts).await?;
        // A standby lags behind: what it does not hold yet looks as if it had never been stored, or were trimmed.
        if let Some(reason) = server.read_only() {
            return Err(sqlx::Error::Configuration(Box::new(NotThePrimary(reason))));
        }
        match server.unsafe_setting() {
            Some(setting) if !self.allow_unsafe_durability => Err(sqlx::Error::Configuration(
                format!("the server runs with {setting}, so that a crash would undo what was confirmed").into(),
            )),
            _ => Ok(conn),
        }
    }

    fn classify(&self, error: &sqlx::Error, may_commit: bool) -> Failure {
        let reason = error.to_string();
        let Some(database) = postgres_error(error) else {
            let error = match error {
                // The way to the database is changing over to another server.
                sqlx::Error::Configuration(why) if why.is::<NotThePrimary>() => {
                    StoreError::Unavailable(why.to_string())
                }
                sqlx::Error::Configuration(_) => StoreError::Refused(reason),
                // The driver could not read an answer: of a read, that is what is stored.
                sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } if !may_commit => StoreError::Corrupt(reason),
                _ if may_commit => StoreError::Unknown(reason),
                _ => StoreError::Unavailable(reason),
            };
            return Failure { error, connection_lost: true };
        };
        let code = database.code();
        // Its own text would add the line of PostgreSQL's source that says so.
        let reason = format!("{} (SQLSTATE {code})", database.message());
        // An ERROR rolled the statement back. A FATAL ends the session, perhaps between commit and answer.
        let fatal = matches!(database.severity(), PgSeverity::Fatal | PgSeverity::Panic) || code.starts_with("08");
        let error = if fatal && may_commit {
            StoreError::Unknown(reason)
        } else {
            match code {
                // Full, not allowed, not there: somebody has to act.
                "53100" | "42501" | "42P01" | "42703" | "42883" | "3D000" | "3F000" | "0LP01" => {
                    StoreError::Refused(reason)
                }
                "XX001" | "XX002" => StoreError::Corrupt(reason),
                _ if code.starts_with("28") => StoreError::Refused(reason),
                // Deadlock, lock and statement timeouts, too many connections, shutting down, starting up, read-only …
                _ => StoreError::Unavailable(reason),
            }
        };
        // Whoever may not write speaks to a server that is the primary no longer, and so do the others.
        // A prepared statement answers differently since a migration: it has to be prepared again, which a new connection does.
        Failure { error, connection_lost: fatal || code == READ_ONLY || code == CHANGED_RESULT }
    }
}

/// PostgreSQL's own error, if it is one.
pub(super) fn postgres_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()
}
