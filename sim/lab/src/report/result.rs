//! The result of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use rmom_sim::history::Record;
use serde::{Deserialize, Serialize};

use crate::{
    check::{Promise, Violation},
    scenario::Scenario,
};

/// The result of a run, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All promises were kept, under faults that had an effect.
    Passed,
    /// All promises were kept, but so little happened that this proves nothing: the sentence names the floor that was not
    /// reached.
    Vacuous(String),
    /// A safety promise was broken.
    Safety,
    /// Only promise 10 was broken: something did not proceed in time.
    Liveness,
    /// A panic, or a process that ended although it should not have: the message.
    Crashed(String),
}

/// The verdict in one line.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed: all promises were kept"),
            Self::Vacuous(why) => write!(f, "vacuous: all promises were kept, but {why}"),
            Self::Safety => f.write_str("failed: a promise of safety was broken"),
            Self::Liveness => f.write_str("failed: a promise of liveness was broken"),
            Self::Crashed(why) => write!(f, "crashed: {why}"),
        }
    }
}

/// Counts of events in a run, or in all runs of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Attempts to push.
    pub pushes: u64,
    /// Acknowledged pushes.
    pub acknowledgements: u64,
    /// Messages received, by applications and on raw streams.
    pub deliveries: u64,
    /// Faults that began.
    pub faults: u64,
    /// Faults during which a push was in flight.
    pub faults_in_flight: u64,
    /// Claims of queues, without the first of each.
    pub failovers: u64,
    /// Simulated milliseconds.
    pub simulated_millis: u64,
}

/// The result of a run, in full.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The scenario.
    pub scenario: Scenario,
    /// The verdict.
    pub verdict: Verdict,
    /// The broken promises.
    pub violations: Vec<Violation>,
    /// Counts of events.
    pub counts: Counts,
    /// Marks that were reached, with their counts.
    pub marks: BTreeMap<String, u64>,
    /// The evidence.
    pub history: Vec<Record>,
    /// Its duration in real time.
    pub took: Duration,
}

/// The symptom of a failure, by which a smaller scenario can be recognized as failing for the same cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// These safety promises were broken.
    Safety(BTreeSet<Promise>),
    /// Only promise 10 was broken.
    Liveness,
    /// The run crashed.
    Crashed,
}

impl Symptom {
    /// The symptom of a run, or `None` if it did not fail.
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

    /// True if both may well be the same bug. A failure that breaks another promise is another bug.
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
