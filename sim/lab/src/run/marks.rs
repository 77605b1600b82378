//! Sometimes-marks, as a sweep uses them: which points of the logic none of its runs reached.

use std::collections::BTreeMap;

use rmom_core::marks::Mark;
use rmom_sim::DATABASE_MARKS;

/// A broker told a client on the raw wire that it is overloaded.
pub(crate) const TOLD_OVERLOADED: &str = "simulation: a client was told that a broker is overloaded";

/// A broker closed a connection at once, since its address already had all its connections, including the reserve.
pub(crate) const CONNECTION_REFUSED: &str = "simulation: a connection beyond the reserve was refused";
/// A connection beyond the limit got an answer for which the reserve exists.
pub(crate) const RESERVE_USED: &str = "simulation: a connection in the reserve was served";
/// A connection beyond the limit was refused any other answer.
pub(crate) const TURNED_AWAY: &str = "simulation: a request in the reserve was turned away";

/// Marks for small limits that only a run of the simulation can reach, besides those of the simulated database.
const OWN: [&str; 4] = [TOLD_OVERLOADED, CONNECTION_REFUSED, RESERVE_USED, TURNED_AWAY];

/// The names of all points that a sweep should reach.
pub fn all() -> impl Iterator<Item = &'static str> {
    Mark::ALL.iter().map(|mark| mark.name()).chain(DATABASE_MARKS).chain(OWN)
}

/// The names of the points that `reached` does not contain.
#[must_use]
pub fn never_reached(reached: &BTreeMap<String, u64>) -> Vec<&'static str> {
    all().filter(|name| reached.get(*name).is_none_or(|&times| times == 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reached_marks_are_not_missing() {
        let reached = BTreeMap::from([(Mark::Trimmed.name().to_owned(), 1), (Mark::TrimFenced.name().to_owned(), 0)]);
        let missing = never_reached(&reached);
        assert_eq!(missing.len(), all().count() - 1);
        assert!(missing.contains(&Mark::TrimFenced.name()) && !missing.contains(&Mark::Trimmed.name()));
    }
}
