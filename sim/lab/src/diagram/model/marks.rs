//! Each record, as a mark on its host's lane.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Record};
use serde::Serialize;

use super::Known;
use crate::report::{sentence, shown};

/// A record.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mark {
    /// Its time.
    pub(crate) at: u64,
    /// Its host.
    pub(crate) lane: usize,
    /// Its shape.
    pub(crate) kind: &'static str,
    /// Its description.
    pub(crate) text: String,
    /// Its queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) queue: Option<usize>,
    /// Its messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) messages: Vec<usize>,
    /// The other host that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) with: Option<usize>,
}

/// A pushed message. Every body is unique, so that it identifies its message.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    /// The beginning of its body.
    pub(crate) body: String,
    /// Its producer, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) producer: Option<String>,
}

/// A mark for each record, and the messages in those records.
pub(super) fn marks(history: &[Record], known: &Known) -> (Vec<Mark>, Vec<Message>) {
    let mut seen = Seen::default();
    let mark = |record: &Record| {
        let event = &record.event;
        let messages = seen.messages_of(event);
        Mark {
            at: record.at_micros,
            lane: known.lanes.of_host(&record.host).unwrap_or_default(),
            kind: kind(event),
            text: sentence(event, &known.names),
            queue: seen.queue_of(event, known),
            messages,
            with: with(event, known),
        }
    };
    (history.iter().map(mark).collect(), seen.messages)
}

/// The state so far.
#[derive(Default)]
struct Seen {
    messages: Vec<Message>,
    by_body: BTreeMap<String, usize>,
    /// The message of each push, and its queue.
    pushes: BTreeMap<u64, (usize, Option<usize>)>,
    /// The present owner of each label.
    labels: BTreeMap<String, u64>,
    streams: BTreeMap<u64, Option<usize>>,
    consumers: BTreeMap<String, Option<usize>>,
}

impl Seen {
    fn message(&mut self, body: &str) -> usize {
        if let Some(&index) = self.by_body.get(body) {
            return index;
        }
        self.by_body.insert(body.to_owned(), self.messages.len());
        self.messages.push(Message { body: shown(body), producer: None });
        self.messages.len() - 1
    }

