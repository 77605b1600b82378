//! The hand of fate: does to the cluster what the steps of a scenario say, when they say it.

use std::{collections::BTreeMap, time::Duration};

use super::stage::Stage;
use crate::{
    Cluster,
    history::Event,
    scenario::{Action, Host, Scenario, Step},
};

/// The steps that are still to come, and those that last.
pub(super) struct Fate {
    scenario: Scenario,
    /// By when they begin; the next one is the last.
    coming: Vec<(usize, Step)>,
    /// With when they end.
    lasting: Vec<(Duration, usize, Step)>,
    /// Hosts on which nothing runs, and how many steps want it so.
    down: BTreeMap<String, usize>,
    /// Links that are slow, with the latencies that the steps want.
    slow: BTreeMap<(String, String), Vec<u64>>,
}

impl Fate {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut coming: Vec<(usize, Step)> = scenario.steps.iter().cloned().enumerate().collect();
        // Those of the same time in the order in which they are written.
        coming.sort_by_key(|(number, step)| std::cmp::Reverse((step.at_millis, *number)));
        let (down, slow) = (BTreeMap::new(), BTreeMap::new());
        Self { scenario: scenario.clone(), coming, lasting: Vec::new(), down, slow }
    }

    /// True if nothing is to come, and nothing lasts.
    pub(super) fn is_over(&self) -> bool {
        self.coming.is_empty() && self.lasting.is_empty()
    }

    /// Does what is due, so long after the workload began.
    pub(super) fn pass(&mut self, cluster: &mut Cluster, stage: &Stage, since: Duration) {
        while let Some(at) = self.lasting.iter().position(|(until, ..)| *until <= since) {
            let (_, number, step) = self.lasting.remove(at);
            self.end(cluster, stage, number, &step);
        }
        let due = |step: &Step| Duration::from_millis(step.at_millis) <= since;
        while let Some((number, step)) = self.coming.pop_if(|(_, step)| due(step)) {
            self.begin(cluster, stage, number, &step);
            let until = Duration::from_millis(step.at_millis.saturating_add(step.for_millis));
            self.lasting.push((until, number, step));
        }
    }

    /// Ends everything, now.
    pub(super) fn heal(&mut self, cluster: &mut Cluster, stage: &Stage) {
        self.coming.clear();
        for (_, number, step) in std::mem::take(&mut self.lasting) {
            self.end(cluster, stage, number, &step);
        }
        assert!(self.down.is_empty() && self.slow.is_empty(), "something was not undone");
    }

    fn begin(&mut self, cluster: &mut Cluster, stage: &Stage, number: usize, step: &Step) {
        let hosts = step.action.hosts().filter(|host| self.exists(*host)).map(|host| host.to_string()).collect();
        stage.history.record("fate", Event::FaultBegan { step: number, what: step.action.to_string(), hosts });
        match &step.action {
            Action::Crash(host) => self.take_down(cluster, stage, *host, Cluster::crash),
            Action::PowerLoss(host) => self.take_down(cluster, stage, *host, Cluster::power_loss),
            Action::Cut { between, and } => self.for_links(between, and, |a, b| cluster.cut(a, b)),
            Action::CutOneway { from, to } => self.for_links(from, to, |a, b| cluster.cut_oneway(a, b)),
            Action::Hold { between, and } => self.for_links(between, and, |a, b| cluster.hold(a, b)),
            Action::Slow { between, and, latency_millis } => {
                for link in self.links(between, and) {
                    self.slow.entry(link.clone()).or_default().push(*latency_millis);
                    self.set_latency(cluster, &link);
                }
            }
            Action::Freeze(host) => self.for_host(*host, |host| cluster.freeze(host)),
            Action::ClockJump { host, millis } => self.for_host(*host, |host| cluster.set_clock(host, *millis)),
            Action::Database(fault) => cluster.database().fault(*fault),
            Action::Drain(host) => self.drain(stage, *host, |wanted| *wanted += 1),
            Action::RecreateQueue(queue) => stage.with_queue(*queue, |queue| {
                queue.unwanted += 1;
                queue.deletes_wanted += 1;
            }),
            Action::ChurnChannels { queue, count } => {
                stage.with_queue(*queue, |queue| queue.churn += usize::from(*count));
            }
            Action::StallConsumer(number) => stage.with(|state| *state.stalled.entry(*number).or_default() += 1),
            Action::LeaveConsumer(number) => stage.with(|state| *state.left.entry(*number).or_default() += 1),
        }
    }

    fn end(&mut self, cluster: &mut Cluster, stage: &Stage, number: usize, step: &Step) {
        match &step.action {
            Action::Crash(host) | Action::PowerLoss(host) => self.bring_up(cluster, *host),
            Action::Cut { between, and } => self.for_links(between, and, |a, b| cluster.repair(a, b)),
            Action::CutOneway { from, to } => self.for_links(from, to, |a, b| cluster.repair_oneway(a, b)),
            Action::Hold { between, and } => self.for_links(between, and, |a, b| cluster.release(a, b)),
            Action::Slow { between, and, latency_millis } => {
                for link in self.links(between, and) {
                    let wanted = self.slow.entry(link.clone()).or_default();
                    if let Some(at) = wanted.iter().position(|millis| millis == latency_millis) {
                        wanted.remove(at);
                    }
                    self.set_latency(cluster, &link);
                }
            }
            Action::Freeze(host) => self.for_host(*host, |host| cluster.thaw(host)),
            Action::ClockJump { .. } => {}
            Action::Database(fault) => cluster.database().mend(*fault),
            Action::Drain(host) => self.drain(stage, *host, |wanted| *wanted -= 1),
            Action::RecreateQueue(queue) => stage.with_queue(*queue, |queue| queue.unwanted -= 1),
            Action::ChurnChannels { queue, count } => {
                stage.with_queue(*queue, |queue| queue.churn -= usize::from(*count));
            }
            Action::StallConsumer(number) => stage.with(|state| *state.stalled.entry(*number).or_default() -= 1),
            Action::LeaveConsumer(number) => stage.with(|state| *state.left.entry(*number).or_default() -= 1),
        }
        stage.history.record("fate", Event::FaultEnded { step: number });
    }

    /// True if the scenario has such a host: a shrunk one may speak of others.
    fn exists(&self, host: Host) -> bool {
        let (topology, workload) = (&self.scenario.topology, &self.scenario.workload);
        let (number, count) = match host {
            Host::Database | Host::Operator => return true,
            Host::Manager(number) => (number, usize::from(topology.managers.max(1))),
            Host::Broker(number) => (number, usize::from(topology.brokers.max(1))),
            Host::Producer(number) => (number, workload.producers.len()),
            Host::Consumer(number) => (number, workload.consumers.len()),
        };
        (1..=count).contains(&usize::from(number))
    }

    fn for_host(&self, host: Host, act: impl FnOnce(&str)) {
        if self.exists(host) {
            act(&host.to_string());
        }
    }

    fn links(&self, ones: &[Host], others: &[Host]) -> Vec<(String, String)> {
        let pairs = ones.iter().flat_map(|one| others.iter().map(move |other| (*one, *other)));
        let real = pairs.filter(|(one, other)| one != other && self.exists(*one) && self.exists(*other));
        real.map(|(one, other)| (one.to_string(), other.to_string())).collect()
    }

    fn for_links(&self, ones: &[Host], others: &[Host], mut act: impl FnMut(&str, &str)) {
        for (one, other) in self.links(ones, others) {
            act(&one, &other);
        }
    }

    fn take_down(&mut self, cluster: &mut Cluster, stage: &Stage, host: Host, act: impl FnOnce(&mut Cluster, &str)) {
        if !self.exists(host) {
            return;
        }
        let host = host.to_string();
        let steps = self.down.entry(host.clone()).or_default();
        *steps += 1;
        if *steps == 1 {
            act(cluster, &host);
            stage.crashed(&host);
        }
    }

    fn bring_up(&mut self, cluster: &mut Cluster, host: Host) {
        let host = host.to_string();
        let Some(steps) = self.down.get_mut(&host) else { return };
        *steps -= 1;
        if *steps == 0 {
            self.down.remove(&host);
            cluster.restart(&host);
        }
    }

    /// The slowest counts.
    fn set_latency(&mut self, cluster: &mut Cluster, link: &(String, String)) {
        match self.slow.get(link).and_then(|wanted| wanted.iter().max()) {
            Some(millis) => cluster.slow(&link.0, &link.1, Duration::from_millis(*millis)),
            None => {
                self.slow.remove(link);
                cluster.unslow(&link.0, &link.1);
            }
        }
    }

    fn drain(&self, stage: &Stage, host: Host, change: impl FnOnce(&mut usize)) {
        let Host::Broker(number) = host else { return };
        if self.exists(host) {
            stage.with(|state| change(&mut state.drains.entry(number).or_default().wanted));
        }
    }
}
