//! Wall time, derived from simulated time.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use rmom_core::{model::StoreTime, ports::Clock};

use super::libc_shim;

/// The wall time at which every simulation starts, in milliseconds since 1970.
pub const EPOCH_MILLIS: u64 = 1_700_000_000_000;

/// The clock of the simulated database.
///
/// Hosts run through the same tick one after the other, so the time that they see goes back a little between them. The
/// database has a single clock, which stands still meanwhile. It goes back only when it is set back.
#[derive(Debug, Default)]
pub struct SimClock {
    /// The simulated milliseconds counted so far.
    latest: AtomicU64,
    /// The error of the clock.
    error_millis: AtomicI64,
}

impl SimClock {
    /// Sets the clock forward, or back, by this many milliseconds. Returns the readings before and after.
    pub fn shift(&self, by_millis: i64) -> (StoreTime, StoreTime) {
        let from = self.now();
        self.error_millis.fetch_add(by_millis, Relaxed);
        (from, self.now())
    }
}

impl Clock for SimClock {
    fn now(&self) -> StoreTime {
        let millis = u64::try_from(libc_shim::elapsed().as_millis()).unwrap_or(u64::MAX);
        let latest = self.latest.fetch_max(millis, Relaxed).max(millis);
        let error = self.error_millis.load(Relaxed);
        StoreTime::from_millis(EPOCH_MILLIS.saturating_add(latest).saturating_add_signed(error))
    }
}
