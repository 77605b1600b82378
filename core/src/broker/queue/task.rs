//! The task that owns a queue: it takes pushes, sends one batch at a time, and reports the outcome to the pushers.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, watch};

use super::{
    activation::activate,
    append::{append, committed, refuse_batch},
    batches::answer,
    command::{COMMANDS, Command, Orders},
    context::Context,
    ending::Ending,
    handle::Handle,
    log_state::{InFlight, LogState},
    push::{open, push},
    recovery::recover,
    shared::{Confirmed, Phase, Shared},
    trimming::Trimming,
};
use crate::{
    broker::{BrokerError, count::count},
    model::Offset,
    ports::{Appended, QueueRecord, StoreError},
};

/// How long a stopping queue has to store what it accepted.
pub(in crate::broker) const STOP_GRACE: Duration = Duration::from_secs(5);

/// See the module.
pub(in crate::broker) struct QueueTask {
    context: Arc<Context>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    orders: watch::Receiver<Orders>,
    /// The last ordered verification that has been carried out.
    verified: u64,
    /// Why the queue stops, once that was ordered.
    stopping: Option<BrokerError>,
}

impl QueueTask {
    /// A task for a queue, and the handle on it.
    pub(in crate::broker) fn new(context: Arc<Context>, record: &QueueRecord, confirmed: Confirmed) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::new(&context.settings, record, confirmed));
        let orders = shared.orders.subscribe();
        let handle = Handle { shared: shared.clone(), commands: sender };
        (Self { context, shared, commands, orders, verified: 0, stopping: None }, handle)
    }

    /// Runs until the queue is not served here any more; returns why.
    pub(in crate::broker) async fn run(mut self) -> BrokerError {
        let why = loop {
            let mut log = match self.activate_or_stop().await {
                Ok(log) => log,
                Err(Ending::Halt(error)) => break self.halt(error).await,
                Err(Ending::Stop(error)) => break error,
                Err(Ending::Activate) => continue,
            };
            match self.serve(&mut log).await {
                Ending::Activate => {}
                Ending::Stop(error) => break error,
                Ending::Halt(error) => break self.halt(error).await,
            }
        };
        tracing::info!(queue = %self.shared.label, reason = %why, "no longer serving");
        self.shared.set_phase(Phase::Ended(why.clone()));
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
        // A client that opens a producer sees its answer channel close.
        if let Command::Push(push) = command {
            count(&self.shared.counters.refused, push.messages.len() as u64);
            let _ = push.reply.send(Err(why.clone()));
        }
    }

    async fn activate_or_stop(&mut self) -> Result<LogState, Ending> {
        // The activation carries out all orders up to here.
        self.verified = self.orders.borrow().verifications;
        // Commands wait meanwhile in their channel.
        let mut orders = self.orders.clone();
        tokio::select! {
            biased;
            // The sender lives as long as `self`.
            Ok(stop) = orders.wait_for(|orders| orders.stop.is_some()) =>
                Err(Ending::Stop(stop.stop.clone().unwrap_or(BrokerError::ShuttingDown))),
            result = activate(&self.context, &self.shared) => result,
        }
    }

    /// Refuses everything until told to stop: going on would make it worse.
    async fn halt(&mut self, error: BrokerError) -> BrokerError {
        tracing::error!(queue = %self.shared.label, %error, "queue halted; an operator has to look at the store");
        self.shared.set_phase(Phase::Halted(error.clone()));
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

    /// What the supervisor ordered since the last time: to begin again, or to come to an end.
    fn obey(&mut self) -> Option<Ending> {
        let orders = self.orders.borrow_and_update().clone();
        if self.stopping.is_none()
            && let Some(why) = orders.stop
        {
            // Commands that wait are still taken; new ones are refused.
            self.commands.close();
            self.stopping = Some(why);
        }
        mark!(ActivatedAgain if orders.verifications != self.verified);
        (orders.verifications != self.verified).then_some(Ending::Activate)
    }

    async fn serve(&mut self, log: &mut LogState) -> Ending {
        let mut in_flight: Option<InFlight> = None;
        let mut trimming = Trimming::new(&self.context);
        // The trims of the last activation may have had the last thing to do, and be done.
        self.shared.trims_fail_since.lock().take();
        loop {
            if in_flight.is_none() {
                in_flight = log.batches.seal().map(|sealed| append(&self.context, &self.shared, log, sealed));
            }
            log.answer_openings();
            if in_flight.is_none() && self.commands.is_closed() && self.commands.is_empty() {
                return Ending::Stop(self.stopping.clone().unwrap_or(BrokerError::ShuttingDown));
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
                    match appended(&self.context, &self.shared, log, done, result).await {
                        Ok(again) => in_flight = again,
                        Err(ending) => return give_up(log, ending),
                    }
                }
                Event::Ordered => {
                    if let Some(ending) = self.obey() {
                        if let Some(batch) = in_flight {
                            // Its answer does not matter any more: what it stored is found by the next activation.
                            let error = StoreError::Unknown("the queue is being activated again".into()).into();
                            answer(batch.sealed.waiters, Err(&error));
                        }
                        return give_up(log, ending);
                    }
                }
                Event::Command(command) => self.handle(log, in_flight.as_mut(), command),
                Event::Trimmed(Ok(())) => {}
                Event::Trimmed(Err(ending)) => {
                    if let Some(batch) = in_flight {
                        let error = StoreError::Unknown("the queue's owner changed during the append".into()).into();
                        answer(batch.sealed.waiters, Err(&error));
                    }
                    return give_up(log, ending);
                }
            }
        }
    }

    fn handle(&self, log: &mut LogState, in_flight: Option<&mut InFlight>, command: Command) {
        match command {
            Command::Push(run) => push(&self.context, &self.shared, log, in_flight, *run),
            Command::Open { id, epoch, reply } => open(log, id, epoch, reply),
        }
    }
}

