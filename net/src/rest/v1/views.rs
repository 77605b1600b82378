//! Answers of the routes under `/v1/`, as JSON. Durations are in milliseconds.

use std::time::Duration;

use rmom_core::{
    access::Call,
    manager::{
        BrokerView, CycleStatus, ListedQueue, Manager, ManagerCounters, MovedQueue, PlacedChannel, PlacedQueue,
        ProbeView, QueueDetails,
    },
    model::{BrokerAddr, BrokerId, ChannelId, Epoch, Incarnation, ManagerId, Offset, QueueId, Term},
    ports::{
        BrokerState, ChannelRecord, QueueActivity, QueueDescription, QueueRecord, QueueState, SubscriberDescription,
    },
};
use serde::Serialize;

use crate::serve::ServeStats;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A queue and its assigned broker.
#[derive(Serialize)]
pub(super) struct Queue {
    id: QueueId,
    label: String,
    broker_id: Option<BrokerId>,
    host: Option<String>,
    port: Option<u16>,
}

impl Queue {
    fn new(id: QueueId, label: String, assignee: Option<(BrokerId, &BrokerAddr)>) -> Self {
        let (broker_id, addr) = assignee.unzip();
        Self { id, label, broker_id, host: addr.map(|addr| addr.host.clone()), port: addr.map(|addr| addr.port) }
    }
}

impl From<&QueueRecord> for Queue {
    fn from(queue: &QueueRecord) -> Self {
        let assignee = queue.assignee.as_ref().map(|(id, addr)| (*id, addr));
        Self::new(queue.id, queue.label.to_string(), assignee)
    }
}

impl From<&PlacedQueue> for Queue {
    fn from(queue: &PlacedQueue) -> Self {
        Self::new(queue.id, queue.label.to_string(), Some((queue.broker, &queue.addr)))
    }
}

/// A queue, described by its broker if that answers.
#[derive(Serialize)]
pub(super) struct DescribedQueue {
    #[serde(flatten)]
    queue: Queue,
    live: Option<Live>,
    /// The reason why `live` is missing.
    live_error: Option<String>,
}

#[derive(Serialize)]
struct Live {
    state: &'static str,
    /// The reason why the queue is not served.
    reason: Option<String>,
    epoch: Epoch,
    last_offset: Offset,
    depth_messages: u64,
    depth_bytes: u64,
    oldest_age_millis: u64,
    subscriber_count: u64,
    largest_lag: u64,
    /// Left out in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribers: Option<Vec<Subscriber>>,
}

#[derive(Serialize)]
struct Subscriber {
    channel_id: ChannelId,
    topic: Option<String>,
    peer: String,
    offset: Offset,
    lag: u64,
}

impl From<&QueueDetails> for DescribedQueue {
    fn from(details: &QueueDetails) -> Self {
        Self {
            queue: Queue::from(&details.queue),
            live: details.live.as_ref().ok().map(Live::from),
            live_error: details.live.as_ref().err().map(ToString::to_string),
        }
    }
}

impl From<&ListedQueue> for DescribedQueue {
    fn from(listed: &ListedQueue) -> Self {
        Self {
            queue: Queue::from(&listed.queue),
            live: listed.live.as_ref().ok().map(Live::from),
            live_error: listed.live.as_ref().err().map(ToString::to_string),
        }
    }
}

impl From<&QueueState> for Live {
    fn from(live: &QueueState) -> Self {
        Self {
            state: match live.activity {
                QueueActivity::Waiting => "waiting",
                QueueActivity::Served => "served",
                QueueActivity::Halted => "halted",
            },
            reason: live.reason.clone(),
            epoch: live.epoch,
            last_offset: live.last_offset,
            depth_messages: live.depth_messages,
            depth_bytes: live.depth_bytes,
            oldest_age_millis: millis(live.oldest_age),
            subscriber_count: live.subscribers,
            largest_lag: live.largest_lag,
            subscribers: None,
        }
    }
}

