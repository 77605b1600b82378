//! The broker's lease and its idea of the store's clock.
//!
//! The lease is for liveness: a broker that cannot reach the store stops serving before others take over. Safety does
//! not rest on it; the fence alone keeps a replaced owner from writing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::moments::{Moment, Moments};
use crate::model::StoreTime;

/// Until when this broker may serve, by the clocks here.
#[derive(Debug)]
pub(super) struct Lease {
    granted: watch::Sender<Option<Granted>>,
    moments: Moments,
}

/// A lease of a length, from when it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    asked_at: Moment,
    lease: Duration,
}

impl Granted {
    /// When it runs out, unless the machine sleeps meanwhile: then it is over when it wakes up.
    pub(super) fn until(&self) -> Instant {
        self.asked_at.at + self.lease
    }
}

impl Lease {
    pub(super) fn new(moments: Moments) -> Self {
        Self { granted: watch::Sender::new(None), moments }
    }

    fn is_over(&self, granted: &Granted) -> bool {
        self.moments.since(granted.asked_at) >= granted.lease
    }

    /// Extends the lease: `asked_at` is when the request left, so that the answer's way costs us, not others.
    pub(super) fn renewed(&self, asked_at: Moment, lease: Duration) {
        let granted = Granted { asked_at, lease };
        self.granted.send_if_modified(|current| {
            // One that is over by the other clock only is replaced by whatever comes after it.
            let later = current.is_none_or(|current| self.is_over(&current) || current.until() < granted.until());
            if later {
                *current = Some(granted);
            }
            later
        });
    }

    /// Ends it: another run took this broker's place, or the broker stops.
    pub(super) fn end(&self) {
        self.granted.send_replace(None);
    }

    /// Ends it if its time is over, in one step: a renewal that comes at that instant is either seen or comes after. True if
    /// this ended it.
    pub(super) fn run_out(&self) -> bool {
        self.granted.send_if_modified(|current| current.take_if(|granted| self.is_over(granted)).is_some())
    }

    /// Tells of every change.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Granted>> {
        self.granted.subscribe()
    }

    pub(super) fn is_current(&self) -> bool {
        self.granted.borrow().is_some_and(|granted| !self.is_over(&granted))
    }
}

/// An estimate of the store's clock that is never ahead of it: the last reading, plus what has passed here since it
/// arrived. It is behind by less than the round trip that brought it.
#[derive(Debug)]
pub(super) struct StoreClock {
    readings: Mutex<Readings>,
    moments: Moments,
}

#[derive(Debug, Default)]
struct Readings {
    /// What the store's clock showed, and when that was known here.
    last: Option<(StoreTime, Moment)>,
    /// What was asked for before this may tell of a time before the clock was set back. It is when the reading was asked for
    /// that the estimate goes by, or when the estimate was last found to be ahead.
    asked_since: Option<Instant>,
}

impl Readings {
    fn at_least(&self, moments: &Moments) -> StoreTime {
        self.last.map_or(StoreTime::default(), |(store_time, at)| {
            store_time.plus_millis(u64::try_from(moments.since(at).as_millis()).unwrap_or(u64::MAX))
        })
    }
}

impl StoreClock {
    pub(super) fn new(moments: Moments) -> Self {
        Self { readings: Mutex::default(), moments }
    }

    /// Takes a reading that has just arrived, and was asked for at `asked_at`. When a batch was stored is none: that can be
    /// ahead of the store's clock, because it never goes back within a queue, and the clock may.
    pub(super) fn read(&self, asked_at: Instant, store_time: StoreTime) {
        let mut readings = self.readings.lock();
        let now = self.moments.now();
        if store_time < readings.at_least(&self.moments) {
            readings.asked_since = Some(now.at);
        } else if readings.asked_since.is_some_and(|since| asked_at < since) {
            return;
        } else {
            readings.asked_since = Some(asked_at);
        }
        readings.last = Some((store_time, now));
    }

    /// A batch was stored at `stored_at`, and was sent when the estimate was `when_sent`. That it is the earlier of the two
    /// shows that the clock was set back; what was just stored must not be taken for expired.
    pub(super) fn stored(&self, when_sent: StoreTime, stored_at: StoreTime) {
        let mut readings = self.readings.lock();
        if stored_at < when_sent && stored_at < readings.at_least(&self.moments) {
            mark!(StoreClockSetBack);
            let now = self.moments.now();
            *readings = Readings { last: Some((stored_at, now)), asked_since: Some(now.at) };
        }
    }

