//! SQLite's connections, and what its errors mean.

use std::time::Duration;

use rmom_core::ports::StoreError;
use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::SqliteOptions;
use crate::store::pool::{Backend, Failure};

const PAGE_BYTES: u32 = 4096;
/// Pages in the WAL before they are copied into the database.
const CHECKPOINT_PAGES: u32 = 1000;
/// The WAL is cut back to this size after a checkpoint.
const MAX_WAL_BYTES: u32 = 64 << 20;

/// Opens connections to one file.
#[derive(Debug)]
pub(super) struct SqliteBackend {
    options: SqliteConnectOptions,
}

impl SqliteBackend {
    pub(super) fn new(options: &SqliteOptions, reader: bool) -> Self {
        let mut connect = SqliteConnectOptions::new()
            .filename(&options.file)
            .create_if_missing(!reader)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false)
            .busy_timeout(options.call_timeout.min(Duration::from_secs(60)))
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
            .pragma("journal_size_limit", MAX_WAL_BYTES.to_string())
            .disable_statement_logging();
        if reader {
            connect = connect.pragma("query_only", "ON");
        }
        if let Some(bytes) = options.max_bytes {
            connect = connect.pragma("max_page_count", (bytes / u64::from(PAGE_BYTES)).max(1).to_string());
        }
        Self { options: connect }
    }

    pub(super) fn connect_options(&self) -> &SqliteConnectOptions {
        &self.options
    }
}

impl Backend for SqliteBackend {
    type Driver = Sqlite;

    const BEGIN: &'static str = "BEGIN IMMEDIATE";

    const WARNS: bool = false;

    const SMALL_WRITE: Option<&'static str> = None;

    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.options.connect().await
    }

    fn classify(&self, error: &sqlx::Error, may_commit: bool) -> Failure {
        let reason = error.to_string();
        let error = match primary_code(error) {
            // A commit that ran out of room wrote no commit record: it is undone.
            Some(FULL | READONLY | PERM | AUTH | CANTOPEN) => StoreError::Refused(reason),
            Some(CORRUPT | NOTADB) => StoreError::Corrupt(reason),
            // The commit record may have reached the disk.
            Some(IOERR) | None if may_commit => StoreError::Unknown(reason),
            // Busy, locked, out of memory, interrupted …
            _ => StoreError::Unavailable(reason),
        };
        Failure { error, connection_lost: false }
    }
}

// https://www.sqlite.org/rescode.html
pub(super) const PERM: i32 = 3;
pub(super) const BUSY: i32 = 5;
pub(super) const READONLY: i32 = 8;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
pub(super) const CANTOPEN: i32 = 14;
const AUTH: i32 = 23;
pub(super) const NOTADB: i32 = 26;

/// SQLite's primary result code, if the error is SQLite's.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xFF)
}
