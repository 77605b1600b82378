//! Faults for the tests of an application.

use std::{collections::BTreeMap, fmt, time::Duration};

use parking_lot::Mutex;
use rmom_core::ports::Entropy as _;

use super::Explore;
use crate::{Cluster, DATABASE_HOST, DatabaseFault, SeededEntropy, broker_host, manager_host};

/// The permitted faults. Each seed draws some of them, and how often they occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Faults {
    brokers: bool,
    managers: bool,
    services: bool,
    links: bool,
    database: bool,
}

impl Faults {
    /// All faults: brokers, managers, the database and the services crash, brokers freeze, links between any of them are
    /// cut, held or slow, the database aborts writes, loses answers, is slow or refuses connections.
    pub fn all() -> Self {
        Self { brokers: true, managers: true, services: true, links: true, database: true }
    }

    /// No faults, as a starting point.
    pub fn none() -> Self {
        Self { brokers: false, managers: false, services: false, links: false, database: false }
    }

    /// Permits crashes and freezes of brokers.
    pub fn brokers(mut self, may: bool) -> Self {
        self.brokers = may;
        self
    }

    /// Permits crashes of managers.
    pub fn managers(mut self, may: bool) -> Self {
        self.managers = may;
        self
    }

    /// Permits crashes of the application's own services.
    pub fn services(mut self, may: bool) -> Self {
        self.services = may;
        self
    }

    /// Permits faults of links.
    pub fn links(mut self, may: bool) -> Self {
        self.links = may;
        self
    }

    /// Permits faults of the database.
    pub fn database(mut self, may: bool) -> Self {
        self.database = may;
        self
    }
}

/// A fault that lasts for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Crash(String),
    Freeze(String),
    Cut(String, String),
    CutOneway(String, String),
    Hold(String, String),
    Slow(String, String),
    Database(DatabaseFault),
}

/// The latency of a segment on a slow link.
const SLOW: Duration = Duration::from_millis(200);
/// The least and greatest number of faults.
const FAULTS: (u64, u64) = (2, 10);
/// The shortest and longest duration of a fault: from too short to be noticed to longer than any lease or keepalive.
const LASTS_MILLIS: (u64, u64) = (100, 8_000);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(host) => write!(f, "{host} is down"),
            Self::Freeze(host) => write!(f, "{host} is frozen"),
            Self::Cut(a, b) => write!(f, "the link between {a} and {b} is cut"),
            Self::CutOneway(from, to) => write!(f, "the link from {from} to {to} is cut"),
            Self::Hold(a, b) => write!(f, "the link between {a} and {b} delivers nothing for a while"),
            Self::Slow(a, b) => write!(f, "the link between {a} and {b} is slow"),
            Self::Database(fault) => f.write_str(match fault {
                DatabaseFault::Slow { .. } => "the database is slow",
                DatabaseFault::Full => "the database is full",
                DatabaseFault::Refuse => "the database refuses connections",
                DatabaseFault::LoseReplies => "the database loses answers",
                DatabaseFault::AbortWrites => "the database aborts every other write",
                DatabaseFault::StallWrites => "the database stalls writes",
                DatabaseFault::AbortAppends => "the database aborts every append",
            }),
        }
    }
}

/// All faults of a run, with their times.
pub(super) struct Schedule {
    began: Duration,
    /// Each fault with its beginning and end.
    upcoming: Vec<(Duration, Duration, Fault)>,
    active: Vec<(Duration, Fault)>,
}

impl Schedule {
    /// Draws the faults. Their times count from now on.
    pub(super) fn new(cluster: &mut Cluster, settings: &Explore, services: &[String]) -> Self {
        let began = cluster.elapsed();
        let entropy = cluster.entropy();
        let draw = Draw {
            entropy: &entropy,
            brokers: (1..=settings.brokers).map(broker_host).collect(),
            managers: (1..=settings.managers).map(manager_host).collect(),
            services: services.to_vec(),
        };
        let kinds = draw.kinds(settings.faults);
        let window = u64::try_from(settings.faults_last.as_millis()).unwrap_or(u64::MAX);
        let mut upcoming: Vec<_> = match kinds.is_empty() {
            true => Vec::new(),
            false => (0..draw.between(FAULTS.0, FAULTS.1))
                .map(|_| {
                    let begins = draw.entropy.below(window.max(1));
                    let ends = (begins + draw.between(LASTS_MILLIS.0, LASTS_MILLIS.1)).min(window);
                    let at = |millis| began + Duration::from_millis(millis);
                    (at(begins), at(ends), draw.fault(&kinds))
                })
                .collect(),
        };
        without_double_crashes(&mut upcoming);
        // The next one is the last in the list.
        upcoming.sort_by_key(|(begins, ..)| std::cmp::Reverse(*begins));
        Self { began, upcoming, active: Vec::new() }
    }

    pub(super) fn began(&self) -> Duration {
        self.began
    }

    /// Begins and ends the faults that are due.
    pub(super) fn advance(&mut self, cluster: &mut Cluster, log: &Mutex<Vec<String>>) {
        let now = cluster.elapsed();
        while let Some(at) = self.active.iter().position(|(ends, _)| *ends <= now) {
            let (_, fault) = self.active.swap_remove(at);
            end(cluster, &fault);
        }
        while let Some((_, ends, fault)) = self.upcoming.pop_if(|(begins, ..)| *begins <= now) {
            begin(cluster, &fault);
            log.lock().push(format!("{:7.3} s – {:7.3} s  {fault}", now.as_secs_f64(), ends.as_secs_f64()));
            self.active.push((ends, fault));
        }
    }
}

