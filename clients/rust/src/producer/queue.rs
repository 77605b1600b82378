//! State shared by the application's tasks and the producer's task: messages that wait to be sent, limits, and the end.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rmom_proto::messages::PushMessage;
use tokio::sync::{Notify, Semaphore, watch};

use super::tickets::{Delivery, Tickets};
use crate::{
    Error, NewMessage,
    uptime::{Moment, Moments},
};

/// Limit on the messages of one request.
pub(crate) const MAX_BATCH_MESSAGES: usize = 1_000;
/// Limit on the bytes of one request, unless a single message is larger.
pub(crate) const MAX_BATCH_BYTES: usize = 1 << 20;
/// Added to the content of each message for the limit on bytes in flight.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// Messages that are encoded together. They do not change once sending has begun, so that a resend is identical.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    pub(crate) messages: Vec<PushMessage>,
    /// The cost of each message towards the limit on bytes.
    costs: Vec<u32>,
    /// The time between the acceptance of the first message and that of each one: a batch can fill for a long time before it
    /// is sent, and the messages at the front leave it first.
    accepted: Vec<Duration>,
}

/// Consecutive messages of one payload, none of which has an outcome yet.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) payload: Arc<Payload>,
    pub(crate) range: Range<usize>,
    pub(crate) tickets: Arc<Tickets>,
    /// When the first message of the payload was accepted.
    began: Moment,
}

impl Run {
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// When the first of its messages was accepted.
    pub(crate) fn since(&self) -> Option<Moment> {
        self.payload.accepted.get(self.range.start).map(|&after| self.began.later(after))
    }

    /// Splits it into one run for each message.
    pub(crate) fn split(self) -> impl DoubleEndedIterator<Item = Self> {
        self.range.clone().map(move |at| Self { range: at..at + 1, ..self.clone() })
    }
}

/// A batch that still accepts messages.
#[derive(Debug)]
struct Filling {
    payload: Payload,
    bytes: usize,
    tickets: Arc<Tickets>,
    /// When the first message was accepted.
    began: Moment,
}

impl Filling {
    fn is_full_for(&self, bytes: usize) -> bool {
        self.payload.messages.len() >= MAX_BATCH_MESSAGES || self.bytes + bytes > MAX_BATCH_BYTES
    }

