//! What a queue's task shares with its handles, its subscriptions and the rest of the broker.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::command::Orders;
use crate::{
    broker::{BrokerError, BrokerSettings, QueueCounters, room::Share, span::Span, tail::Tail},
    model::{Assignment, ChannelId, Epoch, Offset, QueueId, QueueLabel, StoreTime, Topic},
    ports::{LogTail, QueueRecord, Removed},
    repeat::Repeat,
};

/// The state of a queue that others may see.
#[derive(Clone, Debug)]
pub(in crate::broker) struct View {
    pub(in crate::broker) phase: Phase,
    /// The newest durable offset.
    pub(in crate::broker) end: Offset,
    /// One more whenever all streams have to end, and the reason.
    pub(in crate::broker) evictions: u64,
    pub(in crate::broker) evicted_for: Option<BrokerError>,
}

#[derive(Clone, Debug)]
pub(in crate::broker) enum Phase {
    Activating,
    Serving(Epoch),
    Recovering(Epoch),
    Halted(BrokerError),
    Ended(BrokerError),
}

/// A subscription, as the queue's other users see it.
pub(in crate::broker) struct Subscriber {
    pub(in crate::broker) channel: ChannelId,
    pub(in crate::broker) topic: Topic,
    pub(in crate::broker) peer: String,
    /// Everything up to here was handed over.
    pub(in crate::broker) offset: AtomicU64,
    /// Set to end this subscription alone.
    pub(in crate::broker) ended: watch::Sender<Option<BrokerError>>,
}

/// Counters of a queue; see [`QueueCounters`].
#[derive(Debug, Default)]
pub(in crate::broker) struct Counters {
    pub(in crate::broker) pushed: AtomicU64,
    pub(in crate::broker) pushed_bytes: AtomicU64,
    pub(in crate::broker) delivered: AtomicU64,
    pub(in crate::broker) duplicates: AtomicU64,
    pub(in crate::broker) refused: AtomicU64,
    pub(in crate::broker) expired: AtomicU64,
    pub(in crate::broker) unknown_appends: AtomicU64,
    pub(in crate::broker) claims: AtomicU64,
    pub(in crate::broker) store_reads: AtomicU64,
    pub(in crate::broker) stale_reads: AtomicU64,
    pub(in crate::broker) corrupt_reads: AtomicU64,
    pub(in crate::broker) failed_activations: AtomicU64,
    pub(in crate::broker) failed_trims: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> QueueCounters {
        QueueCounters {
            pushed: self.pushed.load(Relaxed),
            pushed_bytes: self.pushed_bytes.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            refused: self.refused.load(Relaxed),
            expired: self.expired.load(Relaxed),
            unknown_appends: self.unknown_appends.load(Relaxed),
            claims: self.claims.load(Relaxed),
            store_reads: self.store_reads.load(Relaxed),
            stale_reads: self.stale_reads.load(Relaxed),
            corrupt_reads: self.corrupt_reads.load(Relaxed),
            failed_activations: self.failed_activations.load(Relaxed),
            failed_trims: self.failed_trims.load(Relaxed),
        }
    }
}

/// What a queue holds; exact once it is served.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::broker) struct Depth {
    pub(in crate::broker) messages: u64,
    pub(in crate::broker) bytes: u64,
    pub(in crate::broker) oldest: Option<StoreTime>,
    /// What the store had removed when it last said so.
    removed: Removed,
}

impl Depth {
    /// As the end of a log says.
    pub(in crate::broker) fn of(tail: &LogTail) -> Self {
        let is_empty = tail.last_first == Offset::ZERO;
        let oldest = tail.oldest.or((!is_empty).then_some(tail.last_stored_at));
        Self { messages: tail.messages, bytes: tail.bytes, oldest, removed: tail.removed }
    }

    /// A batch was stored.
    pub(in crate::broker) fn stored(&mut self, messages: u64, bytes: u64, stored_at: StoreTime) {
        self.messages += messages;
        self.bytes += bytes;
        self.oldest.get_or_insert(stored_at);
    }

    /// The store has removed so much by now. What a trim removed whose answer was lost goes with the next.
    pub(in crate::broker) fn trimmed(&mut self, removed: Removed) {
        let gone = |before: i64, now: i64| u64::try_from(now.saturating_sub(before)).unwrap_or_default();
        self.messages = self.messages.saturating_sub(gone(self.removed.messages, removed.messages));
        self.bytes = self.bytes.saturating_sub(gone(self.removed.bytes, removed.bytes));
        self.removed = removed;
    }
}

