//! A scenario becomes a run: the workload under faults, healing, liveness, drain, audit, judgement.

use std::time::Duration;

use crate::{
    report::{Counts, Report, Verdict},
    scenario::Scenario,
};

/// Runs a scenario, on a thread of its own, and judges it. A panic within is a verdict, not a panic here.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    Report {
        scenario: scenario.clone(),
        verdict: Verdict::Vacuous("nothing is run yet".into()),
        violations: Vec::new(),
        counts: Counts::default(),
        marks: std::collections::BTreeMap::new(),
        history: Vec::new(),
        took: Duration::ZERO,
    }
}
