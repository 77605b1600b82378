//! Counters of what happened.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts something that happened.
pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
