//! What an input of this target can say.

use std::time::Duration;

use crate::world::{Fault, Kind};

/// Hosts, each with a broker or none.
pub(crate) const HOSTS: u8 = 2;
/// Where a request can go: to the broker on a host, or to the last one that lost its host to another.
pub(crate) const ADDRESSEES: u8 = HOSTS + 1;
/// Consumers.
pub(crate) const CONSUMERS: u8 = 2;
/// Most steps of an input.
pub(crate) const MOST: usize = 64;

steps! {
    /// Something that somebody does. None of it waits for an answer; answers are looked at as they come.
    Step {
        /// Time passes everywhere: an entry of [`TIMES`].
        Pass { time < TIMES.len() as u8 },
        /// `count + 1` messages are pushed; they live for [`LIVES`] of `lives` and of `others` by turns. `way`: one by one, or
        /// as one run.
        Push { to < ADDRESSEES, count < 4, lives < LIVES.len() as u8, others < LIVES.len() as u8, way < 2 },
        /// The last `count + 1` messages are pushed again.
        Retry { to < ADDRESSEES, count < 4 },
        /// A consumer subscribes: after what it has (0), at the channel's start (1), or after an arbitrary offset.
        Subscribe { consumer < CONSUMERS, to < ADDRESSEES, from < 6 },
        /// A consumer takes what there is.
        Take { consumer < CONSUMERS },
        /// The store's clock is set forward or back: an entry of [`JUMPS`].
        Clock { jump < JUMPS.len() as u8 },
        /// The queue is to be served by another broker, which finds out by itself, or is told.
        Move { host < HOSTS, told < 2 },
        /// What runs on a host is killed.
        Crash { host < HOSTS },
        /// A broker is started on a host. One that runs there goes on, and does not know.
        Start { host < HOSTS },
        /// Something befalls a broker's next call of the store.
        Befall { to < ADDRESSEES, call < Kind::ALL.len() as u8, fault < 8, time < TIMES.len() as u8 },
        /// A broker cannot reach the store from now on, or can again.
        Cut { to < ADDRESSEES, cut < 2 },
    }
}

case! {
    /// One input: what is pushed to live for how long, what the clocks do, and what dies and recovers.
    Case, Step, MOST
}

/// How long things take, in milliseconds.
pub(crate) const TIMES: [u64; 8] = [1, 2, 7, 10, 40, 300, 1_000, 12_000];

/// How long messages live, in milliseconds; 0: as long as the broker's settings say.
pub(crate) const LIVES: [u64; 8] = [0, 1, 2, 9, 10, 50, 1_000, 20_000];

/// How far the store's clock is set, in milliseconds.
pub(crate) const JUMPS: [i64; 8] = [1, 9, 50, 3_000, -1, -9, -50, -3_000];

/// A time by its number.
pub(crate) fn time(number: u8) -> Duration {
    Duration::from_millis(TIMES[usize::from(number)])
}

/// A fault by its number.
pub(crate) fn fault(number: u8, lasts: Duration) -> Fault {
    match number {
        0 => Fault::None,
        1 => Fault::Unavailable,
        2 => Fault::Lost,
        3 => Fault::Unanswered,
        4 => Fault::Late(lasts),
        5 => Fault::Slow(lasts, Duration::ZERO),
        6 => Fault::Slow(Duration::ZERO, lasts),
        _ => Fault::Slow(lasts, lasts),
    }
}
