//! Producers: pushes that are stored once and in order, despite retries.

mod driver;
mod queue;
mod stream;
mod tickets;

use std::{fmt, sync::Arc, time::Duration};

use rmom_proto::contract::{limits::MAX_PRODUCER_NAME_BYTES, producer_id};
use tokio::time::Instant;
use tracing::debug;

pub use tickets::{Delivery, Receipt};

use crate::{
    Client, Error, NewMessage,
    backoff::Backoff,
    config::check_delivery_timeout,
    names::check_label,
    new_id,
    route::{Route, Target},
};
use driver::{Driver, Identity, Start};
use queue::Queue;

/// Sets up a [`Producer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ProducerBuilder {
    client: Client,
    label: String,
    name: Option<String>,
    max_messages: usize,
    max_bytes: usize,
    delivery_timeout: Duration,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client, label: String) -> Self {
        let delivery_timeout = client.settings().delivery_timeout;
        Self { client, label, name: None, max_messages: 16_384, max_bytes: 32 << 20, delivery_timeout }
    }

    /// Gives the producer a name that outlives the process. A producer opened again under the name, perhaps elsewhere,
    /// learns how many messages of this queue it has stored ([`Producer::stored_before`]), so that an import can continue
    /// where it stopped. Opening it shuts out the producer that used the name before. Names are case-sensitive, and apply
    /// per queue.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Limits the messages and bytes that are accepted and not yet acknowledged; [`Producer::send`] waits while a limit is
    /// reached. Default: 16,384 messages, 32 MiB.
    pub fn max_in_flight(mut self, messages: usize, bytes: usize) -> Self {
        (self.max_messages, self.max_bytes) = (messages, bytes);
        self
    }

    /// Like [`ClientBuilder::delivery_timeout`](crate::ClientBuilder::delivery_timeout), for this producer.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Starts the producer. A named producer asks the hosting broker what it has stored, and retries for as long as the
    /// delivery timeout; an unnamed one connects at its first message.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::InvalidName`]; for a named producer also any error that keeps it from reaching its
    /// broker.
    pub async fn open(self) -> Result<Producer, Error> {
        check_label(&self.label)?;
        check_delivery_timeout(self.delivery_timeout)?;
        if self.max_messages == 0 || self.max_bytes == 0 {
            let reason = "neither limit can be zero".to_owned();
            return Err(Error::Config { setting: "max_in_flight", reason });
        }
        let mut route = Route::new(Target::Queue(self.label.clone()));
        let start = match &self.name {
            None => Start {
                identity: Identity::Random { id: new_id(self.client.settings()) },
                stored_before: 0,
                queue_id: 0,
            },
            Some(name) => self.open_named(name, &mut route).await?,
        };
        let limit = tokio::sync::Semaphore::MAX_PERMITS;
        let queue = Arc::new(Queue::new(
            self.max_messages.min(limit),
            self.max_bytes.min(u32::MAX as usize),
            self.client.settings().moments.clone(),
        ));
        let max_message_bytes = self.client.settings().max_message_bytes;
        tokio::spawn(Driver::new(self, queue.clone(), route, start).run());
        Ok(Producer { handle: Arc::new(Handle { queue, max_message_bytes, stored_before: start.stored_before }) })
    }

    async fn open_named(&self, name: &str, route: &mut Route) -> Result<Start, Error> {
        if !(1..=MAX_PRODUCER_NAME_BYTES).contains(&name.len()) {
            let reason = format!("has {} bytes; it takes 1 to {MAX_PRODUCER_NAME_BYTES}", name.len());
            return Err(Error::InvalidName { field: "producer name", reason });
        }
        let id = producer_id(name);
        let settings = self.client.settings();
        let give_up_at = Instant::now() + self.delivery_timeout;
        let mut backoff = Backoff::new(settings);
        let mut last = None;
        loop {
            let attempt = async {
                let authority = route.find(&self.client).await?;
                let channel = self.client.dialer().channel(&authority)?;
                stream::open_producer(channel, &authority, self.label.clone(), id, settings.open_timeout).await
            };
            let error = match tokio::time::timeout_at(give_up_at, attempt).await {
                Ok(Ok(opened)) => {
                    let identity = Identity::Named { id, epoch: Some(opened.producer_epoch) };
                    return Ok(Start { identity, stored_before: opened.last_sequence, queue_id: opened.queue_id });
                }
                Ok(Err(error)) => error,
                Err(_) => {
                    return Err(Error::DeliveryTimeout { after: self.delivery_timeout, last: last.map(Arc::new) });
                }
            };
            if !error.is_retryable() {
                return Err(error);
            }
            // An attempt that is refused at once, and all that follow, would otherwise end before the timer finds that the
            // time is up.
            if Instant::now() >= give_up_at {
                return Err(Error::DeliveryTimeout { after: self.delivery_timeout, last: Some(Arc::new(error)) });
            }
            let wait = if route.failed(&error) { Duration::ZERO } else { backoff.next(settings) };
            debug!(queue = self.label, name, %error, ?wait, "opening a named producer is tried again");
            last = Some(error);
            tokio::time::sleep_until(give_up_at.min(Instant::now() + wait)).await;
        }
    }
}