impl From<&QueueDescription> for Live {
    fn from(live: &QueueDescription) -> Self {
        Self {
            // A broker describes only queues that it serves.
            state: "served",
            reason: None,
            epoch: live.epoch,
            last_offset: live.last_offset,
            depth_messages: live.depth_messages,
            depth_bytes: live.depth_bytes,
            oldest_age_millis: millis(live.oldest_age),
            subscriber_count: live.subscribers.len() as u64,
            largest_lag: live.subscribers.iter().map(|subscriber| subscriber.lag).max().unwrap_or_default(),
            subscribers: Some(live.subscribers.iter().map(Subscriber::from).collect()),
        }
    }
}

impl From<&SubscriberDescription> for Subscriber {
    fn from(subscriber: &SubscriberDescription) -> Self {
        Self {
            channel_id: subscriber.channel,
            topic: subscriber.topic.name().map(str::to_owned),
            peer: subscriber.peer.clone(),
            offset: subscriber.offset,
            lag: subscriber.lag,
        }
    }
}

/// A channel and the broker assigned to its queue.
#[derive(Serialize)]
pub(super) struct Channel {
    id: ChannelId,
    queue_id: QueueId,
    queue_label: String,
    topic: Option<String>,
    start: Offset,
    host: Option<String>,
    port: Option<u16>,
}

impl Channel {
    fn new(channel: &ChannelRecord, addr: Option<&BrokerAddr>) -> Self {
        Self {
            id: channel.id,
            queue_id: channel.queue,
            queue_label: channel.label.to_string(),
            topic: channel.topic.name().map(str::to_owned),
            start: channel.start,
            host: addr.map(|addr| addr.host.clone()),
            port: addr.map(|addr| addr.port),
        }
    }
}

impl From<&ChannelRecord> for Channel {
    fn from(channel: &ChannelRecord) -> Self {
        Self::new(channel, channel.assignee.as_ref().map(|(_, addr)| addr))
    }
}

impl From<&PlacedChannel> for Channel {
    fn from(placed: &PlacedChannel) -> Self {
        Self::new(&placed.channel, Some(&placed.addr))
    }
}

/// A broker, registered or only listed by the operator.
#[derive(Serialize)]
pub(super) struct Broker {
    id: Option<BrokerId>,
    host: String,
    port: u16,
    state: &'static str,
    live: bool,
    lease_current: bool,
    configured: bool,
    gone: bool,
    incarnation: Option<Incarnation>,
    queues: u64,
    probe: Option<Probe>,
}

#[derive(Serialize)]
struct Probe {
    last_success_age_millis: Option<u64>,
    failures_in_a_row: u32,
    last_error: Option<String>,
}

impl From<&BrokerView> for Broker {
    fn from(broker: &BrokerView) -> Self {
        let registered = broker.registered.as_ref();
        Self {
            id: registered.map(|registered| registered.id),
            host: broker.addr.host.clone(),
            port: broker.addr.port,
            state: registered.map_or("unregistered", |registered| match registered.state {
                BrokerState::Up => "up",
                BrokerState::Draining => "draining",
                BrokerState::Stopped => "stopped",
            }),
            live: broker.live,
            lease_current: registered.is_some_and(|registered| registered.lease_current),
            configured: broker.configured,
            gone: broker.gone,
            incarnation: registered.map(|registered| registered.incarnation),
            queues: registered.map_or(0, |registered| registered.queues),
            probe: broker.probe.as_ref().map(Probe::from),
        }
    }
}

impl From<&ProbeView> for Probe {
    fn from(probe: &ProbeView) -> Self {
        Self {
            last_success_age_millis: probe.last_success_age.map(millis),
            failures_in_a_row: probe.failures_in_a_row,
            last_error: probe.last_error.clone(),
        }
    }
}

/// The result of a call to rebalance.
#[derive(Serialize)]
pub(super) struct Rebalanced {
    moved: Vec<Moved>,
    left: usize,
}

#[derive(Serialize)]
struct Moved {
    label: String,
    from: BrokerAddr,
    to: BrokerAddr,
    served: bool,
}

