//! What all checkers look up, gathered in one pass over the history.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Promise, Violation, clock::StoreClock, faults::Faults};
use crate::history::{Event, Phase, Pos, Record, StoredMessage};

/// Of whatever happened, the index of the record that tells it.
pub(super) type At = usize;

/// A history, arranged by who it is about.
pub(super) struct Index<'a> {
    pub(super) history: &'a [Record],
    pub(super) bounds: Bounds,
    pub(super) clock: StoreClock,
    pub(super) faults: Faults,
    pub(super) milestones: Milestones,
    pub(super) queues: BTreeMap<u64, Queue<'a>>,
    /// By number of the attempt.
    pub(super) pushes: BTreeMap<u64, Push<'a>>,
    /// Every body that was pushed or stored.
    pub(super) bodies: BTreeMap<&'a str, Body<'a>>,
    /// In the order in which they began.
    pub(super) readers: Vec<Reader<'a>>,
    pub(super) channels: BTreeMap<Uuid, Channel<'a>>,
    /// The hosts of the brokers, by id.
    pub(super) brokers: BTreeMap<u64, &'a str>,
    /// By number of the operators' call.
    pub(super) calls: BTreeMap<u64, Call<'a>>,
    /// Each time an older state of the database was restored.
    pub(super) went_back: Vec<At>,
}

/// How late things may be, in milliseconds; for ever, if the history does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) expiry: u64,
    pub(super) convergence: u64,
    pub(super) trim: u64,
}

/// The course of the run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Milestones {
    pub(super) healed: Option<At>,
    pub(super) converged: Option<At>,
    pub(super) time_up: Option<At>,
    pub(super) drain: Option<At>,
    pub(super) audit: Option<At>,
    pub(super) audit_done: Option<At>,
}

/// A queue; those that were created with a label that another had before are others.
#[derive(Debug, Default)]
pub(super) struct Queue<'a> {
    /// In lower case, if it is known.
    pub(super) label: Option<String>,
    /// The first that was heard of it.
    pub(super) born: At,
    /// In the order in which they were stored.
    pub(super) messages: Vec<Message<'a>>,
    /// Indices into `messages`, by offset, then as they were stored.
    by_offset: Vec<usize>,
    pub(super) claims: Vec<Claim<'a>>,
    /// All assignments: the broker's id.
    pub(super) assignments: Vec<(At, u64)>,
    pub(super) trims: Vec<Trim>,
    pub(super) tombstoned: Option<At>,
    pub(super) audit: Option<Audit<'a>>,
}

/// A message that the database committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// The record of the batch it came with.
    pub(super) at: At,
    pub(super) epoch: u64,
    pub(super) by: &'a str,
    pub(super) stored_at_millis: u64,
    pub(super) stored: &'a StoredMessage,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) at: At,
    pub(super) epoch: u64,
    pub(super) broker_id: u64,
    pub(super) incarnation: &'a str,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Trim {
    pub(super) at: At,
    pub(super) through: u64,
    pub(super) at_millis: u64,
}

/// What is left of a queue at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audit<'a> {
    pub(super) at: At,
    pub(super) end: u64,
    pub(super) messages: &'a [StoredMessage],
}

/// One attempt to push a message.
#[derive(Debug)]
pub(super) struct Push<'a> {
    pub(super) at: At,
    pub(super) label: &'a str,
    pub(super) body: &'a str,
    pub(super) producer: Option<&'a str>,
    pub(super) sequence: u64,
    pub(super) ttl_millis: Option<u64>,
    pub(super) queue_id: Option<u64>,
    pub(super) outcome: Option<(At, Outcome<'a>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    Acked { queue_id: Option<u64>, id: Option<Uuid>, offset: Option<u64> },
    Failed { code: &'a str, unknown: bool },
}

/// What was pushed with one body, which is one message for the application, and what of it was stored.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    /// Numbers of the attempts, in order.
    pub(super) pushes: Vec<u64>,
    /// Queue and message, in order.
    pub(super) stored: Vec<(u64, Message<'a>)>,
}

/// A raw stream, or the consumer object of an application: who is given the messages of a channel, in order.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) kind: ReaderKind<'a>,
    /// The observer, or the application.
    pub(super) owner: &'a str,
    pub(super) channel: Uuid,
    /// The first that was heard of it.
    pub(super) began: At,
    /// When the request for it left; none if that is not told.
    pub(super) asked: Option<At>,
    /// When it was granted; of a consumer, when it started. None if it was refused.
    pub(super) opened: Option<At>,
    /// After which position it is to go on.
    pub(super) after: Option<Pos>,
    /// Which broker a stream was asked of, and what it said about the queue when it granted it.
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

/// A message that came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub(super) at: At,
    pub(super) id: Uuid,
    pub(super) offset: u64,
    pub(super) topic: &'a str,
    pub(super) body: &'a str,
}

