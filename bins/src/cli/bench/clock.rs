//! The clock of a run, and measured times.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The longest time that a histogram can represent.
const LONGEST_MICROS: u64 = 3_600_000_000;
/// Significant digits of a time in a histogram.
const DIGITS: u8 = 3;

/// Microseconds since the start of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Micros(pub(super) u64);

impl Micros {
    pub(super) const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// The start of a run, the end of its warm-up, and its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    pub(super) measured_from: Micros,
    pub(super) end: Micros,
}

impl Clock {
    /// Starts the run now.
    pub(super) fn start(warm_up: Duration, duration: Duration) -> Self {
        let micros = |time: Duration| Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        Self { start: Instant::now(), measured_from: micros(warm_up), end: micros(warm_up + duration) }
    }

    pub(super) fn now(&self) -> Micros {
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// True if an event at this time counts.
    pub(super) fn is_measured(&self, at: Micros) -> bool {
        (self.measured_from..self.end).contains(&at)
    }

    pub(super) fn instant(&self, at: Micros) -> Instant {
        self.start + Duration::from_micros(at.0)
    }

    /// Length of the measured time.
    pub(super) fn measured(&self) -> Duration {
        self.end.since(self.measured_from)
    }
}

/// Times from which any percentile can be computed, to three digits.
#[derive(Clone, Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).expect("the bounds are those of a histogram"))
    }

    /// Records a time; longer times than an hour count as an hour.
    pub(super) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms here have the same bounds");
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time below which this percentage of all times lies.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }

    /// The percentiles as text. Without times, an empty text.
    pub(super) fn text(&self) -> String {
        if self.0.is_empty() {
            return "-".to_owned();
        }
        let percentiles =
            [50.0, 90.0, 99.0, 99.9].map(|percent| format!("p{percent} {}", ms(self.percentile(percent))));
        format!("{}, max {} ms", percentiles.join(", "), ms(self.max()))
    }

    pub(super) fn json(&self) -> Value {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let at = |percent| millis(self.percentile(percent));
        json!({
            "count": self.count(), "mean": self.0.mean() / 1e3, "p50": at(50.0), "p90": at(90.0), "p99": at(99.0),
            "p99_9": at(99.9), "max": millis(self.max()),
        })
    }
}

/// Milliseconds with a sensible number of digits.
pub(super) fn ms(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.2}"),
        10.0..100.0 => format!("{millis:.1}"),
        _ => format!("{millis:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_times() {
        let mut times = Times::new();
        (1..=1_000).for_each(|millis| times.record(Duration::from_millis(millis)));
        let near = |time: Duration, millis: f64| assert!((time.as_secs_f64() * 1e3 / millis - 1.0).abs() < 0.002);
        near(times.percentile(50.0), 500.0);
        near(times.percentile(99.0), 990.0);
        near(times.max(), 1_000.0);
        times.record(Duration::from_secs(10_000));
        near(times.max(), 3_600_000.0);
        let mut sum = Times::new();
        sum.add(&times);
        assert_eq!(sum.count(), 1_001);
        assert_eq!(Times::new().text(), "-");
    }
}
