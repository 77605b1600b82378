//! The command line of `rmom bench`.

use std::{num::NonZero, str::FromStr, time::Duration};

use clap::{Args, Subcommand, ValueEnum, value_parser};

use super::payload::HEADER_BYTES;
use crate::{
    cli::{args::parse_duration, error::CliError},
    service::Threads,
};

/// Limit on the length of a run, so that every run ends before its messages expire.
const MAX_DURATION: Duration = Duration::from_secs(30 * 60);
/// Limit on the size of a message's content: a MiB below the brokers' limit.
const MAX_SIZE: usize = 3 << 20;

/// `rmom bench`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rmom bench push --embedded
  rmom bench latency --postgres postgres://user:password@127.0.0.1/postgres --rate 2000
  rmom --manager http://10.0.0.1:8082 bench subscribe --subscribers 10

Every message is decoded and compared with the pushed one: a missing, duplicated or misordered message
ends the run with exit code 1. The queues of a run are deleted at its end.")]
pub struct BenchArgs {
    /// Cluster to measure.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Threads of the load [default: one for each core; for push and latency one less, which leaves a core to servers on the
    /// same machine].
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZero<usize>>,
    /// The measurement.
    #[command(subcommand)]
    pub what: What,
}

impl BenchArgs {
    /// Producers mostly wait; with more threads than this they would wait for a core. Subscribers decode.
    pub(in crate::cli) fn threads(&self) -> Threads {
        match (self.threads, &self.what) {
            (Some(count), _) => Threads::Exactly(count),
            (None, What::Push(_) | What::Latency(_)) => Threads::LeaveOne,
            (None, What::Subscribe(_) | What::Failover(_) | What::Idle(_)) => Threads::PerCore,
        }
    }
}

/// A cluster started for the run, instead of one that is running already.
#[derive(Clone, Debug, Default, Args)]
pub struct TargetArgs {
    /// Start a cluster for the run, like `rmom dev`: one process, with SQLite in a temporary folder.
    #[arg(long, global = true, conflicts_with = "postgres", help_heading = "Cluster")]
    pub embedded: bool,
    /// Start a cluster for the run: processes for the manager and each broker, with a database created on this server.
    #[arg(long, global = true, value_name = "URL", help_heading = "Cluster")]
    pub postgres: Option<String>,
    /// Brokers of the cluster started for the run [default: 1; 3 for failover].
    #[arg(long, global = true, value_name = "N", value_parser = value_parser!(u16).range(1..=16), help_heading = "Cluster")]
    pub brokers: Option<u16>,
}

/// The measurements.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Measure how many messages are stored per second, and how long each push waits.
    #[command(after_help = "\
Examples:
  rmom bench push --embedded
  rmom bench push --embedded --mode unary --in-flight 1
  rmom bench push --embedded --queues 100 --size 100-1000 --topics 5
  rmom bench push --embedded --resend 3

With --resend N every request is sent N times, one copy right behind the other, over a stream without the client
library. The broker must count all copies as duplicates and store each message once. Compare with --resend 1, which
pushes in the same way, once.")]
    Push(PushBench),
    /// Measure how many messages per second reach subscribers, during pushes or from the store.
    #[command(after_help = "\
Examples:
  rmom bench subscribe --embedded --subscribers 10
  rmom bench subscribe --embedded --subscribers 10 --topics 5
  rmom bench subscribe --embedded --backlog 1000000")]
    Subscribe(SubscribeBench),
    /// Measure the time from a message's due time to its receipt by the application, at a fixed rate.
    #[command(after_help = "\
Example:
  rmom bench latency --embedded --rate 2000 --duration 30s

Open loop: the time counts from when a message was due, even if it could not be sent then.")]
    Latency(LatencyBench),
    /// Measure how long a subscriber waits when its queue's broker is killed. On a cluster that was running already, the
    /// queue is moved instead.
    #[command(after_help = "\
Example:
  rmom bench failover --embedded --backlog 100000 --rounds 5")]
    Failover(FailoverBench),
    /// Measure the cost of idle queues, channels and subscribers.
    #[command(after_help = "\