impl Reader<'_> {
    /// For sentences.
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

#[derive(Debug)]
pub(super) struct Channel<'a> {
    pub(super) created: Option<Created<'a>>,
    /// The first request to delete it, and the first answer that it is deleted.
    pub(super) deleting: Option<At>,
    pub(super) audit: Option<Created<'a>>,
}

/// What is said about a channel when it is created, or in the audit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Created<'a> {
    pub(super) at: At,
    pub(super) queue_id: u64,
    pub(super) topic: &'a str,
    pub(super) start: u64,
}

/// A call of an operator.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) at: At,
    pub(super) what: CallKind<'a>,
    pub(super) outcome: Option<At>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind<'a> {
    CreateQueue(&'a str),
    DeleteQueue(&'a str),
    DeleteChannel(Uuid),
}

/// Lower case, as labels and topics are compared; `__none__` is no topic.
pub(super) fn folded(name: &str) -> String {
    let folded = name.to_lowercase();
    if folded == "__none__" { String::new() } else { folded }
}

/// True if a channel with this topic receives a message with that one.
pub(super) fn accepts(channel: &str, message: &str) -> bool {
    let channel = folded(channel);
    channel.is_empty() || channel == folded(message)
}

/// A body for sentences: it may be long.
pub(super) fn brief(body: &str) -> String {
    const LONGEST: usize = 40;
    if body.chars().count() <= LONGEST {
        return format!("{body:?}");
    }
    format!("{:?}…", body.chars().take(LONGEST).collect::<String>())
}

impl<'a> Index<'a> {
    pub(super) fn new(history: &'a [Record]) -> Self {
        let bounds = bounds(history);
        // A history that names no bounds has a clock all the same.
        let stale = if bounds.convergence == u64::MAX { 0 } else { bounds.convergence };
        let mut index = Self {
            history,
            bounds,
            clock: StoreClock::new(history, stale),
            faults: Faults::new(history),
            milestones: Milestones::default(),
            queues: BTreeMap::new(),
            pushes: BTreeMap::new(),
            bodies: BTreeMap::new(),
            readers: Vec::new(),
            channels: BTreeMap::new(),
            brokers: BTreeMap::new(),
            calls: BTreeMap::new(),
            went_back: Vec::new(),
        };
        let mut readers = Readers::default();
        for (at, record) in history.iter().enumerate() {
            index.take_course(at, &record.event);
            index.take_operator(at, &record.event);
            index.take_push(at, &record.event);
            readers.take(&mut index.readers, at, &record.event);
            index.take_database(at, &record.event);
            index.take_audit(at, &record.event);
        }
        end_superseded(&mut index.readers);
        for queue in index.queues.values_mut() {
            queue.by_offset = (0..queue.messages.len()).collect();
            queue.by_offset.sort_by_key(|&nth| queue.messages[nth].stored.offset);
        }
        index
    }

    fn take_course(&mut self, at: At, event: &Event) {
        let milestones = &mut self.milestones;
        let reached = match event {
            Event::PhaseBegan { phase: Phase::Healed } => &mut milestones.healed,
            Event::PhaseBegan { phase: Phase::Drain } => &mut milestones.drain,
            Event::PhaseBegan { phase: Phase::Audit } => &mut milestones.audit,
            Event::Converged => &mut milestones.converged,
            Event::TimeUp { .. } => &mut milestones.time_up,
            Event::AuditDone { .. } => &mut milestones.audit_done,
            _ => return,
        };
        reached.get_or_insert(at);
    }

    fn queue_mut(&mut self, at: At, id: u64) -> &mut Queue<'a> {
        self.queues.entry(id).or_insert_with(|| Queue { born: at, ..Queue::default() })
    }

    fn channel_mut(&mut self, id: Uuid) -> &mut Channel<'a> {
        self.channels.entry(id).or_insert(Channel { created: None, deleting: None, audit: None })
    }

    fn take_operator(&mut self, at: At, event: &'a Event) {
        let call = |what| Call { at, what, outcome: None };
        match event {
            Event::QueueCreating { op, label } => {
                self.calls.insert(*op, call(CallKind::CreateQueue(label)));
            }
            Event::QueueDeleting { op, label } => {
                self.calls.insert(*op, call(CallKind::DeleteQueue(label)));
            }
            Event::ChannelDeleting { op, channel } => {
                self.calls.insert(*op, call(CallKind::DeleteChannel(*channel)));
                self.channel_mut(*channel).deleting.get_or_insert(at);
            }
            Event::QueueCreated { op, label, queue_id } => {
                self.queue_mut(at, *queue_id).label = Some(folded(label));
                self.answer(at, *op);
            }
            Event::QueueDeleted { op, .. } | Event::AdminFailed { op, .. } => self.answer(at, *op),
            Event::ChannelDeleted { op, channel } => {
                self.channel_mut(*channel).deleting.get_or_insert(at);
                self.answer(at, *op);
            }
            Event::ChannelCreated { channel, queue_id, label, topic, start, .. } => {
                self.queue_mut(at, *queue_id).label.get_or_insert_with(|| folded(label));
                let created = Created { at, queue_id: *queue_id, topic, start: *start };
                self.channel_mut(*channel).created.get_or_insert(created);
            }
            _ => {}
        }
    }

    fn answer(&mut self, at: At, op: u64) {
        if let Some(call) = self.calls.get_mut(&op) {
            call.outcome.get_or_insert(at);
        }
    }

    fn take_push(&mut self, at: At, event: &'a Event) {
        match event {
            Event::PushSent { push, label, body, producer, sequence, ttl_millis, queue_id, .. } => {
                let attempt = Push {
                    at,
                    label,
                    body,
                    producer: producer.as_deref(),
                    sequence: *sequence,
                    ttl_millis: *ttl_millis,
                    queue_id: *queue_id,
                    outcome: None,
                };
                self.pushes.insert(*push, attempt);
                self.bodies.entry(body).or_default().pushes.push(*push);
            }
            Event::PushAcked { push, queue_id, id, offset, .. } => {
                // On the wire 0 is a way not to tell.
                let told = |number: &Option<u64>| number.filter(|&number| number > 0);
                let outcome = Outcome::Acked { queue_id: told(queue_id), id: *id, offset: told(offset) };
                self.conclude(at, *push, outcome);
            }
            Event::PushFailed { push, code, unknown } => {
                self.conclude(at, *push, Outcome::Failed { code, unknown: *unknown });
            }
            _ => {}
        }
    }

    fn conclude(&mut self, at: At, push: u64, outcome: Outcome<'a>) {
        if let Some(push) = self.pushes.get_mut(&push) {
            push.outcome.get_or_insert((at, outcome));
        }
    }

    fn take_database(&mut self, at: At, event: &'a Event) {
        match event {
            Event::Registered { broker, broker_id, .. } => {
                self.brokers.insert(*broker_id, broker);
            }
            Event::QueueAdded { queue_id, label } => {
                self.queue_mut(at, *queue_id).label = Some(folded(label));
            }
            Event::Assigned { queue_id, broker_id } => {
                self.queue_mut(at, *queue_id).assignments.push((at, *broker_id));
            }
            Event::Claimed { queue_id, epoch, broker_id, incarnation } => {
                let claim = Claim { at, epoch: *epoch, broker_id: *broker_id, incarnation };
                self.queue_mut(at, *queue_id).claims.push(claim);
            }
            Event::Stored { queue_id, epoch, stored_at_millis, messages, by } => {
                for stored in messages {
                    let message = Message { at, epoch: *epoch, by, stored_at_millis: *stored_at_millis, stored };
                    self.queue_mut(at, *queue_id).messages.push(message);
                    self.bodies.entry(&stored.body).or_default().stored.push((*queue_id, message));
                }
            }
            Event::Trimmed { queue_id, through, at_millis } => {
                let trim = Trim { at, through: *through, at_millis: *at_millis };
                self.queue_mut(at, *queue_id).trims.push(trim);
            }
            Event::QueueTombstoned { queue_id } => {
                self.queue_mut(at, *queue_id).tombstoned.get_or_insert(at);
            }
            Event::StoreWentBack => self.went_back.push(at),
            _ => {}
        }
    }

    fn take_audit(&mut self, at: At, event: &'a Event) {
        match event {
            Event::AuditQueue { queue_id, label, end, messages, .. } => {
                let queue = self.queue_mut(at, *queue_id);
                queue.label = Some(folded(label));
                queue.audit = Some(Audit { at, end: *end, messages });
            }
            Event::AuditChannel { channel, queue_id, topic, start } => {
                self.channel_mut(*channel).audit = Some(Created { at, queue_id: *queue_id, topic, start: *start });
            }
            _ => {}
        }
    }

    /// A violation that these records show.
    pub(super) fn violation(&self, promise: Promise, what: String, records: impl Into<Vec<At>>) -> Violation {
        let mut records = records.into();
        records.sort_unstable();
        records.dedup();
        Violation { promise, what, records }
    }

    /// Simulated microseconds.
    pub(super) fn micros(&self, at: At) -> u64 {
        self.history[at].at_micros
    }

    /// The end of the history, in simulated microseconds.
    pub(super) fn end_micros(&self) -> u64 {
        self.history.last().map_or(0, |last| last.at_micros)
    }

    /// True if the run came to its planned end: what has no outcome by then will have none.
    pub(super) fn finished(&self) -> bool {
        self.milestones.audit_done.is_some() && self.milestones.time_up.is_none()
    }

    /// For sentences: `queue "orders" (7)`.
    pub(super) fn queue_name(&self, id: u64) -> String {
        match self.queues.get(&id).and_then(|queue| queue.label.as_ref()) {
            Some(label) => format!("queue {label:?} ({id})"),
            None => format!("queue {id}"),
        }
    }

    /// What a channel is, as far as somebody was told.
    pub(super) fn channel(&self, id: Uuid) -> Option<Created<'a>> {
        self.channels.get(&id).and_then(|channel| channel.created.or(channel.audit))
    }

    /// The queue that a reader is to read.
    pub(super) fn queue_of(&self, reader: &Reader<'a>) -> Option<u64> {
        self.channel(reader.channel)
            .map(|channel| channel.queue_id)
            .or(reader.position.map(|position| position.queue_id))
    }

    /// True if an older state of the database was restored after a record.
    pub(super) fn went_back_after(&self, at: At) -> bool {
        self.went_back.last().is_some_and(|&last| last > at)
    }

    /// True if, at `micros`, somebody may rightly have held the message for expired.
    pub(super) fn may_be_expired(&self, message: &StoredMessage, micros: u64) -> bool {
        message.expires_at_millis.is_some_and(|expiry| expiry <= self.clock.at_most(micros))
    }

    /// True if, at a record, it is right that a message is not given to anybody any more.
    pub(super) fn is_excused(&self, queue: &Queue<'a>, message: &Message<'a>, at: At) -> bool {
        let before = |earlier: Option<At>| earlier.is_some_and(|earlier| earlier <= at);
        before(queue.tombstoned)
            || self.went_back_after(message.at)
            || self.may_be_expired(message.stored, self.micros(at))
            || queue.trimmed_by(message.stored.offset).is_some_and(|trim| trim.at <= at)
    }

    /// The last reader of each observer and application.
    pub(super) fn last_readers(&self) -> BTreeMap<&'a str, &Reader<'a>> {
        self.readers.iter().filter(|reader| reader.opened.is_some()).map(|reader| (reader.owner, reader)).collect()
    }
}

