//! The checks of `rmom doctor`: each is a function of the observations alone.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use axum::http::Uri;
use rmom_client::Status;

use super::{
    super::output::{duration, plural},
    seen::{About, BrokerSeen, Cause, Fault, ManagerSeen, Readiness, Seen},
};

/// Larger differences between clocks are reported.
const LARGEST_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);
/// With fewer open files, a program with a few hundred connections fails; this is Linux's usual limit.
const FEWEST_OPEN_FILES: u64 = 1_024;
/// Limit on the servers of one version that are named.
const MAX_NAMED: usize = 5;
/// Prefix of the codes of a manager that does not reach its database.
const STORE_CODES: &str = "STORE_";

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

/// The managers that answered.
fn answers(seen: &Seen) -> impl Iterator<Item = &ManagerSeen> {
    seen.managers.iter().filter(|manager| manager.is_a_manager())
}

fn statuses(seen: &Seen) -> impl Iterator<Item = &Status> {
    answers(seen).filter_map(|manager| manager.status.as_ref().ok())
}

/// Can each manager be reached?
fn manager(seen: &Seen) -> Vec<Finding> {
    let one = |manager: &ManagerSeen| {
        let url = &manager.url;
        if manager.is_a_broker() {
            let next = "Name a manager with --manager URL; it has another port.";
            return vec![problem("manager", format!("{url} is a broker, not a manager"), next)];
        }
        let faults = [manager.status.as_ref().err(), manager.readiness.as_ref().err(), manager.about.as_ref().err()];
        let other = faults.into_iter().flatten().find(|fault| matches!(fault, Fault::NotOurs(_)));
        match (&manager.status, other) {
            _ if manager.is_a_manager() => {
                let took = duration(manager.took.unwrap_or_default());
                let mut found = vec![ok("manager", format!("{url} answers in {took}"))];
                found.extend(no_status(manager));
                found
            }
            (_, Some(Fault::NotOurs(status))) => vec![problem(
                "manager",
                format!("{url} answered {status}"),
                "Is this address a proxy or another server? Name a manager with --manager URL.",
            )],
            (Err(Fault::NoAnswer { reason, cause }), _) => {
                let next = next_for(*cause).unwrap_or(
                    "Is it running? Start one with: rmom dev, or rmom serve manager FILE. Elsewhere? Name it with --manager URL.",
                );
                vec![problem("manager", format!("{url} cannot be reached: {reason}"), next)]
            }
            _ => Vec::new(),
        }
    };
    seen.managers.iter().flat_map(one).collect()
}

/// A manager answers, but not for the state of the cluster. One that is not ready may not know it.
fn no_status(manager: &ManagerSeen) -> Option<Finding> {
    let fault = manager.status.as_ref().err()?;
    let is_ready = matches!(manager.readiness, Ok(Readiness::Ready) | Err(_));
    let is_silent = matches!(fault, Fault::NoAnswer { .. });
    (is_ready || is_silent)
        .then(|| problem("manager", format!("{} does not tell its /v1/status: {fault}", manager.url), "See its log."))
}

/// The next step for a failure of TLS.
const fn next_for(cause: Cause) -> Option<&'static str> {
    match cause {
        Cause::Certificate => Some(
            "Check that --ca names the authority that signed the server's certificate, and that the certificate has this host \
             among its names.",
        ),
        Cause::NoTls => Some(
            "The server speaks no TLS. Configure its certificate (tls), or leave out --ca and use http:// in --manager.",
        ),
        Cause::NoClientCertificate => {
            Some("The server may require a certificate of its clients: name one with --cert FILE and --key FILE.")
        }
        Cause::Other => None,
    }
}

/// The reason why the manager cannot use the database, if that is known.
fn fault_of_database(readiness: &Readiness) -> Option<String> {
    match readiness {
        Readiness::Waiting(reason) => Some(format!("waits for the database: {reason}")),
        Readiness::NotReady { code: Some(code), reason } if code.starts_with(STORE_CODES) => {
            Some(format!("cannot use the database: {reason} ({code})"))
        }
        Readiness::Ready | Readiness::Starting | Readiness::NotReady { .. } => None,
    }
}

/// Does each manager that answers accept requests? If the database is the cause, its line says so.
fn readiness(seen: &Seen) -> Vec<Finding> {
    let one = |manager: &ManagerSeen| {
        let url = &manager.url;
        let not_ready = |reason: &str| problem("readiness", format!("{url} is not ready: {reason}"), "See its log.");
        Some(match &manager.readiness {
            Ok(readiness) if fault_of_database(readiness).is_some() => return None,
            Ok(Readiness::Ready) => ok("readiness", format!("{url} is ready")),
            Ok(Readiness::Waiting(reason) | Readiness::NotReady { reason, .. }) => not_ready(reason),
            Ok(Readiness::Starting) => not_ready("it is starting"),
            Err(fault) => problem("readiness", format!("{url} does not tell its /readyz: {fault}"), "See its log."),
        })
    };
    answers(seen).filter_map(one).collect()
}

/// Does each manager that answers reach the database?
fn database(seen: &Seen) -> Vec<Finding> {
    let next = "See that the database runs, and that the manager's configuration names it: rmom serve manager FILE --check-config";
    let one = |manager: &ManagerSeen| {
        let (url, readiness) = (&manager.url, manager.readiness.as_ref().ok()?);
        if let Some(reason) = fault_of_database(readiness) {
            return Some(problem("database", format!("{url} {reason}"), next));
        }
        match readiness {
            Readiness::Ready | Readiness::NotReady { code: None, .. } => {
                Some(ok("database", format!("{url} reaches the database")))
            }
            // The manager is starting or stopping, and did not ask the database.
            _ => None,
        }
    };
    answers(seen).filter_map(one).collect()
}

