//! The state that the fault injector, the runner and the actors share. It is outside of all hosts and outlives their
//! crashes, as an actor's disk would.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use rmom_sim::history::{Event, Phase, Pos, Recorder};
use uuid::Uuid;

use crate::scenario::{Scenario, runs_on};

/// Clones share the same state.
#[derive(Clone, Debug)]
pub(super) struct RunState {
    pub(super) scenario: Arc<Scenario>,
    pub(super) history: Recorder,
    state: Arc<Mutex<State>>,
}

/// The state behind [`RunState`].
#[derive(Debug, Default)]
pub(super) struct State {
    /// `None` until the workload begins.
    pub(super) phase: Option<Phase>,
    /// True once everything is set up.
    pub(super) ready: bool,
    last_op: u64,
    last_push: u64,
    last_stream: u64,
    /// Pushes without an outcome, with the host that pushes.
    pub(super) open_pushes: BTreeMap<u64, String>,
    /// Operators' calls without an answer, with the calling host.
    pub(super) open_calls: BTreeMap<u64, String>,
    /// Open streams, with the observing host.
    pub(super) open_streams: BTreeMap<u64, String>,
    /// Active consumer objects, with their host and position.
    pub(super) open_consumers: BTreeMap<String, (String, Option<Pos>)>,
    /// In the order of their numbers.
    pub(super) queues: Vec<Queue>,
    /// Brokers that a step ever drained: the number of steps that demand it now, and whether it is done.
    pub(super) drains: BTreeMap<u8, Drain>,
    /// The number of steps that stall a consumer. `left` counts the steps that make it leave.
    pub(super) stalled: BTreeMap<u8, usize>,
    /// See `stalled`.
    pub(super) left: BTreeMap<u8, usize>,
    /// Channels in use, with their queue's id and label.
    pub(super) channels: BTreeMap<Uuid, u64>,
    /// Channels that must be deleted although they are in use.
    pub(super) doomed: BTreeSet<Uuid>,
    /// Producers that have pushed all their messages.
    pub(super) finished: BTreeSet<u8>,
    /// Named producers that are being opened.
    pub(super) opening: BTreeSet<u8>,
    /// The progress of each producer.
    pub(super) producers: BTreeMap<u8, Progress>,
    /// The progress of each consumer.
    pub(super) consumers: BTreeMap<u8, Place>,
    /// Ids of queues through which a probe went since the faults ended.
    pub(super) probed: BTreeSet<u64>,
    /// Ids of queues to which the last message was pushed.
    pub(super) marked: BTreeSet<u64>,
    /// Consumers that received the last message.
    pub(super) done: BTreeSet<u8>,
    /// True once the faults are over and everything is in order again.
    pub(super) converged: bool,
    /// True while the run goes on for a while after convergence.
    pub(super) lingers: bool,
    /// When the faults ended, in milliseconds of simulated time.
    pub(super) healed_at: Option<u64>,
    /// Managers and brokers that reported health so long after the end of the faults that they will stay healthy.
    pub(super) well: BTreeSet<String>,
    /// True once brokers were asked for their counters.
    pub(super) accounted: bool,
    /// True once all processes were asked for their health after convergence.
    pub(super) examined: bool,
    /// Hosts whose link to the database is blocked, with the simulated time in milliseconds at which that began.
    pub(super) cut_off: BTreeMap<String, u64>,
    /// Hosts that do not come back, or that never reach the database again.
    pub(super) lost: BTreeSet<String>,
    /// Brokers that are drained permanently.
    pub(super) relieved: BTreeSet<String>,
}

/// The state in which the operator should bring a queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// Its label, in lower case.
    pub(super) label: String,
    /// The number of steps that demand that the queue does not exist.
    pub(super) unwanted: usize,
    /// How often the queue has to be deleted; `deletes_done` counts the deletions so far.
    pub(super) deletes_wanted: u64,
    /// See `deletes_wanted`.
    pub(super) deletes_done: u64,
    /// Its id, while it exists as far as the operator knows.
    pub(super) id: Option<u64>,
    /// Ids of deleted queues that had its label.
    pub(super) deleted: BTreeSet<u64>,
    /// The desired number of extra channels.
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

/// The draining of a broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    /// The number of steps that demand it.
    pub(super) wanted: usize,
    /// True while the broker is drained; `None` if the operator requested a change and got no answer.
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

/// The progress of a producer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// How many messages it has pushed, regardless of their outcomes.
    pub(super) pushed: u32,
    /// How often it started anew as another producer.
    pub(super) life: u64,
    /// How often it was opened in this life.
    pub(super) opened: u64,
}

/// The progress of a consumer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// Its channel, its queue's id, and the channel's start.
    pub(super) channel: Option<(Uuid, u64, u64)>,
    /// The application's position.
    pub(super) position: Option<Pos>,
    /// How many consumer objects it has had.
    pub(super) objects: u64,
}

/// A push that is being sent, as [`Event::PushSent`] records it.
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

impl RunState {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let queues = (1..=scenario.workload.queues.max(1))
            .map(|number| Queue { label: format!("queue-{number}"), ..Queue::default() })
            .collect();
        let state = State { queues, ..State::default() };
        Self { scenario: Arc::new(scenario.clone()), history: Recorder::default(), state: Arc::new(Mutex::new(state)) }
    }

    /// Reads or changes the state.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock())
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.state.lock().phase
    }

    /// Begins another phase of the run.
    pub(super) fn begin_phase(&self, phase: Phase) {
        self.state.lock().phase = Some(phase);
        self.history.record("runner", Event::PhaseBegan { phase });
    }

    /// The label of the queue with this number, counted from 1. The number must have a queue.
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

    /// Records that a push leaves, and returns its number.
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

    /// Records the outcome of a push: [`Event::PushAcked`] or [`Event::PushFailed`].
    pub(super) fn push_ended(&self, host: &str, push: u64, outcome: Event) {
        self.with(|state| state.open_pushes.remove(&push));
        self.history.record(host, outcome);
    }

    /// Records an operator's call, and returns its number.
    pub(super) fn call(&self, host: &str, event: impl FnOnce(u64) -> Event) -> u64 {
        let op = self.next_op();
        self.with(|state| state.open_calls.insert(op, host.to_owned()));
        self.history.record(host, event(op));
        op
    }

    /// Records the answer to a call.
    pub(super) fn answered(&self, host: &str, op: u64, answer: Event) {
        self.with(|state| state.open_calls.remove(&op));
        self.history.record(host, answer);
    }

    /// Records the request for a raw subscription, and returns its number.
    pub(super) fn stream_opening(&self, host: &str) -> u64 {
        self.with(|state| {
            state.last_stream += 1;
            state.open_streams.insert(state.last_stream, host.to_owned());
            state.last_stream
        })
    }

    /// Records the end of a raw subscription.
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

    /// Records the end of everything that `host` had under way, because its actor was killed or moved on.
    pub(super) fn cut_short(&self, host: &str, code: &str) {
        self.end_those(code, |owner| owner == host);
    }

    /// Records the end of everything that all actors on `host` had under way.
    pub(super) fn crashed(&self, host: &str) {
        self.end_those("CRASHED", |owner| runs_on(owner) == host);
    }

    /// Records the end of everything under way on all hosts. Consumers are stopped as their applications would stop them:
    /// messages that they lack are lost.
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
