//! A hosted queue: one task owns its state; everybody else holds a [`Handle`].

mod activation;
mod actor;
mod batches;
mod recovery;
mod trimming;
mod unsaved;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

pub(super) use actor::{Actor, Context, STOP_GRACE};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    BrokerError, Held, NewMessage, ProducerStamp, QueueCounters, QueuePhase, room::Share, span::Span, tail::Tail,
};
use tokio::time::Instant;

use crate::model::{ChannelId, Epoch, Offset, ProducerId, QueueId, QueueLabel, Sequence, StoreTime, Topic};
use crate::ports::{LogTail, QueueActivity, QueueState, Removed};
use crate::repeat::Repeat;

/// Commands waiting for a queue's task. Senders wait when it is full.
const COMMANDS: usize = 256;

/// A run of pushes on its way to a queue.
pub(super) struct Push {
    /// None: the broker numbers the messages.
    pub(super) producer: Option<(ProducerStamp, Sequence)>,
    pub(super) messages: Vec<NewMessage>,
    /// What it takes of the broker's room, until it is answered.
    pub(super) held: Held,
    pub(super) reply: oneshot::Sender<Result<Pushed, BrokerError>>,
}

/// A run that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pushed {
    /// The producer that the messages are stored under.
    pub(super) key: crate::model::ProducerKey,
    /// Sequence of its last message.
    pub(super) through: Sequence,
    /// Offset of its last message, if it is known.
    pub(super) offset: Option<Offset>,
    /// How many of its messages had been stored before.
    pub(super) duplicates: u64,
}

pub(super) enum Command {
    Push(Box<Push>),
    /// A named producer has a new incarnation: answers with its last stored sequence, as soon as that is certain.
    Open {
        id: ProducerId,
        incarnation: u64,
        reply: oneshot::Sender<Sequence>,
    },
}

/// What the host wants of a queue's task. Not a command: it is seen also by a task that takes none, and giving it never
/// waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    /// One more whenever the queue is to be claimed, and its log read, again.
    pub(super) verifications: u64,
    /// Take no more commands, store what was accepted, then end.
    pub(super) stop: Option<BrokerError>,
}

/// What everybody may know of a queue.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) phase: Phase,
    /// The newest durable offset.
    pub(super) end: Offset,
    /// One more whenever all streams are to end, and why they are.
    pub(super) evictions: u64,
    pub(super) evicted_for: Option<BrokerError>,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    Activating,
    Serving(Epoch),
    Recovering(Epoch),
    Halted(BrokerError),
    Ended(BrokerError),
}

/// A subscription, as the queue's other users see it.
pub(super) struct Subscriber {
    pub(super) channel: ChannelId,
    pub(super) topic: Topic,
    pub(super) peer: String,
    /// Everything up to here was handed over.
    pub(super) offset: AtomicU64,
    /// Set when this one alone is to end.
    pub(super) ended: watch::Sender<Option<BrokerError>>,
}

/// Counters of a queue; see [`QueueCounters`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) pushed: AtomicU64,
    pub(super) pushed_bytes: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) unknown_appends: AtomicU64,
    pub(super) claims: AtomicU64,
    pub(super) store_reads: AtomicU64,
    pub(super) stale_reads: AtomicU64,
    pub(super) corrupt_reads: AtomicU64,
    pub(super) failed_activations: AtomicU64,
    pub(super) failed_trims: AtomicU64,
}

impl Counters {
    fn read(&self) -> QueueCounters {
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
pub(super) struct Depth {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) oldest: Option<StoreTime>,
    /// What the store had removed when it last said so.
    removed: Removed,
}

impl Depth {
    /// As the end of a log says.
    pub(super) fn of(tail: &LogTail) -> Self {
        let is_empty = tail.last_first == Offset::ZERO;
        let oldest = tail.oldest.or((!is_empty).then_some(tail.last_stored_at));
        Self { messages: tail.messages, bytes: tail.bytes, oldest, removed: tail.removed }
    }

    /// A batch was stored.
    pub(super) fn stored(&mut self, messages: u64, bytes: u64, stored_at: StoreTime) {
        self.messages += messages;
        self.bytes += bytes;
        self.oldest.get_or_insert(stored_at);
    }

    /// The store has removed so much by now. What a trim removed whose answer was lost goes with the next.
    pub(super) fn trimmed(&mut self, removed: Removed) {
        let gone = |before: i64, now: i64| u64::try_from(now.saturating_sub(before)).unwrap_or_default();
        self.messages = self.messages.saturating_sub(gone(self.removed.messages, removed.messages));
        self.bytes = self.bytes.saturating_sub(gone(self.removed.bytes, removed.bytes));
        self.removed = removed;
    }
}

/// What goes on failing, and when it is said again.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) activations: Repeat,
    pub(super) trims: Repeat,
    pub(super) failed_appends: Repeat,
    pub(super) refused_batches: Repeat,
    pub(super) unknown_outcomes: Repeat,
    pub(super) stale_reads: Repeat,
    pub(super) corrupt_reads: Repeat,
}

