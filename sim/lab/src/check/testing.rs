//! Handwritten histories of a few lines each, about one queue at a time.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Phase, Pos, Record, StoredMessage};
use uuid::Uuid;

use super::{Promise, check};

/// The database's clock at the start.
const MIDNIGHT: u64 = 1_000_000;

pub(super) const LABEL: &str = "orders";
/// The channel that exists from the start; it starts at the first offset.
pub(super) const CHANNEL: Uuid = Uuid::from_u128(0xc1);

/// The promises that a history breaks.
pub(super) fn broken(history: &[Record]) -> Vec<Promise> {
    let mut broken: Vec<_> = check(history).into_iter().map(|violation| violation.promise).collect();
    broken.dedup();
    broken
}

/// Asserts that a history has no violation. A failure prints the sentences of the violations, which say more than the
/// promises.
#[track_caller]
pub(super) fn assert_kept(run: &HistoryBuilder) {
    assert_eq!(check(&run.history), [], "{}", run.text());
}

/// Asserts that exactly this promise is broken, and returns the sentences of its violations.
#[track_caller]
pub(super) fn assert_broken(run: &HistoryBuilder, of: Promise) -> String {
    let violations = check(&run.history);
    assert!(!violations.is_empty(), "{of:?} is not broken:\n{}", run.text());
    assert!(violations.iter().all(|violation| violation.promise == of), "{violations:#?}");
    for violation in &violations {
        assert!(violation.records.is_sorted(), "{violation:#?}");
        assert!(violation.records.last().is_some_and(|&last| last < run.history.len()), "{violation:#?}");
    }
    violations[0].what.clone()
}

/// A growing history with two brokers, one channel, and one queue that the first broker has claimed. Every action takes a
/// millisecond.
#[derive(Clone)]
pub(super) struct HistoryBuilder {
    pub(super) history: Vec<Record>,
    now_micros: u64,
    /// The reading of the database's clock.
    pub(super) clock_millis: u64,
    /// The queue to which actions apply.
    pub(super) queue: u64,
    pub(super) queues: BTreeMap<u64, Log>,
    /// The channel of subscribers that name none.
    pub(super) current: Uuid,
    /// The channels that the audit will list.
    pub(super) channels: BTreeMap<Uuid, (u64, String, u64)>,
    pushes: BTreeMap<u64, Event>,
    sequence: u64,
    op: u64,
    streams: BTreeMap<u64, Pos>,
}

/// A queue's log in the database.
#[derive(Clone)]
pub(super) struct Log {
    pub(super) epoch: u64,
    pub(super) owner: u64,
    pub(super) end: u64,
    pub(super) trimmed: u64,
    /// All messages ever stored.
    pub(super) all: BTreeMap<u64, StoredMessage>,
    /// The messages that are still stored.
    pub(super) left: BTreeMap<u64, StoredMessage>,
    pub(super) deleted: bool,
}

impl HistoryBuilder {
    pub(super) fn new() -> Self {
        let mut run = Self {
            history: Vec::new(),
            now_micros: 0,
            clock_millis: MIDNIGHT,
            queue: 0,
            queues: BTreeMap::new(),
            current: CHANNEL,
            channels: BTreeMap::new(),
            pushes: BTreeMap::new(),
            sequence: 0,
            op: 0,
            streams: BTreeMap::new(),
        };
        let began = Event::Began {
            seed: 1,
            expiry_bound_millis: 200,
            clock_bound_millis: 1_000,
            convergence_bound_millis: 5_000,
            trim_bound_millis: 2_000,
            sleep_bound_millis: 60_000,
            deleted_bound_millis: 3_000,
            answer_bound_millis: u64::MAX,
            idle_bound_millis: 4_000,
        };
        run.record("runner", began);
        run.record("runner", Event::PhaseBegan { phase: Phase::Faults });
        for broker_id in 1..=2 {
            let broker = host(broker_id);
            run.record("database", Event::Registered { broker, broker_id, incarnation: format!("run-{broker_id}") });
        }
        run.create(1);
        run.channel(CHANNEL, "", 0);
        run
    }

