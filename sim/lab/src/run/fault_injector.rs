//! The fault injector: begins and ends the steps of a scenario, between ticks.

use std::{
    collections::{BTreeMap, BTreeSet},
    slice,
    time::Duration,
};

use rmom_sim::{Cluster, DATABASE_HOST, DatabaseFault, history::Event};

use super::run_state::RunState;
use crate::scenario::{Action, Host, Scenario, Step};

/// The state of the steps and of their effects.
pub(super) struct FaultInjector {
    run: RunState,
    hosts: Vec<Host>,
    /// The steps of the scenario, followed by those that a script began.
    steps: Vec<Step>,
    /// The beginning and end of each step, in milliseconds since the workload began; in order.
    timeline: Vec<(u64, Edge, usize)>,
    /// How many entries of the timeline are done.
    done: usize,
    active: BTreeSet<usize>,
    /// Hosts that are down, with the steps that cause it.
    down: BTreeMap<String, BTreeSet<usize>>,
    /// Slow links, with the steps that cause it and the delay that each step adds.
    slow: BTreeMap<(String, String), BTreeMap<usize, u64>>,
    /// Brokers that have a twin, with the steps that cause it.
    twins: BTreeMap<u8, BTreeSet<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    End,
    Begin,
}

impl FaultInjector {
    pub(super) fn new(run: &RunState) -> Self {
        let steps = run.scenario.steps.clone();
        let mut timeline = Vec::with_capacity(2 * steps.len());
        for (number, step) in steps.iter().enumerate() {
            timeline.push((step.at_millis, Edge::Begin, number));
            // A step begins before it ends, even one that takes no time.
            timeline.push((step.at_millis.saturating_add(step.for_millis.max(1)), Edge::End, number));
        }
        timeline.sort_unstable();
        Self {
            run: run.clone(),
            hosts: hosts_of(&run.scenario),
            steps,
            timeline,
            done: 0,
            active: BTreeSet::new(),
            down: BTreeMap::new(),
            slow: BTreeMap::new(),
            twins: BTreeMap::new(),
        }
    }

    /// When the last step ends.
    pub(super) fn last(&self) -> Duration {
        Duration::from_millis(self.timeline.last().map_or(0, |(at, ..)| *at))
    }

    /// Does everything that is due this long after the workload began.
    pub(super) fn advance(&mut self, cluster: &mut Cluster, since: Duration) {
        while let Some((_, edge, step)) =
            self.timeline.get(self.done).copied().filter(|(at, ..)| u128::from(*at) <= since.as_millis())
        {
            self.done += 1;
            match edge {
                Edge::Begin => self.begin(cluster, step),
                Edge::End => self.end(cluster, step),
            }
        }
    }

    /// Ends all active steps; no others begin.
    pub(super) fn heal(&mut self, cluster: &mut Cluster) {
        self.done = self.timeline.len();
        for step in self.active.clone() {
            self.end(cluster, step);
        }
    }

    /// Begins an action that is not a step of the scenario, and returns its number, by which it is ended.
    pub(super) fn inject(&mut self, cluster: &mut Cluster, since: Duration, action: Action) -> usize {
        let at_millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.steps.push(Step { at_millis, for_millis: 0, action });
        let step = self.steps.len() - 1;
        self.begin(cluster, step);
        step
    }

    fn begin(&mut self, cluster: &mut Cluster, step: usize) {
        let action = self.steps[step].action.clone();
        let hosts = self.affected(&action);
        if hosts.is_empty() {
            return;
        }
        self.active.insert(step);
        let names = hosts.iter().map(ToString::to_string).collect();
        self.run.history.record("runner", Event::FaultBegan { step, what: action.to_string(), hosts: names });
        match &action {
            Action::Crash(host) => self.take_down(cluster, step, &host.to_string(), false),
            Action::PowerLoss(host) => self.take_down(cluster, step, &host.to_string(), true),
            Action::Lose(host) => {
                let host = host.to_string();
                self.take_down(cluster, step, &host, true);
                self.run.with(|state| state.lost.insert(host));
            }
            Action::CutOff(host) => {
                let host = host.to_string();
                cluster.cut(&host, DATABASE_HOST);
                self.run.with(|state| state.lost.insert(host));
            }
            Action::Cut { between, and } => self.each(between, and, |a, b| cluster.cut(a, b)),
            Action::CutOneway { from, to } => self.each(from, to, |a, b| cluster.cut_oneway(a, b)),
            Action::Hold { between, and } => self.each(between, and, |a, b| cluster.hold(a, b)),
            Action::Slow { between, and, latency_millis } => {
                for link in self.pairs(between, and) {
                    self.slow.entry(link).or_default().insert(step, *latency_millis);
                }
                self.tell_slowness(cluster);
            }
            Action::Freeze(host) => cluster.freeze(&host.to_string()),
            Action::ClockJump { host, millis } => cluster.set_clock(&host.to_string(), *millis),
            Action::Database(fault) => cluster.database().begin_fault(*fault),
            Action::Drain(host) => self.count_drain(*host, 1),
            Action::DrainForGood(host) => {
                self.count_drain(*host, 1);
                self.run.with(|state| state.relieved.insert(host.to_string()));
            }
            Action::RecreateQueue(queue) => self.run.with(|state| {
                let queue = &mut state.queues[usize::from(queue - 1)];
                queue.unwanted += 1;
                queue.deletes_wanted += 1;
            }),
            Action::ChurnChannels { queue, count } => {
                self.run.with(|state| state.queues[usize::from(queue - 1)].churn += usize::from(*count));
            }
            Action::StallConsumer(number) => {
                self.run.with(|state| *state.stalled.entry(*number).or_default() += 1);
            }
            Action::LeaveConsumer(number) => self.run.with(|state| *state.left.entry(*number).or_default() += 1),
            Action::DeleteChannel(number) => self.run.with(|state| {
                let channel = state.consumers.get(number).and_then(|place| place.channel);
                state.doomed.extend(channel.map(|(channel, ..)| channel));
            }),
            Action::Twin(host) => self.start_twin(cluster, step, *host),
        }
        self.note_who_is_cut_off(cluster);
    }

