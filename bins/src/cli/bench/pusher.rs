//! Producers of a run.

use std::{collections::VecDeque, sync::atomic::Ordering::Relaxed};

use futures_util::FutureExt as _;
use rmom_client::{Delivery, Error};
use rmom_proto::messages::{Push, message_stream_client::MessageStreamClient};
use tonic::transport::{Channel, Endpoint};

use super::{
    args::{MessageArgs, Mode},
    clock::{Clock, Micros, Times},
    env::{Counter, Env, TTL, Task, message, topic},
    payload::Source,
    resend,
};
use crate::cli::{error::CliError, session::Session};

/// Limit on the bytes that a stream may have in flight if the limit is given in messages.
const MAX_BYTES_IN_FLIGHT: usize = 256 << 20;
/// Default number of unary calls at once.
const UNARY_IN_FLIGHT: u32 = 256;
/// Largest number of messages between two readings of the clock: reading it more often would slow a producer down.
const MAX_STRIDE: u64 = 64;
/// Least number of readings for the messages in flight.
const LOOKS_IN_FLIGHT: u64 = 16;

/// The condition on which a producer stops.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// At the end of the run.
    Time,
    /// After this many messages.
    Count(u64),
}

/// The results of one producer.
pub(super) struct Pushed {
    /// Messages, all of which are stored.
    pub(super) made: u64,
    /// Messages that were acknowledged during the measured time.
    pub(super) measured: u64,
    /// Bytes of their contents.
    pub(super) measured_bytes: u64,
    /// How long acknowledgements took.
    pub(super) times: Times,
    /// Messages that were sent again, according to the broker.
    pub(super) duplicates: u64,
}

/// The work of one producer.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) queue: String,
    pub(super) messages: MessageArgs,
    pub(super) clock: Clock,
    pub(super) stop: Stop,
    /// Counts acknowledged messages, for progress.
    pub(super) stored: Counter,
}

impl Plan {
    /// True if the producer has to stop. `now` may be slightly late.
    pub(super) fn is_done(&self, now: Micros, made: u64) -> bool {
        match self.stop {
            Stop::Time => now >= self.clock.end,
            Stop::Count(count) => made >= count,
        }
    }
}

/// Number of producers of a queue as a check sees them: concurrent unary calls keep no order among themselves.
pub(super) fn lanes(messages: &MessageArgs, mode: Mode) -> u32 {
    match mode {
        Mode::Stream => messages.producers,
        Mode::Unary => messages.producers * messages.in_flight.unwrap_or(UNARY_IN_FLIGHT),
    }
}

/// Starts the producers of one queue; their numbers start at `first`.
pub(super) async fn start(env: &Env, plan: &Plan, mode: Mode, first: u32) -> Result<Vec<Task<Pushed>>, CliError> {
    let mut tasks = Vec::new();
    match mode {
        Mode::Stream => {
            for producer in first..first + plan.messages.producers {
                let (session, plan) = (env.session.clone(), plan.clone());
                tasks.push(Task::spawn(async move { push_stream(&session, plan, producer).await }));
            }
        }
        Mode::Unary => {
            let in_flight = plan.messages.in_flight.unwrap_or(UNARY_IN_FLIGHT);
            let endpoint = env.endpoint(&plan.queue).await?;
            for producer in 0..plan.messages.producers {
                let client = MessageStreamClient::new(connect(&endpoint).await?);
                for lane in 0..in_flight {
                    let (client, plan) = (client.clone(), plan.clone());
                    let number = first + producer * in_flight + lane;
                    tasks.push(Task::spawn(async move { push_unary(client, plan, number).await }));
                }
            }
        }
    }
    Ok(tasks)
}

/// Starts producers like [`start`], but without the client library; they send everything `times` times.
pub(super) async fn start_resending(
    env: &Env,
    plan: &Plan,
    first: u32,
    times: u32,
) -> Result<Vec<Task<Pushed>>, CliError> {
    let endpoint = env.endpoint(&plan.queue).await?;
    let task = |producer| {
        let (endpoint, plan) = (endpoint.clone(), plan.clone());
        Task::spawn(async move { resend::push(&endpoint, plan, producer, times).await })
    };
    Ok((first..first + plan.messages.producers).map(task).collect())
}

/// A connection of its own, without the client library.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Channel, CliError> {
    let error = |error| CliError::unavailable(format_args!("cannot connect to {:?}: {error}", endpoint.uri()));
    endpoint.connect().await.map_err(error)
}

