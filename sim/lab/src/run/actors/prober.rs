//! Tests the cluster from outside: it works, reports that it is healthy, and refuses bad requests.

use std::collections::BTreeSet;

use http::Method;
use rmom_client::{Client, Start};
use rmom_proto::messages::ProducerStamp;
use rmom_sim::history::{Event, Phase};
use tokio::time::{Duration, Instant, sleep, timeout};
use uuid::Uuid;

use super::{
    Actor, LOOK, MARKER, RETRY, accounts,
    consumer_library::create_channel,
    consumer_raw::Observer,
    examiner,
    producer_raw::{Line, Message, attempt},
    stray, topic,
};
use crate::run::{settings::LOOKUP_TIMEOUT, wire::Rest};

/// How long a probe may take before the next one is sent.
const PROBE: Duration = Duration::from_secs(4);
/// How often the channels are looked up during the workload.
const CHANNELS: Duration = Duration::from_secs(3);

pub(super) async fn run(actor: Actor, client: Client) {
    actor.wait_for_the_workload().await;
    let (looking_after, provoking) = (examiner::look_after(actor.clone()), examiner::provoke(actor.clone()));
    let (straying, accounting) = (stray::run(actor.clone()), accounts::run(actor.clone()));
    tokio::join!(biased; probe_and_mark(actor, client), looking_after, provoking, straying, accounting);
}

/// Sends probes and last messages in their phases of the run.
async fn probe_and_mark(actor: Actor, client: Client) {
    let mut next_look = Instant::now() + CHANNELS;
    loop {
        match actor.run.phase() {
            Some(Phase::Healed) => probe_queues(&actor, &client).await,
            Some(Phase::Drain) => mark_queues(&actor).await,
            _ => {}
        }
        if Instant::now() >= next_look {
            look_at_channels(&actor).await;
            next_look = Instant::now() + CHANNELS;
        }
        sleep(LOOK).await;
    }
}

/// Sends two messages, one with a producer and one without, through each queue to a subscriber of its own, until both
/// arrive.
async fn probe_queues(actor: &Actor, client: &Client) {
    let queues = actor.run.with(|state| state.queues.clone());
    for queue in queues {
        let Some(id) = queue.id else { continue };
        if actor.run.with(|state| state.probed.contains(&id)) {
            continue;
        }
        if timeout(PROBE, probe(actor, client, &queue.label)).await.is_ok_and(|through| through) {
            actor.run.with(|state| state.probed.insert(id));
        } else {
            actor.run.cut_short(&actor.host, "ABANDONED");
            sleep(RETRY).await;
        }
    }
}

async fn probe(actor: &Actor, client: &Client, label: &str) -> bool {
    let Some((channel, _, start)) = create_channel(actor, client, label, 0, Start::Latest).await else { return false };
    let mut observer = Observer::new(actor, &format!("probe-{channel}"));
    let Ok(mut stream) = observer.open(actor, channel, None, start).await else { return false };
    let (body, plain) = (format!("probe-{}", actor.run.next_op()), format!("probe-{}", actor.run.next_op()));
    // One line for both: if the first manager is lost, finding the broker takes a second, and there are several queues.
    let mut line = Line::new(actor, label);
    if !push(actor, &mut line, label, &body, 0).await || !push_plain(actor, &mut line, label, &plain).await {
        stream.end(actor, "LEFT".to_owned());
        return false;
    }
    let mut missing = BTreeSet::from([body, plain]);
    while !missing.is_empty() {
        match stream.next(actor).await {
            Ok(found) => missing.remove(&found),
            Err(_) => return false,
        };
    }
    stream.end(actor, "LEFT".to_owned());
    actor.run.with(|state| state.channels.remove(&channel));
    true
}

/// Pushes one message under a producer of its own, until it is acknowledged.
async fn push(actor: &Actor, line: &mut Line, label: &str, body: &str, topic_number: u64) -> bool {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}:{body}", actor.run.scenario.seed).as_bytes());
    let stamp = ProducerStamp { id: id.as_bytes().to_vec().into(), epoch: 0, lowest_unacknowledged: 1 };
    loop {
        let message = Message {
            topic: topic(topic_number),
            body: body.to_owned(),
            producer: Some((body.to_owned(), stamp.clone())),
            sequence: 1,
            ttl_millis: None,
            queue_id: None,
        };
        match attempt(actor, line, label, message).await {
            Ok(_) => return true,
            Err(error) if matches!(error.code.as_str(), "QUEUE_REPLACED" | "QUEUE_NOT_FOUND") => return false,
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Pushes one message as the original's clients do, until it is acknowledged or may be stored.
async fn push_plain(actor: &Actor, line: &mut Line, label: &str, body: &str) -> bool {
    loop {
        let message = Message {
            topic: topic(0),
            body: body.to_owned(),
            producer: None,
            sequence: 1,
            ttl_millis: None,
            queue_id: None,
        };
        match attempt(actor, line, label, message).await {
            Ok(_) => return true,
            Err(error) if error.unknown => return false,
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Pushes the last messages to each queue: one of each topic that has a subscriber, and one without a topic.
async fn mark_queues(actor: &Actor) {
    let queues = actor.run.with(|state| state.queues.clone());
    for (number, queue) in (1_u8..).zip(&queues) {
        let Some(id) = queue.id else { continue };
        if actor.run.with(|state| state.marked.contains(&id) || !state.open_pushes.is_empty()) {
            continue;
        }
        let consumers = &actor.run.scenario.workload.consumers;
        let topics: BTreeSet<u8> = consumers
            .iter()
            .filter(|plan| actor.run.label(plan.queue) == queue.label)
            .map(|plan| plan.topic.unwrap_or(0))
            .collect();
        let (mut all, mut line) = (true, Line::new(actor, &queue.label));
        for topic in topics {
            let body = format!("{MARKER}{number}-{topic}-{}", actor.run.next_op());
            all &= push(actor, &mut line, &queue.label, &body, u64::from(topic)).await;
        }
        if all {
            actor.run.with(|state| state.marked.insert(id));
        }
    }
}

/// Looks up each channel that ought to exist at a manager.
async fn look_at_channels(actor: &Actor) {
    let mut rest = Rest::new(usize::from(actor.run.scenario.topology.managers), LOOKUP_TIMEOUT);
    let channels = actor.run.with(|state| state.channels.keys().copied().collect::<Vec<_>>());
    for channel in channels {
        let topic = match rest.ok(Method::GET, &format!("/channels/{channel}"), None).await {
            Ok(found) => found["topic"].as_str().map(|topic| if topic == "__none__" { "" } else { topic }.to_owned()),
            Err(error) if error.code == "CHANNEL_NOT_FOUND" => None,
            Err(_) => continue,
        };
        // While the channel is being deleted, either answer is correct.
        if actor.run.with(|state| state.channels.contains_key(&channel)) {
            actor.record(Event::ChannelSeen { channel, topic });
        }
    }
}
