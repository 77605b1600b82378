//! The lookups that all checkers share, gathered in one pass over the history.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Phase, Record};
use uuid::Uuid;

use super::{
    Promise, Violation,
    clock::StoreClock,
    faults::Faults,
    reader::{Readers, end_superseded},
};
pub(super) use super::{
    names::{accepts, brief, folded},
    queue::{Audit, Claim, Message, Queue, Trim},
    reader::{Reader, ReaderKind, Received},
};

/// The index of the record that reports an event.
pub(super) type At = usize;

/// A history, arranged by subject.
pub(super) struct Index<'a> {
    pub(super) history: &'a [Record],
    pub(super) bounds: Bounds,
    pub(super) clock: StoreClock,
    pub(super) faults: Faults,
    pub(super) milestones: Milestones,
    pub(super) queues: BTreeMap<u64, Queue<'a>>,
    /// By attempt number.
    pub(super) pushes: BTreeMap<u64, Push<'a>>,
    /// Every body that was pushed or stored.
    pub(super) bodies: BTreeMap<&'a str, Body<'a>>,
    /// In the order in which they began.
    pub(super) readers: Vec<Reader<'a>>,
    pub(super) channels: BTreeMap<Uuid, Channel<'a>>,
    /// The hosts of the brokers, by id.
    pub(super) brokers: BTreeMap<u64, &'a str>,
    /// Registrations of brokers, by id: when, and under which incarnation; in order.
    pub(super) registrations: BTreeMap<u64, Vec<(At, &'a str)>>,
    /// By the number of the operator's call.
    pub(super) calls: BTreeMap<u64, Call<'a>>,
    /// Each time an older state of the database was restored.
    pub(super) rolled_back: Vec<At>,
}

/// Bounds on delays, in milliseconds; unlimited if the history does not name them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) expiry: u64,
    pub(super) clock: u64,
    pub(super) convergence: u64,
    pub(super) trim: u64,
    pub(super) sleep: u64,
    pub(super) deleted: u64,
    pub(super) answer: u64,
    pub(super) idle: u64,
}

/// The phases of the run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Milestones {
    pub(super) healed: Option<At>,
    pub(super) converged: Option<At>,
    pub(super) time_up: Option<At>,
    pub(super) drain: Option<At>,
    pub(super) audit: Option<At>,
    pub(super) audit_done: Option<At>,
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
    pub(super) tries_millis: Option<u64>,
    pub(super) expected: Option<&'a str>,
    pub(super) outcome: Option<(At, Outcome<'a>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    Acked { queue_id: Option<u64>, id: Option<Uuid>, offset: Option<u64>, duplicate: bool },
    Failed { code: &'a str, unknown: bool },
}

/// All pushes of one body, which is one message for the application, and the messages stored from them.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    /// Numbers of the attempts, in order.
    pub(super) pushes: Vec<u64>,
    /// Queue and message, in order.
    pub(super) stored: Vec<(u64, Message<'a>)>,
}

#[derive(Debug)]
pub(super) struct Channel<'a> {
    pub(super) created: Option<Created<'a>>,
    /// When the database added it as disposable, which permits its deletion once it is idle.
    pub(super) disposable: Option<At>,
    /// The first request to delete it, or the first answer that it is deleted.
    pub(super) deleting: Option<At>,
    /// When the database deleted it.
    pub(super) removed: Option<At>,
    pub(super) audit: Option<Created<'a>>,
}

/// A channel's properties as reported at its creation or in the audit.
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
    CreateChannel { label: &'a str, topic: &'a str, latest: bool },
    DeleteChannel(Uuid),
}

impl<'a> Index<'a> {
    pub(super) fn new(history: &'a [Record]) -> Self {
        let bounds = bounds(history);
        // Even a history that names no bounds has a clock.
        let stale = if bounds.clock == u64::MAX { 0 } else { bounds.clock };
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
            registrations: BTreeMap::new(),
            calls: BTreeMap::new(),
            rolled_back: Vec::new(),
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
            queue.arrange();
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
        self.queues.entry(id).or_insert_with(|| Queue::new(at))
    }