    pub(super) fn end(&mut self, cluster: &mut Cluster, step: usize) {
        if !self.active.remove(&step) {
            return;
        }
        let less = |count: &mut usize| *count = count.saturating_sub(1);
        let action = self.steps[step].action.clone();
        match &action {
            Action::Crash(_) | Action::PowerLoss(_) => {
                for (host, causes) in &mut self.down {
                    if causes.remove(&step) && causes.is_empty() {
                        cluster.restart(host);
                    }
                }
                self.down.retain(|_, causes| !causes.is_empty());
            }
            Action::Cut { between, and } => self.each(between, and, |a, b| cluster.repair(a, b)),
            Action::CutOneway { from, to } => self.each(from, to, |a, b| cluster.repair_oneway(a, b)),
            Action::Hold { between, and } => self.each(between, and, |a, b| cluster.release(a, b)),
            Action::Slow { .. } => {
                for causes in self.slow.values_mut() {
                    causes.remove(&step);
                }
                self.tell_slowness(cluster);
            }
            Action::Freeze(host) => cluster.thaw(&host.to_string()),
            Action::Database(fault) => cluster.database().end_fault(*fault),
            Action::Drain(host) => self.count_drain(*host, -1),
            Action::RecreateQueue(queue) => {
                self.run.with(|state| less(&mut state.queues[usize::from(queue - 1)].unwanted));
            }
            Action::ChurnChannels { queue, count } => self.run.with(|state| {
                let churn = &mut state.queues[usize::from(queue - 1)].churn;
                *churn = churn.saturating_sub(usize::from(*count));
            }),
            Action::StallConsumer(number) => self.run.with(|state| less(state.stalled.entry(*number).or_default())),
            Action::LeaveConsumer(number) => self.run.with(|state| less(state.left.entry(*number).or_default())),
            Action::Twin(host) => self.stop_twin(cluster, step, *host),
            // These are permanent.
            Action::ClockJump { .. } | Action::DeleteChannel(_) => {}
            Action::Lose(_) | Action::CutOff(_) | Action::DrainForGood(_) => {
                // The history records no end either, which shows that the fault lasts.
                self.active.insert(step);
                return;
            }
        }
        self.run.history.record("runner", Event::FaultEnded { step });
        self.note_who_is_cut_off(cluster);
    }

    /// Stops a host. If it loses its power, its peers are not notified.
    fn take_down(&mut self, cluster: &mut Cluster, step: usize, host: &str, silently: bool) {
        let causes = self.down.entry(host.to_owned()).or_default();
        if causes.is_empty() {
            if silently {
                cluster.power_loss(host);
            } else {
                cluster.crash(host);
            }
            self.run.crashed(host);
        }
        causes.insert(step);
    }

    fn start_twin(&mut self, cluster: &mut Cluster, step: usize, host: Host) {
        let Host::Broker(number) = host else { return };
        let twins = self.twins.entry(number).or_default();
        if twins.is_empty() {
            cluster.start_twin(usize::from(number));
        }
        twins.insert(step);
    }

    fn stop_twin(&mut self, cluster: &mut Cluster, step: usize, host: Host) {
        let Host::Broker(number) = host else { return };
        let twins = self.twins.entry(number).or_default();
        if twins.remove(&step) && twins.is_empty() {
            cluster.stop_twin(usize::from(number));
        }
    }

    /// Sets a link's delay to the longest of its causes.
    fn tell_slowness(&mut self, cluster: &mut Cluster) {
        for ((a, b), causes) in &self.slow {
            match causes.values().max() {
                Some(millis) => cluster.slow(a, b, Duration::from_millis(*millis)),
                None => cluster.unslow(a, b),
            }
        }
        self.slow.retain(|_, causes| !causes.is_empty());
    }

    fn count_drain(&self, host: Host, by: isize) {
        if let Host::Broker(number) = host {
            self.run.with(|state| {
                let drain = state.drains.entry(number).or_default();
                drain.wanted = drain.wanted.saturating_add_signed(by);
            });
        }
    }

