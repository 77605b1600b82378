//! The scenario, in its human-readable file format.

use std::{fmt, str::FromStr};

use rmom_core::model::limits::MAX_BATCH_MESSAGES;
use rmom_sim::DatabaseFault;
use serde::{Deserialize, Serialize};

/// A whole run. The same scenario always gives the same run, event for event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A description for readers; it has no effect.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The seed of all random draws within the run: latencies, the order of hosts, ids, jitter.
    pub seed: u64,
    /// Hosts and settings.
    pub topology: Topology,
    /// The work of operators, producers and consumers.
    pub workload: Workload,
    /// Faults and other events, in any order.
    pub steps: Vec<Step>,
}

/// Hosts and their settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Number of managers.
    pub managers: u8,
    /// Number of brokers.
    pub brokers: u8,
    /// Least and greatest latency of a segment, in milliseconds.
    pub latency_millis: (u64, u64),
    /// The brokers' `message_ttl`; `None` means no expiry.
    pub message_ttl_millis: Option<u64>,
    /// The brokers' `queue_buffer_messages`: with small ones, subscribers read from the store.
    pub queue_buffer_messages: u64,
    /// The brokers' `max_batch_messages`: with small ones, messages pushed together are stored in parts.
    #[serde(default = "any_batch")]
    pub batch_messages: u64,
    /// The brokers' `channel_idle_expiry`; `None` means no expiry. If set, the original's consumers create disposable
    /// channels, as in the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_idle_millis: Option<u64>,
    /// Limits that are small in this scenario.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Small limits of the brokers, so that a run of some hundred messages meets situations that otherwise take days and
/// millions of messages: snapshots of producers, ends of pages, full buffers, forgotten producers. A broker then reads the
/// store for one subscriber at a time, and checks for expired messages at least every two seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Batches after which the producers are saved.
    pub snapshot_batches: u64,
    /// Headers read, or batches removed, at a time.
    pub page_batches: u32,
    /// Bytes that a subscriber reads at a time; a batch is full with as many.
    pub page_bytes: u64,
    /// The brokers' `max_pending_bytes`.
    pub pending_bytes: u64,
    /// The brokers' `max_lookups_per_second`.
    pub lookups: u32,
    /// Time that the database takes for each row that a statement reads, in microseconds: exposes costs that grow with the
    /// stored data.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub row_micros: u64,
    /// Connections that a broker accepts from one address. A client then opens as many as it can get. 0 means the usual
    /// limit.
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    pub connections: u32,
}

/// As many messages per batch as brokers allow.
fn any_batch() -> u64 {
    MAX_BATCH_MESSAGES as u64
}

/// The work of operators, producers and consumers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Number of queues, with their channels, that exist from the start.
    pub queues: u8,
    /// Producers, each on a host of its own.
    pub producers: Vec<ProducerPlan>,
    /// Consumers, each on a host of its own.
    pub consumers: Vec<ConsumerPlan>,
    /// How long producers try to deliver a message, in milliseconds; `None` means as long as the run lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_millis: Option<u64>,
    /// How long everything goes on after the faults are over and everything is in order, in milliseconds. This exposes
    /// activity that should have ended by then.
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
    /// Our library, with several pushes in flight.
    Library,
    /// Our library, with a name that is opened again half-way. The first producer is then used once more, by mistake.
    Named,
    /// Unary pushes on the raw wire with a producer and sequences, retried after every error.
    RawStamped,
    /// Like [`ProducerKind::RawStamped`], but with several pushes in flight at once, over several connections, so that they
    /// arrive in any order and with gaps.
    RawPipelined,
    /// Unary pushes like those of the original's clients: no producer, a new look-up of the queue's host after an error, no
    /// retry of a message that may have been stored.
    RawPlain,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerPlan {
    /// The way it pushes.
    pub kind: ProducerKind,
    /// Its queue, counted from 1.
    pub queue: u8,
    /// Number of messages.
    pub pushes: u32,
    /// Pause between two messages, in milliseconds.
    pub pace_millis: u64,
    /// Messages pushed at once, after a pause that is longer in proportion. A producer that waits for each answer cannot do
    /// this.
    #[serde(default = "one")]
    pub burst: u32,
    /// Its messages use this many topics in turn; 0 means no topic.
    pub topics: u8,
    /// Lifetime that its messages ask for, in milliseconds; `None` means the broker's.
    pub ttl_millis: Option<u64>,
    /// Least size of a message's content, in bytes.
    pub body_bytes: u32,
    /// One in this many messages is too large for the brokers; 0 means none is. Only for our library.
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

/// The way a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsumerKind {
    /// An application that uses our library and keeps its position.
    Library,
    /// An observer on the raw wire that resumes after its last known position.
    RawResuming,
    /// An observer on the raw wire that, like the original's consumers, creates a new channel after each break, reads
    /// everything from the start and drops known messages by id.
    RawOriginal,
}

