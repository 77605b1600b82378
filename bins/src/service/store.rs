//! Opens the store, however long it takes to come up.

use std::{sync::Arc, time::Duration};

use rmom_core::{ports::Store, repeat::Repeat};
use rmom_net::{
    clock::SystemClock,
    serve::ServeStats,
    store::{OpenError, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore},
};
use tokio::time::sleep;

use super::Ready;
use crate::config::{DatabaseConfig, DatabaseUrl};

/// First and longest pause between attempts to reach the database.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Opens the store. Waits while the store is temporarily unusable, and reports that in the log and at `/readyz`.
///
/// # Errors
/// Those that waiting does not cure: a newer schema, a server that is too old, a file in use.
pub(super) async fn open(
    config: &DatabaseConfig,
    call_timeout: Duration,
    ready: &Ready,
    stats: &ServeStats,
) -> Result<Arc<dyn Store>, OpenError> {
    let mut pause = BACKOFF.0;
    let (waiting, mut said) = (Repeat::default(), String::new());
    loop {
        match attempt(config, call_timeout, stats).await {
            Ok(store) => {
                if waiting.over() {
                    tracing::info!("the database can be used now");
                }
                return Ok(store);
            }
            Err(error) if error.may_pass() => {
                let error = error.to_string();
                if error != said {
                    // A different reason is logged at once.
                    waiting.over();
                    said.clone_from(&error);
                }
                if let Some(times) = waiting.happened() {
                    tracing::warn!(error, times, "waiting for the database; it is tried again every second");
                }
                ready.waiting_for(error);
                sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn attempt(
    config: &DatabaseConfig,
    call_timeout: Duration,
    stats: &ServeStats,
) -> Result<Arc<dyn Store>, OpenError> {
    match &config.url {
        DatabaseUrl::Sqlite(file) => {
            let options = SqliteOptions { migrate: config.migrate, call_timeout, ..SqliteOptions::new(file) };
            let store = SqliteStore::open(options, Arc::new(SystemClock)).await?;
            stats.watch_store(store.lanes());
            Ok(Arc::new(store))
        }
        DatabaseUrl::Postgres(url) => {
            let defaults = PostgresOptions::new(url.reveal());
            let idle_timeout = match config.idle_timeout {
                0 => Duration::MAX,
                seconds => Duration::from_secs(seconds),
            };
            let options = PostgresOptions {
                migrate: config.migrate,
                allow_unsafe_durability: config.allow_unsafe_durability,
                min_connections: config.min_connections as usize,
                max_connections: config.max_connections as usize,
                connect_timeout: Duration::from_secs(config.connect_timeout),
                idle_timeout,
                call_timeout,
                // The server has to give up before the caller does: its answer is a definite "not done".
                lock_timeout: call_timeout / 2,
                statement_timeout: call_timeout,
                idle_in_transaction_timeout: call_timeout,
                ..defaults
            };
            let store = PostgresStore::connect(options).await?;
            stats.watch_store(store.lanes());
            Ok(Arc::new(store))
        }
    }
}
