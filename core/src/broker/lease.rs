//! The broker's lease and its idea of the store's clock.
//!
//! The lease is for liveness: a broker that cannot reach the store stops serving before others take over. Safety does
//! not rest on it; the fence alone keeps a replaced owner from writing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::model::StoreTime;

/// Until when this broker may serve, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Lease {
    until: Mutex<Option<Instant>>,
}

impl Lease {
    /// Extends the lease: `asked_at` is when the request left, so that the answer's way costs us, not others.
    pub(super) fn renewed(&self, asked_at: Instant, lease: Duration) {
        let until = asked_at + lease;
        let mut current = self.until.lock();
        if current.is_none_or(|current| current < until) {
            *current = Some(until);
        }
    }

    /// Ends it: another run took this broker's place, or the broker stops.
    pub(super) fn end(&self) {
        *self.until.lock() = None;
    }

    pub(super) fn until(&self) -> Option<Instant> {
        *self.until.lock()
    }

    pub(super) fn is_current(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }
}

/// An estimate of the store's clock that is never ahead of it: the last reading, plus what has passed here since it
/// arrived. It is behind by less than the round trip that brought it.
#[derive(Debug, Default)]
pub(super) struct StoreClock {
    last: Mutex<Option<(StoreTime, Instant)>>,
}

impl StoreClock {
    /// Takes a reading that has just arrived. When a batch was stored is none: that can be ahead of the store's clock,
    /// because it never goes back within a queue, and the clock may.
    pub(super) fn read(&self, store_time: StoreTime) {
        *self.last.lock() = Some((store_time, Instant::now()));
    }

    /// The store's clock shows at least this; [`StoreTime::default`], when nothing is expired, before the first reading.
    pub(super) fn at_least(&self) -> StoreTime {
        self.last.lock().map_or(StoreTime::default(), |(store_time, at)| {
            store_time.plus_millis(u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_the_request() {
        let lease = Lease::default();
        assert!(!lease.is_current());
        let asked_at = Instant::now();
        tokio::time::advance(Duration::from_millis(400)).await;
        lease.renewed(asked_at, Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(599)).await;
        assert!(lease.is_current());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!lease.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn the_estimate_moves_with_time() {
        let clock = StoreClock::default();
        assert_eq!(clock.at_least(), StoreTime::default());
        clock.read(StoreTime::from_millis(100));
        tokio::time::advance(Duration::from_millis(7)).await;
        assert_eq!(clock.at_least(), StoreTime::from_millis(107));
    }
}