    /// From here on the queue owes its clients, while it is well, the service that a scenario demands.
    pub(super) fn demand_answers(&mut self) -> &mut Self {
        for record in &mut self.history {
            if let Event::Began { answer_bound_millis, .. } = &mut record.event {
                *answer_bound_millis = 2_000;
            }
        }
        self
    }

    pub(super) fn wait(&mut self, millis: u64) -> &mut Self {
        self.now_micros += millis * 1_000;
        self.clock_millis += millis;
        self
    }

    pub(super) fn record(&mut self, host: &str, event: Event) -> usize {
        self.wait(1);
        self.history.push(Record { at_micros: self.now_micros, host: host.to_owned(), event });
        self.history.len() - 1
    }

    fn text(&self) -> String {
        let lines = self.history.iter().enumerate();
        lines.map(|(at, record)| format!("{at:3} {:8} {:?}\n", record.at_micros / 1_000, record.event)).collect()
    }

    pub(super) fn log(&mut self) -> &mut Log {
        let queue = self.queue;
        self.queues.get_mut(&queue).expect("it was created")
    }

    pub(super) fn next_op(&mut self) -> u64 {
        self.op += 1;
        self.op
    }

    // ---- the runner ----

    pub(super) fn fault(&mut self, step: usize) -> &mut Self {
        self.record("runner", Event::FaultBegan { step, what: "something".into(), hosts: Vec::new() });
        self
    }

    pub(super) fn end_fault(&mut self, step: usize) -> &mut Self {
        self.record("runner", Event::FaultEnded { step });
        self
    }

    pub(super) fn set_clock(&mut self, by_millis: i64) -> &mut Self {
        let from_millis = self.clock_millis + 1;
        let to_millis = from_millis.saturating_add_signed(by_millis);
        self.record("database", Event::StoreClock { from_millis, to_millis });
        self.clock_millis = to_millis;
        self
    }

    pub(super) fn phase(&mut self, phase: Phase) -> &mut Self {
        self.record("runner", Event::PhaseBegan { phase });
        self
    }

    /// Runs all phases to the end, with the audit.
    pub(super) fn finish(&mut self) -> &mut Self {
        self.phase(Phase::Healed);
        self.record("runner", Event::Converged);
        self.phase(Phase::Drain).phase(Phase::Audit).audit()
    }

    pub(super) fn audit(&mut self) -> &mut Self {
        for (queue_id, log) in self.queues.clone() {
            if !log.deleted {
                let audit = Event::AuditQueue {
                    queue_id,
                    label: LABEL.into(),
                    end: log.end,
                    trimmed_through: log.trimmed,
                    epoch: log.epoch,
                    messages: log.left.into_values().collect(),
                };
                self.record("database", audit);
            }
        }
        for (channel, (queue_id, topic, start)) in self.channels.clone() {
            self.record("database", Event::AuditChannel { channel, queue_id, topic, start });
        }
        let at_millis = self.clock_millis + 1;
        self.record("database", Event::AuditDone { at_millis });
        self
    }

    // ---- operators ----

    /// Creates a queue with the usual label; later actions apply to it.
    pub(super) fn create(&mut self, queue_id: u64) -> &mut Self {
        let (op, label) = (self.next_op(), LABEL.to_owned());
        self.record("operator", Event::QueueCreating { op, label: label.clone() });
        self.record("database", Event::QueueAdded { queue_id, label: label.clone() });
        let log =
            Log { epoch: 0, owner: 0, end: 0, trimmed: 0, all: BTreeMap::new(), left: BTreeMap::new(), deleted: false };
        self.queues.insert(queue_id, log);
        self.queue = queue_id;
        self.take_over(1);
        self.record("operator", Event::QueueCreated { op, label, queue_id });
        self
    }