    /// Notes which hosts cannot reach the database, for the checks of their health.
    fn note_who_is_cut_off(&self, cluster: &Cluster) {
        let now = u64::try_from(cluster.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut blocked = BTreeSet::new();
        for step in &self.active {
            let (one, other): (&[Host], &[Host]) = match &self.steps[*step].action {
                Action::Crash(Host::Database)
                | Action::PowerLoss(Host::Database)
                | Action::Freeze(Host::Database)
                | Action::Database(DatabaseFault::Refuse) => (&[Host::Database], &self.hosts),
                Action::CutOff(host) => (slice::from_ref(host), &[Host::Database]),
                Action::Cut { between, and } | Action::Hold { between, and } => (between, and),
                Action::CutOneway { from, to } => (from, to),
                _ => continue,
            };
            let database = Host::Database.to_string();
            for (a, b) in self.pairs(one, other) {
                blocked.extend(if a == database { Some(b) } else { Some(a).filter(|_| b == database) });
            }
        }
        self.run.with(|state| {
            state.cut_off.retain(|host, _| blocked.contains(host));
            for host in blocked {
                state.cut_off.entry(host).or_insert(now);
            }
        });
    }

    fn each(&self, one: &[Host], other: &[Host], mut f: impl FnMut(&str, &str)) {
        for (a, b) in self.pairs(one, other) {
            f(&a, &b);
        }
    }

    /// Pairs of hosts from two groups, without those that do not exist.
    fn pairs(&self, one: &[Host], other: &[Host]) -> BTreeSet<(String, String)> {
        let known = |host: &&Host| self.hosts.contains(host);
        let all = one.iter().filter(known).flat_map(|a| other.iter().filter(known).map(move |b| (a, b)));
        all.filter(|(a, b)| a != b).map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    /// The hosts that an action affects. Empty if the action has nothing to do, for example because shrinking removed hosts
    /// from the scenario.
    fn affected(&self, action: &Action) -> Vec<Host> {
        // The promises hold only while some hosts of each kind are left.
        let left = |kind: fn(&Host) -> bool| {
            let of_kind = self.hosts.iter().filter(|host| kind(host));
            self.run.with(|state| {
                let is_gone = |host: &str| state.lost.contains(host) || state.relieved.contains(host);
                of_kind.filter(|host| !is_gone(&host.to_string())).count()
            })
        };
        let one = |host: Host| if self.hosts.contains(&host) { vec![host] } else { Vec::new() };
        let groups = |one: &[Host], other: &[Host]| {
            if self.pairs(one, other).is_empty() {
                return Vec::new();
            }
            let both: BTreeSet<Host> =
                one.iter().chain(other).copied().filter(|host| self.hosts.contains(host)).collect();
            both.into_iter().collect()
        };
        let queues = self.run.scenario.workload.queues.max(1);
        let queue = |number: u8| if (1..=queues).contains(&number) { vec![Host::Operator] } else { Vec::new() };
        match action {
            Action::Crash(host)
            | Action::PowerLoss(host)
            | Action::Freeze(host)
            | Action::ClockJump { host, .. }
            | Action::Drain(host @ Host::Broker(_))
            | Action::Twin(host @ Host::Broker(_)) => one(*host),
            Action::Lose(host @ Host::Broker(_))
            | Action::CutOff(host @ Host::Broker(_))
            | Action::DrainForGood(host @ Host::Broker(_))
                if left(|host| matches!(host, Host::Broker(_))) > 1 =>
            {
                one(*host)
            }
            Action::Lose(host @ Host::Manager(_)) | Action::CutOff(host @ Host::Manager(_))
                if left(|host| matches!(host, Host::Manager(_))) > 1 =>
            {
                one(*host)
            }
            Action::Cut { between, and } | Action::Hold { between, and } | Action::Slow { between, and, .. } => {
                groups(between, and)
            }
            Action::CutOneway { from, to } => groups(from, to),
            Action::Database(_) => one(Host::Database),
            Action::Lose(_) | Action::CutOff(_) | Action::DrainForGood(_) | Action::Drain(_) | Action::Twin(_) => {
                Vec::new()
            }
            Action::RecreateQueue(number) | Action::ChurnChannels { queue: number, .. } => queue(*number),
            Action::StallConsumer(number) | Action::LeaveConsumer(number) | Action::DeleteChannel(number) => {
                one(Host::Consumer(*number))
            }
        }
    }
}

/// Every host that a scenario has.
fn hosts_of(scenario: &Scenario) -> Vec<Host> {
    let (topology, workload) = (&scenario.topology, &scenario.workload);
    let count = |all: usize| 1..=u8::try_from(all).unwrap_or(u8::MAX);
    let mut hosts = vec![Host::Database, Host::Operator];
    hosts.extend((1..=topology.managers.max(1)).map(Host::Manager));
    hosts.extend((1..=topology.brokers.max(1)).map(Host::Broker));
    hosts.extend(count(workload.producers.len()).map(Host::Producer));
    hosts.extend(count(workload.consumers.len()).map(Host::Consumer));
    hosts
}
