//! `rmom bench failover`.

use std::time::Duration;

use rmom_client::{Admin, Start};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    args::{FailoverBench, MessageArgs, Mode},
    audit::{self, Stored},
    clock::{Clock, Micros, Times},
    env::{Counter, Env, PATIENCE, Task, join, message, pause},
    payload::{Checker, Source},
    pusher::{self, Plan, Stop},
    report::Report,
};
use crate::{
    cli::{error::CliError, session::Session},
    service::authority,
};

/// The numbers of the backlog's producer, and of the one that goes on while brokers die.
const BACKLOG: u32 = 0;
const LIVE: u32 = 1;
/// Least number of deliveries between two faults.
const STEADY: u64 = 100;

pub(super) async fn run(env: &mut Env, args: &FailoverBench) -> Result<Report, CliError> {
    let queue = env.create_queues(1).await?.remove(0);
    if args.backlog > 0 {
        fill(env, args, &queue).await?;
    }
    let started = Instant::now();
    let admin = env.client().admin();
    let channel = env.for_each(1, |_| admin.create_channel(&queue, None, Start::Latest)).await?.remove(0).id;
    let stop = CancellationToken::new();
    let pushing = Task::spawn(push(env.session.clone(), queue.clone(), args.clone(), stop.clone()));
    let (delivered, deliveries) = watch::channel(Delivered { count: 0, connections: 0, since: started });
    let mut receiving = Task::spawn(receive(env.session.clone(), channel, delivered));

    let mut rounds = Vec::new();
    let faults = async {
        for number in 1..=args.rounds {
            env.tell(format!("failover {number} of {}", args.rounds));
            rounds.push(round(env, &queue, deliveries.clone()).await?);
        }
        Ok::<_, CliError>(())
    };
    tokio::select! {
        biased;
        ended = &mut receiving => return Err(ended.err().unwrap_or_else(|| CliError::refused("the subscriber ended"))),
        done = faults => done?,
    }
    stop.cancel();
    let made = pushing.await?;
    let live = async {
        let mut deliveries = deliveries;
        let all = deliveries.wait_for(|delivered| delivered.count >= made).await;
        all.map(drop).map_err(|_| CliError::refused("the subscriber ended"))
    };
    tokio::select! {
        biased;
        ended = receiving => return Err(ended.err().unwrap_or_else(|| CliError::refused("the subscriber ended"))),
        all = audit::within_patience(live, made) => all??,
    }
    let stored = Stored { queue, first_producer: BACKLOG, made: vec![args.backlog, made] };
    audit::read_back(env, vec![stored]).await?;
    Ok(report(env, args, &rounds, started.elapsed(), made))
}

fn report(env: &Env, args: &FailoverBench, rounds: &[Round], took: Duration, made: u64) -> Report {
    let mut report = Report::new("failover", took);
    report.setting(
        "fault",
        if env.own.is_some() { "the queue's broker is killed" } else { "the queue's broker is drained" },
    );
    report.setting("backlog", args.backlog);
    report.setting("bytes", &args.size);
    report.setting("rate", args.rate);
    report.setting("rounds", args.rounds);
    let times = |of: fn(&Round) -> Duration| {
        let mut times = Times::new();
        rounds.iter().for_each(|round| times.record(of(round)));
        times
    };
    report.times("from fault to next delivery, ms", &times(|round| round.delivered));
    report.times("of that until assigned elsewhere, ms", &times(|round| round.assigned));
    report.times("from assigned to served, ms", &times(|round| round.served.saturating_sub(round.assigned)));
    report.times("from assigned to next delivery, ms", &times(|round| round.delivered.saturating_sub(round.assigned)));
    report.count("delivered and checked", made);
    report.count("stored and read back", made + args.backlog);
    report
}

async fn fill(env: &Env, args: &FailoverBench, queue: &str) -> Result<(), CliError> {
    let stored = Counter::default();
    let plan = Plan {
        queue: queue.to_owned(),
        messages: MessageArgs { size: args.size.clone(), topics: 0, producers: 1, in_flight: None },
        clock: Clock::start(Duration::ZERO, Duration::ZERO),
        stop: Stop::Count(args.backlog),
        stored: Counter::clone(&stored),
    };
    let pushing = join(pusher::start(env, &plan, Mode::Stream, BACKLOG).await?);
    env.watch("storing the backlog", &stored, pushing).await.map(drop)
}