    pub(super) fn delete(&mut self) -> &mut Self {
        let (op, label, queue_id) = (self.next_op(), LABEL.to_owned(), self.queue);
        self.record("operator", Event::QueueDeleting { op, label: label.clone() });
        self.record("database", Event::QueueTombstoned { queue_id });
        self.record("operator", Event::QueueDeleted { op, label });
        self.log().deleted = true;
        self.channels.retain(|_, (of, _, _)| *of != queue_id);
        self
    }

    pub(super) fn channel(&mut self, channel: Uuid, topic: &str, start: u64) -> &mut Self {
        let (op, queue_id, topic) = (self.next_op(), self.queue, topic.to_owned());
        self.channels.insert(channel, (queue_id, topic.clone(), start));
        let created = Event::ChannelCreated { op, channel, queue_id, label: LABEL.into(), topic, start };
        self.record("operator", created);
        self
    }

    // ---- producers ----

    fn sent(&mut self, body: &str, producer: Option<&str>, sequence: u64, ttl_millis: Option<u64>) -> u64 {
        let push = self.pushes.len() as u64 + 1;
        let sent = Event::PushSent {
            push,
            label: LABEL.into(),
            topic: String::new(),
            body: body.into(),
            producer: producer.map(Into::into),
            sequence,
            ttl_millis,
            queue_id: None,
            tries_millis: None,
            expected: None,
        };
        self.pushes.insert(push, sent.clone());
        self.record("producer-1", sent);
        push
    }

    /// The single producer sends a push.
    pub(super) fn send(&mut self, body: &str) -> u64 {
        self.sequence += 1;
        self.sent(body, Some("p1"), self.sequence, None)
    }

    pub(super) fn send_for(&mut self, body: &str, ttl_millis: u64) -> u64 {
        self.sequence += 1;
        self.sent(body, Some("p1"), self.sequence, Some(ttl_millis))
    }

    /// A producer of our library sends a push and retries for up to `tries`.
    pub(super) fn send_by_library(&mut self, body: &str, tries: u64) -> u64 {
        let push = self.send(body);
        let Some(Event::PushSent { tries_millis, .. }) = self.history.last_mut().map(|record| &mut record.event) else {
            unreachable!("it was just sent")
        };
        *tries_millis = Some(tries);
        push
    }

    /// The application reopens its producer and numbers its pushes from behind the stored messages.
    pub(super) fn number_on(&mut self, stored: u64) -> &mut Self {
        self.sequence = stored;
        self
    }

    /// Sends a push without a producer, like the original's clients.
    pub(super) fn send_plain(&mut self, body: &str) -> u64 {
        self.sent(body, None, 0, None)
    }

    /// Another attempt at the same push.
    pub(super) fn retry(&mut self, push: u64) -> u64 {
        let Event::PushSent { body, producer, sequence, ttl_millis, .. } = self.pushes[&push].clone() else {
            unreachable!("only these are kept")
        };
        self.sent(&body, producer.as_deref(), sequence, ttl_millis)
    }

    /// Acknowledges a push truthfully.
    pub(super) fn ack(&mut self, push: u64) -> &mut Self {
        let Event::PushSent { body, producer, .. } = &self.pushes[&push] else { unreachable!("only these are kept") };
        let stamped = producer.is_some();
        let stored = self.queues[&self.queue].all.values().find(|stored| stored.body == *body);
        let stored = stored.expect("only what is stored is acknowledged so");
        let (id, offset) = (Some(stored.id), Some(stored.offset));
        let sent = |record: &Record| matches!(record.event, Event::PushSent { push: of, .. } if of == push);
        let sent = self.history.iter().position(sent).expect("only what was sent is acknowledged");
        let has_it = |record: &Record| matches!(&record.event, Event::Stored { messages, .. } if messages.iter().any(|message| Some(message.id) == id));
        let duplicate = stamped && self.history[..sent].iter().any(has_it);
        self.record("producer-1", Event::PushAcked { push, queue_id: Some(self.queue), id, offset, duplicate });
        self
    }

