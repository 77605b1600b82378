//! `rmom bench idle`.

use std::{collections::BTreeMap, time::Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rmom_client::Start;
use rmom_proto::messages::{Message, SubscriptionRequest, message_stream_client::MessageStreamClient};
use tokio::time::sleep;
use tonic::{Code, Streaming, transport::Channel};

use super::{
    args::{IdleBench, Sizes},
    audit::within_patience,
    clock::{Clock, Micros},
    env::{BUSY_PAUSE, Env, PATIENCE, broken, message},
    payload::{Checker, Source},
    report::Report,
    usage::Usage,
};
use crate::cli::error::CliError;

/// Number of subscriptions that are opened at once.
const OPENED_AT_ONCE: usize = 64;
/// Size in bytes of the messages that show whether all subscribers are awake.
const SIZE: &str = "100";

/// A subscription, and the number of its queue.
type Subscription = (usize, Streaming<Message>);

pub(super) async fn run(env: &Env, args: &IdleBench) -> Result<Report, CliError> {
    let empty = env.usages();
    let started = Instant::now();
    let queues = env.create_queues(args.queues).await?;
    env.tell("creating channels");
    let admin = env.client().admin();
    let all = args.queues.saturating_mul(args.channels);
    let queue_of = |channel: u32| (channel % args.queues) as usize;
    let create = |channel| admin.create_channel(&queues[queue_of(channel)], None, Start::Earliest);
    let channels = env.for_each(all, create).await?;
    let created = started.elapsed();
    let with_queues = env.usages();
    env.tell("subscribing");
    let connections = connect(env, args, &queues).await?;
    let open = |number: u32| {
        let channel = number % all;
        let request = SubscriptionRequest { channel_id: channels[channel as usize].id.to_string(), position: None };
        let pool = &connections[&queue_of(channel)];
        let mut client = MessageStreamClient::new(pool[number as usize % pool.len()].clone());
        async move {
            let deadline = Instant::now() + PATIENCE;
            loop {
                match client.subscribe_to_channel(request.clone()).await {
                    Ok(response) => return Ok((queue_of(channel), response.into_inner())),
                    // A broker limits the number of channels that it looks up per second.
                    Err(status) if status.code() == Code::ResourceExhausted && Instant::now() < deadline => {
                        sleep(BUSY_PAUSE).await;
                    }
                    Err(status) => {
                        return Err(CliError::unavailable(format_args!("cannot subscribe: {}", status.message())));
                    }
                }
            }
        }
    };
    let subscriptions = stream::iter((0..args.subscribers).map(open)).buffer_unordered(OPENED_AT_ONCE);
    let subscriptions: Vec<Subscription> = subscriptions.try_collect().await?;

    env.tell("doing nothing");
    let clock = Clock::start(args.time.warm_up, args.time.duration);
    let costs = env.costs(&clock).await;
    let full = env.usages();
    env.tell("waking everybody");
    wake(env, &queues, subscriptions).await?;

    let mut report = Report::new("idle", clock.measured());
    report.setting("queues", args.queues);
    report.setting("channels per queue", args.channels);
    report.setting("subscribers", args.subscribers);
    report.setting("connections", args.connections.min(args.subscribers));
    report.time("creating took", created);
    if env.own.is_some() {
        let growth = |from: &[(String, Usage)], to: &[(String, Usage)]| servers(to).saturating_sub(servers(from));
        report.bytes("memory before", servers(&empty));
        report.bytes("memory for queues and channels", growth(&empty, &with_queues));
        report.bytes("memory for subscribers", growth(&with_queues, &full));
    }
    report.count("subscribers that were awake at the end", u64::from(args.subscribers));
    report.costs(costs);
    Ok(report)
}

/// Memory of all servers; this process is the last entry.
fn servers(usages: &[(String, Usage)]) -> u64 {
    let (_, servers) = usages.split_last().map_or((None, usages), |(this, servers)| (Some(this), servers));
    servers.iter().map(|(_, usage)| usage.resident).sum()
}

/// Opens connections to the broker of each queue; queues of one broker share them.
async fn connect(env: &Env, args: &IdleBench, queues: &[String]) -> Result<BTreeMap<usize, Vec<Channel>>, CliError> {
    let mut brokers: BTreeMap<String, Vec<Channel>> = BTreeMap::new();
    let mut of_queues = BTreeMap::new();
    if args.subscribers == 0 {
        return Ok(of_queues);
    }
    let endpoints = stream::iter(queues.iter().map(|queue| env.endpoint(queue))).buffered(OPENED_AT_ONCE);
    let endpoints: Vec<_> = endpoints.try_collect().await?;
    for (number, endpoint) in endpoints.into_iter().enumerate() {
        let broker = endpoint.uri().to_string();
        if !brokers.contains_key(&broker) {
            let mut pool = Vec::new();
            for _ in 0..args.connections.min(args.subscribers) {
                pool.push(super::pusher::connect(&endpoint).await?);
            }
            brokers.insert(broker.clone(), pool);
        }
        of_queues.insert(number, brokers[&broker].clone());
    }
    Ok(of_queues)
}

/// Pushes a message to every queue that has subscribers, and checks that each of them receives it.
async fn wake(env: &Env, queues: &[String], subscriptions: Vec<Subscription>) -> Result<(), CliError> {
    let sizes: Sizes = SIZE.parse().map_err(CliError::refused)?;
    let last = subscriptions.iter().map(|(queue, _)| *queue + 1).max().unwrap_or_default();
    for queue in &queues[..last] {
        let (content, number) = Source::new(0, &sizes).next(Micros::default());
        let producer = env.client().producer(queue).open().await.map_err(|error| env.explain(&error))?;
        producer.push(message(content, number, 0)).await.map_err(|error| env.explain(&error))?;
    }
    for (received, (_, mut subscription)) in (0..).zip(subscriptions) {
        let message = within_patience(subscription.next(), received).await?;
        let message = message.and_then(Result::ok).ok_or_else(|| CliError::refused("a subscription ended"))?;
        Checker::new(0, 1, 0, 1).check(&message.content).map_err(|error| broken("a subscriber", &error))?;
    }
    Ok(())
}
