//! A queue's handle: what the rest of the broker asks of its task, and knows of it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    command::Command,
    shared::{Phase, Shared, Subscriber},
};
use crate::{
    broker::{BrokerError, QueuePhase, QueueStatus},
    model::{Assignment, Epoch, Offset, StoreTime},
    ports::{QueueActivity, QueueState, SubscriberDescription},
};

/// A hosted queue, as the rest of the broker holds it.
#[derive(Clone)]
pub(in crate::broker) struct Handle {
    pub(in crate::broker) shared: Arc<Shared>,
    pub(in crate::broker) commands: mpsc::Sender<Command>,
}

impl Handle {
    /// Waits until the queue is served.
    ///
    /// # Errors
    /// Why it ended or was halted; [`BrokerError::ActivationTimeout`] after `timeout`.
    pub(in crate::broker) async fn served(&self, timeout: Duration) -> Result<Epoch, BrokerError> {
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
    pub(in crate::broker) async fn send(&self, command: Command) -> Result<(), BrokerError> {
        self.commands.send(command).await.map_err(|_| self.why_ended())
    }

    /// Has the queue store what it accepted, and end.
    pub(in crate::broker) fn stop(&self, why: &BrokerError) {
        self.shared.orders.send_modify(|orders| {
            orders.stop.get_or_insert_with(|| why.clone());
        });
    }

    /// Has the queue claimed and read again: the store may have gone back, or somebody else served it meanwhile.
    pub(in crate::broker) fn verify(&self) {
        // The phase changes before the order is given. The other way round it could undo the activation.
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

    pub(in crate::broker) fn why_ended(&self) -> BrokerError {
        match &self.shared.view.borrow().phase {
            Phase::Ended(error) | Phase::Halted(error) => error.clone(),
            _ => self.shared.orders.borrow().stop.clone().unwrap_or(BrokerError::NotHosted { assignee: None }),
        }
    }

    pub(in crate::broker) fn status(&self, now: StoreTime) -> QueueStatus {
        let view = self.shared.view.borrow().clone();
        let (phase, epoch) = match view.phase {
            Phase::Activating => (QueuePhase::Activating, Epoch::ZERO),
            Phase::Serving(epoch) => (QueuePhase::Serving, epoch),
            Phase::Recovering(epoch) => (QueuePhase::Recovering, epoch),
            Phase::Halted(_) | Phase::Ended(_) => (QueuePhase::Halted, Epoch::ZERO),
        };
        let depth = *self.shared.depth.lock();
        QueueStatus {
            label: self.shared.label.clone(),
            queue: self.shared.id,
            phase,
            epoch,
            // The first assignment does not count as a move.
            moves: self.shared.assignment.lock().since(Assignment::ZERO.next()),
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
    pub(in crate::broker) fn state(&self, now: StoreTime) -> QueueState {
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

    fn subscribers(&self, end: Offset) -> Vec<SubscriberDescription> {
        let subscribers = self.shared.subscribers.lock();
        subscribers
            .values()
            .map(|subscriber| {
                let offset = Offset::new(subscriber.offset.load(Relaxed));
                SubscriberDescription {
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