/// Which manager leads, and do all agree?
fn leader(seen: &Seen) -> Vec<Finding> {
    let mut leaders = BTreeMap::new();
    let mut asked = 0_u64;
    for status in statuses(seen) {
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

/// Can this machine use each live broker at the address that clients are given, and can others?
fn connection(seen: &Seen) -> Vec<Finding> {
    let elsewhere = seen.managers.iter().any(|manager| !is_loopback(&host(&manager.url)));
    let one = |broker: &BrokerSeen| {
        let name = broker.name();
        let of = match broker.broker.host.trim_matches(['[', ']']) {
            any if any.parse().is_ok_and(|address: IpAddr| address.is_unspecified()) => Some("any machine"),
            own if elsewhere && is_loopback(own) => Some("the machine that uses it"),
            _ => None,
        };
        Some(match (broker.connection.as_ref()?, of) {
            (Ok(_), Some(of)) => warning(
                "connection",
                format!("{name} answers over gRPC, but gives its clients an address that means {of}"),
                "Set the broker's external_host to a name or address under which other machines reach it.",
            ),
            (Ok(answer), None) => ok("connection", format!("{name} answers over gRPC in {}", duration(answer.took))),
            (Err(fault), _) => {
                let cause = if let Fault::NoAnswer { cause, .. } = fault { *cause } else { Cause::Other };
                let next = next_for(cause).unwrap_or(
                    "Clients use that address too. It is the broker's external_host and external_port: set them to an \
                     address that this machine can reach, open the firewall, or name the certificates with --ca FILE.",
                );
                problem("connection", format!("{name} does not answer this machine over gRPC: {fault}"), next)
            }
        })
    };
    seen.brokers.iter().filter_map(one).collect()
}

/// The host of a URL, without brackets.
fn host(url: &str) -> String {
    let uri = url.parse::<Uri>().unwrap_or_default();
    uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Which problems do the managers report?
fn complaints(seen: &Seen) -> Vec<Finding> {
    let mut told: BTreeMap<&str, &str> = BTreeMap::new();
    let mut notes: BTreeMap<&str, ()> = BTreeMap::new();
    let mut asked = false;
    for status in statuses(seen) {
        asked = true;
        told.extend(status.problems.iter().map(|problem| (problem.what.as_str(), problem.next.as_str())));
        notes.extend(status.notes.iter().map(|note| (note.as_str(), ())));
    }
    // The line of a dead broker already says that it is dead.
    let dead: Vec<String> = seen.brokers.iter().filter(|seen| !seen.broker.live).map(BrokerSeen::name).collect();
    told.retain(|what, _| !dead.iter().any(|name| what.starts_with(&format!("{name} is "))));
    let mut found: Vec<Finding> = told.into_iter().map(|(what, next)| problem("complaints", what, next)).collect();
    found.extend(notes.into_keys().map(|note| {
        warning("complaints", note, "This may not be a problem; the note names what could not be checked.")
    }));
    if found.is_empty() && asked {
        let other = if dead.is_empty() { "no" } else { "no other" };
        found.push(ok("complaints", format!("the managers and the live brokers have {other} complaints")));
    }
    found
}

/// The servers that answered, with their names and their reports on themselves.
fn servers(seen: &Seen) -> impl Iterator<Item = (String, Result<&About, &Fault>)> {
    let managers = answers(seen).map(|manager| (format!("manager {}", manager.url), manager.about.as_ref()));
    managers.chain(seen.brokers.iter().filter_map(|broker| {
        let connected = broker.connection.as_ref()?.as_ref().ok()?;
        Some((broker.name(), connected.about.as_ref()))
    }))
}

/// Do the servers' clocks agree with this machine's?
fn clock(seen: &Seen) -> Vec<Finding> {
    let clocks: Vec<_> = servers(seen).filter_map(|(name, about)| Some((name, about.ok()?.ahead_millis?))).collect();
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
                format!(
                    "no difference beyond {} was found between this machine's clock and those of {servers}",
                    duration(furthest)
                ),
            )]
        }
        _ => found,
    }
}

/// Do this program and all servers have the same version?
fn version(seen: &Seen) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    versions.entry(&seen.version).or_default().push("this program".to_owned());
    let (mut answered, mut found) = (false, Vec::new());
    for (name, about) in servers(seen) {
        match about {
            Ok(about) => {
                answered = true;
                versions.entry(about.version.as_deref().unwrap_or("older")).or_default().push(name);
            }
            Err(fault) => found.push(warning(
                "version",
                format!("{name} does not tell its /version: {fault}"),
                "Run rmom doctor again, with a longer --timeout; then see its log.",
            )),
        }
    }
    if versions.len() == 1 {
        let same = || ok("version", format!("this program and the servers that answer are {}", seen.version));
        found.extend(answered.then(same));
        return found;
    }
    let group = |(version, names): (&str, Vec<String>)| {
        let more = names.len().saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{version}: {}{more}", names[..names.len().min(MAX_NAMED)].join(", "))
    };
    let groups: Vec<String> = versions.into_iter().map(group).collect();
    found.push(warning(
        "version",
        format!("versions differ; {}", groups.join("; ")),
        "Finish the upgrade; docs/operations.md says in which order.",
    ));
    found
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