/// Sends as fast as the client library takes messages.
async fn push_stream(session: &Session, plan: Plan, producer: u32) -> Result<Pushed, CliError> {
    let explain = |error: &Error| session.explain(error).at(format_args!("producer {producer}"));
    let mut builder = session.client.producer(&plan.queue);
    let mut stride = MAX_STRIDE;
    if let Some(in_flight) = plan.messages.in_flight {
        builder = builder.max_in_flight(in_flight as usize, MAX_BYTES_IN_FLIGHT);
        stride = (u64::from(in_flight) / LOOKS_IN_FLIGHT).clamp(1, MAX_STRIDE);
    }
    let sender = builder.open().await.map_err(|error| explain(&error))?;
    let mut source = Source::new(producer, &plan.messages.size);
    let mut account = Account::new(&plan);
    let mut waiting: VecDeque<(Micros, u64, u64, Delivery)> = VecDeque::new();
    let (mut now, mut bytes) = (plan.clock.now(), 0);
    while !plan.is_done(now, source.made()) {
        if source.made().is_multiple_of(stride) {
            now = plan.clock.now();
            while let Some((sent, number, bytes, delivery)) = waiting.front_mut()
                && let Some(stored) = delivery.now_or_never()
            {
                stored.map_err(|error| explain(&error))?;
                account.stored(now, *sent, *number + 1, *bytes);
                waiting.pop_front();
            }
        }
        let (content, number) = source.next(Micros::default());
        bytes += content.len() as u64;
        let sent = sender.send(message(content, number, plan.messages.topics)).await;
        let delivery = sent.map_err(|error| explain(&error))?;
        if source.made().is_multiple_of(stride) {
            waiting.push_back((plan.clock.now(), number, bytes, delivery));
        }
    }
    // Messages whose deliveries were not polled are stored too, or this call fails.
    sender.close().await.map_err(|error| explain(&error))?;
    account.settle(source.made());
    Ok(account.pushed)
}

/// Pushes one message after the other.
async fn push_unary(mut client: MessageStreamClient<Channel>, plan: Plan, producer: u32) -> Result<Pushed, CliError> {
    let mut source = Source::new(producer, &plan.messages.size);
    let mut account = Account::new(&plan);
    let mut bytes = 0;
    loop {
        let sent = plan.clock.now();
        if plan.is_done(sent, source.made()) {
            return Ok(account.pushed);
        }
        let (content, number) = source.next(Micros::default());
        bytes += content.len() as u64;
        let topic = topic_of(number, plan.messages.topics);
        let ttl_millis = TTL.as_secs() * 1_000;
        let push = Push { content, topic, queue_label: plan.queue.clone(), ttl_millis, ..Push::default() };
        if let Err(status) = client.push_to_queue(push).await {
            return Err(CliError::refused(format_args!("producer {producer}: {}", status.message())));
        }
        account.stored(plan.clock.now(), sent, number + 1, bytes);
    }
}

/// The topic of a message, empty if there are none.
pub(super) fn topic_of(number: u64, topics: u32) -> String {
    number.checked_rem(u64::from(topics)).map(topic).unwrap_or_default()
}

/// Counts the stored messages.
pub(super) struct Account {
    clock: Clock,
    progress: Counter,
    stored: u64,
    bytes: u64,
    pub(super) pushed: Pushed,
}

impl Account {
    pub(super) fn new(plan: &Plan) -> Self {
        let pushed = Pushed { made: 0, measured: 0, measured_bytes: 0, times: Times::new(), duplicates: 0 };
        Self { clock: plan.clock, progress: Counter::clone(&plan.stored), stored: 0, bytes: 0, pushed }
    }

    /// The first `count` messages are stored. Their contents have `bytes` bytes, and the last of them was sent at `sent`.
    pub(super) fn stored(&mut self, now: Micros, sent: Micros, count: u64, bytes: u64) {
        if self.clock.is_measured(now) {
            self.pushed.measured += count - self.stored;
            self.pushed.measured_bytes += bytes - self.bytes;
            self.pushed.times.record(now.since(sent));
        }
        self.bytes = bytes;
        self.settle(count);
    }

    fn settle(&mut self, count: u64) {
        self.progress.fetch_add(count - self.stored, Relaxed);
        (self.stored, self.pushed.made) = (count, count);
    }
}
