//! Wall time, and time since the machine was switched on, from the operating system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rmom_core::{
    model::StoreTime,
    ports::{Clock, Uptime},
};

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> StoreTime {
        // A clock before 1970 reads as 1970: the store's own clock never goes back, even if this one does.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        StoreTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The machine's clock that keeps running while the machine is suspended.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemUptime;

impl Uptime for SystemUptime {
    #[cfg(target_os = "linux")]
    #[allow(unsafe_code, reason = "a call of the C library; the block says why it is sound")]
    fn uptime(&self) -> Duration {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for a write. The call cannot fail for a clock that every supported kernel has; if it did,
        // the time would stay 0, and only the other clock would count.
        unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
    }

    /// Returns nothing that could be trusted: the wall clock can be set forward, and messages that have not expired must not
    /// be left out.
    #[cfg(not(target_os = "linux"))]
    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn uptime_goes_on() {
        let before = SystemUptime.uptime();
        assert!(before > Duration::ZERO);
        assert!(SystemUptime.uptime() >= before);
    }

    #[test]
    fn counts_milliseconds_since_1970() {
        let year_2020 = StoreTime::from_millis(1_577_836_800_000);
        let year_2200 = StoreTime::from_millis(7_258_118_400_000);
        let now = SystemClock.now();
        assert!(year_2020 < now && now < year_2200, "{now}");
    }
}