Example:
  rmom bench idle --embedded --queues 1000 --subscribers 1000")]
    Idle(IdleBench),
}

/// The times of a run.
#[derive(Clone, Copy, Debug, Args)]
pub struct TimeArgs {
    /// How long to measure.
    #[arg(long, value_name = "TIME", value_parser = parse_run_time, default_value = "10s")]
    pub duration: Duration,
    /// Warm-up before the measurement.
    #[arg(long, value_name = "TIME", value_parser = parse_run_time, default_value = "2s")]
    pub warm_up: Duration,
}

/// The messages of a run.
#[derive(Clone, Debug, Args)]
pub struct MessageArgs {
    /// Bytes of content: 100, any of a range (50-2000), or any of a list (100,100,100,5000-9000).
    #[arg(long, value_name = "SIZES", default_value = "100")]
    pub size: Sizes,
    /// Spread messages over N topics in turn (0: no topic).
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u32).range(0..=10_000))]
    pub topics: u32,
    /// Producers per queue.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    pub producers: u32,
    /// Messages without acknowledgement per producer [default: 256 unary calls, or the client library's limit].
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: Option<u32>,
}

/// The ways of pushing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One stream per producer, through the client library.
    #[default]
    Stream,
    /// One call per message, like the original's clients.
    Unary,
}

/// `rmom bench push`
#[derive(Clone, Debug, Args)]
pub struct PushBench {
    #[command(flatten)]
    pub time: TimeArgs,
    #[command(flatten)]
    pub messages: MessageArgs,
    /// Way of pushing.
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Number of queues.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    pub queues: u32,
    /// Simulate a producer's retries: send every message N times, to be stored once; streams only.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100))]
    pub resend: Option<u32>,
}

impl PushBench {
    /// Checks that the arguments are consistent.
    pub(super) fn check(&self) -> Result<(), CliError> {
        match (self.mode, self.resend) {
            (Mode::Unary, Some(_)) => {
                Err(CliError::usage("--resend is for streams: a unary call that was acknowledged is not sent again")
                    .hint("Leave out --mode unary."))
            }
            _ => Ok(()),
        }
    }
}

/// `rmom bench subscribe`
#[derive(Clone, Debug, Args)]
pub struct SubscribeBench {
    #[command(flatten)]
    pub time: TimeArgs,
    #[command(flatten)]
    pub messages: MessageArgs,
    /// Number of subscribers, each with a channel of its own; with --topics, each for one topic.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=10_000))]
    pub subscribers: u32,
    /// Store N messages first, then let the subscribers catch up without pushes.
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=100_000_000))]
    pub backlog: Option<u64>,
}

/// `rmom bench latency`
#[derive(Clone, Debug, Args)]
pub struct LatencyBench {
    #[command(flatten)]
    pub time: TimeArgs,
    /// Bytes of content, as for push.
    #[arg(long, value_name = "SIZES", default_value = "100")]
    pub size: Sizes,
    /// Messages per second.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,
    /// Number of subscribers; each receives every message.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000))]
    pub subscribers: u32,
}

/// `rmom bench failover`
#[derive(Clone, Debug, Args)]
pub struct FailoverBench {
    /// Live messages in the queue.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = value_parser!(u64).range(0..=100_000_000))]
    pub backlog: u64,
    /// Bytes of content, as for push.
    #[arg(long, value_name = "SIZES", default_value = "100")]
    pub size: Sizes,
    /// Messages per second while the broker dies.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Number of rounds.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}

/// `rmom bench idle`
#[derive(Clone, Debug, Args)]
pub struct IdleBench {
    #[command(flatten)]
    pub time: TimeArgs,
    /// Number of queues.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=100_000))]
    pub queues: u32,
    /// Channels per queue.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000))]
    pub channels: u32,
    /// Number of subscribers, spread over the channels.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u32).range(0..=1_000_000))]
    pub subscribers: u32,
    /// Connections to each broker, shared by the subscribers.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
}

fn parse_run_time(text: &str) -> Result<Duration, &'static str> {
    match parse_duration(text)? {
        time if time <= MAX_DURATION => Ok(time),
        _ => Err("a run takes 30 minutes at most"),
    }
}

