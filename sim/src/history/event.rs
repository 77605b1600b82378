//! The events of a run that are evidence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An event with its time and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Simulated time since the start, in microseconds. It never goes back from one record to the next.
    pub at_micros: u64,
    /// The host that caused or observed the event, or `runner` for the runner's own events.
    pub host: String,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// A position in a queue, as consumers keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pos {
    /// The queue's id, which is never used again.
    pub queue_id: u64,
    /// The epoch of the message at `offset`.
    pub epoch: u64,
    /// The last offset that the consumer took.
    pub offset: u64,
}

/// Content and headers of a message as one text, as the events of messages contain it: the plain content if there are no
/// headers.
#[must_use]
pub fn body_text<'a>(content: &[u8], headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut text = String::from_utf8_lossy(content).into_owned();
    for (name, value) in headers {
        text.push_str(&format!(" [{name}={}]", String::from_utf8_lossy(value)));
    }
    text
}

/// A message in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Its id.
    pub id: Uuid,
    /// Its offset in its queue.
    pub offset: u64,
    /// Its topic; empty if it has none.
    pub topic: String,
    /// The pushed content with its headers; see [`body_text`]. Workloads make every body unique.
    pub body: String,
    /// Its producer.
    pub producer: Uuid,
    /// Its number among its producer's messages.
    pub sequence: u64,
    /// Its expiry on the database's clock; `None` if it never expires.
    pub expires_at_millis: Option<u64>,
}

/// A phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The workload runs while faults come and go.
    Faults,
    /// All faults are over; the workload and all pending calls must complete within the bound.
    Healed,
    /// Pushing has ended; subscribers take the remaining messages.
    Drain,
    /// Nothing runs any more; the store is read out.
    Audit,
}

/// The bound of [`Event::Began`] in histories that do not contain it.
fn usual_sleep() -> u64 {
    60_000
}

/// See [`usual_sleep`].
fn for_ever() -> u64 {
    u64::MAX
}