/// One consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerPlan {
    /// The way it reads.
    pub kind: ConsumerKind,
    /// Its queue, counted from 1.
    pub queue: u8,
    /// Its topic, counted from 1; `None` means all messages.
    pub topic: Option<u8>,
    /// True to start with messages that are pushed after the channel was created.
    pub latest: bool,
    /// Work per message, in milliseconds.
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
    /// The operator, which creates and deletes queues and channels.
    Operator,
}

/// An action on the cluster, for a while. Faults last, so that they have an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Beginning, in milliseconds since the workload began.
    pub at_millis: u64,
    /// Duration, in milliseconds; 0 for actions that take no time and are not undone.
    pub for_millis: u64,
    /// The action.
    pub action: Action,
}

/// An action on the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The host's process is killed, and starts again at the end of the step.
    Crash(Host),
    /// The host loses its power: like a crash, but its peers are not notified.
    PowerLoss(Host),
    /// The broker or manager loses its power and does not come back. The last of its kind is spared.
    Lose(Host),
    /// The broker or manager permanently loses its link to the database; all else goes on. The last of its kind is spared.
    CutOff(Host),
    /// Nothing crosses between the two groups in either direction. Messages sent meanwhile are lost.
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
    /// Messages sent between the groups wait, and arrive at the end of the step.
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
        /// Latency of a segment, in milliseconds.
        latency_millis: u64,
    },
    /// The broker is frozen: nothing leaves or reaches it until the end of the step.
    Freeze(Host),
    /// A host's clock is permanently set forward or back; the database's clock decides when messages expire.
    ClockJump {
        /// The host.
        host: Host,
        /// The change, in milliseconds.
        millis: i64,
    },
    /// The database has a fault.
    Database(DatabaseFault),
    /// The broker is drained until the end of the step.
    Drain(Host),
    /// The broker is drained permanently: its queues have to move elsewhere. The last one is spared.
    DrainForGood(Host),
    /// A queue is deleted, and created again at the end of the step.
    RecreateQueue(u8),
    /// Channels are created on a queue, and deleted at the end of the step.
    ChurnChannels {
        /// The queue.
        queue: u8,
        /// Number of channels.
        count: u8,
    },
    /// The consumer takes nothing during the step, but keeps its stream.
    StallConsumer(u8),
    /// The consumer's application ends, keeps its position, and comes back at the end of the step.
    LeaveConsumer(u8),
    /// The consumer's channel is deleted without its knowledge.
    DeleteChannel(u8),
    /// Another process starts, by mistake, under the host and port of this broker, which notices that it was replaced, ends,
    /// and is restarted after a while. At the end of the step the other process is gone.
    Twin(Host),
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

/// The text is not the name of a host.
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

/// The names of the hosts of a group.
fn group(hosts: &[Host]) -> String {
    hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A sentence for the report of a run.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(host) => write!(f, "{host} crashes"),
            Self::PowerLoss(host) => write!(f, "{host} loses its power"),
            Self::Lose(host) => write!(f, "{host} is lost permanently"),
            Self::CutOff(host) => write!(f, "{host} is cut off from the database permanently"),
            Self::Cut { between, and } => {
                write!(f, "{} and {} are cut off from each other", group(between), group(and))
            }
            Self::CutOneway { from, to } => write!(f, "traffic from {} to {} is lost", group(from), group(to)),
            Self::Hold { between, and } => {
                write!(f, "traffic between {} and {} is held", group(between), group(and))
            }
            Self::Slow { between, and, latency_millis } => {
                write!(f, "a segment between {} and {} takes {latency_millis} ms", group(between), group(and))
            }
            Self::Freeze(host) => write!(f, "{host} is frozen"),
            Self::ClockJump { host, millis } => write!(f, "the clock of {host} is set by {millis} ms"),
            Self::Database(fault) => fault.fmt(f),
            Self::Drain(host) => write!(f, "{host} is drained"),
            Self::DrainForGood(host) => write!(f, "{host} is drained permanently"),
            Self::RecreateQueue(queue) => write!(f, "queue {queue} is deleted, and created again later"),
            Self::ChurnChannels { queue, count } => {
                write!(f, "{count} channels are created on queue {queue}, and deleted later")
            }
            Self::StallConsumer(number) => write!(f, "consumer-{number} stops reading"),
            Self::LeaveConsumer(number) => write!(f, "consumer-{number} leaves"),
            Self::DeleteChannel(number) => write!(f, "the channel of consumer-{number} is being deleted"),
            Self::Twin(host) => write!(f, "another process starts under the address of {host}"),
        }
    }
}
