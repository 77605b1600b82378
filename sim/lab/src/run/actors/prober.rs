//! Tests the cluster from outside: it works, reports that it is healthy, and refuses bad requests.

use std::collections::BTreeSet;

use http::Method;
use rmom_client::{Client, Start};
use rmom_proto::messages::ProducerStamp;
use rmom_sim::history::{Event, Phase};
use tokio::time::{Duration, Instant, sleep, timeout};
use uuid::Uuid;

use super::{
    LOOK, MARKER, Me, RETRY, accounts,
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

pub(super) async fn run(me: Me, client: Client) {
    me.wait_for_the_workload().await;
    let (looking_after, provoking) = (examiner::look_after(me.clone()), examiner::provoke(me.clone()));
    let (straying, accounting) = (stray::run(me.clone()), accounts::run(me.clone()));
    tokio::join!(biased; probe_and_mark(me, client), looking_after, provoking, straying, accounting);
}

/// Sends probes and last messages in their phases of the run.
async fn probe_and_mark(me: Me, client: Client) {
    let mut next_look = Instant::now() + CHANNELS;
    loop {
        match me.stage.phase() {
            Some(Phase::Healed) => probe_queues(&me, &client).await,
            Some(Phase::Drain) => mark_queues(&me).await,
            _ => {}
        }
        if Instant::now() >= next_look {
            look_at_channels(&me).await;
            next_look = Instant::now() + CHANNELS;
        }
        sleep(LOOK).await;
    }
}

/// Sends two messages, one with a producer and one without, through each queue to a subscriber of its own, until both
/// arrive.
async fn probe_queues(me: &Me, client: &Client) {
    let queues = me.stage.with(|state| state.queues.clone());
    for queue in queues {
        let Some(id) = queue.id else { continue };
        if me.stage.with(|state| state.probed.contains(&id)) {
            continue;
        }
        if timeout(PROBE, probe(me, client, &queue.label)).await.is_ok_and(|through| through) {
            me.stage.with(|state| state.probed.insert(id));
        } else {
            me.stage.cut_short(&me.host, "ABANDONED");
            sleep(RETRY).await;
        }
    }
}

async fn probe(me: &Me, client: &Client, label: &str) -> bool {
    let Some((channel, _, start)) = create_channel(me, client, label, 0, Start::Latest).await else { return false };
    let mut observer = Observer::new(me, &format!("probe-{channel}"));
    let Ok(mut stream) = observer.open(me, channel, None, start).await else { return false };
    let (body, plain) = (format!("probe-{}", me.stage.next_op()), format!("probe-{}", me.stage.next_op()));
    // One line for both: if the first manager is lost, finding the broker takes a second, and there are several queues.
    let mut line = Line::new(me, label);
    if !push(me, &mut line, label, &body, 0).await || !push_plain(me, &mut line, label, &plain).await {
        stream.end(me, "LEFT".to_owned());
        return false;
    }
    let mut missing = BTreeSet::from([body, plain]);
    while !missing.is_empty() {
        match stream.next(me).await {
            Ok(found) => missing.remove(&found),
            Err(_) => return false,
        };
    }
    stream.end(me, "LEFT".to_owned());
    me.stage.with(|state| state.channels.remove(&channel));
    true
}

/// Pushes one message under a producer of its own, until it is acknowledged.
async fn push(me: &Me, line: &mut Line, label: &str, body: &str, topic_number: u64) -> bool {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}:{body}", me.stage.scenario.seed).as_bytes());
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
        match attempt(me, line, label, message).await {
            Ok(_) => return true,
            Err(error) if matches!(error.code.as_str(), "QUEUE_REPLACED" | "QUEUE_NOT_FOUND") => return false,
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Pushes one message as the original's clients do, until it is acknowledged or may be stored.
async fn push_plain(me: &Me, line: &mut Line, label: &str, body: &str) -> bool {
    loop {
        let message = Message {
            topic: topic(0),
            body: body.to_owned(),
            producer: None,
            sequence: 1,
            ttl_millis: None,
            queue_id: None,
        };
        match attempt(me, line, label, message).await {
            Ok(_) => return true,
            Err(error) if error.unknown => return false,
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Pushes the last messages to each queue: one of each topic that has a subscriber, and one without a topic.
async fn mark_queues(me: &Me) {
    let queues = me.stage.with(|state| state.queues.clone());
    for (number, queue) in (1_u8..).zip(&queues) {
        let Some(id) = queue.id else { continue };
        if me.stage.with(|state| state.marked.contains(&id) || !state.open_pushes.is_empty()) {
            continue;
        }
        let consumers = &me.stage.scenario.workload.consumers;
        let topics: BTreeSet<u8> = consumers
            .iter()
            .filter(|plan| me.stage.label(plan.queue) == queue.label)
            .map(|plan| plan.topic.unwrap_or(0))
            .collect();
        let (mut all, mut line) = (true, Line::new(me, &queue.label));
        for topic in topics {
            let body = format!("{MARKER}{number}-{topic}-{}", me.stage.next_op());
            all &= push(me, &mut line, &queue.label, &body, u64::from(topic)).await;
        }
        if all {
            me.stage.with(|state| state.marked.insert(id));
        }
    }
}

/// Looks up each channel that ought to exist at a manager.
async fn look_at_channels(me: &Me) {
    let mut rest = Rest::new(usize::from(me.stage.scenario.topology.managers), LOOKUP_TIMEOUT);
    let channels = me.stage.with(|state| state.channels.keys().copied().collect::<Vec<_>>());
    for channel in channels {
        let topic = match rest.ok(Method::GET, &format!("/channels/{channel}"), None).await {
            Ok(found) => found["topic"].as_str().map(|topic| if topic == "__none__" { "" } else { topic }.to_owned()),
            Err(error) if error.code == "CHANNEL_NOT_FOUND" => None,
            Err(_) => continue,
        };
        // While the channel is being deleted, either answer is correct.
        if me.stage.with(|state| state.channels.contains_key(&channel)) {
            me.record(Event::ChannelSeen { channel, topic });
        }
    }
}
