//! The checks of `rmom doctor`: each is a function of the observations alone.

use std::{collections::BTreeMap, time::Duration};

use rmom_client::{Broker, Status};

use super::super::output::{duration, plural};
use crate::service::authority;

/// Larger differences between clocks are reported.
const LARGEST_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);
/// With fewer open files, a program with a few hundred connections fails; this is Linux's usual limit.
const FEWEST_OPEN_FILES: u64 = 1_024;
/// Limit on the servers of one version that are named.
const MAX_NAMED: usize = 5;
/// Prefix of the codes of a manager that does not reach its database.
const STORE_CODES: &str = "STORE_";

/// All observations.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The version of this program.
    pub(super) version: String,
    /// Limit on the open files of this process. `None` means unlimited or not known.
    pub(super) open_files: Option<u64>,
    /// The managers of the command line, in its order.
    pub(super) managers: Vec<ManagerSeen>,
    /// The brokers named by the managers.
    pub(super) brokers: Vec<BrokerSeen>,
}

/// A manager that was asked.
#[derive(Debug)]
pub(super) struct ManagerSeen {
    pub(super) url: String,
    /// Its answer, or the reason why there is none.
    pub(super) answer: Result<ManagerAnswer, String>,
}

/// A manager's answer.
#[derive(Debug)]
pub(super) struct ManagerAnswer {
    /// Time from the attempt to connect to the first answer.
    pub(super) took: Duration,
    pub(super) about: About,
    pub(super) readiness: Readiness,
    /// The state of the cluster, or the reason why the manager did not report it.
    pub(super) status: Result<Status, String>,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// It is starting, and waits for its database.
    Waiting(String),
    /// It runs, but something is wrong. Without a code, the database is not the cause.
    NotReady {
        code: Option<String>,
        reason: String,
    },
}

/// A server's report on itself; empty if its version is older.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) version: Option<String>,
    /// Milliseconds by which its clock is ahead of this machine's.
    pub(super) ahead_millis: Option<i64>,
}

/// A broker named by a manager.
#[derive(Debug)]
pub(super) struct BrokerSeen {
    pub(super) broker: Broker,
    /// The attempt to use it from this machine. `None` means that it is not alive, so that no attempt was made.
    pub(super) connection: Option<Result<BrokerAnswer, String>>,
}

/// A broker's answer.
#[derive(Debug)]
pub(super) struct BrokerAnswer {
    /// Time from the attempt to connect to the answer.
    pub(super) took: Duration,
    pub(super) about: About,
}

impl BrokerSeen {
    fn name(&self) -> String {
        let place = authority(&self.broker.host, self.broker.port);
        self.broker.id.map_or_else(|| format!("the broker at {place}"), |id| format!("broker {id} at {place}"))
    }
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Ok,
    /// It works, but an operator should look at it.
    Warning,
    /// Something does not work.
    Problem,
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// A line of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The check that made the finding.
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) what: String,
    /// The next step. `None` means that there is nothing to do.
    pub(super) next: Option<String>,
}

fn ok(check: &'static str, what: impl Into<String>) -> Finding {
    Finding { check, level: Level::Ok, what: what.into(), next: None }
}

fn warning(check: &'static str, what: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { check, level: Level::Warning, what: what.into(), next: Some(next.into()) }
}

fn problem(check: &'static str, what: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { check, level: Level::Problem, what: what.into(), next: Some(next.into()) }
}

/// The findings of all checks, in the order in which an operator would look.
pub(super) fn all(seen: &Seen) -> Vec<Finding> {
    let checks: [fn(&Seen) -> Vec<Finding>; 10] =
        [manager, readiness, database, leader, broker, connection, complaints, clock, version, open_files];
    checks.iter().flat_map(|check| check(seen)).collect()
}

impl ManagerAnswer {
    /// True if the answer is a manager's. A manager that is starting does not report the state of the cluster, and says that
    /// it is not ready.
    fn is_a_managers(&self) -> bool {
        self.status.is_ok() || self.readiness != Readiness::Ready
    }
}

/// The managers that answered.
fn answers(seen: &Seen) -> impl Iterator<Item = (&str, &ManagerAnswer)> {
    let answered =
        seen.managers.iter().filter_map(|manager| Some((manager.url.as_str(), manager.answer.as_ref().ok()?)));
    answered.filter(|(_, answer)| answer.is_a_managers())
}

fn statuses(seen: &Seen) -> impl Iterator<Item = (&str, &Status)> {
    answers(seen).filter_map(|(url, answer)| Some((url, answer.status.as_ref().ok()?)))
}

