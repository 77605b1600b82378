//! Core NATS: stores nothing, acknowledges nothing, and cuts off whoever is slow.

use std::{
    net::Shutdown,
    sync::{Mutex, atomic::AtomicU64},
    thread,
};

use super::{Connection, Receiver, SUBJECT, publish};
use crate::load::{Clock, Credits, Error, Figures, Load, joined, lock, receive_all, send_all};

/// Messages that the slowest subscriber may be behind, unless told otherwise: of bounds from 250 to 100,000 the best with
/// ten subscribers, along with 1,000; with one or a hundred they differ by less than runs do.
pub(crate) const IN_FLIGHT: u64 = 2_000;

/// Publishes as fast as the slowest subscriber receives: `in_flight` is by how much that may be behind. There is always one.
///
/// The publisher reads nothing, not even pings, so that the server gives it up after about four minutes.
pub(crate) fn run(at: &str, load: &Load) -> Result<Figures, Error> {
    let subscribers = load.subscribers.max(1);
    let mut receivers = Vec::new();
    for _ in 0..subscribers {
        // It is answered once the server knows the subscription.
        receivers.push(Connection::open(at, SUBJECT)?.stream);
    }
    let publisher = Connection::open(at, "_INBOX.none")?.stream;
    let clock = Clock::start(*load);
    let total = AtomicU64::new(u64::MAX);
    let slowest = Slowest::new(subscribers, load.in_flight);
    let mut figures = Figures::new(load);
    thread::scope(|scope| {
        let receiving: Vec<_> = (0..)
            .zip(receivers)
            .map(|(number, stream)| {
                let (total, slowest) = (&total, &slowest);
                scope.spawn(move || {
                    let receiver = (stream, Box::new(Receiver) as Box<_>);
                    let figures = receive_all(clock, receiver, total, &|so_far| slowest.received(number, so_far));
                    slowest.credits.give_up();
                    figures
                })
            })
            .collect();
        let is_ended = || receiving.iter().any(thread::ScopedJoinHandle::is_finished);
        let mut push = |out: &mut Vec<u8>, content: &[u8]| publish(out, "", content);
        send_all(clock, &publisher, &slowest.credits, &total, &is_ended, &mut push, &mut |_| {})?;
        for receiving in receiving {
            figures.add(&joined(receiving.join())??)?;
        }
        publisher.shutdown(Shutdown::Both)?;
        Ok(figures)
    })
}

/// Turns what every subscriber has received into credits.
struct Slowest {
    credits: Credits,
    /// What each has received, and what all have.
    received: Mutex<(Vec<u64>, u64)>,
}

impl Slowest {
    fn new(subscribers: u64, in_flight: u64) -> Self {
        Self { credits: Credits::new(in_flight), received: Mutex::new((vec![0; subscribers as usize], 0)) }
    }

    fn received(&self, subscriber: usize, so_far: u64) {
        let mut received = lock(&self.received);
        received.0[subscriber] = so_far;
        let by_all = received.0.iter().copied().min().unwrap_or_default();
        if by_all > received.1 {
            self.credits.add(by_all - received.1);
            received.1 = by_all;
        }
    }
}
