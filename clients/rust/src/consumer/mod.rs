//! Consumers: each message of a channel once, in order, despite any failure. `docs/protocol.md` has the rules for
//! subscriptions and positions.

mod decode;
mod position;
mod stream;

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream};
use http::HeaderMap;
use rmom_proto::{
    contract::{Code, EPOCH_HEADER, QUEUE_ID_HEADER},
    messages::SubscriptionRequest,
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uuid::Uuid;

use stream::{Ended, Messages};

pub use position::{ParsePositionError, Position};

use crate::{
    Client, Error, Message,
    backoff::Backoff,
    route::{Route, Target},
};

/// Added to the limit on messages when decoding, so that messages from a broker that counts sizes differently still arrive.
const DECODING_SLACK_BYTES: usize = 64 << 10;

/// Sets up a [`Consumer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ConsumerBuilder {
    client: Client,
    channel: Uuid,
    position: Option<Position>,
    give_up_after: Option<Duration>,
}

impl ConsumerBuilder {
    pub(crate) fn new(client: Client, channel: Uuid) -> Self {
        Self { client, channel, position: None, give_up_after: None }
    }

    /// Continues after this position, which an earlier consumer of the channel had reached. Default: at the channel's start.
    pub fn resume_from(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// How long a consumer without a connection tries to get one before [`Consumer::next`] fails. Default: for ever.
    pub fn give_up_after(mut self, timeout: Duration) -> Self {
        self.give_up_after = Some(timeout);
        self
    }

    /// Builds the consumer. It connects when the first message is requested.
    pub fn build(self) -> Consumer {
        let Self { client, channel, position, give_up_after } = self;
        let backoff = Backoff::new(client.settings());
        let seeker = Seeker { client, channel, route: Route::new(Target::Channel(channel)), backoff, give_up_after };
        let mut consumer = Consumer {
            state: State::Ended { error: Error::Closed, told: true },
            channel,
            position,
            connections: 0,
            repeated: 0,
        };
        consumer.seek(seeker, None);
        consumer
    }
}

/// Receives the messages of a channel, each once and in order, for the life of this object; and across restarts if the
/// application stores [`Consumer::position`] and passes it to [`ConsumerBuilder::resume_from`].
///
/// When its connection breaks, or the queue moves to another broker, the consumer finds the queue again and continues after
/// the last message. The caller drives it by polling: a consumer that is not polled takes no messages, and loses none.
///
/// It is also a [`Stream`], which ends after the first error.
pub struct Consumer {
    state: State,
    channel: Uuid,
    position: Option<Position>,
    connections: u64,
    repeated: u64,
}

/// Holds all state that survives a cancelled call of `next`, so that `next` can be cancelled at any time.
enum State {
    /// Looking for the broker, perhaps after a wait.
    Seeking(Seeking),
    Subscribed {
        seeker: Box<Seeker>,
        subscription: Box<Subscription>,
    },
    /// `told` means that the stream has yielded the error.
    Ended {
        error: Error,
        told: bool,
    },
}

type Seeking = Pin<Box<dyn Future<Output = (Box<Seeker>, Result<Box<Subscription>, Error>)> + Send>>;

/// The parts needed to connect.
struct Seeker {
    client: Client,
    channel: Uuid,
    route: Route,
    backoff: Backoff,
    give_up_after: Option<Duration>,
}

/// A connection that delivers.
struct Subscription {
    authority: String,
    messages: Messages,
    queue_id: u64,
    epoch: u64,
    since: Instant,
    any: bool,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("channel", &self.channel)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// The next message; waits until there is one. Cancel-safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// Only failures that cannot be recovered from: the channel or its queue was deleted (`CHANNEL_NOT_FOUND`,
    /// `QUEUE_REPLACED`), the position does not belong to this queue (`OFFSET_OUT_OF_RANGE`, `STORE_ROLLED_BACK`), the next
    /// message is larger than the client's `max_message_bytes` (`MESSAGE_TOO_LARGE`), or [`Error::GaveUp`]. Later calls
    /// return the same error.
    pub async fn next(&mut self) -> Result<Message, Error> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// The position of the last message that was handed to the application, for [`ConsumerBuilder::resume_from`]. `None`
    /// before the first message, unless the consumer resumed from a position.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> Uuid {
        self.channel
    }

