//! Wall time, from the simulation's.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use rmom_core::{model::StoreTime, ports::Clock};

use crate::system;

/// When every simulation starts: milliseconds since 1970.
pub const EPOCH_MILLIS: u64 = 1_700_000_000_000;

/// The clock of the simulated database.
///
/// Hosts run one after the other through the same tick, so that time as the hosts see it goes back a little between them.
/// A database has one clock: this one stands still meanwhile. It goes back only when it is set back.
#[derive(Debug, Default)]
pub struct SimClock {
    /// Simulated milliseconds that it has counted.
    latest: AtomicU64,
    /// By how much it is wrong.
    error_millis: AtomicI64,
}

impl SimClock {
    /// Sets the clock forward, or back, by so many milliseconds; what it said before, and what it says now.
    pub fn jump(&self, by_millis: i64) -> (StoreTime, StoreTime) {
        let from = self.now();
        self.error_millis.fetch_add(by_millis, Relaxed);
        (from, self.now())
    }
}

impl Clock for SimClock {
    fn now(&self) -> StoreTime {
        let millis = u64::try_from(system::elapsed().as_millis()).unwrap_or(u64::MAX);
        let latest = self.latest.fetch_max(millis, Relaxed).max(millis);
        let error = self.error_millis.load(Relaxed);
        StoreTime::from_millis(EPOCH_MILLIS.saturating_add(latest).saturating_add_signed(error))
    }
}
