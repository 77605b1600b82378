//! The owners of queues, with their epochs.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Record};
use serde::Serialize;

use super::{
    Known,
    faults::{Fault, FaultKind},
    rows::Band,
};

/// An epoch of a queue, on the lane of the broker that claimed it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tenure {
    /// The broker.
    pub(crate) lane: usize,
    /// When it claimed the queue.
    pub(crate) from: u64,
    /// When the next epoch began, or the queue was deleted.
    pub(crate) to: u64,
    /// When the claiming process ended: no other process serves its epoch.
    pub(crate) alive: u64,
    /// The queue.
    pub(crate) queue: usize,
    /// The epoch.
    pub(crate) epoch: u64,
    /// Its place among the broker's simultaneous ones.
    pub(crate) row: usize,
    /// The record of the claim.
    pub(crate) mark: usize,
}

impl Band for Tenure {
    fn lane(&self) -> usize {
        self.lane
    }

    fn time(&self) -> (u64, u64) {
        (self.from, self.to)
    }

    fn row(&mut self) -> Option<&mut usize> {
        Some(&mut self.row)
    }
}

/// All tenures, in the order in which they began.
pub(super) fn tenures(history: &[Record], known: &Known, faults: &[Fault]) -> Vec<Tenure> {
    let mut tenures: Vec<Tenure> = Vec::new();
    // The last tenure of each queue.
    let mut last: BTreeMap<u64, usize> = BTreeMap::new();
    for (mark, record) in history.iter().enumerate() {
        let at = record.at_micros;
        match &record.event {
            Event::Claimed { queue_id, epoch, broker_id, incarnation } => {
                if let Some(before) = last.remove(queue_id) {
                    tenures[before].to = at;
                }
                let (Some(lane), Some(queue)) = (known.broker(*broker_id), known.queue(*queue_id)) else { continue };
                last.insert(*queue_id, tenures.len());
                let alive = ends(history, known, faults, (at, lane, incarnation));
                tenures.push(Tenure { lane, from: at, to: known.end, alive, queue, epoch: *epoch, row: 0, mark });
            }
            Event::QueueTombstoned { queue_id } => {
                if let Some(before) = last.remove(queue_id) {
                    tenures[before].to = at;
                }
            }
            _ => {}
        }
    }
    for tenure in &mut tenures {
        tenure.alive = tenure.alive.min(tenure.to);
    }
    tenures
}

/// When the process that a broker ran on a lane at a time ended: its host crashed, or another process registered there.
fn ends(history: &[Record], known: &Known, faults: &[Fault], process: (u64, usize, &str)) -> u64 {
    let (at, lane, incarnation) = process;
    let crash = faults.iter().find(|fault| fault.lane == lane && fault.from >= at && fault.kind == FaultKind::Down);
    let replaced = history.iter().find(|record| match &record.event {
        Event::Registered { broker, incarnation: other, .. } => {
            record.at_micros >= at && known.lanes.of_host(broker) == Some(lane) && other != incarnation
        }
        _ => false,
    });
    let (crash, replaced) = (crash.map(|fault| fault.from), replaced.map(|record| record.at_micros));
    crash.into_iter().chain(replaced).min().unwrap_or(known.end)
}
