//! `rmom bench subscribe`.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use rmom_client::{Start, Uuid};
use tokio::sync::watch;

use super::{
    args::{Mode, SubscribeBench},
    audit::{self, within_patience},
    clock::Clock,
    env::{Counter, Env, Task, broken, join, topic, until},
    payload::{Checker, passing},
    push,
    pusher::{self, Plan, Pushed, Stop},
    report::Report,
};
use crate::cli::{error::CliError, session::Session};

pub(super) async fn run(env: &Env, args: &SubscribeBench) -> Result<Report, CliError> {
    let queue = env.create_queues(1).await?.remove(0);
    match args.backlog {
        Some(backlog) => catch_up(env, args, &queue, backlog).await,
        None => fan_out(env, args, &queue).await,
    }
}

fn settings(report: &mut Report, args: &SubscribeBench) {
    report.setting("subscribers", args.subscribers);
    report.setting("producers", args.messages.producers);
    report.setting("bytes", &args.messages.size);
    report.setting("topics", args.messages.topics);
}

/// One subscriber.
struct Receiver {
    channel: Uuid,
    checker: Checker,
    /// The first message that it receives; from there on, it receives every `step`-th.
    offset: u64,
    step: u64,
    received: Counter,
}

async fn receivers(env: &Env, args: &SubscribeBench, queue: &str) -> Result<Vec<Receiver>, CliError> {
    let admin = env.client().admin();
    let topics = u64::from(args.messages.topics);
    let create = |number| {
        let (admin, wanted) = (admin.clone(), (topics > 0).then(|| topic(u64::from(number) % topics)));
        async move { admin.create_channel(queue, wanted.as_deref(), Start::Earliest).await }
    };
    let channels = env.for_each(args.subscribers, create).await?;
    let receiver = |(channel, number): (rmom_client::Channel, u64)| {
        let (offset, step) = (number.checked_rem(topics).unwrap_or_default(), topics.max(1));
        let checker = Checker::new(0, args.messages.producers, offset, step);
        Receiver { channel: channel.id, checker, offset, step, received: Counter::default() }
    };
    Ok(channels.into_iter().zip(0..).map(receiver).collect())
}

impl Receiver {
    fn due(&self, made: &[u64]) -> u64 {
        made.iter().map(|&made| passing(made, self.offset, self.step)).sum()
    }

    /// Receives until all messages of the producers have arrived, once their number is known.
    async fn receive(mut self, session: Session, mut made: watch::Receiver<Option<Vec<u64>>>) -> Result<(), CliError> {
        let mut consumer = session.client.subscribe(self.channel).build();
        let mut due = made.borrow().as_ref().map(|made| self.due(made));
        while due.is_none_or(|due| self.checker.received() < due) {
            let message = match consumer.next().now_or_never() {
                Some(message) => message,
                None => tokio::select! {
                    biased;
                    message = within_patience(consumer.next(), self.checker.received()) => message?,
                    Ok(known) = made.wait_for(Option::is_some), if due.is_none() => {
                        due = known.as_ref().map(|made| self.due(made));
                        continue;
                    }
                },
            };
            let message = message.map_err(|error| session.explain(&error))?;
            self.checker.check(&message.content).map_err(|error| broken("a subscriber", &error))?;
            self.received.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

/// Delivers messages while they are being pushed.
async fn fan_out(env: &Env, args: &SubscribeBench, queue: &str) -> Result<Report, CliError> {
    let receivers = receivers(env, args, queue).await?;
    let counters: Vec<Counter> = receivers.iter().map(|receiver| Counter::clone(&receiver.received)).collect();
    let delivered = || counters.iter().map(|counter| counter.load(Relaxed)).sum::<u64>();
    let clock = Clock::start(args.time.warm_up, args.time.duration);
    let (tell, made) = watch::channel(None);
    let spawn = |receiver: Receiver| Task::spawn(receiver.receive(env.session.clone(), made.clone()));
    let receiving = join(receivers.into_iter().map(spawn).collect());

    let stored = Counter::default();
    let messages = args.messages.clone();
    let plan = Plan { queue: queue.to_owned(), messages, clock, stop: Stop::Time, stored: Counter::clone(&stored) };
    let pushing = join(pusher::start(env, &plan, Mode::Stream, 0).await?);
    let pushing = async {
        let pushed = pushing.await?;
        tell.send_replace(Some(pushed.iter().map(|pushed| pushed.made).collect()));
        Ok(pushed)
    };
    let measure = async {
        until(&clock, clock.measured_from).await;
        let (before, costs) = (delivered(), env.usages());
        until(&clock, clock.end).await;
        Ok((delivered() - before, env.costs_since(costs)))
    };
    let work = async { tokio::try_join!(pushing, receiving, measure) };
    let (pushed, _, (measured, costs)) = env.watch("pushing and delivering", &stored, work).await?;

    let mut report = Report::new("subscribe", clock.measured());
    settings(&mut report, args);
    report.rate("delivered per second", measured);
    report.count("delivered and checked", delivered());
    push::add(&mut report, &pushed);
    report.costs(costs);
    Ok(report)
}

/// Delivers messages that were pushed before.
async fn catch_up(env: &Env, args: &SubscribeBench, queue: &str, backlog: u64) -> Result<Report, CliError> {
    let made = fill(env, args, queue, backlog).await?;
    let receivers = receivers(env, args, queue).await?;
    let due: u64 = receivers.iter().map(|receiver| receiver.due(&made)).sum();
    let (_tell, made) = watch::channel(Some(made));
    let counters: Vec<Counter> = receivers.iter().map(|receiver| Counter::clone(&receiver.received)).collect();
    let (before, started) = (env.usages(), Instant::now());
    let spawn = |receiver: Receiver| Task::spawn(receiver.receive(env.session.clone(), made.clone()));
    let receiving = join(receivers.into_iter().map(spawn).collect());
    // They run side by side, so the first represents all.
    env.watch("catching up", &counters[0], receiving).await?;
    let took = started.elapsed();

    let mut report = Report::new("catch-up", took);
    report.setting("backlog", backlog);
    settings(&mut report, args);
    report.rate("delivered per second", due);
    report.time("took", took);
    report.count("delivered and checked", due);
    report.costs(env.costs_since(before));
    Ok(report)
}

/// Stores messages, in equal parts from each producer; returns the number from each.
async fn fill(env: &Env, args: &SubscribeBench, queue: &str, backlog: u64) -> Result<Vec<u64>, CliError> {
    let producers = u64::from(args.messages.producers);
    let stored = Counter::default();
    let plan = Plan {
        queue: queue.to_owned(),
        messages: args.messages.clone(),
        clock: Clock::start(Duration::ZERO, Duration::ZERO),
        stop: Stop::Count(backlog.div_ceil(producers)),
        stored: Counter::clone(&stored),
    };
    let pushing = join(pusher::start(env, &plan, Mode::Stream, 0).await?);
    let pushed: Vec<Pushed> = env.watch("storing the backlog", &stored, pushing).await?;
    let made: Vec<u64> = pushed.iter().map(|pushed| pushed.made).collect();
    let stored = audit::Stored { queue: queue.to_owned(), first_producer: 0, made: made.clone() };
    audit::ends_where_it_should(&env.session, &stored).await?;
    Ok(made)
}
