//! Loads one system that stores messages, and prints what it took as a line of JSON. `side_by_side.py` starts the systems, and
//! runs this and `rmom bench` in turn.
//!
//! Each protocol is spoken by hand, with no library between the load and the socket: no client that people use is faster.
//! Every message that is delivered is decoded and checked.

mod disk;
mod load;
mod nats;
mod postgres;
mod rabbit;
mod redis;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use self::load::{Error, Figures, Load};

/// What to load.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum System {
    /// Redis: XADD to a stream, XREAD from it.
    Redis,
    /// NATS JetStream: a stream of files, an ordered push consumer.
    Nats,
    /// RabbitMQ: a quorum queue with confirms.
    Rabbit,
    /// PostgreSQL alone: a row for each batch, as rmom stores them, over one connection.
    PostgresBatches,
    /// A queue as people build it by hand: a row and a transaction for each message, SKIP LOCKED.
    PostgresQueue,
    /// The disk alone: a write and a sync of the file's data for each message.
    Disk,
}

/// Loads a system that runs already.
#[derive(Debug, Parser)]
struct Args {
    /// What to load.
    system: System,
    /// Where it is: host:port, a URL, or a folder.
    at: String,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Messages that wait for their acknowledgement at once; for batches, messages of a batch.
    #[arg(long, default_value_t = 1_000)]
    in_flight: u64,
    /// Messages a second; 0: as many as it takes.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Receive them as well, while they are pushed.
    #[arg(long)]
    deliver: bool,
    /// How long to measure.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long to run before that.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(figures) => {
            load::print(&figures.json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            load::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Figures, Error> {
    let load = Load {
        size: args.size.max(load::HEADER_BYTES),
        in_flight: args.in_flight.max(1),
        rate: args.rate,
        deliver: args.deliver,
        warm_up: Duration::from_secs_f64(args.warm_up),
        duration: Duration::from_secs_f64(args.seconds),
    };
    match args.system {
        System::Redis => redis::run(&args.at, &load),
        System::Nats => nats::run(&args.at, &load),
        System::Rabbit => rabbit::run(&args.at, &load),
        System::PostgresBatches => postgres::batches(&args.at, &load),
        System::PostgresQueue => postgres::queue(&args.at, &load),
        System::Disk => disk::run(&PathBuf::from(&args.at), &load),
    }
}
