//! Pushing, one by one or as a stream, and opening a named producer.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    api::{BrokerError, OpenPush, OpenedProducer, ProducerStamp, PushReceipt, PushRequest, PushRun, RunReceipt},
    handle::Broker,
    inner::{Inner, MAX_OPENINGS},
    queue::{Command, Handle, Push, Pushed},
    room::{Held, PushRoom},
};
use crate::{
    access::{Call, Permit, Right},
    frame::encoded_len,
    model::{Header, NewMessage, ProducerId, QueueId, QueueLabel, Sequence},
    ports::{Opened, StoreError},
};

impl Broker<Call> {
    /// Pushes one message; answers once it is durable.
    ///
    /// # Errors
    /// Nothing was stored, unless the code is `OutcomeUnknown`.
    pub async fn push(&self, push: PushRequest) -> Result<PushReceipt, BrokerError> {
        let held = self.room().take_now_or_wait(encoded_len(&push.message)).await?;
        self.push_held(push, held).await
    }

    /// As [`Broker::push`], for a message whose bytes were counted before it was read.
    ///
    /// # Errors
    /// As [`Broker::push`].
    pub async fn push_held(&self, push: PushRequest, mut held: Held) -> Result<PushReceipt, BrokerError> {
        let (inner, permit) = self.admit(Right::Push.on_queue(&push.label))?;
        let handle = inner.queue_named(&push.label, push.queue, permit.caller().origin()).await?;
        // Before the queue is waited for: else the pushes to one that is activated would fill the broker's room.
        inner.room_of(&handle).share(&mut held).await?;
        handle.served(inner.settings.activation_timeout).await?;
        if let Some((stamp, sequence)) = &push.producer {
            check_stamp(stamp, *sequence, 1)?;
        }
        let answer = inner.submit(&handle, push.producer, vec![push.message], held).await?;
        let pushed = answer.wait().await?;
        Ok(PushReceipt {
            queue: handle.shared.id,
            id: pushed.key.message_id(handle.shared.id, pushed.through),
            offset: pushed.offset,
            duplicate: pushed.duplicates > 0,
        })
    }

    /// Opens a stream of pushes.
    ///
    /// # Errors
    /// [`BrokerError::QueueNotFound`], [`BrokerError::QueueReplaced`], [`BrokerError::NotHosted`], and others that mean
    /// trying again.
    pub async fn open_push(&self, open: OpenPush) -> Result<PushSession, BrokerError> {
        let (inner, permit) = self.admit(Right::Push.on_queue(&open.label))?;
        let handle = inner.queue_named(&open.label, open.queue, permit.caller().origin()).await?;
        handle.served(inner.settings.activation_timeout).await?;
        Ok(PushSession { permit, inner: inner.clone(), handle, producer: open.producer })
    }

    /// Gives a named producer its next epoch in a queue hosted here; earlier ones are refused from now on.
    ///
    /// # Errors
    /// As [`Broker::rebuild_queue`]; [`BrokerError::TooManyProducers`].
    pub async fn open_producer(&self, label: &QueueLabel, producer: ProducerId) -> Result<OpenedProducer, BrokerError> {
        let (inner, permit) = self.admit(Right::Push.on_queue(label))?;
        inner.ready()?;
        let handle = inner.hosted(label, permit.caller().origin()).await?;
        handle.served(inner.settings.activation_timeout).await?;
        let queue = handle.shared.id;
        let timeout = inner.settings.activation_timeout;
        let late = |_| BrokerError::ActivationTimeout(timeout);
        let limit = inner.settings.max_named_producers_per_queue;
        let most = u32::try_from(limit).unwrap_or(u32::MAX);
        let opened = {
            let overloaded =
                |_| BrokerError::Overloaded { what: "named producers that are opened at once", limit: MAX_OPENINGS };
            let _turn = tokio::time::timeout(timeout, inner.openings.take_first()).await.map_err(overloaded)?;
            inner.write(inner.logs.of(queue).log.open_producer(queue, producer, most)).await??
        };
        let epoch = match opened {
            Opened::Given(epoch) => epoch,
            Opened::TooMany => {
                return Err(BrokerError::TooManyProducers { setting: "max_named_producers_per_queue", limit });
            }
            Opened::Deleted => return Err(BrokerError::QueueReplaced { queue }),
        };
        let (reply, answer) = oneshot::channel();
        handle.send(Command::Open { id: producer, epoch, reply }).await?;
        let last_sequence =
            tokio::time::timeout(timeout, answer).await.map_err(late)?.map_err(|_| handle.why_ended())?;
        Ok(OpenedProducer { queue, epoch, last_sequence })
    }
}

/// A stream of pushes to one queue; runs are stored in the order of submission.
pub struct PushSession {
    permit: Permit,
    inner: Arc<Inner>,
    handle: Handle,
    producer: Option<ProducerStamp>,
}

