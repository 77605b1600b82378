//! The readers of messages, as streams and consumers report them.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Pos};
use uuid::Uuid;

use super::index::At;

/// A raw stream, or the consumer object of an application: it receives the messages of a channel, in order.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) kind: ReaderKind<'a>,
    /// The observer, or the application.
    pub(super) owner: &'a str,
    pub(super) channel: Uuid,
    /// The first record that mentions the reader.
    pub(super) began: At,
    /// When its request left, or `None` if that is not recorded.
    pub(super) asked: Option<At>,
    /// When a stream was granted or a consumer started, or `None` if it was refused.
    pub(super) opened: Option<At>,
    /// The position after which it should resume.
    pub(super) after: Option<Pos>,
    /// The broker from which a stream was requested, and the broker's description of the queue when it granted the stream.
    pub(super) broker: Option<&'a str>,
    pub(super) position: Option<Pos>,
    pub(super) received: Vec<Received<'a>>,
    pub(super) ended: Option<(At, Option<&'a str>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReaderKind<'a> {
    Stream(u64),
    Consumer(&'a str),
}

/// A received message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub(super) at: At,
    pub(super) id: Uuid,
    pub(super) offset: u64,
    pub(super) topic: &'a str,
    pub(super) body: &'a str,
}

impl Reader<'_> {
    /// A description for sentences.
    pub(super) fn name(&self) -> String {
        match self.kind {
            ReaderKind::Stream(number) => format!("stream {number} of {}", self.owner),
            ReaderKind::Consumer(name) => format!("consumer {name} of {}", self.owner),
        }
    }

    pub(super) fn is_consumer(&self) -> bool {
        matches!(self.kind, ReaderKind::Consumer(_))
    }
}

/// Indices of the readers in their list, by their names in the records.
#[derive(Default)]
pub(super) struct Readers<'a> {
    streams: BTreeMap<u64, usize>,
    consumers: BTreeMap<&'a str, usize>,
}

impl<'a> Readers<'a> {
    /// Adds the contents of a record to the list.
    pub(super) fn take(&mut self, readers: &mut Vec<Reader<'a>>, at: At, event: &'a Event) {
        let new = |kind, owner, channel, after| Reader {
            kind,
            owner,
            channel,
            began: at,
            asked: None,
            opened: None,
            after,
            broker: None,
            position: None,
            received: Vec::new(),
            ended: None,
        };
        match event {
            Event::StreamAsked { stream, observer, channel, after } => {
                self.streams.insert(*stream, readers.len());
                let kind = ReaderKind::Stream(*stream);
                readers.push(Reader { asked: Some(at), ..new(kind, observer.as_str(), *channel, *after) });
            }
            Event::StreamOpened { stream, observer, channel, after, broker, position } => {
                let place = *self.streams.entry(*stream).or_insert_with(|| {
                    readers.push(new(ReaderKind::Stream(*stream), observer.as_str(), *channel, *after));
                    readers.len() - 1
                });
                let reader = &mut readers[place];
                // A refusal comes without a position.
                reader.opened = position.map(|_| at);
                (reader.broker, reader.position) = (Some(broker.as_str()), *position);
            }
            Event::StreamMessage { stream, id, offset, topic, body } => {
                if let Some(&place) = self.streams.get(stream) {
                    let reader = &mut readers[place];
                    reader.opened.get_or_insert(reader.began);
                    reader.received.push(Received { at, id: *id, offset: *offset, topic, body });
                }
            }
            Event::StreamEnded { stream, code } => {
                if let Some(&place) = self.streams.get(stream) {
                    readers[place].ended.get_or_insert((at, Some(code)));
                }
            }
            Event::ConsumerStarted { consumer, application, channel, resumed } => {
                self.consumers.insert(consumer, readers.len());
                let consumer = new(ReaderKind::Consumer(consumer), application.as_str(), *channel, *resumed);
                readers.push(Reader { asked: Some(at), opened: Some(at), ..consumer });
            }
            Event::Delivered { consumer, id, offset, topic, body, .. } => {
                if let Some(&place) = self.consumers.get(consumer.as_str()) {
                    readers[place].received.push(Received { at, id: *id, offset: *offset, topic, body });
                }
            }
            Event::ConsumerStopped { consumer, error, .. } => {
                if let Some(&place) = self.consumers.get(consumer.as_str()) {
                    readers[place].ended.get_or_insert((at, error.as_deref()));
                }
            }
            _ => {}
        }
    }
}

/// A crashed host does not report the end of its stream; the next stream of the same owner ends it.
pub(super) fn end_superseded(readers: &mut [Reader<'_>]) {
    let mut next = BTreeMap::new();
    for reader in readers.iter_mut().rev() {
        let later = next.insert(reader.owner, reader.began);
        reader.ended = reader.ended.or(later.map(|at| (at, None)));
    }
}
