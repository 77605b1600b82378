//! Sometimes-marks, as a sweep sees them: which points of the logic were never reached, in none of its runs.

use std::collections::BTreeMap;

use rmom_core::marks::Mark;

/// The simulated database read as many headers as it was asked for, and there may be more.
pub(crate) const FULL_HEADERS: &str = "simulation: a page of headers was full";
/// It read as many bytes as it was asked for, and there were more.
pub(crate) const FULL_PAGE: &str = "simulation: a page of messages was full";
/// It removed as many batches as it was asked for, and there may be more.
pub(crate) const FULL_TRIM: &str = "simulation: a trim took as much as it may";
/// A client on the raw wire was told that a broker has too much to do.
pub(crate) const TOLD_OVERLOADED: &str = "simulation: a client was told that a broker is overloaded";

/// A connection was closed at once, since its address had all places that there are for one, also in the reserve.
pub(crate) const CONNECTION_REFUSED: &str = "simulation: a connection beyond the reserve was refused";
/// A connection beyond the limit was answered what the reserve is for.
pub(crate) const RESERVE_USED: &str = "simulation: a connection in the reserve was served";
/// It was refused everything else.
pub(crate) const TURNED_AWAY: &str = "simulation: a request in the reserve was turned away";

/// What only the simulation can see: that small limits were met.
const OWN: [&str; 7] =
    [FULL_HEADERS, FULL_PAGE, FULL_TRIM, TOLD_OVERLOADED, CONNECTION_REFUSED, RESERVE_USED, TURNED_AWAY];

/// The names of all points that a sweep is to reach.
pub fn all() -> impl Iterator<Item = &'static str> {
    Mark::ALL.iter().map(|mark| mark.name()).chain(OWN)
}

/// Those of them that are not among `reached`: what the scenarios never led to.
#[must_use]
pub fn never_reached(reached: &BTreeMap<String, u64>) -> Vec<&'static str> {
    all().filter(|name| reached.get(*name).is_none_or(|&times| times == 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_is_not_missing() {
        let reached = BTreeMap::from([(Mark::Trimmed.name().to_owned(), 1), (Mark::TrimFenced.name().to_owned(), 0)]);
        let missing = never_reached(&reached);
        assert_eq!(missing.len(), all().count() - 1);
        assert!(missing.contains(&Mark::TrimFenced.name()) && !missing.contains(&Mark::Trimmed.name()));
    }
}