/// Pushes messages to one queue. Until the delivery timeout, they are stored once and in the order in which they were
/// accepted, whatever breaks in between. Clones share everything. Once the last one is dropped, accepted messages are still
/// delivered in the background for as long as the runtime lives. Use [`Producer::close`] to wait for them.
///
/// When the delivery timeout of the oldest message passes, that message and all later ones fail, because they must not
/// overtake it. If some of them may be stored ([`Error::outcome_unknown`]),
/// - an unnamed producer continues under a new identity: later pushes are stored once and in order among themselves, but the
///   messages given up may still appear among them;
/// - a named producer stops with [`Error::Poisoned`]: its sequences are the application's account of the stored messages,
///   and it has to be opened again to learn which are stored.
///
/// A message that a broker refuses, for example because it is too large, fails alone, and takes no sequence.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

struct Handle {
    queue: Arc<Queue>,
    max_message_bytes: usize,
    stored_before: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("stored_before", &self.handle.stored_before).finish_non_exhaustive()
    }
}

impl Producer {
    /// Pushes a message and waits until it is durable. To push many, use [`Producer::send`], which does not wait for each
    /// acknowledgement.
    ///
    /// # Errors
    /// The errors of [`Producer::send`]; [`Error::NotDelivered`] if the message was given up, with the reason and whether it
    /// may be stored nevertheless. Dropping the future after it was polled does not take the message back.
    pub async fn push(&self, message: impl Into<NewMessage>) -> Result<Receipt, Error> {
        self.send(message).await?.await
    }

    /// Accepts a message, and waits only while too much is in flight. The [`Delivery`] resolves when the message is durable;
    /// the message is pushed even if the delivery is never awaited.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::InvalidArgument`] and [`Error::MessageTooLarge`] for a message that every broker
    /// would refuse; otherwise the reason why the producer stopped, such as [`Error::Closed`]. In all these cases the
    /// message was not accepted.
    pub async fn send(&self, message: impl Into<NewMessage>) -> Result<Delivery, Error> {
        let message = message.into();
        let bytes = message.check(self.handle.max_message_bytes)?;
        self.handle.queue.push(message, bytes).await
    }

    /// Waits until all messages accepted before are durable or given up.
    ///
    /// # Errors
    /// The first failure of any message since the last flush.
    pub async fn flush(&self) -> Result<(), Error> {
        self.handle.queue.flush().await
    }

    /// Accepts no more messages, from clones either, and waits like [`Producer::flush`].
    ///
    /// # Errors
    /// The errors of [`Producer::flush`].
    pub async fn close(self) -> Result<(), Error> {
        self.handle.queue.close();
        self.handle.queue.flush().await
    }

    /// The last sequence that a named producer had stored in this queue when it was opened; new messages continue from
    /// there. 0 means that there was none, or that the producer has no name.
    #[must_use]
    pub fn stored_before(&self) -> u64 {
        self.handle.stored_before
    }
}
