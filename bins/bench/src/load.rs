//! What all systems have in common: messages with numbers, a limit on those in flight, times, and the count.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// A content begins with its number and when it was due, in microseconds from the start.
pub(crate) const HEADER_BYTES: usize = 16;
/// Messages that are written at once, at most.
const WRITTEN_AT_ONCE: u64 = 256;
/// How long nothing may come that is due.
const PATIENCE: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 256 << 10;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the connection: {0}")]
    Io(#[from] io::Error),
    #[error("the database: {0}")]
    Sql(#[from] sqlx::Error),
    #[error("not understood, or refused: {0}")]
    Protocol(String),
    #[error("LOST, DOUBLED or out of order: message {found} came when {wanted} was due")]
    Broken { wanted: u64, found: u64 },
    #[error("{0}")]
    Other(String),
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) size: usize,
    pub(crate) in_flight: u64,
    pub(crate) rate: u64,
    pub(crate) deliver: bool,
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
    duration: Duration,
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

/// Messages that may still be sent.
#[derive(Debug, Default)]
struct Credits {
    free: Mutex<u64>,
    more: Condvar,
}

impl Credits {
    fn add(&self, number: u64) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += number;
        self.more.notify_one();
    }

    /// Takes some, at least one.
    fn take(&self, at_most: u64) -> u64 {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.more.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        let taken = (*free).min(at_most);
        *free -= taken;
        taken
    }
}

/// Pushes over one connection and receives over another.
pub(crate) fn run(
    load: &Load,
    push: (TcpStream, Box<dyn Push>),
    receive: Option<(TcpStream, Box<dyn Receive>)>,
) -> Result<Figures, Error> {
    let clock = Clock::start(*load);
    // The last number, once it is known.
    let total = Arc::new(AtomicU64::new(u64::MAX));
    let receiving = receive.map(|(stream, protocol)| {
        let total = Arc::clone(&total);
        thread::spawn(move || receive_all(clock, stream, protocol, &total))
    });
    let mut figures = push_all(clock, push.0, push.1, &total)?;
    if let Some(receiving) = receiving {
        let received = receiving.join().map_err(|_| Error::Other("a thread panicked".to_owned()))??;
        figures.delivered = received.delivered;
        figures.received_after = received.received_after;
    }
    Ok(figures)
}

fn push_all(clock: Clock, stream: TcpStream, mut protocol: Box<dyn Push>, total: &AtomicU64) -> Result<Figures, Error> {
    let load = clock.load;
    let credits = Credits::default();
    credits.add(load.in_flight);
    // When each message was sent, oldest first; acknowledgements come in order.
    let sent = Mutex::new(std::collections::VecDeque::new());
    let mut writer = stream.try_clone()?;
    let protocol = Mutex::new(&mut protocol);
    thread::scope(|scope| {
        let acknowledging = scope.spawn(|| {
            let mut figures = Figures::new(&load);
            let mut acknowledged = 0;
            let all = read(stream, |input, _| {
                let (used, number) = lock(&protocol).acknowledged(input)?;
                let now = clock.now();
                let mut sent = lock(&sent);
                for _ in 0..number {
                    let at: u64 =
                        sent.pop_front().ok_or_else(|| Error::Protocol("an acknowledgement too many".into()))?;
                    if clock.is_measured(now) {
                        figures.stored += 1;
                        figures.acknowledged_after.saturating_record(now - at);
                    }
                }
                drop(sent);
                credits.add(number);
                acknowledged += number;
                Ok((used, acknowledged >= total.load(Relaxed)))
            });
            // Whoever waits has to find out.
            credits.add(WRITTEN_AT_ONCE);
            all.map(|()| figures)
        });
        let mut number = 0;
        let mut out = Vec::new();
        while !clock.is_over() && !acknowledging.is_finished() {
            let due = load.due(number).unwrap_or_else(|| clock.now());
            let now = clock.now();
            if now < due {
                thread::sleep(Duration::from_micros(due - now));
            }
            let some = credits.take(if load.rate == 0 { WRITTEN_AT_ONCE } else { 1 });
            out.clear();
            for _ in 0..some {
                lock(&protocol).push(&mut out, &content(number, due, load.size));
                number += 1;
            }
            let now = clock.now();
            lock(&sent).extend((0..some).map(|_| now));
            writer.write_all(&out)?;
        }
        total.store(number, Relaxed);
        // One more, so that there is an acknowledgement that comes after the total is known.
        credits.take(1);
        out.clear();
        lock(&protocol).push(&mut out, &content(number, clock.now(), load.size));
        lock(&sent).push_back(clock.now());
        writer.write_all(&out)?;
        total.store(number + 1, Relaxed);
        acknowledging.join().map_err(|_| Error::Other("a thread panicked".to_owned()))?
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receive_all(
    clock: Clock,
    stream: TcpStream,
    mut protocol: Box<dyn Receive>,
    total: &AtomicU64,
) -> Result<Figures, Error> {
    let mut figures = Figures::new(&clock.load);
    let mut wanted = 0;
    read(stream, |input, out| {
        let now = clock.now();
        let mut seen = |content: &[u8]| {
            let (found, due) = header(content)?;
            if found != wanted {
                return Err(Error::Broken { wanted, found });
            }
            wanted += 1;
            if clock.is_measured(now) {
                figures.delivered += 1;
            }
            if clock.is_measured(due) {
                figures.received_after.saturating_record(now.saturating_sub(due));
            }
            Ok(())
        };
        let used = protocol.received(input, out, &mut seen)?;
        Ok((used, wanted >= total.load(Relaxed)))
    })?;
    Ok(figures)
}

/// Reads until `take` says that this is the end; what it did not use it is given again with more.
fn read(
    mut stream: TcpStream,
    mut take: impl FnMut(&[u8], &mut Vec<u8>) -> Result<(usize, bool), Error>,
) -> Result<(), Error> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut input = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    let mut out = Vec::new();
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(Error::Protocol("the connection ended".to_owned()));
        }
        input.extend_from_slice(&chunk[..count]);
        let (used, is_end) = take(&input, &mut out)?;
        input.drain(..used);
        if is_end {
            return Ok(());
        }
        if !out.is_empty() {
            stream.write_all(&out)?;
            out.clear();
        }
    }
}

/// To standard output.
pub(crate) fn print(line: &Value) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// To standard error.
pub(crate) fn complain(error: &Error) {
    let _ = writeln!(io::stderr(), "{error}");
}