/// Pushes at a fixed rate until told to stop; returns the number of messages, all of which are stored.
async fn push(session: Session, queue: String, args: FailoverBench, stop: CancellationToken) -> Result<u64, CliError> {
    let explain = |error| session.explain(&error);
    let producer = session.client.producer(&queue).open().await.map_err(explain)?;
    let mut source = Source::new(LIVE, &args.size);
    let mut ticks = interval(Duration::from_secs(1) / args.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !stop.is_cancelled() {
        ticks.tick().await;
        let (content, number) = source.next(Micros::default());
        // Closing the producer tells whether the message is stored.
        let _delivery = producer.send(message(content, number, 0)).await.map_err(explain)?;
    }
    producer.close().await.map_err(explain)?;
    Ok(source.made())
}

/// The subscriber's observations.
#[derive(Clone, Copy)]
struct Delivered {
    count: u64,
    /// Number of reconnections.
    connections: u64,
    /// The time of the first message over the present connection.
    since: Instant,
}

async fn receive(
    session: Session,
    channel: rmom_client::Uuid,
    delivered: watch::Sender<Delivered>,
) -> Result<(), CliError> {
    let mut consumer = session.client.subscribe(channel).build();
    let mut checker = Checker::new(LIVE, 1, 0, 1);
    loop {
        audit::next(&session, &mut consumer, &mut checker).await?;
        let now = Instant::now();
        delivered.send_modify(|delivered| {
            delivered.count += 1;
            if consumer.reconnects() > delivered.connections {
                (delivered.connections, delivered.since) = (consumer.reconnects(), now);
            }
        });
    }
}

/// The times of the events after a fault.
struct Round {
    /// The manager reported another assigned broker.
    assigned: Duration,
    /// The other broker reported that it serves the queue.
    served: Duration,
    delivered: Duration,
}

/// Causes one fault, and waits until everything is as before.
async fn round(env: &mut Env, queue: &str, mut deliveries: watch::Receiver<Delivered>) -> Result<Round, CliError> {
    let before = deliveries.borrow_and_update().count;
    let steady = deliveries.wait_for(|delivered| delivered.count >= before + STEADY);
    let steady =
        *timeout(PATIENCE, steady).await.map_err(late)?.map_err(|_| CliError::refused("the subscriber ended"))?;
    let admin = env.client().admin();
    let (host, epoch) = hosted(env, &admin, queue).await?;
    let epoch = epoch.ok_or_else(|| CliError::unavailable("the queue's broker does not answer"))?;
    let fault = Instant::now();
    let drained = fail(env, &admin, &host).await?;
    let assigned = async {
        while assignee(env, &admin, queue).await? == host {
            pause().await;
        }
        Ok::<_, CliError>(fault.elapsed())
    };
    let served = async {
        while hosted(env, &admin, queue).await?.1.is_none_or(|now| now <= epoch) {
            pause().await;
        }
        Ok(fault.elapsed())
    };
    let delivered = async {
        let next = deliveries.wait_for(|delivered| delivered.connections > steady.connections).await;
        Ok(next.map_err(|_| CliError::refused("the subscriber ended"))?.since - fault)
    };
    let all = timeout(PATIENCE, async { tokio::try_join!(assigned, served, delivered) }).await.map_err(late)?;
    let (assigned, served, delivered) = all?;
    repair(env, &admin, &host, drained).await?;
    Ok(Round { assigned, served, delivered })
}

fn late(_: tokio::time::error::Elapsed) -> CliError {
    CliError::unavailable(format_args!("the queue was not served within {PATIENCE:?}"))
}

/// The broker of the queue, and its epoch there if it is served.
async fn hosted(env: &Env, admin: &Admin, queue: &str) -> Result<(String, Option<u64>), CliError> {
    let queue = admin.queue(queue).await.map_err(|error| env.explain(&error))?;
    let host = authority(&queue.host.unwrap_or_default(), queue.port.unwrap_or_default());
    Ok((host, queue.live.map(|live| live.epoch)))
}

/// The assigned broker, from the manager alone, which does not wait for a broker.
async fn assignee(env: &Env, admin: &Admin, label: &str) -> Result<String, CliError> {
    let queues = admin.queues().await.map_err(|error| env.explain(&error))?;
    let queue = queues.into_iter().find(|queue| queue.label == label);
    let queue = queue.ok_or_else(|| CliError::refused("the queue is gone"))?;
    Ok(authority(&queue.host.unwrap_or_default(), queue.port.unwrap_or_default()))
}

/// Kills the broker in a cluster that the run started; drains it in another cluster, and returns its id.
async fn fail(env: &mut Env, admin: &Admin, host: &str) -> Result<Option<u64>, CliError> {
    if let Some(own) = &mut env.own {
        own.crash(&env.session, host).await?;
        return Ok(None);
    }
    let brokers = admin.brokers().await.map_err(|error| env.explain(&error))?;
    let live = brokers.iter().filter(|broker| broker.live).count();
    let broker = brokers.iter().find(|broker| authority(&broker.host, broker.port) == host);
    let id = broker.and_then(|broker| broker.id).filter(|_| live > 1);
    let id = id.ok_or_else(|| CliError::refused("there is no other broker for the queue"))?;
    admin.drain(id).await.map_err(|error| env.explain(&error))?;
    Ok(Some(id))
}

/// Brings the broker back.
async fn repair(env: &mut Env, admin: &Admin, host: &str, drained: Option<u64>) -> Result<(), CliError> {
    if let Some(id) = drained {
        return admin.undrain(id).await.map_err(|error| env.explain(&error));
    }
    if let Some(own) = &mut env.own {
        own.restart(&env.session, host).await?;
    }
    let back = async {
        loop {
            let brokers = admin.brokers().await.map_err(|error| env.explain(&error))?;
            if brokers.iter().any(|broker| broker.live && authority(&broker.host, broker.port) == host) {
                return Ok(());
            }
            pause().await;
        }
    };
    timeout(PATIENCE, back)
        .await
        .map_err(|_| CliError::unavailable(format_args!("the broker at {host} is not back")))?
}
