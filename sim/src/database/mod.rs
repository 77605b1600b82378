//! The database as a host of its own: it can be cut off, crash, be slow, be full, and lose the answer to a commit.
//!
//! The model ([`State`], which the conformance suite compares with PostgreSQL and SQLite) changes the data. This module adds
//! the surroundings: connections with production's timeouts (`pool.rs`), the steps of a write, between which faults can
//! strike (`host.rs`), rows that one write locks and others wait for (`locks.rs`), and the faults themselves (`faults.rs`).
//!
//! A call crosses the network as a number (`rpc.rs`), which can be late, held or lost like any message. The call itself
//! waits in the memory that all simulated hosts share.

mod audit;
mod client;
mod disk;
mod evidence;
mod faults;
mod host;
mod locks;
mod marks;
mod pool;
mod rpc;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rmom_core::{
    model::{QueueLabel, StoreTime},
    ports::{BrokerRecord, Clock as _, QueueRecord},
    store::memory::State,
};

pub(crate) use self::{client::RemoteStore, host::run_database};
use self::{disk::Disk, faults::Faults, rpc::Calls};
pub use self::{faults::DatabaseFault, marks::DATABASE_MARKS};
use crate::{
    SeededEntropy, SimClock,
    history::{Event, Recorder},
};

/// The name of the database's host.
pub const DATABASE_HOST: &str = "database";

/// The port on which it listens.
const PORT: u16 = 5_432;

/// A handle on the database, for the fault injector. Clones are the same database.
#[derive(Clone, Debug)]
pub struct Database(Arc<Inner>);

/// The parts that outlive the process on the database's host.
#[derive(Debug)]
struct Inner {
    disk: Mutex<Disk>,
    clock: SimClock,
    faults: Faults,
    calls: Calls,
    entropy: SeededEntropy,
    recorder: Recorder,
    /// The time that each row read by a statement takes, in microseconds.
    row_micros: AtomicU64,
}

impl Database {
    pub(crate) fn new(entropy: SeededEntropy, recorder: Recorder) -> Self {
        Self(Arc::new(Inner {
            disk: Mutex::new(Disk::new(recorder.clone())),
            clock: SimClock::default(),
            faults: Faults::default(),
            calls: Calls::default(),
            entropy,
            recorder,
            row_micros: AtomicU64::new(0),
        }))
    }

    /// Begins a fault, which lasts until [`Database::end_fault`]. Several faults can last at once, even of the same kind.
    pub fn begin_fault(&self, fault: DatabaseFault) {
        self.0.faults.begin(fault);
    }

    /// Ends a fault that was begun.
    pub fn end_fault(&self, fault: DatabaseFault) {
        self.0.faults.end(fault);
    }

    /// Sets the time that each row read by a statement takes; 0 by default.
    pub fn set_row_cost(&self, micros: u64) {
        self.0.row_micros.store(micros, Relaxed);
    }

    /// The time that reading this many rows takes.
    fn cost(&self, rows: usize) -> Duration {
        Duration::from_micros(self.0.row_micros.load(Relaxed).saturating_mul(rows as u64))
    }

    /// The reading of the database's clock.
    #[must_use]
    pub fn now(&self) -> StoreTime {
        self.0.clock.now()
    }

    /// Sets the database's clock forward, or back, by this many milliseconds.
    pub fn set_clock(&self, by_millis: i64) {
        let (from, to) = self.0.clock.shift(by_millis);
        let event = Event::StoreClock { from_millis: from.millis(), to_millis: to.millis() };
        self.0.recorder.record(DATABASE_HOST, event);
    }

    /// A copy of all stored data.
    #[must_use]
    pub fn snapshot(&self) -> State {
        self.0.disk.lock().state().clone()
    }

    /// Replaces all stored data, like restoring a backup. Connections stay as they are: crash the host to end them.
    pub fn restore(&self, state: State) {
        *self.0.disk.lock().state_mut() = state;
        self.0.recorder.record(DATABASE_HOST, Event::StoreRolledBack);
    }

    /// A live queue by its label.
    #[must_use]
    pub fn queue(&self, label: &QueueLabel) -> Option<QueueRecord> {
        self.0.disk.lock().state().queue(label)
    }

    /// Every broker that ever registered, read without the network.
    #[must_use]
    pub fn brokers(&self) -> Vec<BrokerRecord> {
        self.0.disk.lock().state().brokers()
    }

    /// All stored data as evidence: queues, channels, and the database's time.
    #[must_use]
    pub fn audit(&self) -> Vec<Event> {
        audit::audit(self.0.disk.lock().state(), self.now())
    }
}
