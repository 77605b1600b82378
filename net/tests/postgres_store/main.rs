//! The PostgreSQL store: the conformance suite, and what is PostgreSQL's own.

mod dead_rows;
mod faults;
mod idle;
mod leases;
mod many_queues;
mod moving;
mod opening;
mod standby;
mod stress;
mod support;
mod synchronous;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use rmom_core::{
    model::StoreTime,
    ports::Store,
    store::conformance::{Harness, START},
};
use rmom_net::{
    store::{PostgresOptions, PostgresStore},
    testing::{PgServer, TestDatabase},
};

/// The clock of a test: a row that it sets, in the place of the real one.
const MANUAL_CLOCK: &str = "
CREATE TABLE manual_clock (now bigint NOT NULL);
INSERT INTO manual_clock VALUES (0);
CREATE OR REPLACE FUNCTION rmom_now() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT now FROM manual_clock'";
const EMPTY: &str = "
TRUNCATE broker, queue, deleted_request, log, log_state, batch, channel, producer RESTART IDENTITY;
UPDATE leader SET manager = NULL, term = 0, lease_until = 0";

struct PostgresHarness {
    database: TestDatabase,
    used: AtomicBool,
}

impl PostgresHarness {
    async fn start() -> Self {
        Self { database: PgServer::shared().create_database().await, used: AtomicBool::new(false) }
    }

    async fn open(&self) -> Arc<PostgresStore> {
        Arc::new(PostgresStore::connect(PostgresOptions::new(self.database.url())).await.unwrap())
    }
}

#[async_trait]
impl Harness for PostgresHarness {
    async fn fresh(&self) -> Arc<dyn Store> {
        let store = self.open().await;
        self.database.execute(if self.used.swap(true, Ordering::SeqCst) { EMPTY } else { MANUAL_CLOCK }).await;
        self.set_clock(START).await;
        store
    }

    async fn set_clock(&self, now: StoreTime) {
        self.database.execute(&format!("UPDATE manual_clock SET now = {}", now.millis())).await;
    }

    async fn reopen(&self) -> Arc<dyn Store> {
        self.open().await
    }
}

rmom_core::conformance_tests!(PostgresHarness::start().await, model_cases = 24);
