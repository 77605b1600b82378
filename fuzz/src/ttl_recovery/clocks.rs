//! How wrong a broker may be about the store's clock, according to ARCHITECTURE.md: its estimate is at most a round trip
//! late; only a jump of the clock can make it more wrong, until the broker reads the clock again.

use tokio::time::Instant;

use crate::world::{Kind, Reading};

/// The offsets of the store's clock over time.
pub(crate) struct Jumps(Vec<(Instant, i64)>);

impl Jumps {
    pub(crate) fn new() -> Self {
        Self(vec![(Instant::now(), 0)])
    }

    /// From now on the clock is `ahead` milliseconds ahead of its original course.
    pub(crate) fn set(&mut self, ahead: i64) {
        self.0.push((Instant::now(), ahead));
    }

    /// The offsets in force at any time since `from`.
    fn since(&self, from: Instant) -> impl Iterator<Item = i64> {
        // At the instant of a jump both offsets are in force.
        let first = self.0.iter().rposition(|&(at, _)| at < from).unwrap_or_default();
        self.0[first..].iter().map(|&(_, ahead)| ahead)
    }

    fn now(&self) -> i64 {
        self.0.last().expect("there is the first").1
    }

    /// By how many milliseconds the clock was set forward since `from`, at most.
    fn forward_since(&self, from: Instant) -> i64 {
        self.now() - self.since(from).min().expect("something was in force")
    }

    /// By how many milliseconds the clock was set back since `from`, at most.
    fn back_since(&self, from: Instant) -> i64 {
        self.since(from).max().expect("something was in force") - self.now()
    }

    /// When the clock was last set back.
    pub(crate) fn last_back(&self) -> Option<Instant> {
        self.0.windows(2).rev().find(|two| two[1].1 < two[0].1).map(|two| two[1].0)
    }
}

/// The store's answers that a broker received.
pub(crate) struct Readings(pub(crate) Vec<Reading>);

impl Readings {
    fn readings(&self) -> impl DoubleEndedIterator<Item = &Reading> {
        // An append's answer can only make an estimate later.
        self.0.iter().filter(|reading| reading.kind != Kind::Append)
    }

    /// How far behind the clock the broker may be, in milliseconds. Its estimate may rest on any of the answers that came
    /// since its last question was asked.
    pub(crate) fn late(&self, jumps: &Jumps) -> i64 {
        let Some(last) = self.readings().next_back() else { return 0 };
        let may_count = self.0.iter().filter(|reading| reading.came >= last.asked);
        let late = may_count.map(|reading| jumps.forward_since(reading.asked) + millis(reading.came - reading.asked));
        late.max().unwrap_or_default()
    }

    /// How far ahead of the clock the broker may be, in milliseconds: as far as the clock was set back since the last
    /// answered question.
    pub(crate) fn early(&self, jumps: &Jumps) -> i64 {
        self.readings().map(|reading| reading.asked).max().map_or(0, |asked| jumps.back_since(asked))
    }
}

fn millis(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("a run is short")
}