/// What the queue's task shares with its handles and subscriptions.
pub(super) struct Shared {
    pub(super) id: QueueId,
    pub(super) label: QueueLabel,
    /// The newest assignment to this broker that the host saw; they are numbered from 1.
    pub(super) assignment: AtomicU64,
    pub(super) tail: Tail,
    pub(super) view: watch::Sender<View>,
    pub(super) counters: Counters,
    /// Of the room for pushes.
    pub(super) share: Arc<Share>,
    pub(super) depth: Mutex<Depth>,
    /// When the first of the attempts to activate it failed, of which none has succeeded so far.
    pub(super) unserved_since: Mutex<Option<Instant>>,
    /// When the first of the trims failed, of which none has done all that it had to so far.
    pub(super) trims_fail_since: Mutex<Option<Instant>>,
    /// Of reads for subscribers.
    pub(super) span: Span,
    /// The last offset of the batch that the last failing read could not decode, until a read passes it or a trim removes it.
    pub(super) undeliverable: Mutex<Option<Offset>>,
    /// A newer version stored what cannot be read.
    pub(super) newer: AtomicBool,
    pub(super) said: Said,
    pub(super) subscribers: Mutex<BTreeMap<u64, Arc<Subscriber>>>,
    pub(super) orders: watch::Sender<Orders>,
    /// Somebody waits until the queue is served: it is activated before those for which nobody does.
    pub(super) asked_for: Notify,
    /// Shared by all tasks that this process ever ran for the queue.
    pub(super) confirmed: Confirmed,
}

/// The newest offset of a queue that was ever acknowledged or delivered by this process, and the epoch then: what the
/// store must not fall behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Confirmed(Arc<Mutex<(Epoch, Offset)>>);

impl Confirmed {
    pub(super) fn get(&self) -> (Epoch, Offset) {
        *self.0.lock()
    }

    /// Never goes back: an earlier task of the queue may still be ending when a later one serves.
    pub(super) fn raise(&self, epoch: Epoch, end: Offset) {
        let mut confirmed = self.0.lock();
        *confirmed = (*confirmed).max((epoch, end));
    }
}

impl Shared {
    pub(super) fn is_broken(&self, longest_activation: Duration) -> bool {
        let unserved = self.unserved_since.lock().is_some_and(|since| since.elapsed() > longest_activation);
        unserved || self.undeliverable.lock().is_some() || matches!(self.view.borrow().phase, Phase::Halted(_))
    }

    /// A read delivered what lies beyond `after` up to `through`, or a trim removed it.
    pub(super) fn passed(&self, after: Offset, through: Offset) {
        self.undeliverable.lock().take_if(|at| after < *at && *at <= through);
    }

    /// Ends all streams; their clients come back, here or elsewhere.
    pub(super) fn evict(&self, why: &BrokerError) {
        self.view.send_modify(|view| {
            view.evictions += 1;
            view.evicted_for = Some(why.clone());
        });
    }
}

/// Why a queue that is being activated is not served; `failing`: for how long attempts have failed.
fn why_activating(failing: Option<Duration>) -> String {
    match failing {
        None => "the broker claims the queue and reads its log".to_owned(),
        Some(since) => {
            let secs = since.as_secs();
            format!("the broker has failed to activate the queue for {secs} s; its log says why")
        }
    }
}

/// A hosted queue, as the rest of the broker holds it.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
}

impl Handle {
    /// Waits until the queue is served.
    ///
    /// # Errors
    /// Why it ended or was halted; `Overloaded`-like unavailability after `timeout`.
    pub(super) async fn served(&self, timeout: Duration) -> Result<Epoch, BrokerError> {
        let mut view = self.shared.view.subscribe();
        if matches!(view.borrow().phase, Phase::Activating) {
            mark!(ActivationAwaited);
            self.shared.asked_for.notify_one();
        }
        let wait = view.wait_for(|view| !matches!(view.phase, Phase::Activating));
        match tokio::time::timeout(timeout, wait).await {
            Ok(Ok(view)) => match &view.phase {
                Phase::Serving(epoch) | Phase::Recovering(epoch) => Ok(*epoch),
                Phase::Halted(error) | Phase::Ended(error) => Err(error.clone()),
                Phase::Activating => unreachable!("waited for another phase"),
            },
            Ok(Err(_)) => Err(BrokerError::NotHosted { assignee: None }),
            Err(_) => {
                mark!(ActivationTimedOut);
                Err(BrokerError::ActivationTimeout(timeout))
            }
        }
    }