impl<'a> Queue<'a> {
    /// Messages between two offsets, both excluded, by offset.
    pub(super) fn between(&self, after: u64, before: u64) -> impl Iterator<Item = &Message<'a>> {
        let from = self.by_offset.partition_point(|&nth| self.messages[nth].stored.offset <= after);
        let messages = self.by_offset[from..].iter().map(|&nth| &self.messages[nth]);
        messages.take_while(move |message| message.stored.offset < before)
    }

    /// What was stored at an offset, in the order in which it was.
    pub(super) fn at_offset(&self, offset: u64) -> impl Iterator<Item = &Message<'a>> {
        let from = self.by_offset.partition_point(|&nth| self.messages[nth].stored.offset < offset);
        let messages = self.by_offset[from..].iter().map(|&nth| &self.messages[nth]);
        messages.take_while(move |message| message.stored.offset == offset)
    }

    /// The first trim that took an offset.
    pub(super) fn trimmed_by(&self, offset: u64) -> Option<&Trim> {
        // What was trimmed through only grows, except where the database went back.
        self.trims.iter().find(|trim| trim.through >= offset)
    }

    /// The last claim before a record.
    pub(super) fn claim_before(&self, at: At) -> Option<&Claim<'a>> {
        self.claims[..self.claims.partition_point(|claim| claim.at < at)].last()
    }
}

/// A host that crashed tells no end of its stream; the next one of the same owner does.
fn end_superseded(readers: &mut [Reader<'_>]) {
    let mut next = BTreeMap::new();
    for reader in readers.iter_mut().rev() {
        let later = next.insert(reader.owner, reader.began);
        reader.ended = reader.ended.or(later.map(|at| (at, None)));
    }
}

fn bounds(history: &[Record]) -> Bounds {
    let began = history.iter().find_map(|record| match record.event {
        Event::Began { expiry_bound_millis, convergence_bound_millis, trim_bound_millis, .. } => {
            Some(Bounds { expiry: expiry_bound_millis, convergence: convergence_bound_millis, trim: trim_bound_millis })
        }
        _ => None,
    });
    began.unwrap_or(Bounds { expiry: u64::MAX, convergence: u64::MAX, trim: u64::MAX })
}

/// Where the readers are in their list, by what the records call them.
#[derive(Default)]
struct Readers<'a> {
    streams: BTreeMap<u64, usize>,
    consumers: BTreeMap<&'a str, usize>,
}

impl<'a> Readers<'a> {
    fn take(&mut self, readers: &mut Vec<Reader<'a>>, at: At, event: &'a Event) {
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
