//! The scenario, as it is written down and read by people.

use std::{fmt, str::FromStr};

use rmom_core::model::limits::MAX_BATCH_MESSAGES;
use serde::{Deserialize, Serialize};

/// A whole run. The same scenario is the same run, event for event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, for people to read; it changes nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// All chance within the run: latencies, the order of hosts, ids, jitter.
    pub seed: u64,
    /// What there is.
    pub topology: Topology,
    /// What it does.
    pub workload: Workload,
    /// What befalls it, in any order.
    pub steps: Vec<Step>,
}

/// Hosts and their settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// How many managers.
    pub managers: u8,
    /// How many brokers.
    pub brokers: u8,
    /// Latency of a segment, from and to, in milliseconds.
    pub latency_millis: (u64, u64),
    /// The brokers' `message_ttl`; none for no expiry.
    pub message_ttl_millis: Option<u64>,
    /// The brokers' `queue_buffer_messages`: small ones make subscribers read from the store.
    pub queue_buffer_messages: u64,
    /// The brokers' `max_batch_messages`: small ones make what is pushed together be stored in parts.
    #[serde(default = "any_batch")]
    pub batch_messages: u64,
    /// The brokers' `channel_idle_expiry`; none for no expiry. With it, the original's consumers make channels as they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_idle_millis: Option<u64>,
    /// Limits that this scenario makes small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Limits of the brokers that are small, so that a run of some hundred messages meets what else takes days and millions:
/// snapshots of producers, ends of pages, full buffers, producers that are forgotten. A broker reads the store for one
/// subscriber at a time, and looks for what has expired every two seconds at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// After so many batches the producers are saved.
    pub snapshot_batches: u64,
    /// So many headers are read, and batches removed, at a time.
    pub page_batches: u32,
    /// So many bytes a subscriber reads at a time, and are enough for a batch.
    pub page_bytes: u64,
    /// The brokers' `max_pending_bytes`.
    pub pending_bytes: u64,
    /// The brokers' `max_lookups_per_second`.
    pub lookups: u32,
    /// So long takes each row that a statement of the database reads, in microseconds: what grows with what is stored shows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub row_micros: u64,
    /// As many connections a broker takes from one address, and somebody opens as many as it gets; 0 for the usual limit.
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    pub connections: u32,
}

/// As many messages to a batch as brokers allow.
fn any_batch() -> u64 {
    MAX_BATCH_MESSAGES as u64
}

/// What operators, producers and consumers do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// How many queues, with their channels, exist from the start.
    pub queues: u8,
    /// Who pushes, each from a host of its own.
    pub producers: Vec<ProducerPlan>,
    /// Who takes, each on a host of its own.
    pub consumers: Vec<ConsumerPlan>,
    /// For how long producers try to deliver a message, in milliseconds; none for as long as the run lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_millis: Option<u64>,
    /// For how long all goes on when the faults are over and everything is in order, in milliseconds: what should have ended
    /// by then, and goes on, is seen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub linger_millis: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(millis: &u64) -> bool {
    *millis == 0
}

/// How a producer pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProducerKind {
    /// Our library, with pushes in flight.
    Library,
    /// Our library, under a name, opened again half-way. What was opened before is used once more after that, by mistake.
    Named,
    /// Unary pushes on the raw wire with a producer and sequences, retried after every error.
    RawStamped,
    /// As [`ProducerKind::RawStamped`], but with several pushes on their way at once, over several connections, so that they
    /// come in any order and with gaps.
    RawPipelined,
    /// Unary pushes as the original's clients send them: no producer, the queue's host asked again after an error, no retry of
    /// what may have been stored.
    RawPlain,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerPlan {
    /// How it pushes.
    pub kind: ProducerKind,
    /// To which queue, counted from 1.
    pub queue: u8,
    /// How many messages.
    pub pushes: u32,
    /// Between two of them, in milliseconds.
    pub pace_millis: u64,
    /// How many it pushes at once, after a pause that is as much longer. A producer that waits for each answer cannot.
    #[serde(default = "one")]
    pub burst: u32,
    /// Its messages go round this many topics; 0 for none.
    pub topics: u8,
    /// What its messages ask for as lifetime; none for the broker's.
    pub ttl_millis: Option<u64>,
    /// Their content's size, at least.
    pub body_bytes: u32,
    /// Every so many messages one is too large for the brokers; 0 for none. Only our library is given such.
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    pub too_large_every: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_none_at_all(count: &u32) -> bool {
    *count == 0
}

fn one() -> u32 {
    1
}

/// How a consumer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsumerKind {
    /// An application with our library, which keeps its position.
    Library,
    /// An observer on the raw wire that goes on after the last position that it knows.
    RawResuming,
    /// An observer on the raw wire that, as the original's consumers, opens a new channel after each break, takes everything
    /// from the start and drops what it knows by id.
    RawOriginal,
}