/// What goes on failing, and when it is said again.
#[derive(Debug, Default)]
pub(in crate::broker) struct Said {
    pub(in crate::broker) activations: Repeat,
    pub(in crate::broker) trims: Repeat,
    pub(in crate::broker) failed_appends: Repeat,
    pub(in crate::broker) refused_batches: Repeat,
    pub(in crate::broker) unknown_outcomes: Repeat,
    pub(in crate::broker) stale_reads: Repeat,
    pub(in crate::broker) corrupt_reads: Repeat,
}

/// What the queue's task shares with its handles and subscriptions.
pub(in crate::broker) struct Shared {
    pub(in crate::broker) id: QueueId,
    pub(in crate::broker) label: QueueLabel,
    /// The newest assignment to this broker that the supervisor saw.
    pub(in crate::broker) assignment: Mutex<Assignment>,
    pub(in crate::broker) tail: Tail,
    pub(in crate::broker) view: watch::Sender<View>,
    pub(in crate::broker) counters: Counters,
    /// Of the room for pushes.
    pub(in crate::broker) share: Arc<Share>,
    pub(in crate::broker) depth: Mutex<Depth>,
    /// When the first of the attempts to activate it failed, of which none has succeeded so far.
    pub(in crate::broker) unserved_since: Mutex<Option<Instant>>,
    /// When the first of the trims failed, of which none has done all that it had to so far.
    pub(in crate::broker) trims_fail_since: Mutex<Option<Instant>>,
    /// Of reads for subscribers.
    pub(in crate::broker) span: Span,
    /// The last offset of the batch that the last failing read could not decode, until a read passes it or a trim removes it.
    pub(in crate::broker) undeliverable: Mutex<Option<Offset>>,
    /// A newer version stored what cannot be read.
    pub(in crate::broker) newer: AtomicBool,
    pub(in crate::broker) said: Said,
    pub(in crate::broker) subscribers: Mutex<BTreeMap<u64, Arc<Subscriber>>>,
    pub(in crate::broker) orders: watch::Sender<Orders>,
    /// A request waits until the queue is served: it is activated before queues that no request waits for.
    pub(in crate::broker) asked_for: Notify,
    /// Shared by all tasks that this process ever ran for the queue.
    pub(in crate::broker) confirmed: Confirmed,
}

/// The newest offset of a queue that was ever acknowledged or delivered by this process, and the epoch then: what the
/// store must not fall behind.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct Confirmed(Arc<Mutex<(Epoch, Offset)>>);

impl Confirmed {
    pub(in crate::broker) fn get(&self) -> (Epoch, Offset) {
        *self.0.lock()
    }

    /// Never goes back: an earlier task of the queue may still be ending when a later one serves.
    pub(in crate::broker) fn raise(&self, epoch: Epoch, end: Offset) {
        let mut confirmed = self.0.lock();
        *confirmed = (*confirmed).max((epoch, end));
    }
}

impl Shared {
    /// Of a queue that is not served yet.
    pub(super) fn new(settings: &BrokerSettings, record: &QueueRecord, confirmed: Confirmed) -> Self {
        let view = View { phase: Phase::Activating, end: Offset::ZERO, evictions: 0, evicted_for: None };
        Self {
            id: record.id,
            label: record.label.clone(),
            assignment: Mutex::new(record.assignment),
            tail: Tail::new(settings.queue_buffer_messages, settings.queue_buffer_bytes),
            view: watch::Sender::new(view),
            counters: Counters::default(),
            share: Share::new(settings.max_pending_bytes),
            depth: Mutex::default(),
            unserved_since: Mutex::default(),
            trims_fail_since: Mutex::default(),
            span: Span::default(),
            undeliverable: Mutex::default(),
            newer: AtomicBool::new(false),
            said: Said::default(),
            subscribers: Mutex::default(),
            orders: watch::Sender::default(),
            asked_for: Notify::new(),
            confirmed,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.view.send_modify(|view| view.phase = phase);
    }

    pub(in crate::broker) fn is_broken(&self, longest_activation: Duration) -> bool {
        let unserved = self.unserved_since.lock().is_some_and(|since| since.elapsed() > longest_activation);
        unserved || self.undeliverable.lock().is_some() || matches!(self.view.borrow().phase, Phase::Halted(_))
    }

    /// A read delivered what lies beyond `after` up to `through`, or a trim removed it.
    pub(in crate::broker) fn passed(&self, after: Offset, through: Offset) {
        self.undeliverable.lock().take_if(|at| after < *at && *at <= through);
    }

    /// Ends all streams; their clients come back, here or elsewhere.
    pub(in crate::broker) fn evict(&self, why: &BrokerError) {
        self.view.send_modify(|view| {
            view.evictions += 1;
            view.evicted_for = Some(why.clone());
        });
    }
}