/// Sizes of contents. The ranges are equally likely, and so are the sizes within a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    ranges: Vec<(usize, usize)>,
    text: String,
}

impl Sizes {
    /// The size for a random number.
    pub fn pick(&self, random: u64) -> usize {
        let count = self.ranges.len() as u64;
        let (min, max) = self.ranges[(random % count) as usize];
        let width = (max - min) as u64 + 1;
        min + (random / count % width) as usize
    }

    /// The largest.
    pub fn max(&self) -> usize {
        self.ranges.iter().map(|&(_, max)| max).max().unwrap_or_default()
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse_size = |text: &str| match text.trim().parse::<usize>() {
            Ok(size) if (HEADER_BYTES..=MAX_SIZE).contains(&size) => Ok(size),
            Ok(_) => Err(format!(
                "a size is {HEADER_BYTES} to {MAX_SIZE} bytes: the first {HEADER_BYTES} say which message it is"
            )),
            Err(_) => Err("expected sizes in bytes such as 100, 50-2000 or 100,100,5000-9000".to_owned()),
        };
        let parse_range = |part: &str| {
            let (min, max) = part.split_once('-').unwrap_or((part, part));
            match (parse_size(min)?, parse_size(max)?) {
                (min, max) if min <= max => Ok((min, max)),
                _ => Err(format!("{part}: the smaller size comes first")),
            }
        };
        let ranges = text.split(',').map(parse_range).collect::<Result<_, String>>()?;
        Ok(Self { ranges, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parse(line: &str) -> Result<BenchArgs, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Command::Bench(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn runs_have_sensible_defaults() {
        let args = parse("rmom bench push --embedded").unwrap();
        let What::Push(push) = args.what else { panic!("{args:?}") };
        assert!(args.target.embedded && args.target.postgres.is_none() && args.target.brokers.is_none());
        assert_eq!((push.time.duration, push.time.warm_up), (Duration::from_secs(10), Duration::from_secs(2)));
        assert_eq!((push.mode, push.queues, push.messages.producers), (Mode::Stream, 1, 1));
        assert_eq!((push.messages.in_flight, push.messages.topics, push.messages.size.max()), (None, 0, 100));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "rmom bench",
            "rmom bench everything",
            "rmom bench push --embedded --postgres postgres://h/d",
            "rmom bench push --size 19",
            "rmom bench push --size 200-100",
            "rmom bench push --duration 31m",
            "rmom bench push --duration 0s",
            "rmom bench push --mode both",
            "rmom bench push --in-flight 0",
            "rmom bench push --resend 0",
            "rmom bench push --resend 101",
            "rmom bench subscribe --resend 3",
            "rmom bench subscribe --subscribers 0",
            "rmom bench latency --rate 0",
            "rmom bench failover --rounds 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn only_streams_are_sent_again() {
        let check = |line| match parse(line).unwrap().what {
            What::Push(push) => push.check().map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        };
        assert_eq!(check("rmom bench push --resend 3"), Ok(()));
        assert_eq!(check("rmom bench push --mode unary"), Ok(()));
        let refused = check("rmom bench push --resend 3 --mode unary").unwrap_err();
        assert!(refused.contains("--resend is for streams"), "{refused}");
    }

    #[test]
    fn sizes_are_numbers_ranges_and_lists() {
        let sizes: Sizes = "100,200-299,1000".parse().unwrap();
        let picked: Vec<usize> = (0..3_000).map(|random| sizes.pick(random)).collect();
        let of = |range: std::ops::RangeInclusive<usize>| picked.iter().filter(|size| range.contains(size)).count();
        assert_eq!([of(100..=100), of(200..=299), of(1_000..=1_000)], [1_000; 3]);
        assert_eq!((of(200..=200), of(299..=299), sizes.max()), (10, 10, 1_000));
        for text in ["", "x", "100-", "-100", "100,,200", "9999999"] {
            assert!(text.parse::<Sizes>().is_err(), "{text:?}");
        }
    }
}
