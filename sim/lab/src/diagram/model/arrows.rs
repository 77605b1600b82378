//! Arrows from cause to effect, where the history shows which is which.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Record};
use serde::Serialize;

use super::{Known, Mark};

/// An arrow between two marks.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Arrow {
    /// The cause.
    pub(crate) from: usize,
    /// The effect.
    pub(crate) to: usize,
    /// The lane of the broker through which it went, at a time that was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) via: Option<usize>,
    /// The relation of cause and effect.
    pub(crate) kind: ArrowKind,
}

/// The meaning of an arrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ArrowKind {
    /// A pushed message is stored. If there were several attempts, the cause is the last one before that.
    Store,
    /// A stored message is acknowledged.
    Ack,
    /// A stored message is delivered to a subscriber.
    Delivery,
    /// A call has an outcome, on its caller's lane.
    Outcome,
    /// A stream is answered.
    Stream,
    /// A push is acknowledged although no record shows that it was stored.
    Unfounded,
}

/// All arrows, in the order of their effects.
pub(super) fn arrows(history: &[Record], known: &Known, marks: &[Mark]) -> Vec<Arrow> {
    let mut drawn = Drawn::new(known);
    for (index, (record, mark)) in history.iter().zip(marks).enumerate() {
        drawn.traffic(index, &record.event, mark);
        drawn.calls(index, &record.event);
    }
    drawn.arrows
}

/// The record that stored a message.
#[derive(Clone, Copy)]
struct Stored {
    mark: usize,
    offset: u64,
    by: Option<usize>,
}

/// The arrows so far, and the causes that may still have effects.
struct Drawn<'a> {
    known: &'a Known,
    arrows: Vec<Arrow>,
    /// The mark of each push.
    pushes: BTreeMap<u64, usize>,
    /// The last attempt to push each message.
    attempts: BTreeMap<usize, usize>,
    stored: BTreeMap<usize, Vec<Stored>>,
    /// Streams, with the mark of their request and their broker.
    streams: BTreeMap<u64, (usize, Option<usize>)>,
    ops: BTreeMap<u64, usize>,
    /// The last call for each label.
    labels: BTreeMap<String, usize>,
}

impl<'a> Drawn<'a> {
    fn new(known: &'a Known) -> Self {
        Self {
            known,
            arrows: Vec::new(),
            pushes: BTreeMap::new(),
            attempts: BTreeMap::new(),
            stored: BTreeMap::new(),
            streams: BTreeMap::new(),
            ops: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    fn arrow(&mut self, from: Option<usize>, to: usize, via: Option<usize>, kind: ArrowKind) {
        if let Some(from) = from {
            self.arrows.push(Arrow { from, to, via, kind });
        }
    }

    fn traffic(&mut self, index: usize, event: &Event, mark: &Mark) {
        match event {
            Event::PushSent { push, .. } => {
                self.pushes.insert(*push, index);
                self.attempts.extend(mark.messages.iter().map(|&message| (message, index)));
            }
            Event::Stored { messages, by, .. } => {
                let by = self.known.lanes.of_host(by);
                for (&message, stored) in mark.messages.iter().zip(messages) {
                    self.arrow(self.attempts.get(&message).copied(), index, by, ArrowKind::Store);
                    let stored = Stored { mark: index, offset: stored.offset, by };
                    self.stored.entry(message).or_default().push(stored);
                }
            }
            Event::PushAcked { push, offset, .. } => {
                let sent = self.pushes.get(push).copied();
                let stored = mark.messages.first().and_then(|&message| self.stored_at(message, *offset));
                if let Some(stored) = stored {
                    self.arrow(Some(stored.mark), index, stored.by, ArrowKind::Ack);
                }
                let kind = if stored.is_some() { ArrowKind::Outcome } else { ArrowKind::Unfounded };
                self.arrow(sent, index, None, kind);
            }
            Event::PushFailed { push, .. } => {
                self.arrow(self.pushes.get(push).copied(), index, None, ArrowKind::Outcome);
            }
            Event::StreamMessage { stream, offset, .. } => {
                let via = self.streams.get(stream).and_then(|(_, broker)| *broker);
                self.delivery(index, mark, *offset, via);
            }
            Event::Delivered { offset, .. } => self.delivery(index, mark, *offset, None),
            _ => {}
        }
    }

    fn delivery(&mut self, index: usize, mark: &Mark, offset: u64, via: Option<usize>) {
        let stored = mark.messages.first().and_then(|&message| self.stored_at(message, Some(offset)));
        self.arrow(stored.map(|stored| stored.mark), index, via, ArrowKind::Delivery);
    }

    /// The record that stored a message at an offset, or that first stored it if the offset is unknown.
    fn stored_at(&self, message: usize, offset: Option<u64>) -> Option<Stored> {
        let stored = self.stored.get(&message)?;
        stored.iter().find(|stored| offset.is_none_or(|offset| stored.offset == offset)).copied()
    }

    fn calls(&mut self, index: usize, event: &Event) {
        match event {
            Event::QueueCreating { op, label } | Event::QueueDeleting { op, label } => {
                self.ops.insert(*op, index);
                self.labels.insert(label.to_lowercase(), index);
            }
            Event::ChannelDeleting { op, .. } => {
                self.ops.insert(*op, index);
            }
            Event::QueueCreated { op, .. }
            | Event::QueueDeleted { op, .. }
            | Event::ChannelDeleted { op, .. }
            | Event::AdminFailed { op, .. } => {
                let asked = self.ops.remove(op);
                self.arrow(asked, index, None, ArrowKind::Outcome);
            }
            Event::QueueAdded { label, .. } => {
                self.arrow(self.labels.get(label).copied(), index, None, ArrowKind::Store);
            }
            Event::StreamAsked { stream, .. } => {
                self.streams.insert(*stream, (index, None));
            }
            Event::StreamOpened { stream, broker, .. } => {
                let via = self.known.lanes.of_host(broker);
                let asked = self.streams.get(stream).map(|(asked, _)| *asked);
                self.arrow(asked, index, via, ArrowKind::Stream);
                self.streams.insert(*stream, (index, via));
            }
            Event::StreamEnded { stream, .. } => {
                if let Some((asked, None)) = self.streams.get(stream).copied() {
                    self.arrow(Some(asked), index, None, ArrowKind::Outcome);
                }
            }
            _ => {}
        }
    }
}