    fn seal(self) -> Run {
        let range = 0..self.payload.messages.len();
        Run { payload: Arc::new(self.payload), range, tickets: self.tickets, began: self.began }
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Filling>,
    /// Messages accepted so far.
    accepted: u64,
    /// No more messages are accepted, for this reason.
    ended: Option<Error>,
    /// The first failure that no flush has returned yet.
    failure: Option<Error>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Free places for messages, and for their bytes.
    places: Semaphore,
    room: Semaphore,
    room_bytes: usize,
    moments: Moments,
    /// Tells the producer's task that there is something to send, or that the application has finished.
    pub(crate) wake: Notify,
    /// Number of messages that have an outcome.
    resolved: watch::Sender<u64>,
}

impl Queue {
    pub(crate) fn new(max_messages: usize, max_bytes: usize, moments: Moments) -> Self {
        Self {
            state: Mutex::default(),
            places: Semaphore::new(max_messages),
            room: Semaphore::new(max_bytes),
            room_bytes: max_bytes,
            moments,
            wake: Notify::new(),
            resolved: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it, short of running out of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts a message of `bytes` encoded bytes; waits while too much is in flight.
    pub(crate) async fn push(&self, message: NewMessage, bytes: usize) -> Result<Delivery, Error> {
        // A message larger than the room may be the only one in it.
        let cost = (bytes + MESSAGE_OVERHEAD_BYTES).min(self.room_bytes);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let Ok(place) = self.places.acquire().await else { return Err(self.reason()) };
        let Ok(room) = self.room.acquire_many(cost).await else { return Err(self.reason()) };
        let (delivery, was_empty) = {
            let mut state = self.lock();
            if let Some(error) = &state.ended {
                return Err(error.clone());
            }
            let was_empty = state.waiting.is_empty();
            if state.waiting.back().is_none_or(|batch| batch.is_full_for(bytes)) {
                let began = self.moments.now();
                state.waiting.push_back(Filling {
                    payload: Payload::default(),
                    bytes: 0,
                    tickets: Arc::default(),
                    began,
                });
            }
            state.accepted += 1;
            let batch = state.waiting.back_mut().expect("one was pushed if there was none");
            batch.payload.messages.push(message.0);
            batch.payload.costs.push(cost);
            batch.payload.accepted.push(self.moments.roughly_since(batch.began));
            batch.bytes += bytes;
            (Delivery::new(batch.tickets.clone(), batch.payload.messages.len() - 1), was_empty)
        };
        // The places are given back when the message has an outcome.
        place.forget();
        room.forget();
        if was_empty {
            self.wake.notify_one();
        }
        Ok(delivery)
    }

    fn reason(&self) -> Error {
        self.lock().ended.clone().unwrap_or(Error::Closed)
    }

    /// The oldest messages that wait to be sent.
    pub(crate) fn take(&self) -> Option<Run> {
        self.lock().waiting.pop_front().map(Filling::seal)
    }

    /// The time at which the oldest message that waits to be sent was accepted.
    pub(crate) fn waiting_since(&self) -> Option<Moment> {
        self.lock().waiting.front().map(|batch| batch.began)
    }

    /// No more messages are accepted; those accepted before are still delivered.
    pub(crate) fn close(&self) {
        self.end(Error::Closed);
        self.wake.notify_one();
    }

    /// No more messages are accepted, for this reason.
    pub(crate) fn end(&self, reason: Error) {
        self.lock().ended.get_or_insert(reason);
        self.places.close();
        self.room.close();
    }

    /// True if no more messages are accepted.
    pub(crate) fn is_ended(&self) -> bool {
        self.lock().ended.is_some()
    }

    /// The first `count` messages of a run have an outcome, which their tickets know already.
    pub(crate) fn release(&self, run: &mut Run, count: usize, failure: Option<&Error>) {
        let done = run.range.start..run.range.start + count;
        let room = run.payload.costs[done].iter().map(|&cost| cost as usize).sum();
        run.range.start += count;
        if let Some(failure) = failure {
            self.lock().failure.get_or_insert_with(|| failure.clone());
        }
        self.places.add_permits(count);
        self.room.add_permits(room);
        self.resolved.send_modify(|resolved| *resolved += count as u64);
    }

    /// Waits until all accepted messages have an outcome. The error is the first failure since the last flush.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let accepted = self.lock().accepted;
        self.resolved
            .subscribe()
            .wait_for(|&resolved| resolved >= accepted)
            .await
            .expect("the sender lives as long as the queue");
        self.lock().failure.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_since_it_was_accepted_whatever_shares_its_batch() {
        let began = Instant::now();
        let queue = Queue::new(10, 1_000, Moments::new(Arc::new(move || began.elapsed())));
        let waited = |since: Option<Moment>| Moments::new(Arc::new(move || began.elapsed())).since(since.unwrap());
        let mut deliveries = Vec::new();
        for second in 0..3 {
            deliveries.push(queue.push(NewMessage::new("m"), 1).await.unwrap());
            advance(Duration::from_secs(1)).await;
            assert_eq!(waited(queue.waiting_since()), Duration::from_secs(second + 1));
        }
        let mut run = queue.take().unwrap();
        assert_eq!((run.len(), waited(run.since())), (3, Duration::from_secs(3)));
        queue.release(&mut run, 1, None);
        assert_eq!(waited(run.since()), Duration::from_secs(2));
        let singles: Vec<_> = run.split().map(|single| waited(single.since())).collect();
        assert_eq!(singles, [2, 1].map(Duration::from_secs));
    }
}
