//! What came of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    check::{Promise, Violation},
    history::Record,
    scenario::Scenario,
};

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All promises were kept, under faults that mattered.
    Passed,
    /// All promises were kept, but so little happened that this says nothing: below the floor that is named.
    Vacuous(String),
    /// A promise of safety was broken.
    Safety,
    /// Only promise 10 was broken: something did not proceed in time.
    Liveness,
    /// Something panicked, or ended that should not: the message.
    Crashed(String),
}

/// How it is told, in one line.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed: all promises were kept"),
            Self::Vacuous(why) => write!(f, "vacuous: all promises were kept, but {why}"),
            Self::Safety => f.write_str("failed: a promise of safety was broken"),
            Self::Liveness => f.write_str("failed: something did not proceed in time"),
            Self::Crashed(why) => write!(f, "crashed: {why}"),
        }
    }
}

/// What happened how often in a run, or in all runs of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Pushes that were tried.
    pub pushes: u64,
    /// Pushes that were acknowledged.
    pub acknowledgements: u64,
    /// Messages that came in, at applications and on raw streams.
    pub deliveries: u64,
    /// Faults that began.
    pub faults: u64,
    /// Faults during which something was in flight: a push without an answer yet.
    pub faults_in_flight: u64,
    /// Claims of queues after the first of each.
    pub failovers: u64,
    /// Simulated milliseconds.
    pub simulated_millis: u64,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was run.
    pub scenario: Scenario,
    /// How it ended.
    pub verdict: Verdict,
    /// Which promises were broken.
    pub violations: Vec<Violation>,
    /// What happened how often.
    pub counts: Counts,
    /// Points in the logic that were reached, and how often.
    pub marks: BTreeMap<String, u64>,
    /// The evidence.
    pub history: Vec<Record>,
    /// How long it took, in real time.
    pub took: Duration,
}

/// What a failure looks like, to tell whether a smaller scenario fails for the same cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// Promises of safety were broken: these.
    Safety(BTreeSet<Promise>),
    /// Only promise 10 was broken.
    Liveness,
    /// Something crashed.
    Crashed,
}

impl Symptom {
    /// That of a run; none if it did not fail.
    #[must_use]
    pub fn of(verdict: &Verdict, violations: &[Violation]) -> Option<Self> {
        match verdict {
            Verdict::Passed | Verdict::Vacuous(_) => None,
            Verdict::Safety => {
                let broken = violations.iter().map(|violation| violation.promise);
                Some(Self::Safety(broken.filter(|promise| !promise.is_liveness()).collect()))
            }
            Verdict::Liveness => Some(Self::Liveness),
            Verdict::Crashed(_) => Some(Self::Crashed),
        }
    }

    /// True if it may well be the same bug: what breaks another promise is another one.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Safety(some), Self::Safety(others)) => !some.is_disjoint(others),
            _ => self == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symptom(verdict: &Verdict, promises: &[Promise]) -> Option<Symptom> {
        let violation = |&promise| Violation { promise, what: String::new(), records: Vec::new() };
        Symptom::of(verdict, &promises.iter().map(violation).collect::<Vec<_>>())
    }

    #[test]
    fn another_bug_is_not_the_same_failure() {
        use Promise::{Convergence, NoLoss, Order};
        let safety = |promises: &[Promise]| symptom(&Verdict::Safety, promises).unwrap();
        let liveness = symptom(&Verdict::Liveness, &[Convergence]).unwrap();
        let crashed = |message: &str| symptom(&Verdict::Crashed(message.into()), &[]).unwrap();
        let lost = safety(&[NoLoss, Convergence]);
        assert!(safety(&[Order, NoLoss]).is_like(&lost));
        assert!(!safety(&[Order, Convergence]).is_like(&lost));
        assert!(!liveness.is_like(&lost) && !crashed("boom").is_like(&lost) && liveness.is_like(&liveness));
        assert!(crashed("one").is_like(&crashed("other")));
        assert_eq!(symptom(&Verdict::Passed, &[]), None);
        assert_eq!(symptom(&Verdict::Vacuous(String::new()), &[]), None);
    }
}