    /// Hands a command over; waits while the queue's task is busy.
    ///
    /// # Errors
    /// Why the queue ended.
    pub(super) async fn send(&self, command: Command) -> Result<(), BrokerError> {
        self.commands.send(command).await.map_err(|_| self.why_ended())
    }

    /// Has the queue store what it accepted, and end.
    pub(super) fn stop(&self, why: &BrokerError) {
        self.shared.orders.send_modify(|orders| {
            orders.stop.get_or_insert_with(|| why.clone());
        });
    }

    /// Has the queue claimed and read again: the store may have gone back, or somebody else served it meanwhile.
    pub(super) fn verify(&self) {
        // First of all nobody is to rely on what is known of it; the other way round this could undo the activation.
        self.shared.view.send_if_modified(|view| {
            // A recovery knows the epoch before the one that it is about to claim.
            let serving = matches!(view.phase, Phase::Serving(_) | Phase::Recovering(_));
            if serving {
                view.phase = Phase::Activating;
            }
            serving
        });
        self.shared.orders.send_modify(|orders| orders.verifications += 1);
    }

    pub(super) fn why_ended(&self) -> BrokerError {
        match &self.shared.view.borrow().phase {
            Phase::Ended(error) | Phase::Halted(error) => error.clone(),
            _ => self.shared.orders.borrow().stop.clone().unwrap_or(BrokerError::NotHosted { assignee: None }),
        }
    }

    pub(super) fn status(&self, now: StoreTime) -> super::QueueStatus {
        let view = self.shared.view.borrow().clone();
        let (phase, epoch) = match view.phase {
            Phase::Activating => (QueuePhase::Activating, Epoch::ZERO),
            Phase::Serving(epoch) => (QueuePhase::Serving, epoch),
            Phase::Recovering(epoch) => (QueuePhase::Recovering, epoch),
            Phase::Halted(_) | Phase::Ended(_) => (QueuePhase::Halted, Epoch::ZERO),
        };
        let depth = *self.shared.depth.lock();
        super::QueueStatus {
            label: self.shared.label.clone(),
            queue: self.shared.id,
            phase,
            epoch,
            // The first assignment is no move.
            moves: self.shared.assignment.load(Relaxed).saturating_sub(1),
            last_offset: view.end,
            depth_messages: depth.messages,
            depth_bytes: depth.bytes,
            oldest_age: depth.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)),
            subscribers: self.subscribers(view.end),
            unserved: self.shared.unserved_since.lock().map(|since| since.elapsed()),
            trims_failing: self.shared.trims_fail_since.lock().map(|since| since.elapsed()),
            undeliverable: *self.shared.undeliverable.lock(),
            newer: self.shared.newer.load(Relaxed),
            counters: self.shared.counters.read(),
        }
    }

    /// What a list says of it.
    pub(super) fn state(&self, now: StoreTime) -> QueueState {
        let view = self.shared.view.borrow().clone();
        let unserved = || self.shared.unserved_since.lock().map(|since| since.elapsed());
        let (activity, reason, epoch) = match view.phase {
            Phase::Activating => (QueueActivity::Waiting, Some(why_activating(unserved())), Epoch::ZERO),
            Phase::Serving(epoch) => (QueueActivity::Served, None, epoch),
            Phase::Recovering(epoch) => {
                (QueueActivity::Waiting, Some("the broker finds out what became of an append".to_owned()), epoch)
            }
            Phase::Halted(error) => (QueueActivity::Halted, Some(error.to_string()), Epoch::ZERO),
            Phase::Ended(error) => (QueueActivity::Waiting, Some(error.to_string()), Epoch::ZERO),
        };
        let depth = *self.shared.depth.lock();
        let (subscribers, largest_lag) = {
            let subscribers = self.shared.subscribers.lock();
            let lag = |one: &Arc<Subscriber>| view.end.since(Offset::new(one.offset.load(Relaxed)));
            (subscribers.len() as u64, subscribers.values().map(lag).max().unwrap_or_default())
        };
        QueueState {
            queue: self.shared.id,
            activity,
            reason,
            epoch,
            last_offset: view.end,
            depth_messages: depth.messages,
            depth_bytes: depth.bytes,
            oldest_age: depth.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)),
            subscribers,
            largest_lag,
        }
    }

    fn subscribers(&self, end: Offset) -> Vec<crate::ports::SubscriberDescription> {
        let subscribers = self.shared.subscribers.lock();
        subscribers
            .values()
            .map(|subscriber| {
                let offset = Offset::new(subscriber.offset.load(Relaxed));
                crate::ports::SubscriberDescription {
                    channel: subscriber.channel,
                    topic: subscriber.topic.clone(),
                    peer: subscriber.peer.clone(),
                    offset,
                    lag: end.since(offset),
                }
            })
            .collect()
    }
}
