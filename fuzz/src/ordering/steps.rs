//! The steps of this target's inputs.

use std::time::Duration;

use crate::world::{Fault, Kind};

/// The number of hosts, each with a broker or without.
pub(crate) const HOSTS: u8 = 3;
/// The number of labels.
pub(crate) const LABELS: u8 = 2;
/// The number of producers: first anonymous ones, then [`NAMED`], then [`NOBODY`].
pub(crate) const PRODUCERS: u8 = 4;
/// The producer with a name.
pub(crate) const NAMED: u8 = 2;
/// Pushes without a producer.
pub(crate) const NOBODY: u8 = 3;
/// The number of consumers.
pub(crate) const CONSUMERS: u8 = 3;
/// The number of channels that are remembered.
pub(crate) const CHANNELS: u8 = 4;
/// The number of topics: no topic, and two others.
pub(crate) const TOPICS: u8 = 3;
/// The number of addressees: the broker of each host, and the last broker that lost its host to another.
pub(crate) const ADDRESSEES: u8 = HOSTS + 1;
/// The most steps of an input.
pub(crate) const MOST: usize = 64;

steps! {
    /// An action. No step waits for an answer; answers are processed as they arrive.
    Step {
        /// Time passes: an entry of [`TIMES`].
        Pass { time < TIMES.len() as u8 },
        /// A producer pushes `count + 1` messages, from `back` before its next one, or `ahead` beyond it: new ones, retries,
        /// or both. `lowest`: it declares nothing, the lowest sequence for which it waits, or gives up all before these.
        /// `way`: one by one, as one run, as runs of one.
        Push { producer < PRODUCERS, label < LABELS, to < ADDRESSEES, back < 4, ahead < 2, count < 4, lowest < 3, way < 3 },
        /// The named producer takes its next epoch.
        Open { label < LABELS, to < ADDRESSEES },
        /// A consumer subscribes: after its last message (0), at its channel's start (1), or after an arbitrary offset.
        Subscribe { consumer < CONSUMERS, channel < CHANNELS, to < ADDRESSEES, from < 8 },
        /// A consumer takes up to `chunks + 1` available chunks.
        Take { consumer < CONSUMERS, chunks < 4 },
        /// A consumer's connection breaks.
        Break { consumer < CONSUMERS },
        /// A channel is created: at the earliest message, the latest, or an offset.
        Channel { label < LABELS, topic < TOPICS, start < 6 },
        /// A channel is deleted.
        DeleteChannel { channel < CHANNELS },
        /// A queue is created, unless it exists.
        Create { label < LABELS, host < HOSTS },
        /// A queue is deleted.
        Delete { label < LABELS },
        /// A queue is assigned to another broker, which finds out by itself or is nudged.
        Move { label < LABELS, host < HOSTS, told < 2 },
        /// A broker is nudged to read the store.
        Tell { to < ADDRESSEES },
        /// The process on a host is killed.
        Crash { host < HOSTS },
        /// A broker is started on a host. A process that runs there goes on, and does not know.
        Start { host < HOSTS },
        /// A broker shuts down in an orderly way.
        Stop { host < HOSTS },
        /// A fault for a broker's next call of the store.
        Befall { to < ADDRESSEES, call < Kind::ALL.len() as u8, fault < 8, time < TIMES.len() as u8 },
        /// A broker's link to the store is cut or repaired.
        Cut { to < ADDRESSEES, cut < 2 },
    }
}

case! {
    /// One input: pushes, moves, losses and reads, in any order.
    Case, Step, MOST
}

/// Durations, in milliseconds.
pub(crate) const TIMES: [u64; 8] = [0, 1, 20, 300, 1_000, 2_500, 6_000, 12_000];

/// A time by its number.
pub(crate) fn time(number: u8) -> Duration {
    Duration::from_millis(TIMES[usize::from(number)])
}

/// A fault by its number.
pub(crate) fn fault(number: u8, lasts: Duration) -> Fault {
    match number {
        0 => Fault::None,
        1 => Fault::Unavailable,
        2 => Fault::Refused,
        3 => Fault::Lost,
        4 => Fault::Unanswered,
        5 => Fault::Late(lasts),
        6 => Fault::Slow(lasts, Duration::ZERO),
        _ => Fault::Slow(Duration::ZERO, lasts),
    }
}