    pub(super) fn fail(&mut self, push: u64, code: &str, unknown: bool) -> &mut Self {
        self.record("producer-1", Event::PushFailed { push, code: code.into(), unknown });
        self
    }

    /// Pushes a message, which is stored and acknowledged.
    pub(super) fn push(&mut self, body: &str) -> &mut Self {
        let push = self.send(body);
        self.store(body);
        self.ack(push)
    }

    pub(super) fn push_for(&mut self, body: &str, ttl_millis: u64) -> &mut Self {
        let push = self.send_for(body, ttl_millis);
        self.store(body);
        self.ack(push)
    }

    // ---- the database ----

    pub(super) fn take_over(&mut self, broker_id: u64) -> &mut Self {
        let queue_id = self.queue;
        self.record("database", Event::Assigned { queue_id, broker_id });
        let log = self.log();
        log.epoch += 1;
        log.owner = broker_id;
        let epoch = log.epoch;
        let incarnation = format!("run-{broker_id}");
        self.record("database", Event::Claimed { queue_id, epoch, broker_id, incarnation });
        self
    }

    /// Stores a sent message at the end of the log.
    pub(super) fn store(&mut self, body: &str) -> &mut Self {
        self.store_with(body, |_| {})
    }

    /// Stores a sent message with a change.
    pub(super) fn store_with(&mut self, body: &str, change: impl FnOnce(&mut StoredMessage)) -> &mut Self {
        let (sequence, ttl) = self
            .pushes
            .values()
            .rev()
            .find_map(|push| match push {
                Event::PushSent { body: sent, sequence, ttl_millis, .. } if sent == body => {
                    Some((*sequence, *ttl_millis))
                }
                _ => None,
            })
            .unwrap_or_default();
        let stored_at_millis = self.clock_millis + 1;
        let offset = self.log().end + 1;
        // A message without a sequence gets its offset as sequence.
        let (producer, sequence) = if sequence == 0 { (0xb1, offset) } else { (0xa1, sequence) };
        let mut message = StoredMessage {
            id: Uuid::from_u128((u128::from(self.queue) << 80) | (producer << 64) | u128::from(sequence)),
            offset,
            topic: "__none__".into(),
            body: body.into(),
            producer: Uuid::from_u128(producer),
            sequence,
            expires_at_millis: ttl.map(|ttl| stored_at_millis + ttl),
        };
        change(&mut message);
        let (queue_id, log) = (self.queue, self.log());
        log.end = log.end.max(message.offset);
        log.all.insert(message.offset, message.clone());
        log.left.insert(message.offset, message.clone());
        let (epoch, by) = (log.epoch, host(log.owner));
        self.record("database", Event::Stored { queue_id, epoch, stored_at_millis, messages: vec![message], by });
        self
    }

    /// Stores sent messages in one batch, at the end of the log.
    pub(super) fn store_together(&mut self, bodies: &[impl AsRef<str>]) -> &mut Self {
        let from = self.history.len();
        for body in bodies {
            self.store(body.as_ref());
        }
        let mut batches = self.history.drain(from..).map(|record| record.event).collect::<Vec<_>>().into_iter();
        let Some(Event::Stored { queue_id, epoch, stored_at_millis: at, mut messages, by }) = batches.next() else {
            return self;
        };
        for batch in batches {
            let Event::Stored { stored_at_millis, messages: more, .. } = batch else { continue };
            messages.extend(more.into_iter().map(|mut message| {
                message.expires_at_millis = message.expires_at_millis.map(|expiry| expiry - (stored_at_millis - at));
                message
            }));
        }
        for message in &messages {
            let log = self.log();
            log.all.insert(message.offset, message.clone());
            log.left.insert(message.offset, message.clone());
        }
        self.record("database", Event::Stored { queue_id, epoch, stored_at_millis: at, messages, by });
        self
    }

