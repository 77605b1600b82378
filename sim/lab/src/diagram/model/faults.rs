//! Faults, by affected host.

use std::collections::BTreeMap;

use rmom_sim::history::Event;
use serde::Serialize;

use super::{Known, rows::Band};
use crate::{
    diagram::Picture,
    scenario::{Action, Host},
};

/// A fault, on the lane of an affected host.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// The host.
    pub(crate) lane: usize,
    /// When it began.
    pub(crate) from: u64,
    /// When it was over.
    pub(crate) to: u64,
    /// Its kind.
    pub(crate) kind: FaultKind,
    /// Its effect on this host.
    pub(crate) text: String,
    /// Its place among the host's simultaneous faults.
    pub(crate) row: usize,
    /// The record of its beginning.
    pub(crate) mark: usize,
}

/// The kind of a fault, which determines how it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FaultKind {
    /// The host does not run.
    Down,
    /// The host is frozen.
    Frozen,
    /// Messages are lost.
    Cut,
    /// Messages are delayed.
    Slow,
    /// The database has a fault.
    Database,
    /// Not a fault but a demand on the cluster: draining, churn, consumers that stall.
    Demand,
    /// Unknown, because the scenario is not known.
    Unknown,
}

impl Band for Fault {
    fn lane(&self) -> usize {
        self.lane
    }

    fn time(&self) -> (u64, u64) {
        (self.from, self.to)
    }

    fn row(&mut self) -> Option<&mut usize> {
        (!matches!(self.kind, FaultKind::Down | FaultKind::Frozen)).then_some(&mut self.row)
    }
}

/// The faults, in the order in which they began.
pub(super) fn faults(picture: &Picture<'_>, known: &Known) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    // The bands of each active step.
    let mut open: BTreeMap<usize, std::ops::Range<usize>> = BTreeMap::new();
    for (mark, record) in picture.history.iter().enumerate() {
        match &record.event {
            Event::FaultBegan { step, what, hosts } => {
                let action = picture.scenario.and_then(|scenario| scenario.steps.get(*step)).map(|step| &step.action);
                let first = faults.len();
                faults.extend(hosts.iter().filter_map(|host| {
                    Some(Fault {
                        lane: known.lanes.of_host(host)?,
                        from: record.at_micros,
                        to: known.end,
                        kind: action.map_or(FaultKind::Unknown, kind),
                        text: action.map_or_else(|| what.clone(), |action| felt_by(host, action)),
                        row: 0,
                        mark,
                    })
                }));
                open.insert(*step, first..faults.len());
            }
            Event::FaultEnded { step } => {
                for fault in &mut faults[open.remove(step).unwrap_or_default()] {
                    fault.to = record.at_micros;
                }
            }
            _ => {}
        }
    }
    faults
}

fn kind(action: &Action) -> FaultKind {
    match action {
        Action::Crash(_) | Action::PowerLoss(_) | Action::Lose(_) => FaultKind::Down,
        Action::Freeze(_) => FaultKind::Frozen,
        Action::Cut { .. } | Action::CutOneway { .. } | Action::CutOff(_) => FaultKind::Cut,
        Action::Hold { .. } | Action::Slow { .. } => FaultKind::Slow,
        Action::Database(_) => FaultKind::Database,
        Action::ClockJump { .. }
        | Action::Drain(_)
        | Action::DrainForGood(_)
        | Action::RecreateQueue(_)
        | Action::ChurnChannels { .. }
        | Action::StallConsumer(_)
        | Action::LeaveConsumer(_)
        | Action::DeleteChannel(_)
        | Action::Twin(_) => FaultKind::Demand,
    }
}

/// The effect of an action on one of the affected hosts, in a few words.
fn felt_by(host: &str, action: &Action) -> String {
    let among = |group: &[Host]| group.iter().any(|other| other.to_string() == host);
    let names = |group: &[Host]| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let others = |between: &[Host], and: &[Host]| names(if among(between) { and } else { between });
    match action {
        Action::Crash(_) => "down: crashed".into(),
        Action::PowerLoss(_) => "down: no power".into(),
        Action::Lose(_) => "lost permanently".into(),
        Action::CutOff(_) => "cut off from the database permanently".into(),
        Action::Freeze(_) => "frozen".into(),
        Action::Cut { between, and } => format!("cut off from {}", others(between, and)),
        Action::CutOneway { from, to } if among(from) => format!("does not reach {}", names(to)),
        Action::CutOneway { from, .. } => format!("receives nothing from {}", names(from)),
        Action::Hold { between, and } => format!("traffic held: {}", others(between, and)),
        Action::Slow { between, and, latency_millis } => format!("{latency_millis} ms to {}", others(between, and)),
        Action::Drain(_) => "drained".into(),
        Action::DrainForGood(_) => "drained permanently".into(),
        Action::StallConsumer(_) => "stops reading".into(),
        Action::LeaveConsumer(_) => "has left".into(),
        Action::DeleteChannel(_) => "its channel is being deleted".into(),
        Action::Twin(_) => "has a twin".into(),
        Action::Database(_) | Action::ClockJump { .. } | Action::RecreateQueue(_) | Action::ChurnChannels { .. } => {
            action.to_string()
        }
    }
}
