//! Lets a script decide which faults happen, and when.

use std::time::Duration;

use rmom_core::model::QueueLabel;
use rmom_sim::{
    Cluster, SimError,
    history::{Event, Record},
};

use super::{fault_injector::FaultInjector, run_state::RunState};
use crate::scenario::{Action, Host};

/// How long the workload lasts at least.
const WORKLOAD: Duration = Duration::from_secs(1);

/// The handle with which a script of [`run_scripted`](super::run_scripted) acts. Time passes only in its methods.
pub struct Driver<'a> {
    run: &'a RunState,
    cluster: &'a mut Cluster,
    injector: FaultInjector,
    began: Duration,
    patience: Duration,
    /// How much of the history the script has reacted to.
    seen: usize,
}

impl<'a> Driver<'a> {
    pub(super) fn new(run: &'a RunState, cluster: &'a mut Cluster, patience: Duration) -> Self {
        let began = cluster.elapsed();
        Self { run, cluster, injector: FaultInjector::new(run), began, patience, seen: run.history.len() }
    }

    /// Ends all active steps.
    pub(super) fn heal(mut self) {
        self.injector.heal(self.cluster);
    }

    /// Lets time pass until the last timed step of the scenario has ended.
    ///
    /// # Errors
    /// If the simulation fails.
    pub fn follow(&mut self) -> Result<(), SimError> {
        let last = self.injector.last().max(WORKLOAD);
        while self.since() < last {
            self.tick()?;
        }
        self.seen = self.run.history.len();
        Ok(())
    }

    /// Lets this much simulated time pass.
    ///
    /// # Errors
    /// If the simulation fails.
    pub fn run_for(&mut self, time: Duration) -> Result<(), SimError> {
        let end = self.since() + time;
        while self.since() < end {
            self.tick()?;
        }
        self.seen = self.run.history.len();
        Ok(())
    }

    /// Lets time pass until an event satisfies `which`, after the last event that the script caused or waited for. Returns
    /// within the tick of 2 ms in which the event happened. `what` describes the event in words.
    ///
    /// # Errors
    /// If the event does not happen within the bound for convergence (promise 10), or the simulation fails.
    pub fn wait_for(&mut self, what: &str, which: impl Fn(&Event) -> bool) -> Result<Record, SimError> {
        let end = self.since() + self.patience;
        loop {
            if let Some((at, found)) = self.run.history.find(self.seen, |record| which(&record.event)) {
                self.seen = at + 1;
                return Ok(found);
            }
            self.seen = self.run.history.len();
            if self.since() >= end {
                let reason = format!("no event was {what} within {:?}", self.patience);
                return Err(SimError::Failed { at: self.cluster.elapsed(), reason });
            }
            self.tick()?;
        }
    }

    /// Begins an action on the cluster, and returns its number, by which it is ended.
    pub fn begin(&mut self, action: Action) -> usize {
        let since = self.since();
        let step = self.injector.inject(self.cluster, since, action);
        self.seen = self.run.history.len();
        step
    }

    /// Ends an action. Actions that are still active when the script ends are ended then.
    pub fn end(&mut self, step: usize) {
        self.injector.end(self.cluster, step);
        self.seen = self.run.history.len();
    }

    /// The broker to which a queue is assigned; queues are counted from 1.
    ///
    /// # Panics
    /// If the queue does not exist or has no broker.
    #[must_use]
    pub fn owner(&self, queue: u8) -> Host {
        let label = QueueLabel::parse(&self.run.label(queue)).expect("it is the label of a queue");
        let host = self.cluster.hosting(&label).unwrap_or_else(|| panic!("queue {queue} has no broker"));
        host.parse().expect("brokers' hosts have valid names")
    }

    /// The cluster, for inspection.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// Simulated time since the workload began.
    fn since(&self) -> Duration {
        self.cluster.elapsed() - self.began
    }

    fn tick(&mut self) -> Result<(), SimError> {
        let since = self.since();
        self.injector.advance(self.cluster, since);
        self.cluster.tick()
    }
}

#[cfg(test)]
mod tests {
    use rmom_sim::history::{Event, Phase};

    use crate::{
        report::Verdict,
        run::run_scripted,
        scenario::{Action, Host, Scenario},
    };

    fn calm() -> Scenario {
        Scenario { steps: Vec::new(), ..Scenario::from_seed(1) }
    }

    #[test]
    fn actions_of_a_script_end_with_it() {
        let report = run_scripted(&calm(), |driver| {
            driver.begin(Action::Crash(Host::Broker(1)));
            driver.wait_for("a push", |event| matches!(event, Event::PushSent { .. }))?;
            Ok(())
        });
        let at = |wanted: &Event| report.history.iter().position(|record| record.event == *wanted).unwrap();
        let healed = at(&Event::PhaseBegan { phase: Phase::Healed });
        assert!(at(&Event::FaultEnded { step: 0 }) < healed && healed < at(&Event::Converged));
    }

    #[test]
    fn a_script_does_not_wait_for_ever() {
        let report = run_scripted(&calm(), |driver| driver.wait_for("a miracle", |_| false).map(drop));
        let Verdict::Crashed(why) = report.verdict else { panic!("{:?}", report.verdict) };
        assert!(why.contains("no event was a miracle within"), "{why}");
    }
}
