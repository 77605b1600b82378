//! The lanes of the hosts.

use std::collections::{BTreeMap, BTreeSet};

use rmom_sim::history::{Event, Record};
use serde::Serialize;

use crate::scenario::Host;

/// A host's lane.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lane {
    /// The host.
    pub(crate) name: String,
    /// Its kind.
    pub(crate) sort: Sort,
}

/// The kind of a host. Lanes of a kind are side by side. Messages go from clients at the top through brokers to the
/// database, and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sort {
    /// The fault injector.
    Runner,
    /// The operator, which also checks the health of all processes.
    Operator,
    /// A host that scenarios do not name.
    Other,
    /// A producer.
    Producer,
    /// A consumer.
    Consumer,
    /// A broker.
    Broker,
    /// The database.
    Database,
    /// A manager.
    Manager,
}

/// All lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) all: Vec<Lane>,
    by_host: BTreeMap<String, usize>,
}

impl Lanes {
    /// A lane for each host in a history.
    pub(super) fn of(history: &[Record]) -> Self {
        let mut hosts = BTreeSet::new();
        for record in history {
            hosts.insert(record.host.as_str());
            match &record.event {
                Event::FaultBegan { hosts: affected, .. } => hosts.extend(affected.iter().map(String::as_str)),
                Event::Registered { broker: host, .. }
                | Event::StreamOpened { broker: host, .. }
                | Event::Stored { by: host, .. }
                | Event::AppendRefused { by: host, .. }
                | Event::Health { of: host, .. } => {
                    hosts.insert(host);
                }
                _ => {}
            }
        }
        let mut hosts: Vec<_> = hosts.into_iter().map(|name| (place(name), name)).collect();
        hosts.sort_unstable();
        let by_host = hosts.iter().zip(0..).map(|((_, name), lane)| ((*name).to_owned(), lane)).collect();
        let all = hosts.into_iter().map(|((sort, _), name)| Lane { name: name.to_owned(), sort }).collect();
        Self { all, by_host }
    }

    /// A host's lane.
    pub(super) fn of_host(&self, host: &str) -> Option<usize> {
        self.by_host.get(host).copied()
    }
}

/// The place of a host: its kind, and its number within the kind.
fn place(name: &str) -> (Sort, u8) {
    match name.parse() {
        Ok(Host::Operator) => (Sort::Operator, 0),
        Ok(Host::Producer(number)) => (Sort::Producer, number),
        Ok(Host::Consumer(number)) => (Sort::Consumer, number),
        Ok(Host::Broker(number)) => (Sort::Broker, number),
        Ok(Host::Database) => (Sort::Database, 0),
        Ok(Host::Manager(number)) => (Sort::Manager, number),
        Err(_) if name == "runner" => (Sort::Runner, 0),
        Err(_) => (Sort::Other, 0),
    }
}
