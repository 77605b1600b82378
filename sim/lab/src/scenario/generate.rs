//! Scenarios from seeds.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use rmom_sim::DatabaseFault;

use super::{
    Action, ConsumerKind, ConsumerPlan, Host, ProducerKind, ProducerPlan, Scenario, Step, Topology, Workload,
    extend::extend, themes::Theme,
};

/// Separates the choice of a scenario from the random draws within its run, which use the same seed.
const SALT: u64 = 0x9e37_79b9_7f4a_7c15;
/// The least number of messages pushed in all.
const PUSHES: u32 = 300;
/// The smallest and largest number of steps.
const STEPS: (usize, usize) = (6, 16);
/// The longest absence of a queue or of its users.
const ABSENCE: u64 = 2_500;
/// The longest that a fault which stops everything may last once there were many of them.
const SHORT: u64 = 500;
/// How far a clock jumps that is set to another time zone, in milliseconds; [`DAYS`] is for a clock that lost its time.
const HOURS: u64 = 10 * 3_600_000;
/// See [`HOURS`].
const DAYS: u64 = 30 * 24 * 3_600_000;
/// One of this many seeds has a theme in addition; themes take turns, so that any thousand seeds have equally many of each.
const THEMES: u64 = 2;
/// Percentage of seeds that lose hosts permanently.
const LOSSES: u32 = 30;

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    CrashBroker,
    CrashManager,
    CrashDatabase,
    CrashClient,
    PowerLoss,
    Cut,
    CutOneway,
    Hold,
    Slow,
    Freeze,
    Clock,
    SlowDatabase,
    FullDatabase,
    RefusingDatabase,
    LostReplies,
    AbortedWrites,
    StalledWrites,
    Drain,
    RecreateQueue,
    ChurnChannels,
    StallConsumer,
    LeaveConsumer,
    DeleteChannel,
    Twin,
}

impl Sort {
    const ALL: [Self; 24] = [
        Self::CrashBroker,
        Self::CrashManager,
        Self::CrashDatabase,
        Self::CrashClient,
        Self::PowerLoss,
        Self::Cut,
        Self::CutOneway,
        Self::Hold,
        Self::Slow,
        Self::Freeze,
        Self::Clock,
        Self::SlowDatabase,
        Self::FullDatabase,
        Self::RefusingDatabase,
        Self::LostReplies,
        Self::AbortedWrites,
        Self::StalledWrites,
        Self::Drain,
        Self::RecreateQueue,
        Self::ChurnChannels,
        Self::StallConsumer,
        Self::LeaveConsumer,
        Self::DeleteChannel,
        Self::Twin,
    ];
}

impl Scenario {
    /// The scenario of a seed. The seed draws which kinds of fault occur and how severely, so that many seeds together reach
    /// corners that an even mixture would not.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut draw = Draw(StdRng::seed_from_u64(seed ^ SALT));
        let topology = draw.topology();
        let workload = draw.workload();
        let lasts = workload
            .producers
            .iter()
            .map(|plan| u64::from(plan.pushes) * (plan.pace_millis + latency_of_a_push(plan.kind, &topology)))
            .max()
            .unwrap_or(0);
        let steps = draw.steps(&topology, &workload, lasts);
        let mut scenario = Self { about: String::new(), seed, topology, workload, steps };
        if seed.is_multiple_of(THEMES) {
            Theme::of(seed / THEMES).add_to(&mut scenario, &mut draw);
        }
        if draw.chance(LOSSES) {
            let losses = draw.losses(&scenario);
            scenario.steps.extend(losses);
            scenario.steps.sort_by_key(|step| step.at_millis);
        }
        extend(&mut scenario);
        scenario
    }
}

/// About how long a producer waits for each answer, in milliseconds.
fn latency_of_a_push(kind: ProducerKind, topology: &Topology) -> u64 {
    match kind {
        ProducerKind::Library | ProducerKind::Named => 0,
        ProducerKind::RawStamped | ProducerKind::RawPipelined | ProducerKind::RawPlain => {
            2 * (topology.latency_millis.0 + topology.latency_millis.1)
        }
    }
}

