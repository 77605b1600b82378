//! A history as a picture: the positions of everything drawn, as far as they do not depend on the zoom.
//!
//! Times are simulated microseconds since the start. Lanes, queues, messages and marks are identified by their index. There
//! is one mark for each record, in the same order, so that a record's index is its mark's.

mod arrows;
mod bands;
mod faults;
mod lanes;
mod marks;
mod rows;
mod tenures;

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Record};
use serde::Serialize;
use uuid::Uuid;

pub(super) use self::{
    arrows::Arrow,
    bands::{Phase, Stretch},
    faults::Fault,
    lanes::Lane,
    marks::{Mark, Message},
    tenures::Tenure,
};
use self::{lanes::Lanes, rows::pack};
use super::Picture;
use crate::{
    check::Promise,
    report::{self, Names},
};

/// The contents of the picture.
#[derive(Debug, Serialize)]
pub(super) struct Model {
    /// The time of the last event.
    pub(super) end: u64,
    /// The hosts, from top to bottom.
    pub(super) lanes: Vec<Lane>,
    /// The queues' labels.
    pub(super) queues: Vec<String>,
    /// The phases of the run.
    pub(super) phases: Vec<Phase>,
    /// The faults of the hosts.
    pub(super) faults: Vec<Fault>,
    /// The owners of the queues.
    pub(super) tenures: Vec<Tenure>,
    /// Streams and consumers.
    pub(super) stretches: Vec<Stretch>,
    /// The pushed messages.
    pub(super) messages: Vec<Message>,
    /// One for each record.
    pub(super) marks: Vec<Mark>,
    /// Arrows from cause to effect.
    pub(super) arrows: Vec<Arrow>,
    /// The broken promises.
    pub(super) violations: Vec<Broken>,
}

/// A broken promise.
#[derive(Debug, Serialize)]
pub(super) struct Broken {
    /// The promise, in words.
    pub(super) promise: String,
    /// Its number.
    pub(super) number: usize,
    /// What happened.
    pub(super) what: String,
    /// The marks that show it; it became visible at the last.
    pub(super) marks: Vec<usize>,
}

impl Model {
    /// The model of a run.
    pub(super) fn of(picture: &Picture<'_>) -> Self {
        let history = picture.history;
        let known = Known::of(history);
        let (marks, messages) = marks::marks(history, &known);
        let mut faults = faults::faults(picture, &known);
        let mut tenures = tenures::tenures(history, &known, &faults);
        let mut stretches = bands::stretches(history, &known);
        pack(&mut faults);
        pack(&mut tenures);
        pack(&mut stretches);
        Self {
            end: known.end,
            queues: known.queue_ids.keys().map(|&id| known.names.queue(id)).collect(),
            phases: bands::phases(history),
            arrows: arrows::arrows(history, &known, &marks),
            violations: broken(picture),
            lanes: known.lanes.all,
            faults,
            tenures,
            stretches,
            messages,
            marks,
        }
    }
}

fn broken(picture: &Picture<'_>) -> Vec<Broken> {
    let of = |promise: Promise| (report::promise(promise), promise.number());
    let violations = picture.violations.iter().map(|violation| {
        let (promise, number) = of(violation.promise);
        let marks = violation.records.iter().copied().filter(|&record| record < picture.history.len()).collect();
        Broken { promise, number, what: violation.what.clone(), marks }
    });
    violations.collect()
}

/// The meanings of a history's ids.
#[derive(Debug)]
struct Known {
    names: Names,
    lanes: Lanes,
    /// Queues' ids, with their index.
    queue_ids: BTreeMap<u64, usize>,
    /// Channels' queues.
    channels: BTreeMap<Uuid, u64>,
    end: u64,
}

impl Known {
    fn of(history: &[Record]) -> Self {
        let names = Names::of(history);
        let channels = history.iter().filter_map(|record| match &record.event {
            Event::ChannelCreated { channel, queue_id, .. } | Event::AuditChannel { channel, queue_id, .. } => {
                Some((*channel, *queue_id))
            }
            _ => None,
        });
        Self {
            lanes: Lanes::of(history),
            queue_ids: names.queues().zip(0..).collect(),
            channels: channels.collect(),
            names,
            end: history.last().map_or(0, |record| record.at_micros),
        }
    }

    /// A queue's index.
    fn queue(&self, id: u64) -> Option<usize> {
        self.queue_ids.get(&id).copied()
    }

    /// The index of a channel's queue.
    fn queue_of(&self, channel: &Uuid) -> Option<usize> {
        self.channels.get(channel).and_then(|&id| self.queue(id))
    }

    /// The lane of a broker, by its id.
    fn broker(&self, id: u64) -> Option<usize> {
        self.lanes.of_host(&self.names.broker(id))
    }
}

#[cfg(test)]
mod tests;
