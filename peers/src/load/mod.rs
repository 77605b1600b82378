//! What all systems have in common: messages with numbers, a limit on those in flight, times, and the count.

mod push;
mod receive;

use std::{
    io::{self, Write},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

pub(crate) use self::{
    push::{Credits, send_all},
    receive::receive_all,
};

/// A content begins with its number and when it was due, in microseconds from the start.
pub(crate) const HEADER_BYTES: usize = 16;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the connection: {0}")]
    Io(#[from] io::Error),
    #[error("the database: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("the server refused: {0}")]
    Grpc(#[from] tonic::Status),
    #[error("not understood, or refused: {0}")]
    Protocol(String),
    #[error("LOST, DOUBLED or out of order: received message {found}, expected {wanted}")]
    Broken { wanted: u64, found: u64 },
    #[error("{0}")]
    Other(String),
}

/// A runtime with one thread less than there are cores, at least one, as rmom's servers have it, and `rmom bench` for pushes:
/// what is compared must not differ in that.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    let threads = thread::available_parallelism()?.get().saturating_sub(1).max(1);
    Ok(Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) size: usize,
    pub(crate) in_flight: u64,
    pub(crate) rate: u64,
    /// Connections that receive every message while it is pushed.
    pub(crate) subscribers: u64,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
}

impl Load {
    /// When a message is due, if there is a rate.
    pub(crate) fn due(&self, number: u64) -> Option<u64> {
        (number * 1_000_000).checked_div(self.rate)
    }
}

/// When it started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    load: Load,
}

impl Clock {
    pub(crate) fn start(load: Load) -> Self {
        Self { start: Instant::now(), load }
    }

    /// Microseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn end(&self) -> u64 {
        (self.load.warm_up + self.load.duration).as_micros() as u64
    }

    pub(crate) fn is_measured(&self, at: u64) -> bool {
        (self.load.warm_up.as_micros() as u64..self.end()).contains(&at)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.now() >= self.end()
    }
}

/// Counts, and how long things took.
#[derive(Debug)]
pub(crate) struct Figures {
    /// What the counts are divided by.
    pub(crate) duration: Duration,
    pub(crate) stored: u64,
    pub(crate) delivered: u64,
    pub(crate) acknowledged_after: Histogram<u64>,
    pub(crate) received_after: Histogram<u64>,
}

impl Figures {
    pub(crate) fn new(load: &Load) -> Self {
        let times = || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds of a histogram");
        Self { duration: load.duration, stored: 0, delivered: 0, acknowledged_after: times(), received_after: times() }
    }

    /// Adds those of another connection of the same run.
    pub(crate) fn add(&mut self, other: &Self) -> Result<(), Error> {
        self.stored += other.stored;
        self.delivered += other.delivered;
        let error = |error: hdrhistogram::AdditionError| Error::Other(error.to_string());
        self.acknowledged_after.add(&other.acknowledged_after).map_err(error)?;
        self.received_after.add(&other.received_after).map_err(error)
    }

    pub(crate) fn json(&self) -> Value {
        let seconds = self.duration.as_secs_f64();
        let ms = |times: &Histogram<u64>, percent| times.value_at_percentile(percent) as f64 / 1e3;
        let times =
            |times: &Histogram<u64>| json!({ "count": times.len(), "p50": ms(times, 50.0), "p99": ms(times, 99.0) });
        json!({
            "stored_per_second": self.stored as f64 / seconds,
            "delivered_per_second": self.delivered as f64 / seconds,
            "acknowledged_after_ms": times(&self.acknowledged_after),
            "received_after_due_ms": times(&self.received_after),
        })
    }
}

/// Content number `number`.
pub(crate) fn content(number: u64, due: u64, size: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(size);
    content.extend_from_slice(&number.to_be_bytes());
    content.extend_from_slice(&due.to_be_bytes());
    // Incompressible, as far as a database looks.
    let mut noise = number;
    while content.len() < size {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        content.extend_from_slice(&noise.to_be_bytes()[..(size - content.len()).min(8)]);
    }
    content
}

/// Number and due time of a content.
pub(crate) fn header(content: &[u8]) -> Result<(u64, u64), Error> {
    let number = content.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let due = content.get(8..16).and_then(|bytes| bytes.first_chunk()).map(|bytes| u64::from_be_bytes(*bytes));
    number.zip(due).ok_or_else(|| Error::Protocol(format!("a message of {} bytes", content.len())))
}

/// A connection to push over.
pub(crate) type Pusher = (TcpStream, Box<dyn Push>);
/// A connection over which messages come.
pub(crate) type Receiver = (TcpStream, Box<dyn Receive>);

/// How to push over a connection, and what comes back.
pub(crate) trait Push: Send {
    /// Writes a message.
    fn push(&mut self, out: &mut Vec<u8>, content: &[u8]);
    /// How many bytes of the input were understood, and how many messages they acknowledge.
    fn acknowledged(&mut self, input: &[u8]) -> Result<(usize, u64), Error>;
}

/// How messages come.
pub(crate) trait Receive: Send {
    /// How many bytes of the input were understood. May write an answer.
    fn received(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<usize, Error>;
}

/// Pushes over one connection and receives everything over each of the others.
pub(crate) fn run(load: &Load, pusher: Pusher, receivers: Vec<Receiver>) -> Result<Figures, Error> {
    let clock = Clock::start(*load);
    // How many messages there are, once that is known.
    let total = Arc::new(AtomicU64::new(u64::MAX));
    let receive = |receiver| {
        let total = Arc::clone(&total);
        thread::spawn(move || receive_all(clock, receiver, &total, &|_| {}))
    };
    let receiving: Vec<_> = receivers.into_iter().map(receive).collect();
    let mut figures = push::push_all(clock, pusher, &total)?;
    for receiving in receiving {
        figures.add(&joined(receiving.join())??)?;
    }
    Ok(figures)
}

/// What a thread returned.
pub(crate) fn joined<T>(result: thread::Result<T>) -> Result<T, Error> {
    result.map_err(|_| Error::Other("a thread panicked".to_owned()))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// To standard output.
pub(crate) fn print(line: &Value) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// To standard error.
pub(crate) fn complain(error: &Error) {
    let _ = writeln!(io::stderr(), "{error}");
}