/// An event.
///
/// There are three sources: the runner (phases and faults), the users of the cluster (operators, producers, consumers, raw
/// streams), and the database (commits).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    // ---- the runner ----
    /// The first record: the bounds with which checkers compare the run.
    Began {
        /// The seed.
        seed: u64,
        /// How long after its expiry the delivery of a message may still start.
        expiry_bound_millis: u64,
        /// How soon every broker that serves learns that the database's clock was set.
        clock_bound_millis: u64,
        /// How soon after the last fault everything must be in order (promise 10), and a dead or replaced broker must be
        /// detected.
        convergence_bound_millis: u64,
        /// How soon after its expiry a message must be gone from the store while a broker hosts its queue.
        trim_bound_millis: u64,
        /// How much longer that may take if the database's clock was set: brokers that expect no expiry check again after
        /// this time.
        #[serde(default = "usual_sleep")]
        sleep_bound_millis: u64,
        /// How soon a stream must end after its channel was deleted, in the absence of faults.
        #[serde(default = "for_ever")]
        deleted_bound_millis: u64,
        /// How soon a push must be acknowledged while no fault affects the processes that it needs.
        #[serde(default = "for_ever")]
        answer_bound_millis: u64,
        /// The shortest time for which a disposable channel without subscribers is kept.
        #[serde(default = "for_ever")]
        idle_bound_millis: u64,
    },
    /// A phase of the run begins.
    PhaseBegan {
        /// The phase.
        phase: Phase,
    },
    /// A step of the scenario takes effect.
    FaultBegan {
        /// The number of the step, counted from 0.
        step: usize,
        /// A description.
        what: String,
        /// The hosts that it affects.
        hosts: Vec<String>,
    },
    /// A step's effect ends.
    FaultEnded {
        /// The number of the step.
        step: usize,
    },
    /// All work that was pending when the faults ended is done, and a probe went through every queue.
    Converged,
    /// The simulated time limit was reached before everything was done.
    TimeUp {
        /// The missing condition.
        pending: String,
    },

    // ---- operators, over REST ----
    /// An operator asks for a queue.
    QueueCreating {
        /// Number of the call, unique in the run; the answer has the same.
        op: u64,
        /// Its label.
        label: String,
    },
    /// The queue exists and is served.
    QueueCreated {
        /// The call.
        op: u64,
        /// Its label.
        label: String,
        /// Its id.
        queue_id: u64,
    },
    /// An operator asks to delete a queue.
    QueueDeleting {
        /// The call.
        op: u64,
        /// Its label.
        label: String,
    },
    /// The queue is deleted.
    QueueDeleted {
        /// The call.
        op: u64,
        /// Its label.
        label: String,
    },
    /// A client asks for a channel.
    ChannelCreating {
        /// The call.
        op: u64,
        /// Its queue's label.
        label: String,
        /// Its topic; empty if it has none.
        topic: String,
        /// True if it should start with messages pushed from now on; false if with all that exist.
        latest: bool,
    },
    /// The channel exists.
    ChannelCreated {
        /// The call.
        op: u64,
        /// Its id.
        channel: Uuid,
        /// Its queue's id.
        queue_id: u64,
        /// Its queue's label.
        label: String,
        /// Its topic; empty if it has none.
        topic: String,
        /// Subscriptions without a position receive messages after this offset: one less than the first offset, which the
        /// store and REST call `start`; 0 if the answer did not name it.
        start: u64,
    },
    /// A client asks to delete a channel.
    ChannelDeleting {
        /// The call.
        op: u64,
        /// Its id.
        channel: Uuid,
    },
    /// The channel is deleted.
    ChannelDeleted {
        /// The call.
        op: u64,
        /// Its id.
        channel: Uuid,
    },
    /// A manager's answer about a channel.
    ChannelSeen {
        /// Its id.
        channel: Uuid,
        /// Its topic, or `None` if the channel does not exist.
        topic: Option<String>,
    },
    /// A call failed.
    AdminFailed {
        /// The call.
        op: u64,
        /// The code that the caller received.
        code: String,
        /// True if the call may have taken effect nevertheless.
        unknown: bool,
    },
    /// A client sent a request that has to be refused (promise 12).
    BadInput {
        /// A description of the request.
        what: String,
        /// The code that was expected.
        expected: String,
        /// The actual code, or `ok`.
        got: String,
        /// The message of the error.
        message: String,
        /// The words that the message must contain: the field, the limit.
        names: Vec<String>,
    },
    /// A manager's or broker's answer about its health.
    Health {
        /// Its host.
        of: String,
        /// True if it reports that it is healthy.
        healthy: bool,
        /// The expected answer: true if it runs, no fault affects it, and it had time to notice. `None` if both answers are
        /// correct.
        expected: Option<bool>,
    },

    /// The counters of a queue since its broker claimed it, and the state of the queue, as the broker reports them.
    Counted {
        /// The broker whose page it is.
        broker: String,
        /// The queue's label.
        queue: String,
        /// Its counters: `pushed`, `expired` and so on; and `depth_messages`, `last_offset`, `epoch`.
        counted: BTreeMap<String, u64>,
    },

    // ---- producers ----
    /// A message is passed to a library producer, or a raw push leaves.
    PushSent {
        /// Number of this attempt, unique in the run; the outcome has the same.
        push: u64,
        /// The queue's label.
        label: String,
        /// Its topic; empty if it has none.
        topic: String,
        /// Its content, with its headers; see [`body_text`].
        body: String,
        /// Its producer; `None` for a raw push without one, like those of the original.
        producer: Option<String>,
        /// Its number among that producer's messages, from 1. A retry of a raw push has the same.
        sequence: u64,
        /// Its lifetime, if it sets one.
        ttl_millis: Option<u64>,
        /// The queue's id, if the producer requires a particular one.
        queue_id: Option<u64>,
        /// How long our library retries it; `None` for raw pushes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tries_millis: Option<u64>,
        /// The code with which brokers must refuse it, if they do not accept it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected: Option<String>,
    },
    /// A named producer is being opened, which fences the ones opened before under its name.
    ProducerOpening {
        /// Its name, as in [`Event::PushSent`].
        producer: String,
        /// The queue's label.
        label: String,
    },
    /// The push is acknowledged.
    PushAcked {
        /// The attempt.
        push: u64,
        /// The queue's id, if the answer has it.
        queue_id: Option<u64>,
        /// The message's id, if the answer has it.
        id: Option<Uuid>,
        /// Its offset, if the answer has it.
        offset: Option<u64>,
        /// True if an earlier attempt was stored.
        duplicate: bool,
    },
    /// The attempt failed. The producer gives the message up, or makes another attempt.
    PushFailed {
        /// The attempt.
        push: u64,
        /// The code of the failure.
        code: String,
        /// True if the message may have been stored nevertheless.
        unknown: bool,
    },

    // ---- consumers: applications with our library ----
    /// An application subscribes.
    ConsumerStarted {
        /// Name of this consumer object; an application that comes back gets a new one.
        consumer: String,
        /// Name of the application, which keeps its position across consumer objects.
        application: String,
        /// The channel.
        channel: Uuid,
        /// The position after which it resumes.
        resumed: Option<Pos>,
    },
    /// The application receives a message.
    Delivered {
        /// The consumer object.
        consumer: String,
        /// The message's id.
        id: Uuid,
        /// Its offset.
        offset: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// Its content, with its headers; see [`body_text`].
        body: String,
        /// The position that the application can save from now on.
        position: Option<Pos>,
    },
    /// The consumer object ends.
    ConsumerStopped {
        /// The consumer object.
        consumer: String,
        /// The position that the application saved.
        position: Option<Pos>,
        /// The code of the error, or `None` if the application stopped it.
        error: Option<String>,
    },

    // ---- observers on the raw wire ----
    /// A raw `SubscribeToChannel` request leaves. [`Event::StreamOpened`] or [`Event::StreamEnded`] of the same stream
    /// answers it.
    StreamAsked {
        /// Number of the stream, unique in the run.
        stream: u64,
        /// The observer.
        observer: String,
        /// The channel.
        channel: Uuid,
        /// The position in the request.
        after: Option<Pos>,
    },
    /// A raw `SubscribeToChannel` request is answered.
    StreamOpened {
        /// Number of the stream, unique in the run.
        stream: u64,
        /// The observer; it opens one stream after the other.
        observer: String,
        /// The channel.
        channel: Uuid,
        /// The position in the request.
        after: Option<Pos>,
        /// The broker's host.
        broker: String,
        /// The broker's answer: the queue's id, the epoch under which it serves, and the offset after which the stream
        /// begins. `None` if it refused.
        position: Option<Pos>,
    },
    /// A message arrives on a raw stream.
    StreamMessage {
        /// The stream.
        stream: u64,
        /// The message's id.
        id: Uuid,
        /// Its offset.
        offset: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// Its content, with its headers; see [`body_text`].
        body: String,
    },
    /// A raw stream ends or is refused.
    StreamEnded {
        /// The stream.
        stream: u64,
        /// The code; `LEFT` if the observer ended it.
        code: String,
    },

    // ---- the database ----
    /// A broker process registers.
    Registered {
        /// Its host.
        broker: String,
        /// Its id.
        broker_id: u64,
        /// The id of this process.
        incarnation: String,
    },
    /// A queue is created.
    QueueAdded {
        /// Its id.
        queue_id: u64,
        /// Its label, in lower case.
        label: String,
    },
    /// A channel is created.
    ChannelAdded {
        /// Its id.
        channel: Uuid,
        /// Its queue.
        queue_id: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// True if it may be deleted after a long time without subscribers.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        disposable: bool,
    },
    /// A channel is deleted although its queue remains.
    ChannelRemoved {
        /// Its id.
        channel: Uuid,
    },
    /// A queue is assigned to a broker.
    Assigned {
        /// The queue.
        queue_id: u64,
        /// The broker.
        broker_id: u64,
    },
    /// A broker claims a queue.
    Claimed {
        /// The queue.
        queue_id: u64,
        /// The epoch that begins.
        epoch: u64,
        /// The broker.
        broker_id: u64,
        /// Its process.
        incarnation: String,
    },
    /// A batch is committed.
    Stored {
        /// The queue.
        queue_id: u64,
        /// The epoch under which it was appended.
        epoch: u64,
        /// The database's time.
        stored_at_millis: u64,
        /// Its messages, in order.
        messages: Vec<StoredMessage>,
        /// The host of the broker that appended it.
        by: String,
    },
    /// An append has no effect.
    AppendRefused {
        /// The queue.
        queue_id: u64,
        /// The epoch of the attempt.
        epoch: u64,
        /// `fenced`, `deleted`, `conflict` or `rolled_back`.
        why: String,
        /// The host of the broker that tried.
        by: String,
    },
    /// Expired batches are removed.
    Trimmed {
        /// The queue.
        queue_id: u64,
        /// The last removed offset.
        through: u64,
        /// The database's time.
        at_millis: u64,
    },
    /// A queue becomes a tombstone.
    QueueTombstoned {
        /// The queue.
        queue_id: u64,
    },
    /// The database's clock is set.
    StoreClock {
        /// Its reading before.
        from_millis: u64,
        /// Its reading afterwards.
        to_millis: u64,
    },
    /// An earlier state of the database is restored: later commits are lost. No promise covers that, but no process may
    /// delete or reuse anything because of it.
    StoreRolledBack,

    // ---- the audit ----
    /// The state of a queue in the database at the end.
    AuditQueue {
        /// Its id.
        queue_id: u64,
        /// Its label.
        label: String,
        /// The last offset.
        end: u64,
        /// The last removed offset.
        trimmed_through: u64,
        /// Its last epoch.
        epoch: u64,
        /// Its remaining messages.
        messages: Vec<StoredMessage>,
    },
    /// The state of a channel in the database at the end.
    AuditChannel {
        /// Its id.
        channel: Uuid,
        /// Its queue.
        queue_id: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// The channel receives messages after this offset, as in [`Event::ChannelCreated`].
        start: u64,
    },
    /// The end of the audit, with the database's time.
    AuditDone {
        /// The database's time.
        at_millis: u64,
    },

    // ---- applications of our users ----
    /// Any text that an application reports.
    Note {
        /// The text.
        text: String,
    },
}