impl From<&rmom_core::manager::Rebalanced> for Rebalanced {
    fn from(done: &rmom_core::manager::Rebalanced) -> Self {
        Self { moved: done.moved.iter().map(Moved::from).collect(), left: done.left }
    }
}

impl From<&MovedQueue> for Moved {
    fn from(moved: &MovedQueue) -> Self {
        let MovedQueue { label, from, to, served } = moved;
        Self { label: label.to_string(), from: from.clone(), to: to.clone(), served: *served }
    }
}

/// The manager that answers.
#[derive(Serialize)]
pub(super) struct Status {
    manager_id: ManagerId,
    leading: bool,
    leader_id: Option<ManagerId>,
    term: Term,
    stopping: bool,
    operations: u32,
    operations_limit: u32,
    brokers: Vec<Broker>,
    last_cycle: Option<Cycle>,
    counters: Counters,
    healthy: bool,
    problems: Vec<Problem>,
    notes: Vec<String>,
}

/// A fault, and the operator's next step.
#[derive(Serialize)]
struct Problem {
    what: String,
    next: String,
}

#[derive(Serialize)]
struct Cycle {
    duration_millis: u64,
    age_millis: u64,
    led: bool,
    live_brokers: usize,
    queues: usize,
    stranded_queues: usize,
    error: Option<String>,
}

#[derive(Serialize)]
struct Counters {
    cycles: u64,
    cycles_failed: u64,
    elected: u64,
    lead_failures: u64,
    probes: u64,
    probes_failed: u64,
    failovers: u64,
    handovers: u64,
    rebalanced: u64,
    placed: u64,
    lost_races: u64,
    nudges_failed: u64,
    nudges_dropped: u64,
    purged_batches: u64,
    operations: u64,
    operations_failed: u64,
}

impl Status {
    pub(super) async fn of(manager: &Manager<Call>, connections: &ServeStats) -> Self {
        let status = manager.status();
        let health = manager.health(&status).await;
        let problem = |problem: rmom_core::manager::Problem| Problem { what: problem.what, next: problem.next };
        let own = connections.complaints().into_iter().map(|complaint| Problem {
            what: format!("this manager: {complaint}"),
            next: "see its log and its /metrics; close clients, or raise the limit".to_owned(),
        });
        let problems: Vec<_> = own.chain(health.problems.into_iter().map(problem)).collect();
        Self {
            healthy: problems.is_empty(),
            problems,
            notes: health.notes,
            manager_id: status.manager,
            leading: status.leading,
            leader_id: status.leader,
            term: status.term,
            stopping: status.stopping,
            operations: status.calls.0,
            operations_limit: status.calls.1,
            brokers: status.brokers.iter().map(Broker::from).collect(),
            last_cycle: status.last_cycle.as_ref().map(Cycle::from),
            counters: Counters::from(&status.counters),
        }
    }
}

impl From<&CycleStatus> for Cycle {
    fn from(cycle: &CycleStatus) -> Self {
        Self {
            duration_millis: millis(cycle.duration),
            age_millis: millis(cycle.age),
            led: cycle.led,
            live_brokers: cycle.live_brokers,
            queues: cycle.queues,
            stranded_queues: cycle.stranded,
            error: cycle.error.clone(),
        }
    }
}

impl From<&ManagerCounters> for Counters {
    fn from(counters: &ManagerCounters) -> Self {
        Self {
            cycles: counters.cycles,
            cycles_failed: counters.cycles_failed,
            elected: counters.elected,
            lead_failures: counters.lead_failures,
            probes: counters.probes,
            probes_failed: counters.probes_failed,
            failovers: counters.failovers,
            handovers: counters.handovers,
            rebalanced: counters.rebalanced,
            placed: counters.placed,
            lost_races: counters.lost_races,
            nudges_failed: counters.nudges_failed,
            nudges_dropped: counters.nudges_dropped,
            purged_batches: counters.purged_batches,
            operations: counters.admin_calls,
            operations_failed: counters.admin_failures,
        }
    }
}