/// Can each manager be reached?
fn manager(seen: &Seen) -> Vec<Finding> {
    let one = |manager: &ManagerSeen| {
        let url = &manager.url;
        match &manager.answer {
            Err(reason) => problem(
                "manager",
                format!("{url} cannot be reached: {reason}"),
                "Is it running? Start one with: rmom dev, or rmom serve manager FILE. Elsewhere? Name it with --manager URL.",
            ),
            Ok(answer @ ManagerAnswer { status: Err(reason), .. }) if !answer.is_a_managers() => problem(
                "manager",
                format!("{url} does not answer as a manager does: {reason}"),
                "Is that a manager? A broker's port is another one. Name the manager's with --manager URL.",
            ),
            Ok(answer) => ok("manager", format!("{url} answers in {}", duration(answer.took))),
        }
    };
    seen.managers.iter().map(one).collect()
}

/// Does each manager that answers accept requests?
fn readiness(seen: &Seen) -> Vec<Finding> {
    let one = |(url, answer): (&str, &ManagerAnswer)| match &answer.readiness {
        Readiness::Ready => ok("readiness", format!("{url} is ready")),
        Readiness::Waiting(reason) | Readiness::NotReady { reason, .. } => {
            problem("readiness", format!("{url} is not ready: {reason}"), "See its log.")
        }
    };
    answers(seen).map(one).collect()
}

/// Does each manager that answers reach the database?
fn database(seen: &Seen) -> Vec<Finding> {
    let next = "See that the database runs, and that the manager's configuration names it: rmom serve manager FILE --check-config";
    let one = |(url, answer): (&str, &ManagerAnswer)| match &answer.readiness {
        Readiness::Waiting(reason) => {
            Some(problem("database", format!("{url} waits for the database: {reason}"), next))
        }
        Readiness::NotReady { code: Some(code), reason } if code.starts_with(STORE_CODES) => {
            Some(problem("database", format!("{url} cannot use the database: {reason} ({code})"), next))
        }
        // The manager is stopping, and did not ask the database.
        Readiness::NotReady { code: Some(_), .. } => None,
        Readiness::Ready | Readiness::NotReady { code: None, .. } => {
            Some(ok("database", format!("{url} reaches the database")))
        }
    };
    answers(seen).filter_map(one).collect()
}

/// Which manager leads, and do all agree?
fn leader(seen: &Seen) -> Vec<Finding> {
    let mut leaders = BTreeMap::new();
    let mut asked = 0_u64;
    for (_, status) in statuses(seen) {
        asked += 1;
        let leader = if status.leading { Some(status.manager_id) } else { status.leader_id };
        if let Some(leader) = leader {
            leaders.insert(leader, status.term);
        }
    }
    let leaders: Vec<_> = leaders.into_iter().collect();
    match &leaders[..] {
        _ if asked == 0 => Vec::new(),
        [] => vec![problem(
            "leader",
            "no manager leads: no queue moves to another broker",
            "A manager takes the lead within seconds. Run rmom doctor again; then see the managers' logs.",
        )],
        [(leader, term)] => vec![ok("leader", format!("manager {leader} leads, in term {term}"))],
        several => vec![warning(
            "leader",
            format!("the managers name {} leaders", several.len()),
            "The lead may have just changed. Run rmom doctor again; then see that all managers use one database.",
        )],
    }
}

/// What is the state of each broker, according to the managers?
fn broker(seen: &Seen) -> Vec<Finding> {
    let one = |seen: &BrokerSeen| {
        let (name, broker) = (seen.name(), &seen.broker);
        let queues = plural(broker.queues, "queue");
        let id = broker.id.map_or_else(|| "ID".to_owned(), |id| id.to_string());
        match (broker.live, broker.state.as_str()) {
            (true, "draining") => ok("broker", format!("{name} is alive and draining, with {queues} left")),
            (true, _) => ok("broker", format!("{name} is alive, with {queues}")),
            (false, _) if broker.gone => warning(
                "broker",
                format!("{name} is gone"),
                format!("Remove it for good with: rmom broker forget {id}"),
            ),
            (false, "stopped") => warning(
                "broker",
                format!("{name} was stopped"),
                format!("Start it again, or remove it for good with: rmom broker forget {id}"),
            ),
            (false, "unregistered") => problem(
                "broker",
                format!("{name} is in the managers' configuration (moms) and was never started"),
                "Start it, or remove it from the configuration.",
            ),
            (false, _) => problem(
                "broker",
                format!("{name} is not alive, and has {queues}"),
                format!("Start it again, or remove it for good with: rmom broker forget {id}"),
            ),
        }
    };
    let none = "no broker has registered";
    if seen.brokers.is_empty() && statuses(seen).next().is_some() {
        return vec![problem("broker", none, "Start one with: rmom serve broker FILE")];
    }
    seen.brokers.iter().map(one).collect()
}

