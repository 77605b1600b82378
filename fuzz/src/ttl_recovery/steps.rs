//! The steps of this target's inputs.

use std::time::Duration;

use crate::world::{Fault, Kind};

/// The number of hosts, each with a broker or without.
pub(crate) const HOSTS: u8 = 2;
/// The number of addressees: the broker of each host, and the last broker that lost its host to another.
pub(crate) const ADDRESSEES: u8 = HOSTS + 1;
/// The number of consumers.
pub(crate) const CONSUMERS: u8 = 2;
/// The most steps of an input.
pub(crate) const MOST: usize = 64;

steps! {
    /// An action. No step waits for an answer; answers are processed as they arrive.
    Step {
        /// Time passes everywhere: an entry of [`TIMES`].
        Pass { time < TIMES.len() as u8 },
        /// `count + 1` messages are pushed; their lifetimes alternate between the entries `lives` and `others` of [`LIVES`].
        /// `way`: one by one, or as one run.
        Push { to < ADDRESSEES, count < 4, lives < LIVES.len() as u8, others < LIVES.len() as u8, way < 2 },
        /// The last `count + 1` messages are pushed again.
        Retry { to < ADDRESSEES, count < 4 },
        /// A consumer subscribes: after its last message (0), at its channel's start (1), or after an arbitrary offset.
        Subscribe { consumer < CONSUMERS, to < ADDRESSEES, from < 6 },
        /// A consumer takes all available messages.
        Take { consumer < CONSUMERS },
        /// The store's clock is set forward or back: an entry of [`JUMPS`].
        Clock { jump < JUMPS.len() as u8 },
        /// The queue is assigned to another broker, which finds out by itself or is nudged.
        Move { host < HOSTS, told < 2 },
        /// The process on a host is killed.
        Crash { host < HOSTS },
        /// A broker is started on a host. A process that runs there goes on, and does not know.
        Start { host < HOSTS },
        /// A fault for a broker's next call of the store.
        Befall { to < ADDRESSEES, call < Kind::ALL.len() as u8, fault < 8, time < TIMES.len() as u8 },
        /// A broker's link to the store is cut or repaired.
        Cut { to < ADDRESSEES, cut < 2 },
    }
}

case! {
    /// One input: messages with their lifetimes, the clock's jumps, and brokers that crash and recover.
    Case, Step, MOST
}

/// Durations, in milliseconds.
pub(crate) const TIMES: [u64; 8] = [1, 2, 7, 10, 40, 300, 1_000, 12_000];

/// Lifetimes of messages, in milliseconds; 0 means the broker's setting.
pub(crate) const LIVES: [u64; 8] = [0, 1, 2, 9, 10, 50, 1_000, 20_000];

/// Jumps of the store's clock, in milliseconds.
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
