//! Shrinks a failing scenario to a small one that still fails.
//!
//! First it loses unneeded parts: steps, then consumers, producers, queues, brokers and managers, by delta debugging
//! ([`ddmin`]). Then the rest becomes shorter and plainer ([`simplify`]). As each can make room for the other, both alternate
//! until neither gets any further.

mod ddmin;
mod part;
mod simplify;

use std::collections::BTreeSet;

use self::{ddmin::ddmin, part::Part};
use crate::scenario::Scenario;

/// The smallest scenario that was found to fail, trying at most `attempts` others.
///
/// The search is deterministic: with a deterministic `still_fails`, the same scenario shrinks to the same result. No
/// candidate is tried twice. The result fails, provided that `scenario` does, which is not tried; it is `scenario` itself if
/// no smaller candidate failed.
#[must_use]
pub fn shrink(scenario: &Scenario, attempts: usize, still_fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let smallest = scenario.clone();
    let mut search = Search { smallest, attempts, still_fails, passed: BTreeSet::new() };
    loop {
        let before = search.smallest.clone();
        Part::ALL.into_iter().for_each(|part| search.leave_out(part));
        search.simplify();
        if search.smallest == before {
            return before;
        }
    }
}

/// The state of the search.
struct Search<F> {
    /// The smallest scenario found that fails.
    smallest: Scenario,
    /// The number of attempts left.
    attempts: usize,
    still_fails: F,
    /// Candidates that did not fail, as JSON.
    passed: BTreeSet<String>,
}

impl<F: FnMut(&Scenario) -> bool> Search<F> {
    /// True if the candidate fails, which makes it the smallest.
    fn attempt(&mut self, candidate: Scenario) -> bool {
        if self.attempts == 0 || candidate == self.smallest {
            return false;
        }
        let text = serde_json::to_string(&candidate).expect("a scenario has only string keys");
        if self.passed.contains(&text) {
            return false;
        }
        self.attempts -= 1;
        let fails = (self.still_fails)(&candidate);
        if fails {
            self.smallest = candidate;
        } else {
            self.passed.insert(text);
        }
        fails
    }

    /// Leaves out as much of a part as possible.
    fn leave_out(&mut self, part: Part) {
        let whole = self.smallest.clone();
        let numbers: Vec<usize> = (0..part.count(&whole)).collect();
        ddmin(numbers, part.least(), |kept| self.attempt(part.only(&whole, kept)));
    }

    fn simplify(&mut self) {
        for way in simplify::OF_ALL {
            self.as_far_as_it_goes(|scenario| way(scenario).into_iter().collect());
        }
        for number in 0..self.smallest.workload.producers.len() {
            for way in simplify::OF_PRODUCERS {
                self.as_far_as_it_goes(|scenario| {
                    let plans = way(&scenario.workload.producers[number]).into_iter();
                    plans.map(|plan| with(scenario, |new| new.workload.producers[number] = plan)).collect()
                });
            }
        }
        for number in 0..self.smallest.workload.consumers.len() {
            for way in simplify::OF_CONSUMERS {
                self.as_far_as_it_goes(|scenario| {
                    let plans = way(&scenario.workload.consumers[number]).into_iter();
                    plans.map(|plan| with(scenario, |new| new.workload.consumers[number] = plan)).collect()
                });
            }
        }
        for number in 0..self.smallest.steps.len() {
            for way in simplify::OF_STEPS {
                self.as_far_as_it_goes(|scenario| {
                    let steps = way(&scenario.steps[number]).into_iter();
                    steps.map(|step| with(scenario, |new| new.steps[number] = step)).collect()
                });
            }
        }
    }

    /// Continues with the first of the variants that fails, until none does.
    fn as_far_as_it_goes(&mut self, variants: impl Fn(&Scenario) -> Vec<Scenario>) {
        while variants(&self.smallest).into_iter().any(|variant| self.attempt(variant)) {}
    }
}

/// A copy of the scenario with a change.
fn with(scenario: &Scenario, change: impl FnOnce(&mut Scenario)) -> Scenario {
    let mut new = scenario.clone();
    change(&mut new);
    new
}

#[cfg(test)]
mod tests;