/// One consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerPlan {
    /// How it takes.
    pub kind: ConsumerKind,
    /// From which queue, counted from 1.
    pub queue: u8,
    /// Which topic, counted from 1; none for everything.
    pub topic: Option<u8>,
    /// True to start with what is pushed after the channel was created.
    pub latest: bool,
    /// How long it takes for each message, in milliseconds.
    pub work_millis: u64,
}

/// A host, as scenarios name it: `database`, `manager-1`, `broker-3`, `producer-2`, `consumer-1`, `operator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// The database.
    Database,
    /// A manager, counted from 1.
    Manager(u8),
    /// A broker, counted from 1.
    Broker(u8),
    /// A producer, counted from 1.
    Producer(u8),
    /// A consumer, counted from 1.
    Consumer(u8),
    /// The one who creates and deletes queues and channels.
    Operator,
}

/// Something that befalls the world for a while. Faults last: what a scenario does is meant to be felt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When, in milliseconds since the workload began.
    pub at_millis: u64,
    /// How long, in milliseconds; 0 for what happens at once and is not undone.
    pub for_millis: u64,
    /// What.
    pub action: Action,
}

/// What befalls the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// What runs on the host is killed; it starts again in the end.
    Crash(Host),
    /// The host loses its power: as a crash, but nobody hears of it.
    PowerLoss(Host),
    /// The broker or manager loses its power and does not come back. It is spared if it is the last of its kind.
    Lose(Host),
    /// The broker or manager does not reach the database any more, and all else goes on. It stays so; it is spared if it is the
    /// last of its kind.
    CutOff(Host),
    /// Nothing gets from one group to the other, nor back. What is sent meanwhile is lost.
    Cut {
        /// One side.
        between: Vec<Host>,
        /// The other.
        and: Vec<Host>,
    },
    /// Nothing gets from one group to the other; the other way is open.
    CutOneway {
        /// The senders.
        from: Vec<Host>,
        /// The receivers.
        to: Vec<Host>,
    },
    /// What is sent between the groups waits, and arrives in the end.
    Hold {
        /// One side.
        between: Vec<Host>,
        /// The other.
        and: Vec<Host>,
    },
    /// The link is slow.
    Slow {
        /// One side.
        between: Vec<Host>,
        /// The other.
        and: Vec<Host>,
        /// How long a segment travels.
        latency_millis: u64,
    },
    /// The broker stands still: nothing of what it sends leaves, nothing reaches it, until the end.
    Freeze(Host),
    /// A host's clock is set forward or back for good; the database's decides what expires.
    ClockJump {
        /// Whose.
        host: Host,
        /// By how much.
        millis: i64,
    },
    /// The database misbehaves.
    Database(DatabaseFault),
    /// The broker is drained; undrained in the end.
    Drain(Host),
    /// The broker is drained for good: its queues have to go elsewhere. It is spared if it is the last one.
    DrainForGood(Host),
    /// A queue is deleted, and created again in the end.
    RecreateQueue(u8),
    /// Channels are created on a queue and deleted in the end.
    ChurnChannels {
        /// The queue.
        queue: u8,
        /// How many.
        count: u8,
    },
    /// The consumer takes nothing meanwhile, but keeps its stream.
    StallConsumer(u8),
    /// The consumer's application ends, keeping its position, and comes back in the end.
    LeaveConsumer(u8),
    /// The consumer's channel is deleted, without its knowing.
    DeleteChannel(u8),
    /// Another process starts, by mistake, under the host and port of this broker, which finds itself replaced, ends and is
    /// started again after a while. In the end the other one is gone.
    Twin(Host),
}