/// What the task of a queue waits for.
enum Event {
    Appended(Result<Appended, StoreError>),
    Ordered,
    Command(Command),
    Trimmed(Result<(), Ending>),
}

/// Fails whatever is accepted and not in flight.
fn give_up(log: &mut LogState, ending: Ending) -> Ending {
    let error = match &ending {
        Ending::Activate => BrokerError::Behind,
        Ending::Stop(error) | Ending::Halt(error) => error.clone(),
    };
    log.producers.forget_accepted();
    log.batches.fail(log.end, &error);
    ending
}

/// Draws the consequences of an append. On success there may be the same batch in flight again.
async fn appended(
    context: &Context,
    shared: &Shared,
    log: &mut LogState,
    in_flight: InFlight,
    result: Result<Appended, StoreError>,
) -> Result<Option<InFlight>, Ending> {
    let error: BrokerError = match result {
        Ok(Appended::Stored { stored_at }) => {
            context.logs.of(shared.id).clock.stored(in_flight.sent_at, stored_at);
            committed(shared, log, in_flight.sealed, in_flight.epoch, stored_at);
            return Ok(None);
        }
        Ok(Appended::Fenced { epoch }) if epoch > in_flight.epoch => {
            mark!(AppendFenced);
            count(&context.fenced_appends, 1);
            BrokerError::Fenced
        }
        Ok(Appended::Deleted) => {
            mark!(AppendDeleted);
            BrokerError::QueueReplaced { queue: shared.id }
        }
        Ok(Appended::Fenced { epoch }) => {
            // The store does not know our epoch any more.
            let confirmed = in_flight.sealed.encoded.first;
            let error = BrokerError::StoreRolledBack { end: Offset::ZERO, epoch, confirmed };
            answer(in_flight.sealed.waiters, Err(&error));
            return Err(Ending::Halt(error));
        }
        Ok(Appended::RolledBack) => {
            let error = BrokerError::StoreRolledBack { end: Offset::ZERO, epoch: log.epoch, confirmed: log.end };
            answer(in_flight.sealed.waiters, Err(&error));
            return Err(Ending::Halt(error));
        }
        Ok(Appended::Conflict) => {
            let reason = "the offset was taken under this epoch".to_owned();
            return recover(context, shared, log, in_flight, StoreError::Unknown(reason)).await;
        }
        Err(StoreError::Refused(reason)) => {
            // Waiting does not help: say so at once.
            mark!(AppendRefused);
            refuse_batch(shared, log, in_flight.sealed, StoreError::Refused(reason));
            return Ok(None);
        }
        Err(error) => return recover(context, shared, log, in_flight, error).await,
    };
    answer(in_flight.sealed.waiters, Err(&error));
    Err(Ending::Stop(error))
}