    /// How often the consumer has reconnected after its connection had broken.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.connections.saturating_sub(1)
    }

    /// How many messages arrived a second time and were dropped.
    #[must_use]
    pub fn duplicates_dropped(&self) -> u64 {
        self.repeated
    }

    fn seek(&mut self, seeker: impl Into<Box<Seeker>>, failure: Option<Error>) {
        self.state = State::Seeking(Box::pin(Seeker::seek(seeker.into(), self.position, failure)));
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        loop {
            let failure = match &mut self.state {
                State::Ended { error, .. } => return Poll::Ready(Err(error.clone())),
                State::Seeking(seeking) => {
                    let (seeker, found) = ready!(seeking.poll_unpin(cx));
                    match found {
                        Ok(subscription) => {
                            self.connections += 1;
                            self.state = State::Subscribed { seeker, subscription };
                        }
                        Err(error) => {
                            warn!(channel = %self.channel, %error, hint = error.hint(), "a consumer ends");
                            self.state = State::Ended { error, told: false };
                        }
                    }
                    continue;
                }
                State::Subscribed { subscription, .. } => match ready!(subscription.poll_message(cx)) {
                    Ok(message) if self.position.is_some_and(|position| message.offset <= position.offset) => {
                        self.repeated += 1;
                        continue;
                    }
                    Ok(message) => {
                        let Subscription { queue_id, epoch, .. } = **subscription;
                        self.position = Some(Position { queue_id, epoch, offset: message.offset });
                        return Poll::Ready(Ok(message));
                    }
                    Err(error) => error,
                },
            };
            let ended = State::Ended { error: Error::Closed, told: true };
            if let State::Subscribed { mut seeker, subscription } = std::mem::replace(&mut self.state, ended) {
                if subscription.any || subscription.since.elapsed() >= seeker.client.settings().backoff_max {
                    seeker.backoff.reset();
                }
                self.seek(seeker, Some(failure));
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let State::Ended { told: true, .. } = self.state {
            return Poll::Ready(None);
        }
        let item = ready!(self.poll_message(cx));
        if let State::Ended { told, .. } = &mut self.state {
            *told = true;
        }
        Poll::Ready(Some(item))
    }
}

impl Subscription {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        let ended = match ready!(self.messages.poll_message(cx)) {
            Ok(message) => {
                self.any = true;
                return Poll::Ready(Ok(message));
            }
            Err(ended) => ended,
        };
        let authority = self.authority.clone();
        Poll::Ready(Err(match ended {
            Ended::Failed(status) => Error::from_status(&authority, &status),
            Ended::Well => Error::Call { authority, status: tonic::Code::Unavailable, message: ended.to_string() },
            // After a reconnection, the same message would come again.
            Ended::TooLarge { .. } => Error::Refused {
                by: "this client".to_owned(),
                code: Code::MessageTooLarge.to_string(),
                message: ended.to_string(),
                details: BTreeMap::new(),
            },
            Ended::CutOff | Ended::Compressed(_) | Ended::Malformed(_) => {
                Error::Protocol { authority, reason: ended.to_string() }
            }
        }))
    }
}

impl Seeker {
    /// Subscribes, repeatedly, until it succeeds or cannot ever succeed. `failure` is the error that ended the last
    /// subscription.
    async fn seek(
        mut self: Box<Self>,
        position: Option<Position>,
        mut failure: Option<Error>,
    ) -> (Box<Self>, Result<Box<Subscription>, Error>) {
        let started = Instant::now();
        loop {
            if let Some(error) = failure.take() {
                if error.ends_a_subscription() {
                    return (self, Err(error));
                }
                let at_once = self.route.failed(&error);
                let mut wait = if at_once { Duration::ZERO } else { self.backoff.next(self.client.settings()) };
                if let Some(after) = self.give_up_after {
                    let left = after.saturating_sub(started.elapsed());
                    if left.is_zero() {
                        return (self, Err(Error::GaveUp { after, last: Arc::new(error) }));
                    }
                    wait = wait.min(left);
                }
                warn!(channel = %self.channel, %error, ?wait, "a consumer connects again");
                sleep(wait).await;
            }
            match self.subscribe(position).await {
                Ok(subscription) => {
                    self.route.arrived();
                    let (broker, epoch) = (&subscription.authority, subscription.epoch);
                    info!(channel = %self.channel, broker, epoch, "a consumer is connected");
                    return (self, Ok(Box::new(subscription)));
                }
                Err(error) => failure = Some(error),
            }
        }
    }

    async fn subscribe(&mut self, position: Option<Position>) -> Result<Subscription, Error> {
        let authority = self.route.find(&self.client).await?;
        let settings = self.client.settings();
        let request = SubscriptionRequest { channel_id: self.channel.to_string(), position: position.map(Into::into) };
        let max_message_bytes = settings.max_message_bytes.saturating_add(DECODING_SLACK_BYTES);
        let after = settings.open_timeout;
        let opening = stream::subscribe(self.client.dialer().channel(&authority)?, &request, max_message_bytes);
        let (headers, messages) = match tokio::time::timeout(after, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return Err(Error::from_status(&authority, &status)),
            Err(_) => {
                let what = format!("subscribing at {authority}");
                return Err(Error::DeadlineExceeded { what, after, sent: false });
            }
        };
        let header = |name| number(&headers, name);
        let (Some(queue_id), Some(epoch)) = (header(QUEUE_ID_HEADER), header(EPOCH_HEADER)) else {
            let reason = format!("a subscription without the headers {QUEUE_ID_HEADER} and {EPOCH_HEADER}");
            return Err(Error::Protocol { authority, reason });
        };
        if position.is_some_and(|position| position.queue_id != queue_id) {
            return Err(Error::Refused {
                by: authority,
                code: Code::QueueReplaced.to_string(),
                message: format!("the position {} is of another queue than {queue_id}", position.expect("it is some")),
                details: [("queue_id".to_owned(), queue_id.to_string())].into(),
            });
        }
        Ok(Subscription { authority, messages, queue_id, epoch, since: Instant::now(), any: false })
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