/// True for a fault during which no broker can store anything.
fn stops_everything(action: &Action) -> bool {
    match action {
        Action::Crash(host) | Action::PowerLoss(host) => *host == Host::Database,
        Action::Database(fault) => !matches!(fault, DatabaseFault::Slow { .. }),
        _ => false,
    }
}

/// The random draws of a scenario.
pub(super) struct Draw(pub(super) StdRng);

impl Draw {
    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..=to)
    }

    pub(super) fn number(&mut self, count: usize) -> u8 {
        u8::try_from(self.0.random_range(1..=count.clamp(1, 255))).unwrap_or(1)
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.0).expect("there is something to choose from")
    }

    fn topology(&mut self) -> Topology {
        Topology {
            managers: self.one_of(&[1, 2, 2, 2, 2, 3]),
            brokers: self.one_of(&[1, 2, 3, 3, 3, 3, 4, 5]),
            latency_millis: self.one_of(&[(1, 5), (1, 5), (1, 2), (2, 20), (5, 40)]),
            message_ttl_millis: self.one_of(&[None, None, None, Some(600_000), Some(4_000), Some(1_500)]),
            queue_buffer_messages: self.one_of(&[1_000, 1_000, 100, 10, 1]),
            batch_messages: self.one_of(&[8_192, 8_192, 8_192, 10, 3, 1]),
            channel_idle_millis: None,
            limits: None,
        }
    }

    fn workload(&mut self) -> Workload {
        let queues = self.one_of(&[1, 1, 2, 2, 3]);
        let producers = self.0.random_range(1..=3_usize);
        let pushes = PUSHES.div_ceil(u32::try_from(producers).unwrap_or(1));
        let producers = (0..producers).map(|_| self.producer(queues, pushes)).collect::<Vec<_>>();
        let consumers = self.0.random_range(2..=3_usize);
        let consumers = (0..consumers)
            .map(|nth| {
                // Most consumers read a queue to which a producer pushes.
                let queue = producers[nth % producers.len()].queue;
                let queue = if nth == 0 || self.chance(85) { queue } else { self.number(usize::from(queues)) };
                let plan = self.consumer(queue);
                // One consumer reads every message that is pushed to its queue.
                if nth == 0 { ConsumerPlan { topic: None, ..plan } } else { plan }
            })
            .collect();
        Workload { queues, producers, consumers, delivery_millis: None, linger_millis: 0 }
    }

    fn producer(&mut self, queues: u8, pushes: u32) -> ProducerPlan {
        use ProducerKind::{Library, Named, RawPlain, RawStamped};
        let kind = self.one_of(&[Library, Library, Named, RawStamped, RawStamped, RawPlain]);
        let extra = if self.chance(10) { 400 } else { 0 };
        ProducerPlan {
            kind,
            queue: self.number(usize::from(queues)),
            pushes: pushes + extra,
            // About eight seconds in all.
            pace_millis: (8_000 / u64::from(pushes + extra)).max(1) * self.one_of(&[1, 1, 1, 2])
                / self.one_of(&[1, 1, 2]),
            burst: self.one_of(&[1, 1, 1, 5, 20]),
            topics: self.one_of(&[0, 0, 1, 2, 3]),
            ttl_millis: if self.chance(15) { Some(self.between(300, 8_000)) } else { None },
            body_bytes: self.one_of(&[16, 16, 100, 100, 2_000, 8_000]),
            too_large_every: 0,
        }
    }

    fn consumer(&mut self, queue: u8) -> ConsumerPlan {
        use ConsumerKind::{Library, RawOriginal, RawResuming};
        ConsumerPlan {
            kind: self.one_of(&[Library, Library, RawResuming, RawResuming, RawOriginal]),
            queue,
            topic: if self.chance(30) { Some(self.number(3)) } else { None },
            latest: self.chance(25),
            work_millis: self.one_of(&[0, 0, 0, 1, 5, 20]),
        }
    }

    fn steps(&mut self, topology: &Topology, workload: &Workload, lasts: u64) -> Vec<Step> {
        let sorts = self.sorts();
        let (fewest, most) = STEPS;
        let count = self.0.random_range(fewest..=most);
        let window = lasts.clamp(4_000, 14_000);
        // While everything stands still, nothing can go wrong.
        let mut standstill = window / 2;
        let mut steps: Vec<Step> = Vec::with_capacity(count);
        for nth in 0..count {
            let sort = self.one_of(&sorts);
            // Some steps begin during the one before, so that faults coincide.
            let at_millis = match steps.last() {
                Some(other) if nth % 2 == 1 && other.for_millis > 1 && self.chance(60) => {
                    other.at_millis + self.between(0, other.for_millis)
                }
                _ => self.between(300, window),
            };
            let mut step = self.step(sort, topology, workload, at_millis);
            if stops_everything(&step.action) {
                step.for_millis = step.for_millis.min(standstill.max(SHORT));
                standstill = standstill.saturating_sub(step.for_millis);
            }
            steps.push(step);
        }
        steps.sort_by_key(|step| step.at_millis);
        steps
    }

    /// Hosts that do not come back, or are permanently useless. Often this is the last event of the run, when no other event
    /// moves their queues.
    fn losses(&mut self, Scenario { topology, steps, .. }: &Scenario) -> Vec<Step> {
        let mut action = self.one_of::<fn(Host) -> Action>(&[Action::Lose, Action::CutOff, Action::DrainForGood]);
        let lost = if self.chance(20) {
            action = self.one_of::<fn(Host) -> Action>(&[Action::Lose, Action::CutOff]);
            vec![self.manager(topology)]
        } else if self.chance(40) {
            let survivor = self.broker(topology);
            (1..=topology.brokers).map(Host::Broker).filter(|broker| *broker != survivor).collect()
        } else {
            vec![self.broker(topology)]
        };
        let end = steps.iter().map(|step| step.at_millis + step.for_millis).max().unwrap_or(0);
        let at_millis = if self.chance(60) { end } else { self.between(300, end.max(300)) };
        lost.into_iter().map(|host| Step { at_millis, for_millis: 0, action: action(host) }).collect()
    }

    /// The kinds of step for this seed.
    fn sorts(&mut self) -> Vec<Sort> {
        let percent = self.one_of(&[10, 20, 35, 60, 100]);
        let mut sorts: Vec<Sort> = Sort::ALL.into_iter().filter(|_| self.chance(percent)).collect();
        if sorts.is_empty() {
            sorts.push(self.one_of(&Sort::ALL));
        }
        // The main subject is how faults of brokers, links and the database interact.
        let core = [Sort::CrashBroker, Sort::Cut, Sort::LostReplies, Sort::Freeze, Sort::StalledWrites];
        sorts.push(self.one_of(&core));
        sorts
    }

    /// A duration: mostly short, now and then longer than leases, keepalives and timeouts.
    fn duration(&mut self) -> u64 {
        match self.between(0, 9) {
            0..=4 => self.between(200, 1_500),
            5..=7 => self.between(1_500, 4_000),
            _ => self.between(4_000, 8_000),
        }
    }

    fn broker(&mut self, topology: &Topology) -> Host {
        Host::Broker(self.number(usize::from(topology.brokers)))
    }

    fn manager(&mut self, topology: &Topology) -> Host {
        Host::Manager(self.number(usize::from(topology.managers)))
    }

    fn client(&mut self, workload: &Workload) -> Host {
        match self.between(0, 8) {
            0 => Host::Operator,
            1..=4 => Host::Producer(self.number(workload.producers.len())),
            _ => Host::Consumer(self.number(workload.consumers.len())),
        }
    }

    /// Two groups of hosts, for a fault between them.
    fn sides(&mut self, topology: &Topology, workload: &Workload) -> (Vec<Host>, Vec<Host>) {
        let brokers: Vec<Host> = (1..=topology.brokers).map(Host::Broker).collect();
        let managers: Vec<Host> = (1..=topology.managers).map(Host::Manager).collect();
        let (broker, manager) = (self.broker(topology), self.manager(topology));
        match self.between(0, 8) {
            0..=2 => (vec![broker], vec![Host::Database]),
            3 => (vec![manager], vec![Host::Database]),
            4 => (vec![broker], managers),
            5 => (vec![self.client(workload)], brokers),
            6 => {
                // A broker that only its clients can reach.
                let others = managers.into_iter().chain([Host::Database]);
                (vec![broker], others.chain(brokers.into_iter().filter(|other| *other != broker)).collect())
            }
            7 => (vec![broker], vec![self.client(workload), self.client(workload)]),
            _ => (vec![manager], brokers),
        }
    }

    fn step(&mut self, sort: Sort, topology: &Topology, workload: &Workload, at_millis: u64) -> Step {
        let mut for_millis = self.duration();
        let queue = self.number(usize::from(workload.queues));
        let consumer = self.number(workload.consumers.len());
        let action = match sort {
            Sort::CrashBroker => Action::Crash(self.broker(topology)),
            Sort::CrashManager => Action::Crash(self.manager(topology)),
            Sort::CrashDatabase => Action::Crash(Host::Database),
            Sort::CrashClient => {
                for_millis = for_millis.min(ABSENCE);
                Action::Crash(self.client(workload))
            }
            Sort::PowerLoss => {
                let (broker, manager) = (self.broker(topology), self.manager(topology));
                Action::PowerLoss(self.one_of(&[broker, broker, manager, Host::Database]))
            }
            Sort::Cut => {
                let (between, and) = self.sides(topology, workload);
                Action::Cut { between, and }
            }
            Sort::CutOneway => {
                let (from, to) = self.sides(topology, workload);
                if self.chance(50) { Action::CutOneway { from, to } } else { Action::CutOneway { from: to, to: from } }
            }
            Sort::Hold => {
                let (between, and) = self.sides(topology, workload);
                Action::Hold { between, and }
            }
            Sort::Slow => {
                let (between, and) = self.sides(topology, workload);
                Action::Slow { between, and, latency_millis: self.between(20, 400) }
            }
            Sort::Freeze => Action::Freeze(self.broker(topology)),
            Sort::Clock => {
                for_millis = 0;
                let (host, most) = match self.between(0, 2) {
                    0 => (self.broker(topology), self.one_of(&[3_600_000, DAYS])),
                    1 => (self.manager(topology), self.one_of(&[3_600_000, DAYS])),
                    _ => (Host::Database, self.one_of(&[2_000, 20_000, 20_000, HOURS, DAYS])),
                };
                let millis = i64::try_from(self.between(10, most)).unwrap_or(10);
                Action::ClockJump { host, millis: if self.chance(50) { millis } else { -millis } }
            }
            Sort::SlowDatabase => Action::Database(DatabaseFault::Slow { millis: self.between(10, 800) }),
            Sort::FullDatabase => Action::Database(DatabaseFault::Full),
            Sort::RefusingDatabase => Action::Database(DatabaseFault::Refuse),
            Sort::LostReplies => Action::Database(DatabaseFault::LoseReplies),
            Sort::AbortedWrites => Action::Database(DatabaseFault::AbortWrites),
            Sort::StalledWrites => Action::Database(DatabaseFault::StallWrites),
            Sort::Drain => Action::Drain(self.broker(topology)),
            Sort::RecreateQueue => {
                for_millis = for_millis.min(ABSENCE);
                Action::RecreateQueue(queue)
            }
            Sort::ChurnChannels => Action::ChurnChannels { queue, count: self.number(5) },
            Sort::StallConsumer => Action::StallConsumer(consumer),
            Sort::LeaveConsumer => Action::LeaveConsumer(consumer),
            Sort::DeleteChannel => {
                for_millis = 0;
                Action::DeleteChannel(consumer)
            }
            Sort::Twin => Action::Twin(self.broker(topology)),
        };
        Step { at_millis, for_millis, action }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_scenario() {
        assert_eq!(Scenario::from_seed(7), Scenario::from_seed(7));
        assert_ne!(Scenario::from_seed(7).steps, Scenario::from_seed(8).steps);
        for seed in 0..500 {
            let Scenario { topology, workload, steps, .. } = Scenario::from_seed(seed);
            assert!((1..=3).contains(&topology.managers) && (1..=5).contains(&topology.brokers));
            assert!(workload.producers.iter().map(|plan| plan.pushes).sum::<u32>() >= PUSHES);
            // In a run without managers there are no other faults.
            let managers_alone = steps.iter().all(|step| matches!(step.action, Action::Crash(Host::Manager(_))));
            assert!(!workload.consumers.is_empty() && (managers_alone || steps.len() >= STEPS.0));
            assert!(steps.iter().all(|step| step.at_millis + step.for_millis < 30_000));
        }
    }
}
