//! What can happen in a run, as far as it is evidence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Simulated time since the start, in microseconds. It never goes back from one record to the next.
    pub at_micros: u64,
    /// Who did or saw it: the name of a host, or `fate` for what was done to the world.
    pub host: String,
    /// What it was.
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
    /// The last offset that was taken.
    pub offset: u64,
}

/// Content and headers of a message as one text, as the events that tell of messages have it: without headers it is the content.
#[must_use]
pub fn told<'a>(content: &[u8], headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut text = String::from_utf8_lossy(content).into_owned();
    for (name, value) in headers {
        text.push_str(&format!(" [{name}={}]", String::from_utf8_lossy(value)));
    }
    text
}

/// A message as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// Its id.
    pub id: Uuid,
    /// Where it is in its queue.
    pub offset: u64,
    /// Its topic; empty if it has none.
    pub topic: String,
    /// What was pushed, with its headers; see [`told`]. Workloads make every body unlike any other.
    pub body: String,
    /// Who pushed it.
    pub producer: Uuid,
    /// The how-manieth of its producer.
    pub sequence: u64,
    /// When it expires, on the database's clock; none if never.
    pub expires_at_millis: Option<u64>,
}

/// Part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The workload goes on while faults come and go.
    Faults,
    /// All faults are over; the workload and everything pending has to get through within the bound.
    Healed,
    /// Nobody pushes any more; subscribers take what is left.
    Drain,
    /// Everything stands still; the store is read out.
    Audit,
}

/// What [`Event::Began`] meant before it said so.
fn usual_sleep() -> u64 {
    60_000
}

/// See [`usual_sleep`].
fn for_ever() -> u64 {
    u64::MAX
}

