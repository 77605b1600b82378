//! The database's clock, reconstructed from the history.

use rmom_sim::{
    EPOCH_MILLIS,
    history::{Event, Record},
};

/// Simulated hosts take turns within a tick, and a record has the time of its host, so the database's clock may differ by
/// this much from a record's time. In milliseconds; no tick is longer.
const GRAIN_MILLIS: u64 = 20;

/// The readings of the database's clock over time. The clock runs with simulated time, except where it is set.
#[derive(Debug)]
pub(super) struct StoreClock {
    /// Pairs of a simulated time in microseconds and the reading from then on. In order; the first is at 0.
    lines: Vec<(u64, u64)>,
    /// How long after the clock was set a broker may go on with its old reading, in microseconds.
    stale_micros: u64,
}

impl StoreClock {
    /// Every broker takes a new reading within `stale_millis`.
    pub(super) fn new(history: &[Record], stale_millis: u64) -> Self {
        let mut lines = vec![(0, start(history))];
        lines.extend(history.iter().filter_map(|record| match record.event {
            Event::StoreClock { to_millis, .. } => Some((record.at_micros, to_millis)),
            _ => None,
        }));
        Self { lines, stale_micros: stale_millis.saturating_mul(1_000) }
    }

    /// True if the clock was set after `micros`.
    pub(super) fn was_set_after(&self, micros: u64) -> bool {
        self.lines.last().is_some_and(|&(since, _)| since > 0 && since >= micros)
    }

    /// The latest time that any process which knows the batch stored at `stored` can have assumed for the database, from
    /// then to `micros`. `stored_at_millis` is the time that the database gave the batch.
    ///
    /// A process that read the clock before it was set back goes on with that reading. But each append tells the owner the
    /// database's time: from then on it assumes at most the time of that append plus the time elapsed since.
    pub(super) fn at_most_since(&self, stored: u64, stored_at_millis: u64, micros: u64) -> u64 {
        let ends = self.lines.iter().skip(1).map(|&(since, _)| since).chain([u64::MAX]);
        let shown =
            self.lines.iter().zip(ends).filter(|((since, _), _)| *since <= micros).map(|(&(since, base), end)| {
                let until = micros.min(end.saturating_add(self.stale_micros));
                if end <= stored {
                    return stored_at_millis + until.saturating_sub(stored) / 1_000;
                }
                base + (until - since) / 1_000
            });
        shown.max().unwrap_or(0) + GRAIN_MILLIS
    }

    /// The earliest reading of the clock between two simulated times, in microseconds.
    pub(super) fn at_least(&self, from: u64, to: u64) -> u64 {
        let ends = self.lines.iter().skip(1).map(|&(since, _)| since).chain([u64::MAX]);
        let shown = self.lines.iter().zip(ends).filter(|((since, _), end)| *since <= to && from < *end);
        let earliest = shown.map(|(&(since, base), _)| base + from.saturating_sub(since) / 1_000).min();
        earliest.unwrap_or(0).saturating_sub(GRAIN_MILLIS)
    }
}

/// The clock's reading at the beginning, derived from later readings.
fn start(history: &[Record]) -> u64 {
    let before = |record: &Record, millis: u64| millis.saturating_sub(record.at_micros / 1_000);
    // These events carry the clock's reading at the time of their record.
    let told = history.iter().find_map(|record| match record.event {
        Event::StoreClock { from_millis: millis, .. } | Event::AuditDone { at_millis: millis } => {
            Some(before(record, millis))
        }
        _ => None,
    });
    // A transaction carries the clock's reading at its start, and can be recorded long after.
    let looked = || {
        history.iter().filter_map(|record| match record.event {
            Event::Stored { stored_at_millis: millis, .. } | Event::Trimmed { at_millis: millis, .. } => {
                Some(before(record, millis))
            }
            _ => None,
        })
    };
    told.or_else(|| looked().max()).unwrap_or(EPOCH_MILLIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at_millis: u64, event: Event) -> Record {
        Record { at_micros: at_millis * 1_000, host: "database".into(), event }
    }

    #[test]
    fn a_transaction_read_the_clock_earlier() {
        let trimmed = |at_millis| Event::Trimmed { queue_id: 1, through: 1, at_millis };
        let history = [record(100, trimmed(5_000)), record(200, trimmed(5_199)), record(300, trimmed(4_000))];
        assert_eq!(StoreClock::new(&history, 0).at_most_since(0, 0, 300_000), 5_299 + GRAIN_MILLIS);
    }

    #[test]
    fn the_clock_follows_simulated_time_and_can_be_set() {
        let history = [
            record(100, Event::AuditDone { at_millis: 5_100 }),
            record(1_000, Event::StoreClock { from_millis: 6_000, to_millis: 3_000 }),
        ];
        let clock = StoreClock::new(&history, 500);
        let at_most = |micros| clock.at_most_since(500_000, 5_500, micros);
        assert_eq!(at_most(900_000), 5_900 + GRAIN_MILLIS);
        assert_eq!(at_most(1_200_000), 6_200 + GRAIN_MILLIS, "some have not heard that it was set back");
        assert_eq!(at_most(1_900_000), 6_500 + GRAIN_MILLIS, "by now they have, but have acted on it");
        let at_most = |stored_at_millis, micros| clock.at_most_since(1_100_000, stored_at_millis, micros);
        assert_eq!(at_most(3_100, 1_200_000), 3_200 + GRAIN_MILLIS, "who stored this has heard");
        assert_eq!(at_most(6_000, 1_200_000), 6_100 + GRAIN_MILLIS, "or goes on from the last of the queue");
        assert_eq!(at_most(6_000, 1_900_000), 6_400 + GRAIN_MILLIS);
        assert_eq!(clock.at_least(900_000, 950_000), 5_900 - GRAIN_MILLIS);
        assert_eq!(clock.at_least(900_000, 1_100_000), 3_000 - GRAIN_MILLIS);
        assert_eq!(clock.at_least(1_500_000, 1_600_000), 3_500 - GRAIN_MILLIS);
        assert!(clock.was_set_after(900_000) && !clock.was_set_after(1_100_000));
    }
}
