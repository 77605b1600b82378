//! The store's clock, the one clock that decides what has expired.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A reading of the store's clock: milliseconds since 1970. It never goes back within a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreTime(u64);

impl StoreTime {
    /// Later than every reading: when a message without a lifetime expires.
    pub const NEVER: Self = Self(i64::MAX as u64);

    /// From milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(if millis > Self::NEVER.0 { Self::NEVER.0 } else { millis })
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The reading as a database column holds it.
    #[must_use]
    #[allow(clippy::cast_possible_wrap)] // at most NEVER, which is i64::MAX
    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }

    /// This much later, [`StoreTime::NEVER`] at most.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// How much later this is than `other`; zero if it is not.
    #[must_use]
    pub const fn since(self, other: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for StoreTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
