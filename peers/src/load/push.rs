//! Pushing over one connection.

use std::{
    collections::VecDeque,
    io::Write,
    net::TcpStream,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use super::{Clock, Error, Figures, Pusher, content, joined, lock, receive::read};

/// Messages that are written at once, at most.
const WRITTEN_AT_ONCE: u64 = 256;

/// Messages that may still be sent.
#[derive(Debug)]
pub(crate) struct Credits {
    free: Mutex<u64>,
    more: Condvar,
}

impl Credits {
    pub(crate) fn new(number: u64) -> Self {
        Self { free: Mutex::new(number), more: Condvar::new() }
    }

    pub(crate) fn add(&self, number: u64) {
        *lock(&self.free) += number;
        self.more.notify_one();
    }

    /// Lets whoever waits find out that nothing will come any more.
    pub(crate) fn give_up(&self) {
        self.add(WRITTEN_AT_ONCE);
    }

    /// Takes some, at least one.
    fn take(&self, at_most: u64) -> u64 {
        let free = lock(&self.free);
        let mut free = self.more.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        let taken = (*free).min(at_most);
        *free -= taken;
        taken
    }
}

/// Writes messages until the run is over or `is_ended`: each when it is due, and none beyond the credits. `push` writes one
/// into the buffer; `sent` is told how many are about to go. Says in `total` how many there were.
pub(crate) fn send_all(
    clock: Clock,
    mut stream: &TcpStream,
    credits: &Credits,
    total: &AtomicU64,
    is_ended: &dyn Fn() -> bool,
    push: &mut dyn FnMut(&mut Vec<u8>, &[u8]),
    sent: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let load = clock.load;
    let mut number = 0;
    let mut out = Vec::new();
    while !clock.is_over() && !is_ended() {
        let due = load.due(number).unwrap_or_else(|| clock.now());
        let now = clock.now();
        if now < due {
            thread::sleep(Duration::from_micros(due - now));
        }
        let some = credits.take(if load.rate == 0 { WRITTEN_AT_ONCE } else { 1 });
        out.clear();
        for _ in 0..some {
            push(&mut out, &content(number, due, load.size));
            number += 1;
        }
        sent(some);
        stream.write_all(&out)?;
    }
    total.store(number, Relaxed);
    // One more, so that something comes after the total is known.
    credits.take(1);
    out.clear();
    push(&mut out, &content(number, clock.now(), load.size));
    sent(1);
    stream.write_all(&out)?;
    total.store(number + 1, Relaxed);
    Ok(())
}

/// Pushes, and waits for the acknowledgement of everything.
pub(super) fn push_all(clock: Clock, pusher: Pusher, total: &AtomicU64) -> Result<Figures, Error> {
    let (stream, mut protocol) = pusher;
    let load = clock.load;
    let credits = Credits::new(load.in_flight);
    // When each message was sent, oldest first; acknowledgements come in order.
    let sent = Mutex::new(VecDeque::new());
    let writer = stream.try_clone()?;
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
            credits.give_up();
            all.map(|()| figures)
        });
        let mut push = |out: &mut Vec<u8>, content: &[u8]| lock(&protocol).push(out, content);
        let mut note = |some| {
            let now = clock.now();
            lock(&sent).extend((0..some).map(|_| now));
        };
        send_all(clock, &writer, &credits, total, &|| acknowledging.is_finished(), &mut push, &mut note)?;
        joined(acknowledging.join())?
    })
}
