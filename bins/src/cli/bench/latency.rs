//! `rmom bench latency`.

use std::sync::atomic::Ordering::Relaxed;

use rmom_client::{Delivery, Start};
use tokio::{runtime::Handle, sync::mpsc, task::spawn_blocking};

use super::{
    args::LatencyBench,
    audit,
    clock::{Clock, Micros, Times},
    env::{Counter, Env, PATIENCE, Task, join, message},
    pace::Schedule,
    payload::{Checker, Source},
    report::Report,
};
use crate::cli::{error::CliError, session::Session};

pub(super) async fn run(env: &Env, args: &LatencyBench) -> Result<Report, CliError> {
    let queue = env.create_queues(1).await?.remove(0);
    let admin = env.client().admin();
    let channels = env.for_each(args.subscribers, |_| admin.create_channel(&queue, None, Start::Earliest)).await?;
    let clock = Clock::start(args.time.warm_up, args.time.duration);
    let schedule = Schedule::new(clock, args.rate);
    let total = schedule.total();
    let received = Counter::default();
    let receive = |channel: rmom_client::Channel| {
        let (session, received) = (env.session.clone(), Counter::clone(&received));
        Task::spawn(async move {
            let mut times = Times::new();
            let mut checker = Checker::new(0, 1, 0, 1);
            let seen = |header: super::payload::Header| {
                if clock.is_measured(header.due) {
                    times.record(clock.now().since(header.due));
                }
                received.fetch_add(1, Relaxed);
            };
            audit::receive(&session, channel.id, &mut checker, total, seen).await?;
            Ok(times)
        })
    };
    let receiving = channels.into_iter().map(receive).collect();
    let sending = send(&env.session, &queue, schedule, Source::new(0, &args.size));
    let costs = async { Ok(env.costs(&clock).await) };
    let work = Box::pin(async { tokio::try_join!(sending, join(receiving), costs) });
    let (sent, received, costs) = env.watch("received", &received, work).await?;

    let mut times = Times::new();
    received.iter().for_each(|some| times.add(some));
    let mut report = Report::new("latency", clock.measured());
    report.setting("rate", args.rate);
    report.setting("bytes", &args.size);
    report.setting("subscribers", args.subscribers);
    report.times("received after due, ms", &times);
    report.times("stored after due, ms", &sent.stored);
    report.times("sent after due, ms", &sent.sent);
    report.count("received and checked", times.count());
    report.costs(costs);
    Ok(report)
}

/// Times since each message was due.
struct Sent {
    sent: Times,
    stored: Times,
}

/// Sends from a thread of its own, whose sleep is more precise than the runtime's.
async fn send(session: &Session, queue: &str, schedule: Schedule, mut source: Source) -> Result<Sent, CliError> {
    let producer = session.client.producer(queue).open().await.map_err(|error| session.explain(&error))?;
    let (deliveries, sent) = mpsc::unbounded_channel();
    let clock = schedule.clock();
    let sending = {
        let (producer, runtime) = (producer.clone(), Handle::current());
        spawn_blocking(move || {
            let mut times = Times::new();
            let send = |due| {
                if clock.is_measured(due) {
                    times.record(clock.now().since(due));
                }
                let (content, number) = source.next(due);
                let delivery = runtime.block_on(producer.send(message(content, number, 0)))?;
                // A receiver that is gone has reported the reason.
                let _ = deliveries.send((due, delivery));
                Ok(())
            };
            schedule.run(PATIENCE, send).map(|sent| (sent, times))
        })
    };
    let stored = acknowledgements(session, clock, sent).await?;
    let (count, sent) =
        sending.await.map_err(CliError::refused)?.map_err(|error: rmom_client::Error| session.explain(&error))?;
    if count.is_none() {
        let behind = format!("the rate cannot be kept: {PATIENCE:?} after the end not everything is sent");
        return Err(CliError::unavailable(behind).hint("Try a lower --rate."));
    }
    producer.close().await.map_err(|error| session.explain(&error))?;
    Ok(Sent { sent, stored })
}

async fn acknowledgements(
    session: &Session,
    clock: Clock,
    mut sent: mpsc::UnboundedReceiver<(Micros, Delivery)>,
) -> Result<Times, CliError> {
    let mut times = Times::new();
    while let Some((due, delivery)) = sent.recv().await {
        delivery.await.map_err(|error| session.explain(&error))?;
        if clock.is_measured(due) {
            times.record(clock.now().since(due));
        }
    }
    Ok(times)
}
