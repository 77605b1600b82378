//! What the hand of fate, the runner and the actors share. It stands outside of all hosts and outlives their crashes, as an
//! actor's disk would.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    history::{Event, Phase, Pos, Recorder},
    hosts::runs_on,
    scenario::Scenario,
};

/// Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) scenario: Arc<Scenario>,
    pub(super) history: Recorder,
    state: Arc<Mutex<State>>,
}

/// The state behind [`Stage`].
#[derive(Debug, Default)]
pub(super) struct State {
    /// None until the workload begins.
    pub(super) phase: Option<Phase>,
    /// Everything is set up.
    pub(super) ready: bool,
    last_op: u64,
    last_push: u64,
    last_stream: u64,
    /// Pushes without an outcome, with who pushes.
    pub(super) open_pushes: BTreeMap<u64, String>,
    /// Operators' calls without an answer, with who calls.
    pub(super) open_calls: BTreeMap<u64, String>,
    /// Streams that did not end, with who observes.
    pub(super) open_streams: BTreeMap<u64, String>,
    /// Consumer objects that did not end, with their host and their position.
    pub(super) open_consumers: BTreeMap<String, (String, Option<Pos>)>,
    /// In the order of their numbers.
    pub(super) queues: Vec<Queue>,
    /// Brokers that were ever to be drained: how many steps want it, and whether it is done.
    pub(super) drains: BTreeMap<u8, Drain>,
    /// How many steps stall a consumer, or have it leave.
    pub(super) stalled: BTreeMap<u8, usize>,
    /// See `stalled`.
    pub(super) left: BTreeMap<u8, usize>,
    /// Channels in use, with their queue's id and label.
    pub(super) channels: BTreeMap<Uuid, u64>,
    /// Channels that are to be deleted, although they are used.
    pub(super) doomed: BTreeSet<Uuid>,
    /// Producers that have pushed all that they had to.
    pub(super) finished: BTreeSet<u8>,
    /// Named producers that are being opened.
    pub(super) opening: BTreeSet<u8>,
    /// Per producer: where it is.
    pub(super) producers: BTreeMap<u8, Progress>,
    /// Per consumer: where it is.
    pub(super) consumers: BTreeMap<u8, Place>,
    /// Queues through which a probe went since the faults ended, by id.
    pub(super) probed: BTreeSet<u64>,
    /// Queues to which the last message was pushed, by id.
    pub(super) marked: BTreeSet<u64>,
    /// Consumers that were given it.
    pub(super) done: BTreeSet<u8>,
    /// The faults are over, and everything is in order again.
    pub(super) converged: bool,
    /// All is well, and the run goes on for a while.
    pub(super) lingers: bool,
    /// When the faults ended, in milliseconds of simulated time.
    pub(super) healed_at: Option<u64>,
    /// Managers and brokers that said so long after the faults ended that they are well that they will stay well.
    pub(super) well: BTreeSet<String>,
    /// Brokers were asked what they have counted.
    pub(super) accounted: bool,
    /// Everybody was asked since convergence how they are.
    pub(super) examined: bool,
    /// Hosts whose way to the database is blocked, with the simulated time in milliseconds since when.
    pub(super) cut_off: BTreeMap<String, u64>,
    /// Hosts that do not come back, or never reach the database again.
    pub(super) lost: BTreeSet<String>,
    /// Brokers that are drained for good.
    pub(super) relieved: BTreeSet<String>,
}

/// A queue, as the operator is to have it.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// Its label, in lower case.
    pub(super) label: String,
    /// How many steps want it away.
    pub(super) unwanted: usize,
    /// How often it was to be deleted, and how often it was.
    pub(super) deletes_wanted: u64,
    /// See `deletes_wanted`.
    pub(super) deletes_done: u64,
    /// Its id, while it exists as far as the operator knows.
    pub(super) id: Option<u64>,
    /// Ids of those that were deleted under its label.
    pub(super) deleted: BTreeSet<u64>,
    /// How many extra channels there are to be.
    pub(super) churn: usize,
    /// The extra channels.
    pub(super) extra: Vec<Uuid>,
}

impl Queue {
    /// True if the operator has nothing to do.
    pub(super) fn is_settled(&self) -> bool {
        self.deletes_done == self.deletes_wanted
            && self.id.is_some() == (self.unwanted == 0)
            && (self.id.is_none() || self.extra.len() == self.churn)
    }
}

/// A broker's draining.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// How many steps want it.
    pub(super) wanted: usize,
    /// True while it is drained; none if the operator asked for a change and had no answer.
    pub(super) is: Option<bool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { wanted: 0, is: Some(false) }
    }
}

impl Drain {
    /// True if the operator has nothing to do.
    pub(super) fn is_settled(self) -> bool {
        self.is == Some(self.wanted > 0)
    }
}

/// How far a producer is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// How many messages it has pushed, whatever became of them.
    pub(super) pushed: u32,
    /// How often it began anew, as another producer.
    pub(super) life: u64,
    /// How many times it was opened in this life.
    pub(super) opened: u64,
}

/// How far a consumer is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Its channel, its queue's id, and the channel's start.
    pub(super) channel: Option<(Uuid, u64, u64)>,
    /// The application's position.
    pub(super) position: Option<Pos>,
    /// How many consumer objects there were.
    pub(super) objects: u64,
}

/// A push on its way out, as [`Event::PushSent`] has it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) label: String,
    pub(super) topic: String,
    pub(super) body: String,
    pub(super) producer: Option<String>,
    pub(super) sequence: u64,
    pub(super) ttl_millis: Option<u64>,
    pub(super) queue_id: Option<u64>,
    /// See [`Event::PushSent`].
    pub(super) tries_millis: Option<u64>,
    /// See [`Event::PushSent`].
    pub(super) expected: Option<String>,
}

