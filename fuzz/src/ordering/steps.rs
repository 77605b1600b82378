//! What an input of this target can say.

use std::time::Duration;

use crate::world::{Fault, Kind};

/// Hosts, each with a broker or none.
pub(crate) const HOSTS: u8 = 3;
/// Labels of queues.
pub(crate) const LABELS: u8 = 2;
/// Producers: the first are anonymous, then [`NAMED`], then [`NOBODY`].
pub(crate) const PRODUCERS: u8 = 4;
/// The producer with a name.
pub(crate) const NAMED: u8 = 2;
/// Pushes without a producer.
pub(crate) const NOBODY: u8 = 3;
/// Consumers.
pub(crate) const CONSUMERS: u8 = 3;
/// Channels that are kept in mind.
pub(crate) const CHANNELS: u8 = 4;
/// Topics: none, and two others.
pub(crate) const TOPICS: u8 = 3;
/// Where a request can go: to the broker on a host, or to the last one that lost its host to another.
pub(crate) const ADDRESSEES: u8 = HOSTS + 1;
/// Most steps of an input.
pub(crate) const MOST: usize = 64;

steps! {
    /// Something that somebody does. None of it waits for an answer; answers are looked at as they come.
    Step {
        /// Time passes: an entry of [`TIMES`].
        Pass { time < TIMES.len() as u8 },
        /// A producer pushes `count + 1` messages, from `back` before its next one, or `ahead` beyond it: new ones, retries,
        /// or both. `lowest`: it declares nothing, what it really waits for, or gives up what is before these. `way`: one by
        /// one, as one run, as runs of one.
        Push { producer < PRODUCERS, label < LABELS, to < ADDRESSEES, back < 4, ahead < 2, count < 4, lowest < 3, way < 3 },
        /// The named producer takes its next incarnation.
        Open { label < LABELS, to < ADDRESSEES },
        /// A consumer subscribes: after what it has (0), at its channel's start (1), or after an arbitrary offset.
        Subscribe { consumer < CONSUMERS, channel < CHANNELS, to < ADDRESSEES, from < 8 },
        /// A consumer takes up to `chunks + 1` chunks, if there are so many.
        Take { consumer < CONSUMERS, chunks < 4 },
        /// A consumer's connection breaks.
        Break { consumer < CONSUMERS },
        /// A channel is created: at the earliest message, the latest, or an offset.
        Channel { label < LABELS, topic < TOPICS, start < 6 },
        /// A channel is deleted.
        DeleteChannel { channel < CHANNELS },
        /// A queue is created, or was.
        Create { label < LABELS, host < HOSTS },
        /// A queue is deleted.
        Delete { label < LABELS },
        /// A queue is to be served by another broker, which finds out by itself, or is told.
        Move { label < LABELS, host < HOSTS, told < 2 },
        /// A broker is told to look at the store.
        Tell { to < ADDRESSEES },
        /// What runs on a host is killed.
        Crash { host < HOSTS },
        /// A broker is started on a host. One that runs there goes on, and does not know.
        Start { host < HOSTS },
        /// A broker stops in good order.
        Stop { host < HOSTS },
        /// Something befalls a broker's next call of the store.
        Befall { to < ADDRESSEES, call < Kind::ALL.len() as u8, fault < 8, time < TIMES.len() as u8 },
        /// A broker cannot reach the store from now on, or can again.
        Cut { to < ADDRESSEES, cut < 2 },
    }
}

case! {
    /// One input: what is pushed, moved, lost and read in which order.
    Case, Step, MOST
}

/// How long things take, in milliseconds.
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
