//! Administration, through any manager.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use rmom_proto::contract::NO_TOPIC;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Client, Error,
    names::{check_label, check_topic},
    rest::segment,
};

/// The offset at which a new channel starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message still stored.
    #[default]
    Earliest,
    /// After the newest message at the time of creation.
    Latest,
    /// At this offset, or the first live one beyond it.
    Offset(u64),
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Queue {
    /// Its id, never used again.
    pub id: u64,
    /// Its label, in lower case.
    pub label: String,
    /// The host of its assigned broker. `None` means that it has none yet.
    pub host: Option<String>,
    /// That broker's port.
    pub port: Option<u16>,
    /// The hosting broker's description; set by [`Admin::queue`] and [`Admin::live_queues`], and only while that broker
    /// answers.
    #[serde(default)]
    pub live: Option<LiveQueue>,
    /// The reason why `live` is missing.
    #[serde(default)]
    pub live_error: Option<String>,
}

/// A queue as its hosting broker describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LiveQueue {
    /// `served`, `waiting` (its broker is claiming or recovering it) or `halted` (until an operator acts).
    #[serde(default = "served")]
    pub state: String,
    /// The reason why it is not served.
    #[serde(default)]
    pub reason: Option<String>,
    /// How often the queue was activated.
    pub epoch: u64,
    /// The newest message's offset. 0 means that there is none yet.
    pub last_offset: u64,
    /// Live messages.
    pub depth_messages: u64,
    /// Their bytes as stored.
    pub depth_bytes: u64,
    /// Age of the oldest live message.
    #[serde(rename = "oldest_age_millis", deserialize_with = "millis")]
    pub oldest_age: Duration,
    /// The number of subscribers.
    #[serde(default)]
    pub subscriber_count: u64,
    /// Number of offsets by which the slowest subscriber is behind the newest message.
    #[serde(default)]
    pub largest_lag: u64,
    /// The subscribers; only from [`Admin::queue`].
    #[serde(default)]
    pub subscribers: Vec<Subscriber>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Subscriber {
    /// The channel.
    pub channel_id: Uuid,
    /// Its topic.
    #[serde(default, deserialize_with = "topic")]
    pub topic: Option<String>,
    /// Address of the client's end of the connection.
    pub peer: String,
    /// The offset up to which everything was handed to the connection.
    pub offset: u64,
    /// Number of offsets from there to the newest message.
    pub lag: u64,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Channel {
    /// Its id.
    pub id: Uuid,
    /// The queue it reads.
    pub queue_id: u64,
    /// That queue's label.
    #[serde(alias = "label")]
    pub queue_label: String,
    /// The topic of the messages that it receives. `None` means all messages.
    #[serde(default, deserialize_with = "topic")]
    pub topic: Option<String>,
    /// The first offset for a subscription without a position, or the first live one after it.
    pub start: u64,
    /// The host of the broker assigned to its queue. `None` means that it has none yet.
    pub host: Option<String>,
    /// That broker's port.
    pub port: Option<u16>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Broker {
    /// Its id. `None` means that the broker is in the managers' configuration but was never seen.
    pub id: Option<u64>,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `up`, `draining`, `stopped` or `unregistered`.
    pub state: String,
    /// True if the manager that answers counts it as alive.
    pub live: bool,
    /// Number of queues assigned to it.
    pub queues: u64,
    /// True if it has not been alive for long and has no queues: it can be [forgotten](Admin::forget).
    #[serde(default)]
    pub gone: bool,
}

/// The state of a cluster, as known to the manager that answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The manager that answers.
    pub manager_id: Uuid,
    /// True if it leads.
    pub leading: bool,
    /// The manager that leads. `None` means that the manager that answers does not know.
    pub leader_id: Option<Uuid>,
    /// How often the leader has changed.
    pub term: u64,
    /// The brokers.
    pub brokers: Vec<Broker>,
    /// Counts since the manager's start.
    pub counters: Counters,
    /// True if there are no problems.
    pub healthy: bool,
    /// The problems, the worst first: those that the manager knows of, then those that the live brokers report.
    pub problems: Vec<Problem>,
    /// Facts that could not be found out, though nothing is wrong.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Counters of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Queues reassigned because their broker died.
    pub failovers: u64,
    /// Queues reassigned because their broker stopped in good order or drains.
    pub handovers: u64,
    /// Queues reassigned because their broker had more of them than others.
    pub rebalanced: u64,
}

/// A problem of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// A description of the problem.
    pub what: String,
    /// The next step for the operator.
    pub next: String,
}

/// The result of [`Admin::rebalance`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Rebalanced {
    /// The queues that were reassigned.
    pub moved: Vec<MovedQueue>,
    /// How many moves are left until the brokers are level.
    pub left: u64,
}