impl Stage {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let queues = (1..=scenario.workload.queues.max(1))
            .map(|number| Queue { label: format!("queue-{number}"), ..Queue::default() })
            .collect();
        let state = State { queues, ..State::default() };
        Self { scenario: Arc::new(scenario.clone()), history: Recorder::default(), state: Arc::new(Mutex::new(state)) }
    }

    /// Looks at the state, or changes it.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock())
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.state.lock().phase
    }

    /// From now on it is another part of the run.
    pub(super) fn enter(&self, phase: Phase) {
        self.state.lock().phase = Some(phase);
        self.history.record("fate", Event::PhaseBegan { phase });
    }

    /// The label of the queue of this number, counted from 1. There is no number without a queue.
    pub(super) fn label(&self, queue: u8) -> String {
        let state = self.state.lock();
        let index = usize::from(queue.max(1) - 1) % state.queues.len();
        state.queues[index].label.clone()
    }

    pub(super) fn next_op(&self) -> u64 {
        let mut state = self.state.lock();
        state.last_op += 1;
        state.last_op
    }

    /// A push leaves; its number.
    pub(super) fn push_sent(&self, host: &str, push: Outgoing) -> u64 {
        let number = self.with(|state| {
            state.last_push += 1;
            state.open_pushes.insert(state.last_push, host.to_owned());
            state.last_push
        });
        let Outgoing { label, topic, body, producer, sequence, ttl_millis, queue_id, tries_millis, expected } = push;
        let sent = Event::PushSent {
            push: number,
            label,
            topic,
            body,
            producer,
            sequence,
            ttl_millis,
            queue_id,
            tries_millis,
            expected,
        };
        self.history.record(host, sent);
        number
    }

    /// A push has an outcome: [`Event::PushAcked`] or [`Event::PushFailed`].
    pub(super) fn push_ended(&self, host: &str, push: u64, outcome: Event) {
        self.with(|state| state.open_pushes.remove(&push));
        self.history.record(host, outcome);
    }

    /// An operator calls; the number of the call.
    pub(super) fn call(&self, host: &str, event: impl FnOnce(u64) -> Event) -> u64 {
        let op = self.next_op();
        self.with(|state| state.open_calls.insert(op, host.to_owned()));
        self.history.record(host, event(op));
        op
    }

    /// A call is answered.
    pub(super) fn answered(&self, host: &str, op: u64, answer: Event) {
        self.with(|state| state.open_calls.remove(&op));
        self.history.record(host, answer);
    }

    /// A raw subscription is asked for; its number.
    pub(super) fn stream_opening(&self, host: &str) -> u64 {
        self.with(|state| {
            state.last_stream += 1;
            state.open_streams.insert(state.last_stream, host.to_owned());
            state.last_stream
        })
    }

    /// A raw subscription is over.
    pub(super) fn stream_ended(&self, host: &str, stream: u64, code: impl Into<String>) {
        self.with(|state| state.open_streams.remove(&stream));
        self.history.record(host, Event::StreamEnded { stream, code: code.into() });
    }

    pub(super) fn consumer_stopped(&self, host: &str, consumer: &str, error: Option<String>) {
        let open = self.with(|state| state.open_consumers.remove(consumer));
        if let Some((_, position)) = open {
            self.history.record(host, Event::ConsumerStopped { consumer: consumer.to_owned(), position, error });
        }
    }

    /// What `host` had under way ends for the record, since whoever did it was killed, or turned to something else.
    pub(super) fn cut_short(&self, host: &str, code: &str) {
        self.end_those(code, |owner| owner == host);
    }

    /// What all actors on `host` had under way ends for the record.
    pub(super) fn crashed(&self, host: &str) {
        self.end_those("CRASHED", |owner| runs_on(owner) == host);
    }

    /// What anybody has under way ends for the record. Consumers are stopped as their applications would: what they lack is
    /// lost.
    pub(super) fn cut_all_short(&self, code: &str) {
        let consumers = self.with(|state| {
            state.open_consumers.iter().map(|(name, (host, _))| (name.clone(), host.clone())).collect::<Vec<_>>()
        });
        for (consumer, host) in consumers {
            self.consumer_stopped(&host, &consumer, None);
        }
        self.end_those(code, |_| true);
    }

    fn end_those(&self, code: &str, whose: impl Fn(&str) -> bool) {
        fn of<K: Ord + Clone>(open: &BTreeMap<K, String>, whose: &impl Fn(&str) -> bool) -> Vec<(K, String)> {
            open.iter().filter(|(_, owner)| whose(owner)).map(|(key, owner)| (key.clone(), owner.clone())).collect()
        }
        let (calls, pushes, streams, consumers) = self.with(|state| {
            let hosts = state.open_consumers.iter().map(|(name, (owner, _))| (name.clone(), owner.clone())).collect();
            let calls = of(&state.open_calls, &whose);
            (calls, of(&state.open_pushes, &whose), of(&state.open_streams, &whose), of(&hosts, &whose))
        });
        for (op, host) in calls {
            self.answered(&host, op, Event::AdminFailed { op, code: code.into(), unknown: true });
        }
        for (push, host) in pushes {
            self.push_ended(&host, push, Event::PushFailed { push, code: code.into(), unknown: true });
        }
        for (stream, host) in streams {
            self.stream_ended(&host, stream, code);
        }
        for (consumer, host) in consumers {
            self.consumer_stopped(&host, &consumer, Some(code.into()));
        }
    }
}
