//! Loads one system that stores messages, and prints what it took as a line of JSON. `side_by_side.py` starts the systems, and
//! runs this and `rmom bench` in turn.
//!
//! Each protocol is spoken by hand, with no library between the load and the socket: no client that people use is faster.
//! Only gRPC is tonic's, as it is rmom's. Every message that is delivered is decoded and checked.

mod disk;
mod grpc;
mod load;
mod nats;
mod postgres;
mod rabbit;
mod redis;

use std::{path::Path, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use self::load::{Error, Figures, HEADER_BYTES, Load};

/// Messages that wait for their acknowledgement, unless told otherwise.
const IN_FLIGHT: u64 = 1_000;

/// Loads a system that runs already, or is one.
#[derive(Debug, Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// What to load, or what to be.
#[derive(Debug, Subcommand)]
enum Command {
    /// Redis: XADD to a stream, XREAD from it.
    Redis(Target),
    /// NATS JetStream: a stream of files, an ordered push consumer for each subscriber.
    Nats(Target),
    /// Core NATS: nothing is stored. There is always a subscriber, and in flight is by how much one may be behind.
    NatsCore(Target),
    /// RabbitMQ: a fanout exchange, and a quorum queue for each subscriber, with confirms.
    Rabbit(Target),
    /// PostgreSQL alone: a row for each batch, as rmom stores them, over one connection; with one in flight, bare commits.
    PostgresBatches {
        #[command(flatten)]
        target: Target,
        /// Store so many messages, and measure how fast the rows can be read.
        #[arg(long, value_name = "MESSAGES")]
        read: Option<u64>,
    },
    /// A queue as people build it by hand: a row and a transaction for each message, SKIP LOCKED.
    PostgresQueue(Target),
    /// The disk alone: a write and a sync of the file's data for each message.
    Disk(Target),
    /// A call for each message, over one connection.
    TonicUnary(Target),
    /// A stream of requests, with some messages each.
    TonicStream(Target),
    /// Subscribers of serve-tonic.
    TonicDeliver(Target),
    /// rmom's gRPC service with nothing behind it; until it is killed.
    ServeTonic {
        /// host:port
        at: String,
    },
    /// The original's shape, for tonic-unary: a row and a transaction for each call; until it is killed.
    ServeOriginal {
        /// host:port
        at: String,
        /// Where the rows go.
        #[arg(long, value_name = "URL")]
        database: String,
    },
}

/// What to do with it.
#[derive(Debug, Args)]
struct Target {
    /// Where it is: host:port, a URL, or a folder.
    at: String,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Messages that wait for their acknowledgement at once; for batches, messages of a batch [default: 1000; nats-core: 2000].
    #[arg(long)]
    in_flight: Option<u64>,
    /// Messages a second; 0: as many as it takes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Receive them as well, while they are pushed.
    #[arg(long)]
    deliver: bool,
    /// Connections that receive every message.
    #[arg(long, default_value_t = 1)]
    subscribers: u64,
    /// How long to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long to run before that.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

impl Target {
    fn load(&self) -> Load {
        self.load_of(IN_FLIGHT, self.deliver)
    }

    fn load_of(&self, in_flight: u64, deliver: bool) -> Load {
        Load {
            size: self.size.max(HEADER_BYTES),
            in_flight: self.in_flight.unwrap_or(in_flight).max(1),
            rate: self.rate,
            subscribers: if deliver { self.subscribers.max(1) } else { 0 },
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.seconds),
        }
    }
}

fn main() -> ExitCode {
    match run(&CommandLine::parse().command) {
        Ok(figures) => {
            if let Some(figures) = figures {
                load::print(&figures.json());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            load::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<Option<Figures>, Error> {
    let figures = match command {
        Command::Redis(target) => redis::run(&target.at, &target.load()),
        Command::Nats(target) => nats::run(&target.at, &target.load()),
        Command::NatsCore(target) => nats::core::run(&target.at, &target.load_of(nats::core::IN_FLIGHT, true)),
        Command::Rabbit(target) => rabbit::run(&target.at, &target.load()),
        Command::PostgresBatches { target, read: None } => postgres::batches::store(&target.at, &target.load()),
        Command::PostgresBatches { target, read: Some(messages) } => {
            postgres::batches::read(&target.at, &target.load(), *messages)
        }
        Command::PostgresQueue(target) => postgres::queue::run(&target.at, &target.load()),
        Command::Disk(target) => disk::run(Path::new(&target.at), &target.load()),
        Command::TonicUnary(target) => grpc::unary::run(&target.at, &target.load()),
        Command::TonicStream(target) => grpc::stream::run(&target.at, &target.load()),
        Command::TonicDeliver(target) => grpc::deliver::run(&target.at, &target.load_of(IN_FLIGHT, true)),
        Command::ServeTonic { at } => return grpc::serve::tonic(at).map(|()| None),
        Command::ServeOriginal { at, database } => return grpc::serve::original(at, database).map(|()| None),
    };
    figures.map(Some)
}
