//! Sometimes-marks, as a sweep sees them: which points of the logic were never reached, in none of its runs.

use std::collections::BTreeMap;

use rmom_core::marks::Mark;

/// The names of all points that a sweep is to reach.
pub fn all() -> impl Iterator<Item = &'static str> {
    Mark::ALL.iter().map(|mark| mark.name())
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
        assert_eq!(missing.len(), Mark::ALL.len() - 1);
        assert!(missing.contains(&Mark::TrimFenced.name()) && !missing.contains(&Mark::Trimmed.name()));
    }
}