/// A queue that was assigned to another broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MovedQueue {
    /// Its label.
    pub label: String,
    /// The broker that it was assigned to before.
    pub from: Place,
    /// The broker that it is assigned to now.
    pub to: Place,
    /// True if the new broker reported in time that it serves the queue. If not, it may do so later.
    pub served: bool,
}

/// The address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Place {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

#[derive(Deserialize)]
struct Queues {
    queues: Vec<Queue>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Channels {
    channels: Vec<Channel>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Brokers {
    brokers: Vec<Broker>,
}

/// Managers that leave out the state describe only queues that are served.
fn served() -> String {
    "served".to_owned()
}

fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

fn topic<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|topic| !topic.is_empty() && topic != NO_TOPIC))
}

/// Administrative calls. A call that changes something is made once, at the first manager that can be reached; a call that
/// only reads goes on to the next manager if one does not answer. Errors carry the managers' codes ([`Error::code`]).
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Creates a queue and waits until a broker serves it.
    ///
    /// # Errors
    /// `INVALID_NAME`, `QUEUE_EXISTS`, `LIMIT_REACHED`; `NO_BROKER` if no broker can host it. If [`Error::outcome_unknown`]
    /// is true, the queue may exist now.
    pub async fn create_queue(&self, label: &str) -> Result<Queue, Error> {
        check_label(label)?;
        self.json(Method::POST, "/v1/queues", Some(json!({ "label": label }))).await
    }

    /// Deletes a queue, its channels and its messages, for good.
    ///
    /// # Errors
    /// `QUEUE_NOT_FOUND` and others.
    pub async fn delete_queue(&self, label: &str) -> Result<(), Error> {
        check_label(label)?;
        self.done(Method::DELETE, &format!("/v1/queues/{}", segment(label))).await
    }

    /// A queue, with its broker's description.
    ///
    /// # Errors
    /// `QUEUE_NOT_FOUND` and others.
    pub async fn queue(&self, label: &str) -> Result<Queue, Error> {
        check_label(label)?;
        self.json(Method::GET, &format!("/v1/queues/{}", segment(label)), None).await
    }

    /// All queues.
    ///
    /// # Errors
    /// If no manager answers.
    pub async fn queues(&self) -> Result<Vec<Queue>, Error> {
        self.queue_pages("/v1/queues").await
    }

    /// All queues, with their brokers' descriptions: one call for each broker and a thousand queues.
    ///
    /// # Errors
    /// If no manager answers. A broker that does not answer is not an error ([`Queue::live_error`]).
    pub async fn live_queues(&self) -> Result<Vec<Queue>, Error> {
        self.queue_pages("/v1/queues?live=true").await
    }

    async fn queue_pages(&self, path: &str) -> Result<Vec<Queue>, Error> {
        let mut all = Vec::new();
        let mut cursors = Cursors::default();
        loop {
            let page: Queues = self.json(Method::GET, &cursors.page(path), None).await?;
            let goes_on = cursors.follow(page.next, page.queues.is_empty())?;
            all.extend(page.queues);
            if !goes_on {
                return Ok(all);
            }
        }
    }

    /// The topics of a queue's channels.
    ///
    /// # Errors
    /// `QUEUE_NOT_FOUND` and others.
    pub async fn topics(&self, label: &str) -> Result<Vec<String>, Error> {
        check_label(label)?;
        self.json(Method::GET, &format!("/queues/{}/topics", segment(label)), None).await
    }

    /// Creates a channel on a queue. With a topic, it receives only messages with the same topic (case-insensitive).
    ///
    /// # Errors
    /// `INVALID_NAME`, `QUEUE_NOT_FOUND`, `OFFSET_OUT_OF_RANGE` and others. If [`Error::outcome_unknown`] is true, an unused
    /// channel may exist.
    pub async fn create_channel(&self, label: &str, topic: Option<&str>, start: Start) -> Result<Channel, Error> {
        check_label(label)?;
        check_topic(topic.unwrap_or_default())?;
        let start = match start {
            Start::Earliest => Value::from("earliest"),
            Start::Latest => Value::from("latest"),
            Start::Offset(offset) => Value::from(offset),
        };
        let body = json!({ "topic": topic, "start": start });
        self.json(Method::POST, &format!("/v1/queues/{}/channels", segment(label)), Some(body)).await
    }

    /// A channel.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND`; `NO_BROKER` while no live broker hosts its queue.
    pub async fn channel(&self, id: Uuid) -> Result<Channel, Error> {
        self.json(Method::GET, &format!("/v1/channels/{id}"), None).await
    }

    /// All channels of all queues.
    ///
    /// # Errors
    /// If no manager answers.
    pub async fn channels(&self) -> Result<Vec<Channel>, Error> {
        self.channel_pages("/v1/channels").await
    }

    /// The channels of a queue.
    ///
    /// # Errors
    /// `QUEUE_NOT_FOUND` and others.
    pub async fn queue_channels(&self, label: &str) -> Result<Vec<Channel>, Error> {
        check_label(label)?;
        self.channel_pages(&format!("/v1/queues/{}/channels", segment(label))).await
    }

    async fn channel_pages(&self, path: &str) -> Result<Vec<Channel>, Error> {
        let mut all = Vec::new();
        let mut cursors = Cursors::default();
        loop {
            let page: Channels = self.json(Method::GET, &cursors.page(path), None).await?;
            let goes_on = cursors.follow(page.next, page.channels.is_empty())?;
            all.extend(page.channels);
            if !goes_on {
                return Ok(all);
            }
        }
    }

    /// Deletes a channel; its subscriptions end.
    ///
    /// # Errors
    /// `CHANNEL_NOT_FOUND` and others.
    pub async fn delete_channel(&self, id: Uuid) -> Result<(), Error> {
        self.done(Method::DELETE, &format!("/v1/channels/{id}")).await
    }

    /// The state of the cluster. The manager that answers reports what it knows without asking others.
    ///
    /// # Errors
    /// If no manager answers.
    pub async fn status(&self) -> Result<Status, Error> {
        self.json(Method::GET, "/v1/status", None).await
    }

    /// All brokers.
    ///
    /// # Errors
    /// If no manager answers.
    pub async fn brokers(&self) -> Result<Vec<Broker>, Error> {
        Ok(self.json::<Brokers>(Method::GET, "/v1/brokers", None).await?.brokers)
    }

    /// Moves a broker's queues elsewhere, and gives it no new ones.
    ///
    /// # Errors
    /// `BROKER_NOT_FOUND` and others.
    pub async fn drain(&self, broker: u64) -> Result<(), Error> {
        self.done(Method::POST, &format!("/v1/brokers/{broker}/drain")).await
    }

    /// Takes back [`Admin::drain`].
    ///
    /// # Errors
    /// `BROKER_NOT_FOUND` and others.
    pub async fn undrain(&self, broker: u64) -> Result<(), Error> {
        self.done(Method::POST, &format!("/v1/brokers/{broker}/undrain")).await
    }

    /// Removes a broker that is gone for good; with `force`, also one that died within the last minute. A broker whose lease
    /// is running is never removed.
    ///
    /// # Errors
    /// `BROKER_NOT_FOUND`, `BROKER_IN_USE` and others.
    pub async fn forget(&self, broker: u64, force: bool) -> Result<(), Error> {
        self.done(Method::DELETE, &format!("/v1/brokers/{broker}?force={force}")).await
    }

    /// Moves some queues from brokers with many to brokers with few, now. Call it again while [`Rebalanced::left`] is not 0.
    ///
    /// # Errors
    /// `UNSETTLED` while a broker does not answer or queues are being moved; and others.
    pub async fn rebalance(&self) -> Result<Rebalanced, Error> {
        self.json(Method::POST, "/v1/brokers/rebalance", None).await
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Value>) -> Result<T, Error> {
        let timeout = self.client.settings().request_timeout;
        self.client.managers().json(method, path, body.as_ref(), timeout).await
    }

    async fn done(&self, method: Method, path: &str) -> Result<(), Error> {
        let timeout = self.client.settings().request_timeout;
        self.client.managers().call(method, path, None, timeout).await.map(drop)
    }
}

/// The places in a list at which its pages have begun so far. Pages that led back to one of them would never end. Memory
/// grows with the number of pages.
#[derive(Default)]
struct Cursors {
    seen: BTreeSet<String>,
    last: Option<String>,
}

impl Cursors {
    /// The path of the next page.
    fn page(&self, path: &str) -> String {
        let joint = if path.contains('?') { '&' } else { '?' };
        self.last.as_deref().map_or_else(|| path.to_owned(), |after| format!("{path}{joint}after={}", segment(after)))
    }

    /// Notes the page's pointer to the next one. False means that the page was the last.
    fn follow(&mut self, next: Option<String>, is_empty: bool) -> Result<bool, Error> {
        let Some(next) = next else { return Ok(false) };
        if is_empty || !self.seen.insert(next.clone()) {
            let reason = "a page of a list names a next page that does not go on".to_owned();
            return Err(Error::Protocol { authority: "a manager".to_owned(), reason });
        }
        self.last = Some(next);
        Ok(true)
    }
}
