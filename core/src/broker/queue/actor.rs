//! The task that owns a queue: takes pushes, sends one batch at a time, and tells everybody what became of it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    COMMANDS, Command, Confirmed, Counters, Depth, Handle, Orders, Phase, Push, Pushed, Said, Shared, View,
    activation::Refusal,
    batches::{Batches, Sealed, Waiter, answer, offset_of},
    trimming::Trimming,
    unsaved::Unsaved,
};
use crate::{
    broker::{
        BrokerError, BrokerSettings, NewMessage, ProducerStamp, committer::Committer, count, lease::Lease,
        lease::StoreClock, producers::Producers, room::Share, span::Span, tail::Tail, turns::Turns, validate,
    },
    model::{BrokerId, Epoch, Incarnation, Offset, ProducerId, ProducerKey, QueueId, Sequence, StoreTime},
    ports::{AppendBatch, Appended, Entropy, QueueRecord, Store, StoreError},
};

/// What the queues of a broker share.
pub(in crate::broker) struct Context {
    pub(in crate::broker) settings: BrokerSettings,
    pub(in crate::broker) store: Arc<dyn Store>,
    pub(in crate::broker) entropy: Arc<dyn Entropy>,
    pub(in crate::broker) clock: Arc<StoreClock>,
    pub(in crate::broker) lease: Arc<Lease>,
    pub(in crate::broker) committer: Committer,
    pub(in crate::broker) broker: BrokerId,
    pub(in crate::broker) incarnation: Incarnation,
    /// Appends that found a later epoch, of all queues.
    pub(in crate::broker) fenced_appends: AtomicU64,
    /// Recoveries first, since pushers wait for them; of the others those whose queue somebody asked for.
    pub(in crate::broker) activations: Turns,
    /// Those first for which the opening of a producer waits.
    pub(in crate::broker) trims: Turns,
}

impl Context {
    /// A read of the store, with its deadline.
    pub(in crate::broker) async fn within<T>(
        &self,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timeout = self.settings.store_timeout;
        tokio::time::timeout(timeout, read)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(format!("no answer within {timeout:?}"))))
    }
}

/// The state of a queue under one epoch.
pub(super) struct Log {
    pub(super) epoch: Epoch,
    /// The newest durable offset.
    pub(super) end: Offset,
    /// First offset of the last stored batch.
    pub(super) last_first: Offset,
    pub(super) last_stored_at: StoreTime,
    pub(super) unsaved: Unsaved,
    pub(super) producers: Producers,
    pub(super) batches: Batches,
    pub(super) openings: Vec<Opening>,
}

/// Somebody who opened a named producer and waits for its last sequence.
pub(super) struct Opening {
    id: ProducerId,
    reply: oneshot::Sender<Sequence>,
    pub(super) proof: Proof,
}

/// Whether the store has shown, after an incarnation was given out, that this broker still owned the queue: then whoever
/// owns it next knows the incarnation, and nothing of an earlier one was stored elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Missing,
    /// A fenced call is under way.
    Asked,
    Given,
}

impl Log {
    /// Notes how far the proofs are that some openings wait for.
    pub(super) fn prove(&mut self, from: Proof, to: Proof) {
        for opening in self.openings.iter_mut().filter(|opening| opening.proof == from) {
            opening.proof = to;
        }
    }

    /// Answers the openings whose last sequence cannot change any more: what their earlier incarnations pushed has an
    /// outcome.
    fn answer_openings(&mut self) {
        let (mut open, producers) = (std::mem::take(&mut self.openings), &self.producers);
        for opening in open.extract_if(.., |opening| opening.proof == Proof::Given && !producers.is_pending(opening.id))
        {
            let last = producers.last(opening.id).map_or(Sequence::ZERO, |last| last.sequence);
            let _ = opening.reply.send(last);
        }
        self.openings = open;
    }
}

/// The batch that is being stored.
pub(super) struct InFlight {
    pub(super) sealed: Sealed,
    pub(super) epoch: Epoch,
    /// The estimate of the store's clock then.
    pub(super) sent_at: StoreTime,
    pub(super) append: Pin<Box<dyn Future<Output = Result<Appended, StoreError>> + Send>>,
}

/// How serving ended.
pub(super) enum Next {
    /// Claim and read again.
    Activate,
    /// This queue is not served here any more.
    End(BrokerError),
    /// It stays, and refuses.
    Halt(BrokerError),
}

