//! `rmom bench push`.

use super::{
    args::PushBench,
    audit::{self, Stored},
    clock::{Clock, Times},
    env::{Counter, Env, join},
    pusher::{self, Plan, Pushed, Stop, lanes},
    report::Report,
};
use crate::cli::error::CliError;

pub(super) async fn run(env: &Env, args: &PushBench) -> Result<Report, CliError> {
    let queues = env.create_queues(args.queues).await?;
    let stored = Counter::default();
    let clock = Clock::start(args.time.warm_up, args.time.duration);
    let per_queue = lanes(&args.messages, args.mode);
    let mut tasks = Vec::new();
    for (queue, first) in queues.iter().zip((0..).step_by(per_queue as usize)) {
        let (queue, messages) = (queue.clone(), args.messages.clone());
        let plan = Plan { queue, messages, clock, stop: Stop::Time, stored: Counter::clone(&stored) };
        tasks.extend(match args.resend {
            Some(times) => pusher::start_resending(env, &plan, first, times).await?,
            None => pusher::start(env, &plan, args.mode, first).await?,
        });
    }
    let costs = async { Ok(env.costs(&clock).await) };
    let work = async { tokio::try_join!(join(tasks), costs) };
    let (pushed, costs) = env.watch("pushing", &stored, work).await?;

    let made = pushed.chunks(per_queue as usize).map(|some| some.iter().map(|pushed| pushed.made).collect());
    let stored = queues.into_iter().zip(made).zip((0..).step_by(per_queue as usize));
    let stored = stored.map(|((queue, made), first_producer)| Stored { queue, first_producer, made });
    audit::read_back(env, stored.collect()).await?;

    let mut report = Report::new("push", clock.measured());
    report.setting("mode", format_args!("{:?}", args.mode).to_string().to_lowercase());
    report.setting("queues", args.queues);
    report.setting("producers per queue", args.messages.producers);
    report.setting("in flight", args.messages.in_flight.map_or_else(|| "default".to_owned(), |n| n.to_string()));
    report.setting("bytes", &args.messages.size);
    report.setting("topics", args.messages.topics);
    if let Some(times) = args.resend {
        report.setting("every message sent", format_args!("{times} times, without the client library"));
    }
    add(&mut report, &pushed);
    if args.resend.is_some() {
        let duplicates = pushed.iter().map(|pushed| pushed.duplicates).sum();
        report.count("duplicates the broker counted", duplicates);
    }
    report.costs(costs);
    Ok(report)
}

/// Adds the producers' results to the report.
pub(super) fn add(report: &mut Report, pushed: &[Pushed]) {
    let sum = |of: fn(&Pushed) -> u64| pushed.iter().map(of).sum::<u64>();
    let mut times = Times::new();
    pushed.iter().for_each(|pushed| times.add(&pushed.times));
    report.rate("stored per second", sum(|pushed| pushed.measured));
    report.rate("content bytes per second", sum(|pushed| pushed.measured_bytes));
    report.times("acknowledged after, ms", &times);
    report.count("stored and read back", sum(|pushed| pushed.made));
}
