//! Wall time, from the simulation's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rmom_core::{model::StoreTime, ports::Clock};

/// When every simulation starts: milliseconds since 1970.
pub const EPOCH_MILLIS: u64 = 1_700_000_000_000;

/// The clock of the simulated database.
///
/// Hosts run one after the other through the same tick, so that time as the hosts see it goes back a little between them.
/// A database has one clock: this one stands still meanwhile.
#[derive(Debug, Default)]
pub struct SimClock {
    latest: AtomicU64,
}

impl Clock for SimClock {
    fn now(&self) -> StoreTime {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let latest = self.latest.fetch_max(millis, Relaxed).max(millis);
        StoreTime::from_millis(EPOCH_MILLIS).plus_millis(latest)
    }
}