fn begin(cluster: &mut Cluster, fault: &Fault) {
    match fault {
        Fault::Crash(host) => cluster.crash(host),
        Fault::Freeze(host) => cluster.freeze(host),
        Fault::Cut(a, b) => cluster.cut(a, b),
        Fault::CutOneway(from, to) => cluster.cut_oneway(from, to),
        Fault::Hold(a, b) => cluster.hold(a, b),
        Fault::Slow(a, b) => cluster.slow(a, b, SLOW),
        Fault::Database(fault) => cluster.database().begin_fault(*fault),
    }
}

fn end(cluster: &mut Cluster, fault: &Fault) {
    match fault {
        Fault::Crash(host) => cluster.restart(host),
        Fault::Freeze(host) => cluster.thaw(host),
        Fault::Cut(a, b) => cluster.repair(a, b),
        Fault::CutOneway(from, to) => cluster.repair_oneway(from, to),
        Fault::Hold(a, b) => cluster.release(a, b),
        Fault::Slow(a, b) => cluster.unslow(a, b),
        Fault::Database(fault) => cluster.database().end_fault(*fault),
    }
}

/// A host that is down cannot crash: of two overlapping crashes, the one that begins later is removed.
fn without_double_crashes(upcoming: &mut Vec<(Duration, Duration, Fault)>) {
    upcoming.sort_by_key(|(begins, ..)| *begins);
    let mut down_until: BTreeMap<String, Duration> = BTreeMap::new();
    upcoming.retain(|(begins, ends, fault)| {
        let Fault::Crash(host) = fault else { return true };
        let until = down_until.entry(host.clone()).or_default();
        let up = *until <= *begins;
        if up {
            *until = *ends;
        }
        up
    });
}

/// A kind of fault.
#[derive(Clone, Copy)]
enum Kind {
    BrokerCrash,
    BrokerFreeze,
    ManagerCrash,
    ServiceCrash,
    DatabaseCrash,
    DatabaseFault,
    Cut,
    CutOneway,
    Hold,
    Slow,
}

struct Draw<'a> {
    entropy: &'a SeededEntropy,
    brokers: Vec<String>,
    managers: Vec<String>,
    services: Vec<String>,
}

impl Draw<'_> {
    fn between(&self, min: u64, max: u64) -> u64 {
        min + self.entropy.below(max - min + 1)
    }

    /// About half of the permitted kinds, so that each seed is another mixture.
    fn kinds(&self, faults: Faults) -> Vec<Kind> {
        let mut allowed = Vec::new();
        if faults.brokers && !self.brokers.is_empty() {
            allowed.extend([Kind::BrokerCrash, Kind::BrokerFreeze]);
        }
        if faults.managers && !self.managers.is_empty() {
            allowed.push(Kind::ManagerCrash);
        }
        if faults.services && !self.services.is_empty() {
            allowed.push(Kind::ServiceCrash);
        }
        if faults.links {
            allowed.extend([Kind::Cut, Kind::CutOneway, Kind::Hold, Kind::Slow]);
        }
        if faults.database {
            allowed.extend([Kind::DatabaseCrash, Kind::DatabaseFault]);
        }
        let mut drawn = allowed.clone();
        drawn.retain(|_| self.entropy.below(2) == 0);
        if drawn.is_empty() { allowed } else { drawn }
    }

    fn one_of(&self, hosts: &[String]) -> String {
        hosts[self.entropy.below(hosts.len() as u64) as usize].clone()
    }

    /// Both ends of a link that is in use: one of them is a broker.
    fn link(&self) -> (String, String) {
        let mut others: Vec<_> = self.services.iter().chain(&self.managers).cloned().collect();
        others.push(DATABASE_HOST.to_owned());
        let (one, other) = (self.one_of(&self.brokers), self.one_of(&others));
        if self.entropy.below(2) == 0 { (one, other) } else { (other, one) }
    }

    fn fault(&self, kinds: &[Kind]) -> Fault {
        match kinds[self.entropy.below(kinds.len() as u64) as usize] {
            Kind::BrokerCrash => Fault::Crash(self.one_of(&self.brokers)),
            Kind::BrokerFreeze => Fault::Freeze(self.one_of(&self.brokers)),
            Kind::ManagerCrash => Fault::Crash(self.one_of(&self.managers)),
            Kind::ServiceCrash => Fault::Crash(self.one_of(&self.services)),
            Kind::DatabaseCrash => Fault::Crash(DATABASE_HOST.to_owned()),
            Kind::DatabaseFault => Fault::Database(self.database_fault()),
            Kind::Cut => {
                let (a, b) = self.link();
                Fault::Cut(a, b)
            }
            Kind::CutOneway => {
                let (from, to) = self.link();
                Fault::CutOneway(from, to)
            }
            Kind::Hold => {
                let (a, b) = self.link();
                Fault::Hold(a, b)
            }
            Kind::Slow => {
                let (a, b) = self.link();
                Fault::Slow(a, b)
            }
        }
    }

    fn database_fault(&self) -> DatabaseFault {
        match self.entropy.below(5) {
            0 => DatabaseFault::Slow { millis: self.between(50, 1_500) },
            1 => DatabaseFault::Refuse,
            2 => DatabaseFault::LoseReplies,
            3 => DatabaseFault::AbortWrites,
            _ => DatabaseFault::StallWrites,
        }
    }
}
