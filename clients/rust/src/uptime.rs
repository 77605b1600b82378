//! Time that includes the machine's sleep.
//!
//! tokio's clock stands still while a laptop or a virtual machine is suspended, but brokers go on. A second here can be an
//! hour there, after which they have forgotten a producer's pushes and would store them a second time.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

/// The time since the machine was switched on; only differences count.
type Uptime = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instant,
    uptime: Duration,
}

impl Moment {
    /// A moment this long after this one, by [`Moments::roughly_since`].
    pub(crate) fn later(self, after: Duration) -> Self {
        // tokio's clock may have stood still in between. It then shows less than has passed, and the larger value counts.
        Self { at: self.at + after, uptime: self.uptime + after }
    }
}

/// Measures how long ago a [`Moment`] was.
#[derive(Clone)]
pub(crate) struct Moments(Uptime);

impl Moments {
    pub(crate) fn new(uptime: Uptime) -> Self {
        Self(uptime)
    }

    pub(crate) fn now(&self) -> Moment {
        Moment { at: Instant::now(), uptime: (self.0)() }
    }

    /// The time since the moment by one clock alone, at half the cost, for work done for every message. Where the clock that
    /// counts suspension cannot be set, it is used. Elsewhere, messages accepted after a suspension are given up too early
    /// by the length of the suspension, which is safe.
    pub(crate) fn roughly_since(&self, moment: Moment) -> Duration {
        if cfg!(target_os = "linux") { (self.0)().saturating_sub(moment.uptime) } else { moment.at.elapsed() }
    }

    /// The time since the moment, by the clock that shows more.
    pub(crate) fn since(&self, moment: Moment) -> Duration {
        moment.at.elapsed().max((self.0)().saturating_sub(moment.uptime))
    }
}

impl fmt::Debug for Moments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Moments").field(&(self.0)()).finish()
    }
}

/// The machine's clock that counts while it is suspended.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a call of the C library; the block says why it is sound")]
pub(crate) fn of_this_machine() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for a write. The call cannot fail for a clock that every supported kernel has; if it did, the
    // time would stay 0, and only the other clock would count.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

/// The wall clock serves as a second opinion. If it is set forward while a message waits, the producer gives up early and
/// reports an unknown outcome.
#[cfg(not(target_os = "linux"))]
pub(crate) fn of_this_machine() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_that_shows_more_counts() {
        let uptime = Arc::new(Mutex::new(Duration::from_secs(100)));
        let moments = Moments::new({
            let uptime = uptime.clone();
            Arc::new(move || *uptime.lock().unwrap())
        });
        let then = moments.now();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(moments.since(then), Duration::from_secs(5));
        *uptime.lock().unwrap() = Duration::from_secs(4_300);
        assert_eq!(moments.since(then), Duration::from_secs(4_200));
        *uptime.lock().unwrap() = Duration::ZERO;
        assert_eq!(moments.since(then), Duration::from_secs(5));
    }

    #[test]
    fn the_machines_clock_goes_on() {
        let before = of_this_machine();
        assert!(before > Duration::ZERO);
        assert!(of_this_machine() >= before);
    }
}
