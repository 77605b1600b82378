//! Scenarios from seeds.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    Action, ConsumerKind, ConsumerPlan, DatabaseFault, Host, ProducerKind, ProducerPlan, Scenario, Step, Topology,
    Workload,
};

/// Within so many milliseconds of the workload all faults begin.
const WINDOW_MILLIS: u64 = 10_000;
/// Faults of a run, at least and at most.
const STEPS: (usize, usize) = (6, 14);
/// Pushes of a run, at least and at most; shared among its producers.
const PUSHES: (u32, u32) = (300, 600);

/// A kind of fault. A seed uses some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    CrashBroker,
    CrashManager,
    CrashDatabase,
    CrashActor,
    PowerLoss,
    Cut,
    CutOneway,
    Hold,
    Slow,
    Freeze,
    DatabaseClock,
    HostClock,
    Database,
    Drain,
    RecreateQueue,
    ChurnChannels,
    StallConsumer,
    LeaveConsumer,
}

impl Kind {
    const ALL: [Self; 18] = [
        Self::CrashBroker,
        Self::CrashManager,
        Self::CrashDatabase,
        Self::CrashActor,
        Self::PowerLoss,
        Self::Cut,
        Self::CutOneway,
        Self::Hold,
        Self::Slow,
        Self::Freeze,
        Self::DatabaseClock,
        Self::HostClock,
        Self::Database,
        Self::Drain,
        Self::RecreateQueue,
        Self::ChurnChannels,
        Self::StallConsumer,
        Self::LeaveConsumer,
    ];
}

impl Scenario {
    /// The scenario of a seed. The seed draws which kinds of fault it uses and how hard, so that many seeds together go to
    /// corners to which no even mixture would (swarm testing: Groce et al., ISSTA 2012).
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Draw(StdRng::seed_from_u64(seed)).scenario(seed)
    }
}

struct Draw(StdRng);

impl Draw {
    fn between<T: rand::distr::uniform::SampleUniform + PartialOrd>(&mut self, min: T, max: T) -> T {
        self.0.random_range(min..=max)
    }

