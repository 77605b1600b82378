//! The durable stores: PostgreSQL for production, SQLite for one process and small installations.
//!
//! Both implement `rmom_core::ports::{Catalog, Log}`; how they should behave is written there, and checked by the
//! conformance suite in `rmom_core::store`. What they share:
//!
//! - Every call has a deadline. A write that fails in a way that leaves open whether it committed answers
//!   `StoreError::Unknown`, and its connection is closed, not used again (`pool.rs`).
//! - A transaction of several statements can only be in doubt at its COMMIT: before that, whatever fails is undone.
//! - Migrations (the folder `migrations/`) are part of the binary; a database that is newer is refused.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod column;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod migrate;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod warnings;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use error::OpenError;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};

/// Most batches that one read returns, however small they are.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const MAX_READ_BATCHES: i64 = 1_024;
/// Most empty tombstones that one purge removes.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const MAX_PURGED_QUEUES: i64 = 1_000;

/// Refuses a group that breaks the rules of `Log::append`, before anything is sent.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn check_group(group: &[rmom_core::ports::AppendBatch]) -> Result<(), rmom_core::ports::StoreError> {
    use rmom_core::{model::Offset, ports::StoreError};
    if !group.is_sorted_by(|a, b| a.queue < b.queue) {
        return Err(StoreError::Refused("the batches of a group are not in order of queue id".into()));
    }
    if group.iter().any(|batch| batch.first == Offset::ZERO || batch.last < batch.first) {
        return Err(StoreError::Refused("a batch of the group has no messages".into()));
    }
    Ok(())
}

/// What was ever removed of a log, after a trim that began with what `trimmed` has for it. `total` is the running total of a
/// log that is empty now: the counts begin anew from there.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
fn removed_by(trimmed: &rmom_core::ports::Trimmed, total: Option<i64>) -> rmom_core::ports::Removed {
    let before = trimmed.removed;
    let messages = before.messages.saturating_add_unsigned(trimmed.messages);
    let bytes = before.bytes.saturating_add_unsigned(trimmed.bytes);
    let anew = |bytes| rmom_core::ports::Removed { messages: trimmed.trimmed_through.as_i64(), bytes };
    total.map_or(rmom_core::ports::Removed { messages, bytes }, anew)
}