impl PushSession {
    /// The queue.
    #[must_use]
    pub fn queue(&self) -> QueueId {
        self.handle.shared.id
    }

    /// The room that a reader of the stream's messages takes before it reads them.
    #[must_use]
    pub fn room(&self) -> PushRoom {
        self.inner.room_of(&self.handle)
    }

    /// Accepts a run, as [`PushSession::submit_held`] does, once there is room for it.
    ///
    /// # Errors
    /// As [`PushSession::submit_held`].
    pub async fn submit(
        &mut self,
        run: PushRun,
    ) -> Result<impl Future<Output = Result<RunReceipt, BrokerError>> + Send + 'static + use<>, BrokerError> {
        let held = self.room().take_now_or_wait(run.messages.iter().map(encoded_len).sum()).await?;
        self.submit_held(run, held).await
    }

    /// Accepts a run; waits while buffers are full. The future it returns resolves when the run is durable, or with the
    /// error that ends the stream; it need not be polled for the run to be stored. Of a run that fails its beginning may be
    /// stored, if it did not fit one batch; pushed again, that is found to be a duplicate.
    ///
    /// # Errors
    /// The run was not accepted, and none of it will be stored.
    pub async fn submit_held(
        &mut self,
        run: PushRun,
        held: Held,
    ) -> Result<impl Future<Output = Result<RunReceipt, BrokerError>> + Send + 'static + use<>, BrokerError> {
        let PushRun { first, messages, lowest_unacknowledged } = run;
        if messages.is_empty() {
            return Err(BrokerError::Invalid { field: "messages", reason: "a run has at least one message" });
        }
        let count = messages.len() as u64;
        let producer = match &mut self.producer {
            Some(stamp) => {
                if let Some(lowest) = lowest_unacknowledged {
                    stamp.lowest_unacknowledged = lowest;
                }
                check_stamp(stamp, first, count)?;
                Some((*stamp, first))
            }
            None => {
                check_sequences(first, count)?;
                None
            }
        };
        let through = first.plus(count - 1);
        self.permit.check()?;
        self.inner.ready()?;
        let answer = self.inner.submit(&self.handle, producer, messages, held).await?;
        Ok(async move {
            let Pushed { offset, duplicates, .. } = answer.wait().await?;
            Ok(RunReceipt { through, offset, duplicates })
        })
    }
}

fn invalid(field: &'static str, reason: &'static str) -> Result<(), BrokerError> {
    Err(BrokerError::Invalid { field, reason })
}

/// Also the sequence after the last has to be one.
fn check_sequences(first: Sequence, count: u64) -> Result<(), BrokerError> {
    if first == Sequence::ZERO {
        return invalid("sequence", "sequences start at 1");
    }
    if Sequence::parse(first.get().saturating_add(count)).is_err() {
        return invalid("sequence", "sequences end below 2^63");
    }
    Ok(())
}

/// What the client says about its sequences must make sense by itself.
fn check_stamp(stamp: &ProducerStamp, first: Sequence, count: u64) -> Result<(), BrokerError> {
    check_sequences(first, count)?;
    if stamp.lowest_unacknowledged == Sequence::ZERO {
        return invalid("lowest_unacknowledged", "sequences start at 1");
    }
    if stamp.lowest_unacknowledged > first.plus(count) {
        return invalid("lowest_unacknowledged", "it cannot be beyond the messages that are pushed");
    }
    Ok(())
}

/// The answer to a submitted run.
struct Answer {
    reply: oneshot::Receiver<Result<Pushed, BrokerError>>,
}

impl Answer {
    async fn wait(self) -> Result<Pushed, BrokerError> {
        self.reply
            .await
            .unwrap_or_else(|_| Err(StoreError::Unknown("the broker stopped during the push".into()).into()))
    }
}

impl Inner {
    fn room_of(&self, handle: &Handle) -> PushRoom {
        PushRoom::new(self.room.clone(), Some(handle.shared.share.clone()))
    }

    /// Hands a run to its queue.
    async fn submit(
        &self,
        handle: &Handle,
        producer: Option<(ProducerStamp, Sequence)>,
        messages: Vec<NewMessage>,
        mut held: Held,
    ) -> Result<Answer, BrokerError> {
        let sizes = |(encoded, in_memory), message: &NewMessage| {
            (encoded + encoded_len(message), in_memory + size_in_memory(message))
        };
        let (encoded, in_memory) = messages.iter().fold((0, 0), sizes);
        self.room_of(handle).grow(&mut held, encoded, in_memory)?;
        let (reply, answer) = oneshot::channel();
        handle.send(Command::Push(Box::new(Push { producer, messages, held, reply }))).await?;
        Ok(Answer { reply: answer })
    }
}

/// What a message takes while it waits, without what its allocations add.
fn size_in_memory(message: &NewMessage) -> usize {
    size_of::<NewMessage>() + message.content.len() + message.headers.len() * size_of::<Header>()
}
