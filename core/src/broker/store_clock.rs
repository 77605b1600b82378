//! The broker's estimate of the store's clock, which decides what has expired.

use parking_lot::Mutex;
use tokio::time::Instant;

use super::moments::{Moment, Moments};
use crate::model::StoreTime;

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
    /// Readings that were requested before this may be older than a step of the clock backwards, and are ignored. It is when
    /// the reading in use was requested, or when the estimate was last found to be ahead.
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
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::broker::moments::testing::{Asleep, awake};

    #[tokio::test(start_paused = true)]
    async fn the_estimate_moves_while_the_machine_sleeps() {
        let asleep = Arc::new(Asleep::default());
        let clock = StoreClock::new(Moments::new(asleep.clone()));
        clock.read(Instant::now(), StoreTime::from_millis(100));
        *asleep.0.lock() += Duration::from_millis(3_600_000);
        assert_eq!(clock.at_least(), StoreTime::from_millis(3_600_100));
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
