//! Bands: the phases of the run, and streams and consumers.

use std::collections::BTreeMap;

use rmom_sim::history::{self, Event, Record};
use serde::Serialize;

use super::{Known, rows::Band};

/// A phase of the run.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Phase {
    /// When it began; it ends when the next one begins.
    pub(crate) from: u64,
    /// Its name.
    pub(crate) name: &'static str,
}

/// The phases of the run, one after the other.
pub(super) fn phases(history: &[Record]) -> Vec<Phase> {
    let set_up = Phase { from: 0, name: "setting up" };
    let others = history.iter().filter_map(|record| match &record.event {
        Event::PhaseBegan { phase } => Some(Phase { from: record.at_micros, name: name(*phase) }),
        _ => None,
    });
    std::iter::once(set_up).chain(others).collect()
}

fn name(phase: history::Phase) -> &'static str {
    match phase {
        history::Phase::Faults => "faults",
        history::Phase::Healed => "healed",
        history::Phase::Drain => "drain",
        history::Phase::Audit => "audit",
    }
}

/// A stream or a consumer, on its client's lane.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stretch {
    /// The client.
    pub(crate) lane: usize,
    /// When it was requested.
    pub(crate) from: u64,
    /// When it ended.
    pub(crate) to: u64,
    /// A description.
    pub(crate) text: String,
    /// The queue.
    pub(crate) queue: Option<usize>,
    /// Its place among the client's simultaneous ones.
    pub(crate) row: usize,
    /// The record of its beginning.
    pub(crate) mark: usize,
}

impl Band for Stretch {
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

/// The identity of a stream or consumer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Stream(u64),
    Consumer(&'a str),
}

/// Streams and consumers, in the order in which they began.
pub(super) fn stretches(history: &[Record], known: &Known) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut open: BTreeMap<Key<'_>, usize> = BTreeMap::new();
    for (mark, record) in history.iter().enumerate() {
        let at = record.at_micros;
        let (key, text, channel) = match &record.event {
            Event::StreamAsked { stream, channel, .. } => (Key::Stream(*stream), format!("stream {stream}"), channel),
            Event::ConsumerStarted { consumer, channel, .. } => (Key::Consumer(consumer), consumer.clone(), channel),
            Event::StreamOpened { stream, broker, position, .. } => {
                if let Some(&index) = open.get(&Key::Stream(*stream)) {
                    let epoch = position.map_or_else(String::new, |pos| format!(", epoch {}", pos.epoch));
                    stretches[index].text = format!("stream {stream} at {broker}{epoch}");
                }
                continue;
            }
            Event::StreamEnded { stream, .. } => {
                end(&mut stretches, open.remove(&Key::Stream(*stream)), at);
                continue;
            }
            Event::ConsumerStopped { consumer, .. } => {
                end(&mut stretches, open.remove(&Key::Consumer(consumer)), at);
                continue;
            }
            _ => continue,
        };
        let Some(lane) = known.lanes.of_host(&record.host) else { continue };
        open.insert(key, stretches.len());
        let queue = known.queue_of(channel);
        stretches.push(Stretch { lane, from: at, to: known.end, text, queue, row: 0, mark });
    }
    stretches
}

fn end(stretches: &mut [Stretch], index: Option<usize>, at: u64) {
    if let Some(index) = index {
        stretches[index].to = at;
    }
}
