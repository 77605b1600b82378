//! The durable stores: PostgreSQL for production, SQLite for one process and small installations.
//!
//! Both implement `rmom_core::ports::{Catalog, Log}`; how they should behave is written there, and checked by the
//! conformance suite in `rmom_core::store`. What they share:
//!
//! - Every call has a deadline. A write that fails in a way that leaves open whether it committed answers
//!   `StoreError::Unknown`, and its connection is closed, not used again (`pool.rs`).
//! - A transaction of several statements can only be in doubt at its COMMIT: before that, whatever fails is undone.
//! - Migrations (the folder `migrations/`) are part of the binary; a database that is newer is refused.

#![cfg(any(feature = "postgres", feature = "sqlite"))]

mod column;
mod error;
mod migrate;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;
mod warnings;

pub use error::OpenError;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
