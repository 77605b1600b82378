//! A clock that a test moves.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{model::StoreTime, ports::Clock};

/// Stands still until it is set.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub const fn new(now: StoreTime) -> Self {
        Self(AtomicU64::new(now.millis()))
    }

    /// Sets it, forward or back.
    pub fn set(&self, now: StoreTime) {
        self.0.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> StoreTime {
        StoreTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}