/// Can this machine use each live broker at the address that clients are given?
fn connection(seen: &Seen) -> Vec<Finding> {
    let one = |broker: &BrokerSeen| {
        let name = broker.name();
        Some(match broker.connection.as_ref()? {
            Ok(answer) => ok("connection", format!("{name} answers over gRPC in {}", duration(answer.took))),
            Err(reason) => problem(
                "connection",
                format!("{name} does not answer this machine over gRPC: {reason}"),
                "Clients use that address too. It is the broker's external_host and external_port: set them to what leads there \
                 from here, open the firewall, or name the certificates with --ca FILE.",
            ),
        })
    };
    seen.brokers.iter().filter_map(one).collect()
}

/// Which problems do the managers report?
fn complaints(seen: &Seen) -> Vec<Finding> {
    let mut told: BTreeMap<&str, &str> = BTreeMap::new();
    let mut notes: BTreeMap<&str, ()> = BTreeMap::new();
    let mut asked = false;
    for (_, status) in statuses(seen) {
        asked = true;
        told.extend(status.problems.iter().map(|problem| (problem.what.as_str(), problem.next.as_str())));
        notes.extend(status.notes.iter().map(|note| (note.as_str(), ())));
    }
    // The line of a dead broker already says that it is dead.
    let dead: Vec<String> = seen.brokers.iter().filter(|seen| !seen.broker.live).map(BrokerSeen::name).collect();
    told.retain(|what, _| !dead.iter().any(|name| what.starts_with(&format!("{name} is "))));
    let mut found: Vec<Finding> = told.into_iter().map(|(what, next)| problem("complaints", what, next)).collect();
    found.extend(
        notes
            .into_keys()
            .map(|note| warning("complaints", note, "Nothing is known to be wrong; the note says what is not known.")),
    );
    if found.is_empty() && asked {
        let other = if dead.is_empty() { "no" } else { "no other" };
        found.push(ok("complaints", format!("the managers and the live brokers have {other} complaints")));
    }
    found
}

/// The servers that reported on themselves, with their names.
fn servers(seen: &Seen) -> impl Iterator<Item = (String, &About)> {
    let managers = answers(seen).map(|(url, answer)| (format!("manager {url}"), &answer.about));
    managers.chain(seen.brokers.iter().filter_map(|broker| {
        let connected = broker.connection.as_ref()?.as_ref().ok()?;
        Some((broker.name(), &connected.about))
    }))
}

/// Do the servers' clocks agree with this machine's?
fn clock(seen: &Seen) -> Vec<Finding> {
    let clocks: Vec<_> = servers(seen).filter_map(|(name, about)| Some((name, about.ahead_millis?))).collect();
    let off = |millis: i64| Duration::from_millis(millis.unsigned_abs());
    let differ = clocks.iter().filter(|(_, ahead)| off(*ahead) > LARGEST_CLOCK_DIFFERENCE);
    let one = |(name, ahead): &(String, i64)| {
        let direction = if *ahead > 0 { "ahead of" } else { "behind" };
        warning(
            "clock",
            format!("the clock of {name} is {} {direction} this machine's", duration(off(*ahead))),
            "Synchronise both clocks (chrony, systemd-timesyncd). Messages expire by the database's clock, but certificates and \
             times in logs depend on these.",
        )
    };
    let found: Vec<Finding> = differ.map(one).collect();
    match clocks.iter().map(|(_, ahead)| off(*ahead)).max() {
        Some(furthest) if found.is_empty() => {
            let servers = plural(clocks.len() as u64, "server");
            vec![ok(
                "clock",
                format!("the clocks of this machine and of {servers} differ by {} at most", duration(furthest)),
            )]
        }
        _ => found,
    }
}

/// Do this program and all servers have the same version?
fn version(seen: &Seen) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    versions.entry(&seen.version).or_default().push("this program".to_owned());
    for (name, about) in servers(seen) {
        versions.entry(about.version.as_deref().unwrap_or("older")).or_default().push(name);
    }
    if versions.len() == 1 {
        return vec![ok("version", format!("this program and the servers that answer are {}", seen.version))];
    }
    let group = |(version, names): (&str, Vec<String>)| {
        let more = names.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{version}: {}{more}", names[..names.len().min(MAX_NAMED)].join(", "))
    };
    let groups: Vec<String> = versions.into_iter().map(group).collect();
    vec![warning(
        "version",
        format!("versions differ; {}", groups.join("; ")),
        "Finish the upgrade; docs/operations.md says in which order.",
    )]
}

/// May this process open enough files?
fn open_files(seen: &Seen) -> Vec<Finding> {
    vec![match seen.open_files {
        None => ok("open-files", "no limit on the open files of this process is known"),
        Some(limit) if limit < FEWEST_OPEN_FILES => warning(
            "open-files",
            format!("a process started from here may open only {limit} files, and each connection is one"),
            "Raise the limit: ulimit -n 65536, or LimitNOFILE= of a systemd unit.",
        ),
        Some(limit) => ok("open-files", format!("a process started from here may open {limit} files")),
    }]
}
