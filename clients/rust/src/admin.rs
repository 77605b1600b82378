//! Administration, through any manager.

use std::{collections::BTreeSet, time::Duration};

use http::Method;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Client, Error,
    names::{NO_TOPIC, check_label, check_topic},
    rest::segment,
};

/// Where a new channel starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message that is still there.
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
    /// The host of the broker that is to host it; none: no broker yet.
    pub host: Option<String>,
    /// That broker's port.
    pub port: Option<u16>,
    /// What the hosting broker says; from [`Admin::queue`] and [`Admin::live_queues`], and only while that
    /// broker answers.
    #[serde(default)]
    pub live: Option<LiveQueue>,
    /// Why there is no `live`.
    #[serde(default)]
    pub live_error: Option<String>,
}

/// What the hosting broker knows about a queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LiveQueue {
    /// `served`, `waiting` (its broker claims it, or recovers) or `halted` (until an operator looks).
    #[serde(default = "served")]
    pub state: String,
    /// Why it is not served.
    #[serde(default)]
    pub reason: Option<String>,
    /// How often the queue was activated.
    pub epoch: u64,
    /// The newest message's offset; 0: none yet.
    pub last_offset: u64,
    /// Live messages.
    pub depth_messages: u64,
    /// Their bytes as stored.
    pub depth_bytes: u64,
    /// Age of the oldest.
    #[serde(rename = "oldest_age_millis", deserialize_with = "millis")]
    pub oldest_age: Duration,
    /// How many are subscribed.
    #[serde(default)]
    pub subscriber_count: u64,
    /// Offsets between what the slowest of them was handed and the newest message.
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
    /// Everything up to this offset was handed to the connection.
    pub offset: u64,
    /// Offsets between that and the newest message.
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
    /// What it lets through; none: everything.
    #[serde(default, deserialize_with = "topic")]
    pub topic: Option<String>,
    /// The first offset that a subscription without a position is given, or the first live one beyond it.
    pub start: u64,
    /// The host of the broker that is to host the queue; none: no broker yet.
    pub host: Option<String>,
    /// That broker's port.
    pub port: Option<u16>,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Broker {
    /// Its id; none: listed in the managers' configuration, but never seen.
    pub id: Option<u64>,
    /// Where it is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `up`, `draining`, `stopped` or `unregistered`.
    pub state: String,
    /// The manager that answers counts it as alive.
    pub live: bool,
    /// How many queues are assigned to it.
    pub queues: u64,
    /// It has not been alive for long, and has no queues: it can be [forgotten](Admin::forget).
    #[serde(default)]
    pub gone: bool,
}

/// How a cluster is, as the manager that answers knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// That manager.
    pub manager_id: Uuid,
    /// It leads.
    pub leading: bool,
    /// The manager that leads; none: it does not know.
    pub leader_id: Option<Uuid>,
    /// How often the lead has changed hands.
    pub term: u64,
    /// The brokers.
    pub brokers: Vec<Broker>,
    /// What happened since it started.
    pub counters: Counters,
    /// Nothing is wrong.
    pub healthy: bool,
    /// What is wrong, the worst first: what the manager knows, then what the live brokers say.
    pub problems: Vec<Problem>,
    /// What is not known, without anything being wrong.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a manager counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Counters {
    /// Queues assigned elsewhere because their broker died.
    pub failovers: u64,
    /// Queues assigned elsewhere because their broker stopped in good order or drains.
    pub handovers: u64,
    /// Queues assigned elsewhere because their broker had more of them than others.
    pub rebalanced: u64,
}

/// Something that is wrong with a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// What [`Admin::rebalance`] did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Rebalanced {
    /// The queues that were assigned elsewhere.
    pub moved: Vec<MovedQueue>,
    /// How many are left to move until the brokers are level.
    pub left: u64,
}

/// A queue that was assigned to another broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MovedQueue {
    /// Its label.
    pub label: String,
    /// Where it was.
    pub from: Place,
    /// The broker that it was assigned to.
    pub to: Place,
    /// The new broker said that it serves it. False: not in time; it may still come.
    pub served: bool,
}

/// Where a broker is.
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

/// Managers that do not say so only describe what is served.
fn served() -> String {
    "served".to_owned()
}

fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

fn topic<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|topic| !topic.is_empty() && topic != NO_TOPIC))
}

/// Administrative calls. Each is made once, at the first manager that can be reached; those that only read go on to the
/// next manager if one does not answer. Errors carry the managers' codes ([`Error::code`]).
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
    /// `INVALID_NAME`, `QUEUE_EXISTS`, `LIMIT_REACHED`; `NO_BROKER` if there is no broker to host it; where
    /// [`Error::outcome_unknown`] is true the queue may exist now.
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

    /// A queue, with what its broker says about it.
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

    /// All queues, with what their brokers say about them: one call for each broker and a thousand queues.
    ///
    /// # Errors
    /// If no manager answers; that a broker does not is none ([`Queue::live_error`]).
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

    /// Creates a channel on a queue. With a topic it receives only what has the same (case-insensitive).
    ///
    /// # Errors
    /// `INVALID_NAME`, `QUEUE_NOT_FOUND`, `OFFSET_OUT_OF_RANGE` and others; where [`Error::outcome_unknown`] is true a
    /// channel may exist that nobody uses.
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

    /// How the cluster is, as the manager that answers knows it without asking anybody.
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

    /// Removes a broker that is gone for good; with `force` also one that died within the last minute. A broker whose lease
    /// runs is never removed.
    ///
    /// # Errors
    /// `BROKER_NOT_FOUND`, `BROKER_IN_USE` and others.
    pub async fn forget(&self, broker: u64, force: bool) -> Result<(), Error> {
        self.done(Method::DELETE, &format!("/v1/brokers/{broker}?force={force}")).await
    }

    /// Moves some queues from brokers with many to brokers with few, now. Call it again while [`Rebalanced::left`] is not 0.
    ///
    /// # Errors
    /// `UNSETTLED` while a broker does not answer or queues are on their way elsewhere; and others.
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

/// The places in a list at which its pages began so far. Pages that led back to one of them would never end. Memory grows
/// with the number of pages.
#[derive(Default)]
struct Cursors {
    seen: BTreeSet<String>,
    last: Option<String>,
}

impl Cursors {
    /// The path of the page that comes next.
    fn page(&self, path: &str) -> String {
        let joint = if path.contains('?') { '&' } else { '?' };
        self.last.as_deref().map_or_else(|| path.to_owned(), |after| format!("{path}{joint}after={}", segment(after)))
    }

    /// Takes what a page says about the one behind it. False: the page was the last one.
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