/// What happened.
///
/// Three sorts of witnesses write it: the hand of fate (phases and faults), those outside who use the cluster (operators,
/// producers, consumers, raw streams), and the database (what it committed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    // ---- fate ----
    /// The first record: what to hold the run against.
    Began {
        /// The seed.
        seed: u64,
        /// How late after its expiry a delivery may still start.
        expiry_bound_millis: u64,
        /// Within what time every broker that serves has heard that the database's clock was set.
        clock_bound_millis: u64,
        /// Within what time after the last fault everything has to be in order (promise 10), and a dead or replaced broker to
        /// be found out.
        convergence_bound_millis: u64,
        /// Within what time after expiry a message has to be gone from the store, while a broker hosts its queue.
        trim_bound_millis: u64,
        /// How much longer that may take if the database's clock was set: brokers that expect nothing to expire look again.
        #[serde(default = "usual_sleep")]
        sleep_bound_millis: u64,
        /// Within what time without faults a stream ends whose channel is deleted.
        #[serde(default = "for_ever")]
        deleted_bound_millis: u64,
        /// Within what time a push is acknowledged while nothing befalls anybody whom it needs.
        #[serde(default = "for_ever")]
        answer_bound_millis: u64,
        /// For how long at least a disposable channel is kept that nobody subscribes to.
        #[serde(default = "for_ever")]
        idle_bound_millis: u64,
    },
    /// A part of the run begins.
    PhaseBegan {
        /// Which.
        phase: Phase,
    },
    /// A step of the scenario takes effect.
    FaultBegan {
        /// Which step, counted from 0.
        step: usize,
        /// In words.
        what: String,
        /// The hosts that it befalls.
        hosts: Vec<String>,
    },
    /// A step's effect is over.
    FaultEnded {
        /// Which step.
        step: usize,
    },
    /// Everything that was pending when the faults ended was done, and a probe went through every queue.
    Converged,
    /// Simulated time ran out while something was still to be done.
    TimeUp {
        /// What was missing.
        pending: String,
    },

    // ---- operators, over REST ----
    /// Somebody asks for a queue.
    QueueCreating {
        /// Number of the call, unique in the run; the answer has the same.
        op: u64,
        /// Its label.
        label: String,
    },
    /// It exists and is served.
    QueueCreated {
        /// The call.
        op: u64,
        /// Its label.
        label: String,
        /// Its id.
        queue_id: u64,
    },
    /// Somebody asks to delete a queue.
    QueueDeleting {
        /// The call.
        op: u64,
        /// Its label.
        label: String,
    },
    /// It is deleted.
    QueueDeleted {
        /// The call.
        op: u64,
        /// Its label.
        label: String,
    },
    /// Somebody asks for a channel.
    ChannelCreating {
        /// The call.
        op: u64,
        /// Its queue's label.
        label: String,
        /// Its topic; empty if it has none.
        topic: String,
        /// True if it is to start with what is pushed from now on; false if with all that there is.
        latest: bool,
    },
    /// A channel exists.
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
        /// Subscriptions without a position get what comes after this offset: one less than what the store and REST call
        /// `start`, which is the first; 0 if it was not told.
        start: u64,
    },
    /// Somebody asks to delete a channel.
    ChannelDeleting {
        /// The call.
        op: u64,
        /// Its id.
        channel: Uuid,
    },
    /// A channel is deleted.
    ChannelDeleted {
        /// The call.
        op: u64,
        /// Its id.
        channel: Uuid,
    },
    /// What a manager says of a channel.
    ChannelSeen {
        /// Its id.
        channel: Uuid,
        /// Its topic, or none if there is no such channel.
        topic: Option<String>,
    },
    /// A call failed.
    AdminFailed {
        /// The call.
        op: u64,
        /// The code that the caller was told.
        code: String,
        /// True if it may have been done nevertheless.
        unknown: bool,
    },
    /// Somebody sent what has to be refused (promise 12).
    BadInput {
        /// What was sent.
        what: String,
        /// The code that was expected.
        expected: String,
        /// The code that came, or `ok`.
        got: String,
        /// The message that came.
        message: String,
        /// What the message has to name: the field, the limit.
        names: Vec<String>,
    },
    /// What a manager or broker says of its health.
    Health {
        /// Whose.
        of: String,
        /// True if it says that it is well.
        healthy: bool,
        /// True if it can be: it runs, no fault befalls it, and it had the time to notice. None if that cannot be said.
        expected: Option<bool>,
    },

    /// What a broker has counted of a queue that it hosts, since it began to, and how it says that the queue is now.
    Counted {
        /// Whose page it is from.
        broker: String,
        /// The queue's label.
        queue: String,
        /// Its counters: `pushed`, `expired` and so on; and `depth_messages`, `last_offset`, `epoch`.
        counted: BTreeMap<String, u64>,
    },

    // ---- producers ----
    /// A message is handed to a library producer, or a raw push leaves.
    PushSent {
        /// Number of this attempt, unique in the run; the outcome has the same.
        push: u64,
        /// The queue's label.
        label: String,
        /// Its topic; empty if it has none.
        topic: String,
        /// Its content, with its headers; see [`told`].
        body: String,
        /// Who pushes; none for a raw push that names no producer, as the original's.
        producer: Option<String>,
        /// The how-manieth of that producer, from 1. A retry of a raw push has the same.
        sequence: u64,
        /// How long it may live, if it says.
        ttl_millis: Option<u64>,
        /// The queue's id, if the producer insists on one.
        queue_id: Option<u64>,
        /// For how long its producer tries to deliver it, if that is one of our library's, which does so by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tries_millis: Option<u64>,
        /// The code with which brokers have to refuse it, if they do not take it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected: Option<String>,
    },
    /// A named producer is being opened, which shuts out those that were opened before under its name.
    ProducerOpening {
        /// Its name, as in [`Event::PushSent`].
        producer: String,
        /// The queue's label.
        label: String,
    },
    /// It is acknowledged.
    PushAcked {
        /// The attempt.
        push: u64,
        /// The queue's id, if it was told.
        queue_id: Option<u64>,
        /// The message's id, if it was told.
        id: Option<Uuid>,
        /// Its offset, if it was told.
        offset: Option<u64>,
        /// True if an earlier attempt had been stored.
        duplicate: bool,
    },
    /// It failed, and the producer gave it up, or will try again as another attempt.
    PushFailed {
        /// The attempt.
        push: u64,
        /// The code that it was told.
        code: String,
        /// True if it may have been stored nevertheless.
        unknown: bool,
    },

    // ---- consumers: applications with our library ----
    /// An application subscribes.
    ConsumerStarted {
        /// Name of this consumer object; an application that comes back gets another one.
        consumer: String,
        /// Name of the application, which keeps its position across consumer objects.
        application: String,
        /// The channel.
        channel: Uuid,
        /// Where it goes on.
        resumed: Option<Pos>,
    },
    /// The application is given a message.
    Delivered {
        /// The consumer object.
        consumer: String,
        /// The message's id.
        id: Uuid,
        /// Its offset.
        offset: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// Its content, with its headers; see [`told`].
        body: String,
        /// The position that the application can keep from now on.
        position: Option<Pos>,
    },
    /// The consumer object ends.
    ConsumerStopped {
        /// Which.
        consumer: String,
        /// The position that the application keeps.
        position: Option<Pos>,
        /// Why, if it was not the application's wish: the code.
        error: Option<String>,
    },

    // ---- observers on the raw wire ----
    /// A raw `SubscribeToChannel` leaves. [`Event::StreamOpened`] or [`Event::StreamEnded`] of the same stream answers it.
    StreamAsked {
        /// Number of the stream, unique in the run.
        stream: u64,
        /// The observer.
        observer: String,
        /// The channel.
        channel: Uuid,
        /// The position that it asks for.
        after: Option<Pos>,
    },
    /// A raw `SubscribeToChannel` was answered.
    StreamOpened {
        /// Number of the stream, unique in the run.
        stream: u64,
        /// The observer; it opens one stream after the other.
        observer: String,
        /// The channel.
        channel: Uuid,
        /// The position that it asked for.
        after: Option<Pos>,
        /// The broker's host.
        broker: String,
        /// The broker's answer: the queue's id and the epoch under which it serves, and the offset after which the stream begins.
        /// None if it refused.
        position: Option<Pos>,
    },
    /// A message came in on a raw stream.
    StreamMessage {
        /// The stream.
        stream: u64,
        /// The message's id.
        id: Uuid,
        /// Its offset.
        offset: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// Its content, with its headers; see [`told`].
        body: String,
    },
    /// A raw stream ended, or was refused.
    StreamEnded {
        /// The stream.
        stream: u64,
        /// The code; `LEFT` if the observer ended it.
        code: String,
    },

    // ---- the database ----
    /// A broker process registered.
    Registered {
        /// Its host.
        broker: String,
        /// Its id.
        broker_id: u64,
        /// The id of this run of the process.
        incarnation: String,
    },
    /// A queue came into being.
    QueueAdded {
        /// Its id.
        queue_id: u64,
        /// Its label, in lower case.
        label: String,
    },
    /// A channel came into being.
    ChannelAdded {
        /// Its id.
        channel: Uuid,
        /// Its queue.
        queue_id: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// True if it may be deleted once nobody has subscribed to it for long.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        disposable: bool,
    },
    /// A channel was deleted by itself, not with its queue.
    ChannelRemoved {
        /// Its id.
        channel: Uuid,
    },
    /// A queue was given to a broker.
    Assigned {
        /// The queue.
        queue_id: u64,
        /// The broker.
        broker_id: u64,
    },
    /// A broker owns a queue from now on.
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
        /// The broker's host that asked for it.
        by: String,
    },
    /// An append took no effect.
    AppendRefused {
        /// The queue.
        queue_id: u64,
        /// The epoch under which it was tried.
        epoch: u64,
        /// `fenced`, `deleted`, `conflict` or `went_back`.
        why: String,
        /// The broker's host that asked for it.
        by: String,
    },
    /// Expired batches are gone.
    Trimmed {
        /// The queue.
        queue_id: u64,
        /// All up to here.
        through: u64,
        /// The database's time.
        at_millis: u64,
    },
    /// A queue became a tombstone.
    QueueTombstoned {
        /// The queue.
        queue_id: u64,
    },
    /// The database's clock was set.
    StoreClock {
        /// Before.
        from_millis: u64,
        /// From now on.
        to_millis: u64,
    },
    /// An earlier state of the database was restored: what was committed since is lost. No promise covers that; what must
    /// not happen is that anybody deletes or reuses anything because of it.
    StoreWentBack,

    // ---- the audit ----
    /// A queue, as the database has it at the end.
    AuditQueue {
        /// Its id.
        queue_id: u64,
        /// Its label.
        label: String,
        /// The last offset.
        end: u64,
        /// All up to here are gone.
        trimmed_through: u64,
        /// Its last epoch.
        epoch: u64,
        /// What is left.
        messages: Vec<StoredMessage>,
    },
    /// A channel, as the database has it at the end.
    AuditChannel {
        /// Its id.
        channel: Uuid,
        /// Its queue.
        queue_id: u64,
        /// Its topic; empty if it has none.
        topic: String,
        /// What comes after this offset is what it is for, as in [`Event::ChannelCreated`].
        start: u64,
    },
    /// The end of the audit, with the database's time.
    AuditDone {
        /// The database's time.
        at_millis: u64,
    },

    // ---- applications of our users ----
    /// Whatever an application wants to tell.
    Note {
        /// In its words.
        text: String,
    },
}
