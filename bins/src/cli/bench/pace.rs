//! Sends at a fixed rate, regardless of the other end: an open loop.

use std::{thread::sleep, time::Duration};

use super::clock::{Clock, Micros};

/// The due time of each message of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    clock: Clock,
    rate: u32,
}

impl Schedule {
    /// A schedule of `rate` messages per second.
    pub(super) const fn new(clock: Clock, rate: u32) -> Self {
        Self { clock, rate }
    }

    pub(super) const fn clock(&self) -> Clock {
        self.clock
    }

    /// Number of messages that are due before the end.
    pub(super) fn total(&self) -> u64 {
        (u128::from(self.clock.end.0) * u128::from(self.rate)).div_ceil(1_000_000) as u64
    }

    fn due(&self, number: u64) -> Micros {
        Micros((u128::from(number) * 1_000_000 / u128::from(self.rate)) as u64)
    }

    /// Calls `send` for each message of the run at its due time, from a thread that may sleep. After a slow call, the
    /// messages that became due in the meantime follow without a pause, with their due times unchanged. Returns the number
    /// of messages, or `None` if it was `patience` behind at the end.
    pub(super) fn run<E>(
        &self,
        patience: Duration,
        mut send: impl FnMut(Micros) -> Result<(), E>,
    ) -> Result<Option<u64>, E> {
        for number in 0..self.total() {
            let due = self.due(number);
            let now = self.clock.now();
            if now.since(self.clock.end) > patience {
                return Ok(None);
            }
            if now < due {
                sleep(due.since(now));
            }
            send(due)?;
        }
        Ok(Some(self.total()))
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::mpsc, thread};

    use super::*;
    use crate::cli::bench::clock::Times;

    const STALL: Duration = Duration::from_millis(400);

    fn schedule(rate: u32, millis: u64) -> Schedule {
        Schedule::new(Clock::start(Duration::ZERO, Duration::from_millis(millis)), rate)
    }

    fn assert_half_waited(times: &Times) {
        // Of 800 messages in 800 ms, the 400 that became due during the stall have waited; those in its middle for 200 ms.
        assert_eq!(times.count(), 800);
        assert!(times.max() >= STALL, "{}", times.text());
        assert!(times.percentile(75.0) >= STALL / 2 - Duration::from_millis(5), "{}", times.text());
        assert!(times.percentile(51.0) > Duration::ZERO, "{}", times.text());
    }

    #[test]
    fn a_receiver_that_stalls_shows_in_the_percentiles() {
        let schedule = schedule(1_000, 800);
        let (sender, receiver) = mpsc::channel();
        let receiving = thread::spawn(move || {
            let mut times = Times::new();
            for (number, due) in receiver.iter().enumerate() {
                if number == 100 {
                    sleep(STALL);
                }
                times.record(schedule.clock.now().since(due));
            }
            times
        });
        let sent = schedule.run(Duration::from_secs(60), |due| sender.send(due)).unwrap();
        drop(sender);
        assert_eq!((sent, schedule.total()), (Some(800), 800));
        assert_half_waited(&receiving.join().unwrap());
    }

    #[test]
    fn so_does_a_sender_that_has_to_wait() {
        let schedule = schedule(1_000, 800);
        let (mut times, mut number) = (Times::new(), 0);
        let send = |due| {
            if number == 100 {
                sleep(STALL);
            }
            number += 1;
            times.record(schedule.clock.now().since(due));
            Ok::<(), Infallible>(())
        };
        assert_eq!(schedule.run(Duration::from_secs(60), send), Ok(Some(800)));
        assert_half_waited(&times);
    }

    #[test]
    fn a_rate_that_cannot_be_kept_has_an_end() {
        let slow = |_| {
            sleep(Duration::from_millis(20));
            Ok::<(), Infallible>(())
        };
        assert_eq!(schedule(10_000, 10).run(Duration::from_millis(50), slow), Ok(None));
        assert_eq!(schedule(10_000, 10).run(Duration::ZERO, |_| Err("no")), Err("no"));
    }
}
