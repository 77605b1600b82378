//! How many offsets a read looks through.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A read looks through as many at least.
const LEAST: u64 = 1_000;
/// More often it is not halved.
const MOST_HALVINGS: u32 = 8;

/// How many offsets a read of a queue looks through: rows that expired and are not vacuumed take their time. Half as many after
/// a read that failed, since a subscriber that comes back begins with the same one; twice as many after one that went well.
#[derive(Debug, Default)]
pub(super) struct Span {
    halvings: AtomicU32,
}

impl Span {
    /// As many, `most` if all goes well.
    pub(super) fn offsets(&self, most: u64) -> u64 {
        (most >> self.halvings.load(Relaxed)).max(LEAST.min(most))
    }

    pub(super) fn failed(&self) {
        let _ = self.halvings.fetch_update(Relaxed, Relaxed, |halvings| Some((halvings + 1).min(MOST_HALVINGS)));
    }

    pub(super) fn succeeded(&self) {
        let _ = self.halvings.fetch_update(Relaxed, Relaxed, |halvings| halvings.checked_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_and_doubles_within_its_bounds() {
        let span = Span::default();
        let after = |change: fn(&Span)| {
            change(&span);
            span.offsets(200_000)
        };
        assert_eq!(span.offsets(200_000), 200_000);
        assert_eq!([after(Span::failed), after(Span::failed)], [100_000, 50_000]);
        assert_eq!(
            [after(Span::succeeded), after(Span::succeeded), after(Span::succeeded)],
            [100_000, 200_000, 200_000]
        );
        assert_eq!(span.offsets(3), 3);
        assert_eq!([(); 100].map(|()| after(Span::failed))[99], LEAST);
        assert_eq!([(); 100].map(|()| after(Span::succeeded))[99], 200_000);
    }
}