/// How the database misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseFault {
    /// Every call takes longer.
    Slow {
        /// By how much.
        millis: u64,
    },
    /// It stores nothing more: definite failures.
    Full,
    /// It accepts no connections, and ends those that it has.
    Refuse,
    /// It commits, but loses the answers to writes.
    LoseReplies,
    /// It ends the connection of every other write before the commit.
    AbortWrites,
    /// Writes stand still between taking their locks and the commit.
    StallWrites,
    /// It ends the connection of every append before the commit, and does all else.
    AbortAppends,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str("database"),
            Self::Manager(number) => write!(f, "manager-{number}"),
            Self::Broker(number) => write!(f, "broker-{number}"),
            Self::Producer(number) => write!(f, "producer-{number}"),
            Self::Consumer(number) => write!(f, "consumer-{number}"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

/// The text names no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no host is called {0:?}: database, operator, manager-N, broker-N, producer-N or consumer-N")]
pub struct ParseHostError(String);

impl FromStr for Host {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseHostError(text.to_owned());
        match text {
            "database" => return Ok(Self::Database),
            "operator" => return Ok(Self::Operator),
            _ => {}
        }
        let (kind, number) = text.rsplit_once('-').ok_or_else(error)?;
        let number = number.parse().map_err(|_| error())?;
        match kind {
            "manager" => Ok(Self::Manager(number)),
            "broker" => Ok(Self::Broker(number)),
            "producer" => Ok(Self::Producer(number)),
            "consumer" => Ok(Self::Consumer(number)),
            _ => Err(error()),
        }
    }
}

impl Serialize for Host {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The hosts of a group.
fn group(hosts: &[Host]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A sentence for the story of a run.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(host) => write!(f, "{host} crashes"),
            Self::PowerLoss(host) => write!(f, "{host} loses its power"),
            Self::Lose(host) => write!(f, "{host} is lost for good"),
            Self::CutOff(host) => write!(f, "{host} is cut off from the database for good"),
            Self::Cut { between, and } => {
                write!(f, "{} and {} are cut off from each other", group(between), group(and))
            }
            Self::CutOneway { from, to } => write!(f, "nothing gets from {} to {}", group(from), group(to)),
            Self::Hold { between, and } => {
                write!(f, "what {} and {} send each other waits", group(between), group(and))
            }
            Self::Slow { between, and, latency_millis } => {
                write!(f, "a segment between {} and {} takes {latency_millis} ms", group(between), group(and))
            }
            Self::Freeze(host) => write!(f, "{host} stands still"),
            Self::ClockJump { host, millis } => write!(f, "the clock of {host} jumps by {millis} ms"),
            Self::Database(fault) => fault.fmt(f),
            Self::Drain(host) => write!(f, "{host} is drained"),
            Self::DrainForGood(host) => write!(f, "{host} is drained for good"),
            Self::RecreateQueue(queue) => write!(f, "queue {queue} is deleted, to be created again"),
            Self::ChurnChannels { queue, count } => write!(f, "{count} channels come and go on queue {queue}"),
            Self::StallConsumer(number) => write!(f, "consumer-{number} takes nothing"),
            Self::LeaveConsumer(number) => write!(f, "consumer-{number} leaves"),
            Self::DeleteChannel(number) => write!(f, "the channel of consumer-{number} is to be deleted"),
            Self::Twin(host) => write!(f, "another process starts under the address of {host}"),
        }
    }
}

impl fmt::Display for DatabaseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow { millis } => write!(f, "each call of the database takes {millis} ms longer"),
            Self::Full => f.write_str("the database is full"),
            Self::Refuse => f.write_str("the database refuses connections"),
            Self::LoseReplies => f.write_str("the database loses its answers"),
            Self::AbortWrites => f.write_str("the database aborts every other write"),
            Self::StallWrites => f.write_str("writes stand still in the database"),
            Self::AbortAppends => f.write_str("the database aborts every append"),
        }
    }
}