    /// The store's clock shows at least this; [`StoreTime::default`], when nothing is expired, before the first reading.
    pub(super) fn at_least(&self) -> StoreTime {
        self.readings.lock().at_least(&self.moments)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ports::Uptime;

    /// What the clock shows that counts while the machine sleeps, beyond what the other one does.
    #[derive(Debug, Default)]
    struct Asleep(Mutex<Duration>);

    impl Uptime for Asleep {
        fn uptime(&self) -> Duration {
            *self.0.lock()
        }
    }

    fn awake() -> Moments {
        Moments::new(Arc::new(Asleep::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_out_while_the_machine_sleeps() {
        let clock = Arc::new(Asleep::default());
        let moments = Moments::new(clock.clone());
        let lease = Lease::new(moments.clone());
        lease.renewed(moments.now(), Duration::from_secs(3));
        tokio::time::advance(Duration::from_millis(10)).await;
        let asked_at = moments.now();
        *clock.0.lock() += Duration::from_secs(3_600);
        assert!(!lease.is_current());
        // An answer from before it slept renews nothing.
        lease.renewed(asked_at, Duration::from_secs(3));
        assert!(!lease.is_current());
        lease.renewed(moments.now(), Duration::from_secs(1));
        assert!(lease.is_current(), "a shorter one, but asked for now");
        *clock.0.lock() += Duration::from_secs(1);
        assert!(lease.run_out() && !lease.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn the_estimate_moves_while_the_machine_sleeps() {
        let asleep = Arc::new(Asleep::default());
        let clock = StoreClock::new(Moments::new(asleep.clone()));
        clock.read(Instant::now(), StoreTime::from_millis(100));
        *asleep.0.lock() += Duration::from_millis(3_600_000);
        assert_eq!(clock.at_least(), StoreTime::from_millis(3_600_100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_the_request() {
        let moments = awake();
        let lease = Lease::new(moments.clone());
        assert!(!lease.is_current());
        let asked_at = moments.now();
        tokio::time::advance(Duration::from_millis(400)).await;
        lease.renewed(asked_at, Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(599)).await;
        assert!(lease.is_current());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!lease.is_current());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_renewed_does_not_run_out() {
        let moments = awake();
        let lease = Lease::new(moments.clone());
        assert!(!lease.run_out(), "there is none");
        lease.renewed(moments.now(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        // A watcher that saw it run out comes after the renewal.
        assert!(!lease.is_current());
        lease.renewed(moments.now(), Duration::from_secs(1));
        assert!(!lease.run_out() && lease.is_current());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(lease.run_out() && !lease.is_current());
        assert!(!lease.run_out(), "it ends once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_estimate_moves_with_time() {
        let clock = StoreClock::new(awake());
        assert_eq!(clock.at_least(), StoreTime::default());
        clock.read(Instant::now(), StoreTime::from_millis(100));
        tokio::time::advance(Duration::from_millis(7)).await;
        assert_eq!(clock.at_least(), StoreTime::from_millis(107));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_overtaken_says_nothing() {
        let millis = StoreTime::from_millis;
        let clock = StoreClock::new(awake());
        // It took 100 ms to come.
        clock.read(Instant::now(), millis(100));
        let overtaken = Instant::now();
        tokio::time::advance(Duration::from_millis(5)).await;
        // The clock showed 200, and was set back by 50: that is later than the estimate all the same.
        clock.read(Instant::now(), millis(155));
        tokio::time::advance(Duration::from_millis(5)).await;
        clock.read(overtaken, millis(200));
        assert_eq!(clock.at_least(), millis(160));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_just_stored_shows_that_the_clock_was_set_back() {
        let millis = StoreTime::from_millis;
        let clock = StoreClock::new(awake());
        let asked_at = Instant::now();
        clock.read(asked_at, millis(100));
        let sent = clock.at_least();
        tokio::time::advance(Duration::from_millis(7)).await;
        clock.stored(sent, millis(100));
        assert_eq!(clock.at_least(), millis(107), "it was stored while the answer was on its way");
        clock.stored(sent, millis(60));
        assert_eq!(clock.at_least(), millis(60));
        tokio::time::advance(Duration::from_millis(5)).await;
        clock.read(asked_at, millis(108));
        assert_eq!(clock.at_least(), millis(65), "the answer to an earlier question says nothing");
        clock.read(Instant::now(), millis(66));
        assert_eq!(clock.at_least(), millis(66));
    }
}