    fn messages_of(&mut self, event: &Event) -> Vec<usize> {
        match event {
            Event::PushSent { push, body, producer, .. } => {
                let message = self.message(body);
                self.messages[message].producer.clone_from(producer);
                self.pushes.insert(*push, (message, None));
                vec![message]
            }
            Event::PushAcked { push, .. } | Event::PushFailed { push, .. } => {
                self.pushes.get(push).map(|(message, _)| *message).into_iter().collect()
            }
            Event::Delivered { body, .. } | Event::StreamMessage { body, .. } => vec![self.message(body)],
            Event::Stored { messages, .. } | Event::AuditQueue { messages, .. } => {
                messages.iter().map(|message| self.message(&message.body)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn queue_of(&mut self, event: &Event, known: &Known) -> Option<usize> {
        match event {
            Event::QueueAdded { queue_id, label } => {
                self.labels.insert(label.to_lowercase(), *queue_id);
                known.queue(*queue_id)
            }
            Event::QueueCreated { queue_id, .. }
            | Event::ChannelCreated { queue_id, .. }
            | Event::AuditChannel { queue_id, .. }
            | Event::AuditQueue { queue_id, .. }
            | Event::Assigned { queue_id, .. }
            | Event::Claimed { queue_id, .. }
            | Event::Stored { queue_id, .. }
            | Event::AppendRefused { queue_id, .. }
            | Event::Trimmed { queue_id, .. }
            | Event::QueueTombstoned { queue_id }
            | Event::PushAcked { queue_id: Some(queue_id), .. } => known.queue(*queue_id),
            Event::QueueCreating { label, .. }
            | Event::QueueDeleting { label, .. }
            | Event::QueueDeleted { label, .. } => self.labelled(label, known),
            Event::PushSent { push, label, queue_id, .. } => {
                let queue = queue_id.map_or_else(|| self.labelled(label, known), |id| known.queue(id));
                if let Some((_, of)) = self.pushes.get_mut(push) {
                    *of = queue;
                }
                queue
            }
            Event::PushAcked { push, .. } | Event::PushFailed { push, .. } => {
                self.pushes.get(push).and_then(|(_, queue)| *queue)
            }
            Event::ChannelDeleting { channel, .. }
            | Event::ChannelDeleted { channel, .. }
            | Event::ChannelSeen { channel, .. } => known.queue_of(channel),
            Event::StreamAsked { stream, channel, .. } | Event::StreamOpened { stream, channel, .. } => {
                *self.streams.entry(*stream).or_insert_with(|| known.queue_of(channel))
            }
            Event::StreamMessage { stream, .. } | Event::StreamEnded { stream, .. } => {
                self.streams.get(stream).copied().flatten()
            }
            Event::ConsumerStarted { consumer, channel, .. } => {
                let queue = known.queue_of(channel);
                self.consumers.insert(consumer.clone(), queue);
                queue
            }
            Event::Delivered { consumer, .. } | Event::ConsumerStopped { consumer, .. } => {
                self.consumers.get(consumer).copied().flatten()
            }
            _ => None,
        }
    }

    fn labelled(&self, label: &str, known: &Known) -> Option<usize> {
        self.labels.get(&label.to_lowercase()).and_then(|&id| known.queue(id))
    }
}

/// The lane of the other host that a record concerns.
fn with(event: &Event, known: &Known) -> Option<usize> {
    match event {
        Event::Assigned { broker_id, .. } | Event::Claimed { broker_id, .. } => known.broker(*broker_id),
        Event::Registered { broker: host, .. }
        | Event::AppendRefused { by: host, .. }
        | Event::StreamOpened { broker: host, .. }
        | Event::Health { of: host, .. } => known.lanes.of_host(host),
        _ => None,
    }
}

/// The scripts have a shape for each kind.
fn kind(event: &Event) -> &'static str {
    match event {
        Event::Began { .. } | Event::PhaseBegan { .. } => "phase",
        Event::FaultBegan { .. } => "fault",
        Event::FaultEnded { .. } => "over",
        Event::Converged => "converged",
        Event::TimeUp { .. } => "time-up",
        Event::QueueCreating { .. }
        | Event::QueueDeleting { .. }
        | Event::ChannelCreating { .. }
        | Event::ChannelDeleting { .. }
        | Event::ProducerOpening { .. } => "call",
        Event::QueueCreated { .. }
        | Event::QueueDeleted { .. }
        | Event::ChannelCreated { .. }
        | Event::ChannelDeleted { .. }
        | Event::ChannelSeen { topic: Some(_), .. } => "answer",
        Event::AdminFailed { .. } => "call-failed",
        Event::ChannelSeen { topic: None, .. } => "missing",
        Event::BadInput { expected, got, .. } if expected == got => "refusal",
        Event::BadInput { .. } => "wrong",
        Event::Health { healthy, expected, .. } if expected.is_some_and(|expected| expected != *healthy) => "wrong",
        Event::Health { healthy: true, .. } | Event::Counted { .. } => "well",
        Event::Health { healthy: false, .. } => "unwell",
        Event::PushSent { .. } => "push",
        Event::PushAcked { duplicate: false, .. } => "ack",
        Event::PushAcked { duplicate: true, .. } => "duplicate",
        Event::PushFailed { unknown: false, .. } => "failed",
        Event::PushFailed { unknown: true, .. } => "unknown",
        Event::ConsumerStarted { .. } | Event::StreamAsked { .. } => "subscribe",
        Event::StreamOpened { position: Some(_), .. } => "opened",
        Event::StreamOpened { position: None, .. } => "turned-away",
        Event::Delivered { .. } => "delivered",
        Event::StreamMessage { .. } => "received",
        Event::ConsumerStopped { .. } | Event::StreamEnded { .. } => "ended",
        Event::Registered { .. } => "registered",
        Event::QueueAdded { .. } | Event::ChannelAdded { .. } => "queue-added",
        Event::Assigned { .. } => "assigned",
        Event::Claimed { .. } => "claimed",
        Event::Stored { .. } => "stored",
        Event::AppendRefused { .. } => "refused",
        Event::Trimmed { .. } => "trimmed",
        Event::QueueTombstoned { .. } | Event::ChannelRemoved { .. } => "tombstone",
        Event::StoreClock { .. } => "clock",
        Event::StoreRolledBack => "rolled-back",
        Event::AuditQueue { .. } | Event::AuditChannel { .. } | Event::AuditDone { .. } => "audit",
        Event::Note { .. } => "note",
    }
}