    /// True once in so many times.
    fn one_in(&mut self, times: u32) -> bool {
        self.0.random_ratio(1, times)
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.0).expect("there is something to choose from")
    }

    fn scenario(mut self, seed: u64) -> Scenario {
        let expiring = self.one_in(3);
        let topology = Topology {
            managers: self.one_of(&[1, 2, 2, 2, 3]),
            brokers: self.one_of(&[2, 3, 3, 3, 4, 5]),
            latency_millis: self.one_of(&[(1, 5), (1, 5), (2, 2), (1, 30)]),
            message_ttl_millis: if expiring { Some(self.between(1_000, 8_000)) } else { None },
            queue_buffer_messages: self.one_of(&[1_000, 1_000, 50, 5]),
        };
        let workload = self.workload(expiring);
        let steps = self.steps(&topology, &workload);
        Scenario { seed, topology, workload, steps }
    }

    fn workload(&mut self, expiring: bool) -> Workload {
        let queues = self.one_of(&[1, 1, 2, 2, 3]);
        let (producers, consumers) = (self.between(1, 3_u32), self.between(1, 3));
        let pushes = self.between(PUSHES.0, PUSHES.1) / producers;
        let topics = self.one_of(&[0, 0, 2, 3]);
        let producers: Vec<ProducerPlan> = (0..producers)
            .map(|_| ProducerPlan {
                kind: self.one_of(&[
                    ProducerKind::Library,
                    ProducerKind::Library,
                    ProducerKind::Named,
                    ProducerKind::RawStamped,
                    ProducerKind::RawPlain,
                ]),
                queue: self.between(1, queues),
                pushes,
                // So that pushing lasts about as long as faults begin.
                pace_millis: WINDOW_MILLIS / u64::from(pushes) + self.between(0, 5),
                topics,
                ttl_millis: if expiring && self.one_in(2) { Some(self.between(200, 6_000)) } else { None },
                body_bytes: self.one_of(&[0, 100, 1_000, 10_000]),
            })
            .collect();
        let pushed_to: Vec<u8> = producers.iter().map(|plan| plan.queue).collect();
        let consumers = (0..consumers)
            .map(|number| ConsumerPlan {
                kind: self.one_of(&[
                    ConsumerKind::Library,
                    ConsumerKind::Library,
                    ConsumerKind::RawResuming,
                    ConsumerKind::RawOriginal,
                ]),
                // Somebody has to take what somebody pushes, or the run says nothing.
                queue: if number > 0 && self.one_in(8) { self.between(1, queues) } else { self.one_of(&pushed_to) },
                topic: if number > 0 && topics > 0 && self.one_in(2) { Some(self.between(1, topics)) } else { None },
                latest: self.one_in(4),
                work_millis: self.one_of(&[0, 0, 0, 5, 40]),
            })
            .collect();
        Workload { queues, producers, consumers }
    }

    fn steps(&mut self, topology: &Topology, workload: &Workload) -> Vec<Step> {
        // Every kind comes in a third of the seeds, about; at least two in each.
        let mut kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|_| self.one_in(3)).collect();
        while kinds.len() < 2 {
            kinds.push(self.one_of(&Kind::ALL));
        }
        let count = self.between(STEPS.0, STEPS.1);
        let mut steps: Vec<Step> = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = self.one_of(&kinds);
            // Some begin just after another one, so that a fault falls into what another one set off.
            let at_millis = match steps.last() {
                Some(last) if self.one_in(3) => last.at_millis + self.between(0, 1_500),
                _ => self.between(0, WINDOW_MILLIS),
            };
            let for_millis = self.duration(kind);
            let action = self.action(kind, topology, workload);
            steps.push(Step { at_millis: at_millis.min(WINDOW_MILLIS), for_millis, action });
        }
        steps.sort_by_key(|step| step.at_millis);
        steps
    }

    /// From too short to be noticed to longer than leases and keepalives.
    fn duration(&mut self, kind: Kind) -> u64 {
        match kind {
            Kind::DatabaseClock | Kind::HostClock => 0,
            _ if self.one_in(4) => self.between(4_000, 8_000),
            _ if self.one_in(2) => self.between(1_000, 4_000),
            _ => self.between(50, 1_000),
        }
    }

    fn action(&mut self, kind: Kind, topology: &Topology, workload: &Workload) -> Action {
        match kind {
            Kind::CrashBroker => Action::Crash(self.broker(topology)),
            Kind::CrashManager => Action::Crash(self.manager(topology)),
            Kind::CrashDatabase => Action::Crash(Host::Database),
            Kind::CrashActor => Action::Crash(self.actor(workload)),
            Kind::PowerLoss => match self.between(0, 3) {
                0 => Action::PowerLoss(Host::Database),
                1 => Action::PowerLoss(self.manager(topology)),
                _ => Action::PowerLoss(self.broker(topology)),
            },
            Kind::Cut => {
                let (between, and) = self.sides(topology, workload);
                Action::Cut { between, and }
            }
            Kind::CutOneway => {
                let (from, to) = self.sides(topology, workload);
                Action::CutOneway { from, to }
            }
            Kind::Hold => {
                let (between, and) = self.sides(topology, workload);
                Action::Hold { between, and }
            }
            Kind::Slow => {
                let (between, and) = self.sides(topology, workload);
                Action::Slow { between, and, latency_millis: self.between(50, 800) }
            }
            Kind::Freeze => Action::Freeze(self.broker(topology)),
            Kind::DatabaseClock => Action::ClockJump { host: Host::Database, millis: self.jump() },
            Kind::HostClock => {
                let host = if self.one_in(2) { self.broker(topology) } else { self.manager(topology) };
                Action::ClockJump { host, millis: self.jump() }
            }
            Kind::Database => Action::Database(self.database_fault()),
            Kind::Drain => Action::Drain(self.broker(topology)),
            Kind::RecreateQueue => Action::RecreateQueue(self.between(1, workload.queues)),
            Kind::ChurnChannels => {
                Action::ChurnChannels { queue: self.between(1, workload.queues), count: self.between(1, 4) }
            }
            Kind::StallConsumer => Action::StallConsumer(self.consumer(workload)),
            Kind::LeaveConsumer => Action::LeaveConsumer(self.consumer(workload)),
        }
    }

    fn broker(&mut self, topology: &Topology) -> Host {
        Host::Broker(self.between(1, topology.brokers))
    }

    fn manager(&mut self, topology: &Topology) -> Host {
        Host::Manager(self.between(1, topology.managers))
    }

    fn consumer(&mut self, workload: &Workload) -> u8 {
        self.between(1, u8::try_from(workload.consumers.len()).unwrap_or(u8::MAX))
    }

    fn actor(&mut self, workload: &Workload) -> Host {
        let producers = u8::try_from(workload.producers.len()).unwrap_or(u8::MAX);
        match self.between(0, 4) {
            0 => Host::Operator,
            1 | 2 => Host::Producer(self.between(1, producers)),
            _ => Host::Consumer(self.consumer(workload)),
        }
    }

    /// Two groups between which something flows.
    fn sides(&mut self, topology: &Topology, workload: &Workload) -> (Vec<Host>, Vec<Host>) {
        let broker = self.broker(topology);
        let brokers = (1..=topology.brokers).map(Host::Broker);
        let managers = (1..=topology.managers).map(Host::Manager);
        let (one, other): (Vec<Host>, Vec<Host>) = match self.between(0, 6) {
            0 | 1 => (vec![broker], vec![Host::Database]),
            2 => (vec![broker], managers.collect()),
            3 => (vec![broker], vec![self.actor(workload)]),
            // Everybody but the database, or one that stays behind with it.
            4 => (brokers.filter(|other| *other != broker).collect(), vec![Host::Database]),
            5 => (vec![self.manager(topology)], vec![Host::Database]),
            _ => (
                vec![broker],
                brokers.filter(|other| *other != broker).chain(managers).chain([Host::Database]).collect(),
            ),
        };
        if self.one_in(2) { (one, other) } else { (other, one) }
    }

    fn jump(&mut self) -> i64 {
        let millis = self.one_of(&[20, 500, 3_000, 20_000]);
        if self.one_in(2) { millis } else { -millis }
    }

    fn database_fault(&mut self) -> DatabaseFault {
        match self.between(0, 7) {
            0 => DatabaseFault::Slow { millis: self.between(20, 1_500) },
            1 => DatabaseFault::Full,
            2 => DatabaseFault::Refuse,
            3 | 4 => DatabaseFault::LoseReplies,
            5 => DatabaseFault::AbortWrites,
            _ => DatabaseFault::StallWrites,
        }
    }
}