/// See the module.
pub(in crate::broker) struct Actor {
    pub(super) context: Arc<Context>,
    pub(super) shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    orders: watch::Receiver<Orders>,
    /// What of the orders has been carried out.
    verified: u64,
    /// What stops the queue, once somebody said so.
    stopping: Option<BrokerError>,
}

impl Actor {
    /// A task for a queue, and the handle on it.
    pub(in crate::broker) fn new(context: Arc<Context>, record: &QueueRecord, confirmed: Confirmed) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let view = View { phase: Phase::Activating, end: Offset::ZERO, evictions: 0, evicted_for: None };
        let shared = Arc::new(Shared {
            id: record.id,
            label: record.label.clone(),
            assignment: AtomicU64::new(record.assignment),
            tail: Tail::new(context.settings.queue_buffer_messages, context.settings.queue_buffer_bytes),
            view: tokio::sync::watch::Sender::new(view),
            counters: Counters::default(),
            share: Share::new(context.settings.max_pending_bytes),
            depth: parking_lot::Mutex::new(Depth::default()),
            unserved_since: parking_lot::Mutex::default(),
            trims_fail_since: parking_lot::Mutex::default(),
            span: Span::default(),
            undeliverable: parking_lot::Mutex::default(),
            newer: AtomicBool::new(false),
            said: Said::default(),
            subscribers: parking_lot::Mutex::default(),
            orders: watch::Sender::default(),
            asked_for: Notify::new(),
            confirmed,
        });
        let orders = shared.orders.subscribe();
        let handle = Handle { shared: shared.clone(), commands: sender };
        (Self { context, shared, commands, orders, verified: 0, stopping: None }, handle)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.shared.view.send_modify(|view| view.phase = phase);
    }

    /// Runs until the queue is not served here any more; returns why.
    pub(in crate::broker) async fn run(mut self) -> BrokerError {
        let why = loop {
            let mut log = match self.activate_or_stop().await {
                Ok(log) => log,
                Err(Next::Halt(error)) => break self.halt(error).await,
                Err(Next::End(error)) => break error,
                Err(Next::Activate) => continue,
            };
            match self.serve(&mut log).await {
                Next::Activate => {}
                Next::End(error) => break error,
                Next::Halt(error) => break self.halt(error).await,
            }
        };
        tracing::info!(queue = %self.shared.label, reason = %why, "no longer serving");
        self.set_phase(Phase::Ended(why.clone()));
        self.shared.evict(&why);
        self.refuse_waiting(&why);
        why
    }

    /// Closes the queue to commands and refuses those that wait.
    fn refuse_waiting(&mut self, why: &BrokerError) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            self.refuse(command, why);
        }
    }

    fn refuse(&self, command: Command, why: &BrokerError) {
        // Whoever opens a producer learns from the closed answer that there is none.
        if let Command::Push(push) = command {
            count(&self.shared.counters.refused, push.messages.len() as u64);
            let _ = push.reply.send(Err(why.clone()));
        }
    }

    async fn activate_or_stop(&mut self) -> Result<Log, Next> {
        // What is ordered up to here is done by this.
        self.verified = self.orders.borrow().verifications;
        // Commands wait meanwhile in their channel.
        let mut orders = self.orders.clone();
        tokio::select! {
            biased;
            // The sender lives as long as `self`.
            Ok(stop) = orders.wait_for(|orders| orders.stop.is_some()) =>
                Err(Next::End(stop.stop.clone().unwrap_or(BrokerError::ShuttingDown))),
            result = self.activate() => result.map_err(|refusal| match refusal {
                Refusal::Lost(error) => Next::End(error),
                Refusal::Halt(error) => Next::Halt(error),
            }),
        }
    }

    /// Refuses everything until told to stop: going on would make it worse.
    async fn halt(&mut self, error: BrokerError) -> BrokerError {
        tracing::error!(queue = %self.shared.label, %error, "queue halted; an operator has to look at the store");
        self.set_phase(Phase::Halted(error.clone()));
        self.shared.evict(&error);
        let mut orders = self.orders.clone();
        loop {
            tokio::select! {
                biased;
                Ok(stop) = orders.wait_for(|orders| orders.stop.is_some()) =>
                    return stop.stop.clone().unwrap_or(BrokerError::ShuttingDown),
                command = self.commands.recv() => match command {
                    Some(command) => self.refuse(command, &error),
                    None => return BrokerError::ShuttingDown,
                },
            }
        }
    }

    /// What the host ordered since the last time: to begin again, or to come to an end.
    fn obey(&mut self) -> Option<Next> {
        let orders = self.orders.borrow_and_update().clone();
        if self.stopping.is_none()
            && let Some(why) = orders.stop
        {
            // What waits is still taken; nothing more comes in.
            self.commands.close();
            self.stopping = Some(why);
        }
        mark!(ActivatedAgain if orders.verifications != self.verified);
        (orders.verifications != self.verified).then_some(Next::Activate)
    }

    async fn serve(&mut self, log: &mut Log) -> Next {
        let mut in_flight: Option<InFlight> = None;
        let mut trimming = Trimming::new(&self.context);
        // The trims of the last activation may have had the last thing to do, and be done.
        self.shared.trims_fail_since.lock().take();
        loop {
            if in_flight.is_none() {
                in_flight = self.send(log);
            }
            log.answer_openings();
            if in_flight.is_none() && self.commands.is_closed() && self.commands.is_empty() {
                return Next::End(self.stopping.clone().unwrap_or(BrokerError::ShuttingDown));
            }
            let event = tokio::select! {
                biased;
                result = async { in_flight.as_mut().expect("guarded").append.as_mut().await }, if in_flight.is_some() =>
                    Event::Appended(result),
                Ok(()) = self.orders.changed() => Event::Ordered,
                Some(command) = self.commands.recv() => Event::Command(command),
                trimmed = trimming.step(&self.context, &self.shared, log) => Event::Trimmed(trimmed),
            };
            match event {
                Event::Appended(result) => {
                    let done = in_flight.take().expect("it answered");
                    if !matches!(result, Ok(Appended::Stored { .. })) {
                        trimming.cancel(log);
                    }
                    match self.appended(log, done, result).await {
                        Ok(again) => in_flight = again,
                        Err(next) => return self.give_up(log, next),
                    }
                }
                Event::Ordered => {
                    if let Some(next) = self.obey() {
                        if let Some(batch) = in_flight {
                            // Its answer does not matter any more: what it stored is found by the next activation.
                            let error = StoreError::Unknown("the queue is being activated again".into()).into();
                            answer(batch.sealed.waiters, Err(&error));
                        }
                        return self.give_up(log, next);
                    }
                }
                Event::Command(command) => self.handle(log, in_flight.as_mut(), command),
                Event::Trimmed(Ok(())) => {}
                Event::Trimmed(Err(error)) => {
                    if let Some(batch) = in_flight {
                        let error = StoreError::Unknown("the queue's owner changed during the append".into()).into();
                        answer(batch.sealed.waiters, Err(&error));
                    }
                    return self.give_up(log, Next::End(error));
                }
            }
        }
    }

    /// Fails whatever is accepted and not in flight.
    fn give_up(&mut self, log: &mut Log, next: Next) -> Next {
        let error = match &next {
            Next::Activate => BrokerError::Behind,
            Next::End(error) | Next::Halt(error) => error.clone(),
        };
        log.producers.forget_accepted();
        log.batches.fail(log.end, &error);
        next
    }

    fn handle(&self, log: &mut Log, in_flight: Option<&mut InFlight>, command: Command) {
        match command {
            Command::Push(push) => self.push(log, in_flight, *push),
            Command::Open { id, incarnation, reply } => {
                mark!(NamedProducerWentOn if log.producers.last(id).is_some());
                mark!(NamedProducerWaited if log.producers.is_pending(id));
                log.producers.open(id, incarnation);
                log.openings.push(Opening { id, reply, proof: Proof::Missing });
            }
        }
    }

    /// Dedupes, validates and accepts a run.
    fn push(&self, log: &mut Log, in_flight: Option<&mut InFlight>, push: Push) {
        let Push { producer, mut messages, held, reply } = push;
        let is_stamped = producer.is_some();
        mark!(ProducerOfBroker if !is_stamped);
        let (stamp, first) = producer.unwrap_or_else(|| {
            // Who names no producer gets one: this broker, with offsets for sequences. They are never used again, so
            // neither are the message ids, even after the producer was idle for so long that it was forgotten.
            let key = ProducerKey { id: ProducerId::new(self.context.incarnation.uuid()), incarnation: 0 };
            let next = Sequence::new(log.batches.next().get());
            (ProducerStamp { key, lowest_unacknowledged: next }, next)
        });
        let total = messages.len() as u64;
        let refuse = |error: BrokerError, reply: oneshot::Sender<_>| {
            count(&self.shared.counters.refused, total);
            let _ = reply.send(Err(error));
        };
        let verdict = match log.producers.judge(&stamp, first, total) {
            Ok(verdict) => verdict,
            Err(error) => return refuse(error, reply),
        };
        let fresh = usize::try_from(verdict.duplicates).map_or(&mut [][..], |old| &mut messages[old..]);
        for message in fresh.iter_mut() {
            message.ttl = message.ttl.or(self.context.settings.message_ttl);
            if let Err(error) = validate(message, &self.context.settings) {
                mark!(PushInvalid);
                return refuse(error, reply);
            }
        }
        if !fresh.is_empty() && log.unsaved.batches() >= self.context.settings.tuning.max_unsaved() {
            mark!(PushHeldForSaving);
            let reason = "the producers of what was stored last could not be saved yet; try again".to_owned();
            return refuse(StoreError::Unavailable(reason).into(), reply);
        }
        let limit = self.context.settings.max_producers_per_queue;
        let (now, retention) = (self.context.clock.at_least(), self.context.settings.producer_retention);
        if !fresh.is_empty() && is_stamped && !log.producers.admits(stamp.key.id, limit, now, retention) {
            return refuse(BrokerError::TooManyProducers { setting: "max_producers_per_queue", limit }, reply);
        }
        count(&self.shared.counters.duplicates, verdict.duplicates);
        let key = stamp.key;
        let through = first.plus(total - 1);
        let mut pushed = Pushed { key, through, offset: None, duplicates: verdict.duplicates };
        if fresh.is_empty() {
            let waiter = Waiter { pushed, reply, _held: held };
            return self.answer_duplicate(log, in_flight, waiter);
        }
        mark!(DuplicateInPart if verdict.duplicates > 0);
        pushed.offset = Some(accept(log, self.shared.id, key, first.plus(verdict.duplicates), fresh));
        log.producers.accept(key, through);
        log.batches.wait(Waiter { pushed, reply, _held: held });
    }

    /// Nothing new in a run: it shares the outcome of what it repeats.
    fn answer_duplicate(&self, log: &mut Log, in_flight: Option<&mut InFlight>, mut waiter: Waiter) {
        let (id, through) = (waiter.pushed.key.id, waiter.pushed.through);
        if let Some(last) = log.producers.last(id)
            && through <= last.sequence
        {
            mark!(DuplicateStored);
            waiter.pushed.offset = (through == last.sequence).then_some(last.offset);
            return answer(vec![waiter], Ok(()));
        }
        if let Some(in_flight) = in_flight
            && let Some(offset) = offset_of(&in_flight.sealed.encoded.runs, id, through)
        {
            mark!(DuplicateInFlight);
            waiter.pushed.offset = Some(offset);
            in_flight.sealed.waiters.push(waiter);
            return;
        }
        if let Some(waiter) = log.batches.wait_for(id, through, waiter) {
            // Below what the producer declared as settled, and never stored: there is nothing to wait for.
            answer(vec![waiter], Ok(()));
        }
    }

    /// Sends the next batch, if there is one.
    fn send(&self, log: &mut Log) -> Option<InFlight> {
        log.batches.seal().map(|sealed| self.append(log, sealed))
    }

    /// Sends a batch under the log's epoch.
    pub(super) fn append(&self, log: &Log, sealed: Sealed) -> InFlight {
        let encoded = &sealed.encoded;
        assert_eq!(encoded.first, log.end.next(), "a batch starts where the log ends");
        let batch = AppendBatch {
            queue: self.shared.id,
            epoch: log.epoch,
            first: encoded.first,
            last: encoded.last,
            previous: log.last_first,
            not_before: log.last_stored_at,
            lifetime_millis: encoded.lifetime_millis,
            format: encoded.format(),
            index: encoded.index.clone(),
            frames: encoded.frames.clone(),
            checksum: encoded.checksum,
        };
        let committer = self.context.committer.clone();
        InFlight {
            sealed,
            epoch: log.epoch,
            sent_at: self.context.clock.at_least(),
            append: Box::pin(async move { committer.append(batch).await }),
        }
    }

    /// Draws the consequences of an append. On success there may be the same batch in flight again.
    async fn appended(
        &mut self,
        log: &mut Log,
        in_flight: InFlight,
        result: Result<Appended, StoreError>,
    ) -> Result<Option<InFlight>, Next> {
        let error: BrokerError = match result {
            Ok(Appended::Stored { stored_at }) => {
                self.context.clock.stored(in_flight.sent_at, stored_at);
                self.committed(log, in_flight.sealed, in_flight.epoch, stored_at);
                return Ok(None);
            }
            Ok(Appended::Fenced { epoch }) if epoch > in_flight.epoch => {
                mark!(AppendFenced);
                count(&self.context.fenced_appends, 1);
                BrokerError::Fenced
            }
            Ok(Appended::Deleted) => {
                mark!(AppendDeleted);
                BrokerError::QueueReplaced { queue: self.shared.id }
            }
            Ok(Appended::Fenced { epoch }) => {
                // The store does not know our epoch any more.
                let confirmed = in_flight.sealed.encoded.first;
                let error = BrokerError::StoreWentBack { end: Offset::ZERO, epoch, confirmed };
                answer(in_flight.sealed.waiters, Err(&error));
                return Err(Next::Halt(error));
            }
            Ok(Appended::WentBack) => {
                let error = BrokerError::StoreWentBack { end: Offset::ZERO, epoch: log.epoch, confirmed: log.end };
                answer(in_flight.sealed.waiters, Err(&error));
                return Err(Next::Halt(error));
            }
            Ok(Appended::Conflict) => {
                let reason = "the offset was taken under this epoch".to_owned();
                return self.recover(log, in_flight, StoreError::Unknown(reason)).await;
            }
            Err(StoreError::Refused(reason)) => {
                // Waiting does not help: say so at once.
                mark!(AppendRefused);
                self.refuse_batch(log, in_flight.sealed, StoreError::Refused(reason));
                return Ok(None);
            }
            Err(error) => return self.recover(log, in_flight, error).await,
        };
        answer(in_flight.sealed.waiters, Err(&error));
        Err(Next::End(error))
    }

    /// A batch is not stored, and will not be: say so, and go on with what comes next.
    pub(super) fn refuse_batch(&self, log: &mut Log, sealed: Sealed, reason: StoreError) {
        let error = BrokerError::Store(reason);
        if let Some(times) = self.shared.said.refused_batches.happened() {
            tracing::error!(queue = %self.shared.label, %error, times, "pushes refused");
        }
        count(&self.shared.counters.refused, sealed.encoded.messages());
        answer(sealed.waiters, Err(&error));
        log.producers.forget_accepted();
        log.batches.fail(log.end, &BrokerError::Behind);
    }

    /// A batch is durable: remember it, serve it, acknowledge it.
    pub(super) fn committed(&self, log: &mut Log, sealed: Sealed, epoch: Epoch, stored_at: StoreTime) {
        let said = &self.shared.said;
        for failing in [&said.failed_appends, &said.refused_batches, &said.unknown_outcomes] {
            failing.went_well();
        }
        let Sealed { encoded, waiters, .. } = sealed;
        log.producers.store(&encoded.runs, stored_at);
        let before = std::mem::replace(&mut log.end, encoded.last);
        log.last_first = encoded.first;
        log.last_stored_at = stored_at;
        let batch = Arc::new(encoded.stored(epoch, stored_at));
        log.unsaved.appended(before, batch.expires_at());
        count(&self.shared.counters.pushed, batch.messages());
        count(&self.shared.counters.pushed_bytes, batch.frame_bytes() as u64);
        self.shared.depth.lock().stored(batch.messages(), batch.frame_bytes() as u64, stored_at);
        self.shared.confirmed.raise(log.epoch, log.end);
        self.shared.tail.push(batch);
        self.shared.view.send_modify(|view| view.end = log.end);
        answer(waiters, Ok(()));
    }
}

/// What the task of a queue waits for.
enum Event {
    Appended(Result<Appended, StoreError>),
    Ordered,
    Command(Command),
    Trimmed(Result<(), BrokerError>),
}

/// Encodes new messages; returns the last one's offset.
fn accept(log: &mut Log, queue: QueueId, key: ProducerKey, first: Sequence, messages: &[NewMessage]) -> Offset {
    let ids = key.message_ids(queue);
    let mut sequence = first;
    let mut last = log.end;
    for message in messages {
        last = log.batches.add(key, sequence, ids.at(sequence), message);
        sequence = sequence.next();
    }
    last
}

/// How long a stopping queue has to store what it accepted.
pub(in crate::broker) const STOP_GRACE: Duration = Duration::from_secs(5);