    pub(super) fn trim(&mut self, through: u64) -> &mut Self {
        let at_millis = self.clock_millis + 1;
        let (queue_id, log) = (self.queue, self.log());
        log.trimmed = through;
        log.left.retain(|&offset, _| offset > through);
        self.record("database", Event::Trimmed { queue_id, through, at_millis });
        self
    }

    // ---- subscribers ----

    /// A stream of the channel, from its start.
    pub(super) fn stream(&mut self, stream: u64) -> &mut Self {
        self.stream_of(stream, self.current, None)
    }

    /// A stream of the channel, after an offset.
    pub(super) fn resume(&mut self, stream: u64, offset: u64) -> &mut Self {
        let after = Pos { queue_id: self.queue, epoch: self.log().epoch, offset };
        self.stream_of(stream, self.current, Some(after))
    }

    pub(super) fn stream_of(&mut self, stream: u64, channel: Uuid, after: Option<Pos>) -> &mut Self {
        self.stream_by("consumer-1", stream, channel, after)
    }

    /// A stream of a host other than the usual one.
    pub(super) fn stream_by(&mut self, who: &str, stream: u64, channel: Uuid, after: Option<Pos>) -> &mut Self {
        let observer = "o1".to_owned();
        self.record(who, Event::StreamAsked { stream, observer: observer.clone(), channel, after });
        let log = self.log();
        let (epoch, broker) = (log.epoch, host(log.owner));
        let position = Pos { queue_id: self.queue, epoch, offset: after.map_or(0, |after| after.offset) };
        self.streams.insert(stream, position);
        let position = Some(position);
        self.record(who, Event::StreamOpened { stream, observer, channel, after, broker, position });
        self
    }

    /// A stream receives the messages stored at these offsets.
    pub(super) fn see(&mut self, stream: u64, offsets: impl IntoIterator<Item = u64>) -> &mut Self {
        for offset in offsets {
            let message = self.queues[&self.streams[&stream].queue_id].all[&offset].clone();
            self.see_message(stream, message);
        }
        self
    }

    pub(super) fn see_message(&mut self, stream: u64, message: StoredMessage) -> &mut Self {
        let StoredMessage { id, offset, topic, body, .. } = message;
        self.record("consumer-1", Event::StreamMessage { stream, id, offset, topic, body });
        self
    }

    pub(super) fn end(&mut self, stream: u64, code: &str) -> &mut Self {
        self.record("consumer-1", Event::StreamEnded { stream, code: code.into() });
        self
    }

    /// The application gets a consumer object that reads after an offset or from the start.
    pub(super) fn consumer(&mut self, consumer: &str, after: Option<u64>) -> &mut Self {
        let resumed = after.map(|offset| Pos { queue_id: self.queue, epoch: self.log().epoch, offset });
        let (consumer, application, channel) = (consumer.to_owned(), "billing".to_owned(), self.current);
        self.record("consumer-2", Event::ConsumerStarted { consumer, application, channel, resumed });
        self
    }

    pub(super) fn deliver(&mut self, consumer: &str, offsets: impl IntoIterator<Item = u64>) -> &mut Self {
        for offset in offsets {
            let StoredMessage { id, topic, body, .. } = self.log().all[&offset].clone();
            let position = Some(Pos { queue_id: self.queue, epoch: self.log().epoch, offset });
            let consumer = consumer.to_owned();
            self.record("consumer-2", Event::Delivered { consumer, id, offset, topic, body, position });
        }
        self
    }

    pub(super) fn stop(&mut self, consumer: &str, error: Option<&str>) -> &mut Self {
        let error = error.map(Into::into);
        self.record("consumer-2", Event::ConsumerStopped { consumer: consumer.into(), position: None, error });
        self
    }
}

fn host(broker: u64) -> String {
    format!("broker-{broker}")
}