    fn channel_mut(&mut self, id: Uuid) -> &mut Channel<'a> {
        self.channels.entry(id).or_insert(Channel {
            created: None,
            disposable: None,
            deleting: None,
            removed: None,
            audit: None,
        })
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
            Event::ChannelCreating { op, label, topic, latest } => {
                self.calls.insert(*op, call(CallKind::CreateChannel { label, topic, latest: *latest }));
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
            Event::ChannelCreated { op, channel, queue_id, label, topic, start } => {
                self.answer(at, *op);
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
            Event::PushSent {
                push,
                label,
                body,
                producer,
                sequence,
                ttl_millis,
                queue_id,
                tries_millis,
                expected,
                ..
            } => {
                let attempt = Push {
                    at,
                    label,
                    body,
                    producer: producer.as_deref(),
                    sequence: *sequence,
                    ttl_millis: *ttl_millis,
                    queue_id: *queue_id,
                    tries_millis: *tries_millis,
                    expected: expected.as_deref(),
                    outcome: None,
                };
                self.pushes.insert(*push, attempt);
                self.bodies.entry(body).or_default().pushes.push(*push);
            }
            Event::PushAcked { push, queue_id, id, offset, duplicate } => {
                // On the wire, 0 means that no number is given.
                let told = |number: &Option<u64>| number.filter(|&number| number > 0);
                let (queue_id, offset) = (told(queue_id), told(offset));
                let outcome = Outcome::Acked { queue_id, id: *id, offset, duplicate: *duplicate };
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
            Event::Registered { broker, broker_id, incarnation } => {
                self.brokers.insert(*broker_id, broker);
                self.registrations.entry(*broker_id).or_default().push((at, incarnation));
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
            Event::ChannelAdded { channel, disposable: true, .. } => {
                self.channel_mut(*channel).disposable.get_or_insert(at);
            }
            Event::ChannelRemoved { channel } => {
                self.channel_mut(*channel).removed.get_or_insert(at);
            }
            Event::StoreRolledBack => self.rolled_back.push(at),
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

    /// A violation shown by these records.
    pub(super) fn violation(&self, promise: Promise, what: String, records: impl Into<Vec<At>>) -> Violation {
        let mut records = records.into();
        records.sort_unstable();
        records.dedup();
        Violation { promise, what, records }
    }

    /// Simulated time of a record, in microseconds.
    pub(super) fn micros(&self, at: At) -> u64 {
        self.history[at].at_micros
    }

    /// The end of the history, in simulated microseconds.
    pub(super) fn end_micros(&self) -> u64 {
        self.history.last().map_or(0, |last| last.at_micros)
    }

    /// True if the run came to its planned end: calls without an outcome by then will never have one.
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

    /// A channel's properties, as far as any record reports them.
    pub(super) fn channel(&self, id: Uuid) -> Option<Created<'a>> {
        self.channels.get(&id).and_then(|channel| channel.created.or(channel.audit))
    }

    /// The queue that a reader should read.
    pub(super) fn queue_of(&self, reader: &Reader<'a>) -> Option<u64> {
        self.channel(reader.channel)
            .map(|channel| channel.queue_id)
            .or(reader.position.map(|position| position.queue_id))
    }

    /// True if an older state of the database was restored after a record.
    pub(super) fn rolled_back_after(&self, at: At) -> bool {
        self.rolled_back.last().is_some_and(|&last| last > at)
    }

    /// True if an older state of the database was restored between two records.
    pub(super) fn lost_between(&self, first: At, second: At) -> bool {
        self.rolled_back.iter().any(|&went| first < went && went < second)
    }

    /// True if the received message is stored, but not in this queue.
    pub(super) fn is_of_another_queue(&self, received: &Received<'_>, queue: u64) -> bool {
        let stored = self.bodies.get(received.body).map_or(&[][..], |body| &body.stored);
        !stored.is_empty() && stored.iter().all(|(of, _)| *of != queue)
    }

    /// True if, at `micros`, a process may rightly have considered the message expired.
    pub(super) fn may_be_expired(&self, message: &Message<'a>, micros: u64) -> bool {
        let latest = || self.clock.at_most_since(self.micros(message.at), message.stored_at_millis, micros);
        message.stored.expires_at_millis.is_some_and(|expiry| expiry <= latest())
    }

    /// True if, at a record, a message rightly no longer reaches any reader.
    pub(super) fn is_excused(&self, queue: &Queue<'a>, message: &Message<'a>, at: At) -> bool {
        let before = |earlier: Option<At>| earlier.is_some_and(|earlier| earlier <= at);
        before(queue.tombstoned)
            || self.rolled_back_after(message.at)
            || self.may_be_expired(message, self.micros(at))
            || queue.trimmed_by(message.stored.offset).is_some_and(|trim| trim.at <= at)
    }

    /// The last reader of each observer and application.
    pub(super) fn last_readers(&self) -> BTreeMap<&'a str, &Reader<'a>> {
        self.readers.iter().filter(|reader| reader.opened.is_some()).map(|reader| (reader.owner, reader)).collect()
    }
}

fn bounds(history: &[Record]) -> Bounds {
    let began = history.iter().find_map(|record| match record.event {
        Event::Began {
            expiry_bound_millis: expiry,
            clock_bound_millis: clock,
            convergence_bound_millis: convergence,
            trim_bound_millis: trim,
            sleep_bound_millis: sleep,
            deleted_bound_millis: deleted,
            answer_bound_millis: answer,
            idle_bound_millis: idle,
            ..
        } => Some(Bounds { expiry, clock, convergence, trim, sleep, deleted, answer, idle }),
        _ => None,
    });
    let never = u64::MAX;
    let unbounded = Bounds {
        expiry: never,
        clock: never,
        convergence: never,
        trim: never,
        sleep: never,
        deleted: never,
        answer: never,
        idle: never,
    };
    began.unwrap_or(unbounded)
}
