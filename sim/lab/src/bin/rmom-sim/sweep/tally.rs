//! The totals of a sweep.

use std::collections::BTreeMap;

use rmom_sim_lab::{
    report::{Counts, Verdict},
    run::marks,
};
use serde::Serialize;

use crate::{exit::Exit, worker::Outcome};

/// A sweep with a greater share of vacuous runs proves too little, in percent.
pub(super) const MAX_VACUOUS_PERCENT: u64 = 5;

/// The sum of all outcomes so far.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tally {
    pub(super) seeds: u64,
    pub(super) passed: u64,
    pub(super) vacuous: u64,
    pub(super) safety: u64,
    pub(super) liveness: u64,
    pub(super) crashed: u64,
    pub(super) counts: Counts,
    pub(super) marks: BTreeMap<String, u64>,
    pub(super) cpu_micros: u64,
    /// Reasons for vacuous runs, with their counts.
    pub(super) vacuous_for: BTreeMap<String, u64>,
    #[serde(skip)]
    pub(super) failures: Vec<Outcome>,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        match &outcome.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Vacuous(why) => {
                self.vacuous += 1;
                *self.vacuous_for.entry(why.clone()).or_default() += 1;
            }
            Verdict::Safety => self.safety += 1,
            Verdict::Liveness => self.liveness += 1,
            Verdict::Crashed(_) => self.crashed += 1,
        }
        let (sum, counts) = (&mut self.counts, outcome.counts);
        sum.pushes += counts.pushes;
        sum.acknowledgements += counts.acknowledgements;
        sum.deliveries += counts.deliveries;
        sum.faults += counts.faults;
        sum.faults_in_flight += counts.faults_in_flight;
        sum.failovers += counts.failovers;
        sum.simulated_millis += counts.simulated_millis;
        for (mark, times) in &outcome.marks {
            *self.marks.entry(mark.clone()).or_default() += times;
        }
        self.cpu_micros += outcome.cpu_micros;
        if outcome.failed() {
            self.failures.push(outcome);
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.safety + self.liveness + self.crashed
    }

    /// Scenarios per minute per core, or `None` before the first measurement.
    pub(super) fn per_minute_per_core(&self) -> Option<f64> {
        (self.cpu_micros > 0).then(|| self.seeds as f64 * 60e6 / self.cpu_micros as f64)
    }

    /// The number of marks that were reached, and the number of all marks.
    pub(super) fn marks_reached(&self) -> (usize, usize) {
        let all = marks::all().count();
        (all - self.never_reached().len(), all)
    }

    pub(super) fn never_reached(&self) -> Vec<&'static str> {
        marks::never_reached(&self.marks)
    }

    pub(super) fn too_vacuous(&self) -> bool {
        self.vacuous * 100 > self.seeds * MAX_VACUOUS_PERCENT
    }

    /// The gravest result.
    pub(super) fn exit(&self, require_marks: bool, interrupted: bool) -> Exit {
        let lacks_marks = require_marks && !self.never_reached().is_empty();
        match () {
            () if self.safety > 0 => Exit::Safety,
            () if self.crashed > 0 => Exit::Crashed,
            () if self.liveness > 0 => Exit::Liveness,
            () if interrupted => Exit::Interrupted,
            () if self.too_vacuous() || lacks_marks => Exit::TooLittle,
            () => Exit::Passed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(verdicts: impl IntoIterator<Item = Verdict>) -> Tally {
        let mut tally = Tally::default();
        for (seed, verdict) in (0..).zip(verdicts) {
            let crashed = Outcome::crashed(seed, String::new(), 0);
            tally.add(Outcome { verdict, cpu_micros: 500_000, ..crashed });
        }
        tally
    }

    fn vacuous() -> Verdict {
        Verdict::Vacuous("too few pushes".into())
    }

    #[test]
    fn the_gravest_finding_is_the_exit_code() {
        let crashed = || Verdict::Crashed("boom".into());
        let exit = |verdicts: &[Verdict]| tally(verdicts.to_vec()).exit(false, false);
        assert_eq!(exit(&[Verdict::Passed]), Exit::Passed);
        assert_eq!(exit(&[Verdict::Passed, Verdict::Liveness, vacuous()]), Exit::Liveness);
        assert_eq!(exit(&[crashed(), Verdict::Liveness]), Exit::Crashed);
        assert_eq!(exit(&[crashed(), Verdict::Liveness, Verdict::Safety]), Exit::Safety);
        assert_eq!(tally([Verdict::Safety]).exit(false, true), Exit::Safety);
        assert_eq!(tally([Verdict::Passed]).exit(false, true), Exit::Interrupted);
    }

    #[test]
    fn one_run_in_twenty_may_be_vacuous() {
        let passed = |number| std::iter::repeat_n(Verdict::Passed, number);
        assert_eq!(tally(passed(19).chain([vacuous()])).exit(false, false), Exit::Passed);
        assert_eq!(tally(passed(18).chain([vacuous()])).exit(false, false), Exit::TooLittle);
    }

    #[test]
    fn marks_are_required_on_request() {
        let mut tally = tally([Verdict::Passed]);
        assert_eq!(tally.exit(true, false), Exit::TooLittle);
        assert_eq!(tally.marks_reached().0, 0);
        tally.marks = marks::all().map(|mark| (mark.to_owned(), 1)).collect();
        assert_eq!(tally.exit(true, false), Exit::Passed);
    }

    #[test]
    fn speed_is_that_of_a_core() {
        assert_eq!(tally([]).per_minute_per_core(), None);
        assert_eq!(tally([Verdict::Passed, Verdict::Safety]).per_minute_per_core(), Some(120.0));
    }
}
