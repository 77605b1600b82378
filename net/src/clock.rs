//! Wall time from the operating system.

use std::time::{SystemTime, UNIX_EPOCH};

use rmom_core::{model::StoreTime, ports::Clock};

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> StoreTime {
        // A clock before 1970 reads as 1970: the store's own clock never goes back, whatever this one does.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        StoreTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_milliseconds_since_1970() {
        let year_2020 = StoreTime::from_millis(1_577_836_800_000);
        let year_2200 = StoreTime::from_millis(7_258_118_400_000);
        let now = SystemClock.now();
        assert!(year_2020 < now && now < year_2200, "{now}");
    }
}
