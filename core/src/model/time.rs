//! The store's clock, which alone decides whether a message has expired.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// A reading of the store's clock: milliseconds since 1970. It never goes back within a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreTime(u64);

impl StoreTime {
    /// Later than every reading: the expiry of a message without a lifetime.
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

    /// The reading as stored in a database column.
    #[must_use]
    #[allow(clippy::cast_possible_wrap)] // at most NEVER, which is i64::MAX
    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }

    /// This reading plus `millis`, at most [`StoreTime::NEVER`].
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// The time from `other` to this; zero if this is not later.
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
