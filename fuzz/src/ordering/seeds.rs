//! Initial inputs, as readable steps. `examples/seeds.rs` writes them to `corpus/`.

use super::{
    Case,
    steps::{
        NAMED, NOBODY,
        Step::{
            self, Befall, Break, Channel, Crash, Create, Cut, Delete, DeleteChannel, Move, Open, Pass, Push, Start,
            Stop, Subscribe, Take, Tell,
        },
    },
};
use crate::world::Kind;

/// Times, by their numbers in `steps::TIMES`.
const INSTANT: Step = Pass { time: 1 };
const SECOND: Step = Pass { time: 4 };
const SECONDS: Step = Pass { time: 6 };
const LONG: Step = Pass { time: 7 };

/// Faults, by their numbers in `steps::fault`.
const UNAVAILABLE: u8 = 1;
const REFUSED: u8 = 2;
const LOST: u8 = 3;
const UNANSWERED: u8 = 4;
const LATE: u8 = 5;
const SLOW_THERE: u8 = 6;
const SLOW_BACK: u8 = 7;

/// `count` new messages as one run.
const fn run(producer: u8, to: u8, count: u8) -> Step {
    Push { producer, label: 0, to, back: 0, ahead: 0, count: count - 1, lowest: 1, way: 1 }
}

/// The last `count` messages again, one by one.
const fn retry(producer: u8, to: u8, count: u8) -> Step {
    Push { producer, label: 0, to, back: count, ahead: 0, count: count - 1, lowest: 1, way: 0 }
}

const fn join(consumer: u8, to: u8) -> Step {
    Subscribe { consumer, channel: 0, to, from: 1 }
}

const fn resume(consumer: u8, to: u8) -> Step {
    Subscribe { consumer, channel: 0, to, from: 0 }
}

const fn take(consumer: u8) -> Step {
    Take { consumer, chunks: 3 }
}

const fn befall(to: u8, call: Kind, fault: u8, time: u8) -> Step {
    Befall { to, call: call as u8, fault, time }
}

/// The inputs, by name.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let lists: [(&str, &[Step]); 28] = [
        (
            "pushed-and-read",
            &[join(0, 0), run(0, 0, 3), run(NOBODY, 0, 2), INSTANT, take(0), run(0, 0, 1), INSTANT, take(0)],
        ),
        ("retried", &[run(0, 0, 3), retry(0, 0, 2), INSTANT, retry(0, 0, 3), INSTANT, run(0, 0, 2)]),
        (
            "in-the-wrong-order",
            &[
                Push { producer: 0, label: 0, to: 0, back: 0, ahead: 1, count: 1, lowest: 1, way: 0 },
                Push { producer: 0, label: 0, to: 0, back: 3, ahead: 0, count: 2, lowest: 0, way: 2 },
                INSTANT,
                Push { producer: 1, label: 0, to: 0, back: 0, ahead: 1, count: 0, lowest: 2, way: 1 },
                INSTANT,
            ],
        ),
        (
            "answers-lost",
            &[
                befall(0, Kind::Append, LOST, 0),
                run(0, 0, 2),
                INSTANT,
                befall(0, Kind::Append, UNANSWERED, 0),
                run(0, 0, 2),
                run(1, 0, 1),
                INSTANT,
                retry(0, 0, 2),
            ],
        ),
        (
            "landed-late",
            &[
                befall(0, Kind::Append, LATE, 3),
                befall(0, Kind::Claim, UNANSWERED, 0),
                run(0, 0, 1),
                run(0, 0, 1),
                INSTANT,
                run(1, 0, 1),
                SECOND,
            ],
        ),
        (
            "handed-over",
            &[
                join(0, 0),
                run(0, 0, 3),
                INSTANT,
                take(0),
                Move { label: 0, host: 1, told: 1 },
                INSTANT,
                retry(0, 1, 3),
                run(0, 1, 1),
                INSTANT,
                resume(0, 1),
                INSTANT,
                take(0),
            ],
        ),
        (
            "replaced-and-going-on",
            &[
                join(0, 0),
                run(0, 0, 1),
                befall(0, Kind::Append, SLOW_THERE, 3),
                run(0, 0, 1),
                Move { label: 0, host: 1, told: 1 },
                INSTANT,
                run(1, 1, 2),
                run(1, 0, 1),
                SECOND,
                take(0),
                resume(0, 1),
                INSTANT,
                take(0),
            ],
        ),
        (
            "crashed-and-rebuilt",
            &[
                run(0, 0, 2),
                run(NOBODY, 0, 1),
                INSTANT,
                run(0, 0, 2),
                Crash { host: 0 },
                Start { host: 0 },
                INSTANT,
                retry(0, 0, 3),
                run(NOBODY, 0, 1),
                INSTANT,
            ],
        ),
        (
            "twins",
            &[
                run(0, 0, 1),
                Start { host: 0 },
                INSTANT,
                run(0, 0, 1),
                run(1, 3, 1),
                INSTANT,
                Tell { to: 3 },
                SECOND,
                run(1, 3, 1),
                INSTANT,
            ],
        ),
        (
            "asks-the-twin",
            &[
                run(0, 0, 1),
                INSTANT,
                Start { host: 0 },
                INSTANT,
                join(0, 0),
                run(0, 0, 1),
                INSTANT,
                take(0),
                resume(0, 3),
                INSTANT,
                take(0),
            ],
        ),
        (
            "by-name",
            &[
                Open { label: 0, to: 0 },
                SECOND,
                run(NAMED, 0, 2),
                befall(0, Kind::Append, SLOW_BACK, 3),
                run(NAMED, 0, 1),
                Open { label: 0, to: 0 },
                run(NAMED, 0, 1),
                SECOND,
                run(NAMED, 0, 1),
                INSTANT,
                Move { label: 0, host: 1, told: 1 },
                Open { label: 0, to: 1 },
                SECOND,
                run(NAMED, 1, 2),
            ],
        ),
        (
            "slow-reader",
            &[
                join(0, 0),
                run(0, 0, 3),
                INSTANT,
                run(0, 0, 3),
                INSTANT,
                run(1, 0, 4),
                INSTANT,
                run(1, 0, 4),
                INSTANT,
                Take { consumer: 0, chunks: 0 },
                Break { consumer: 0 },
                resume(0, 0),
                INSTANT,
                take(0),
                take(0),
            ],
        ),
        (
            "topics-and-offsets",
            &[
                Channel { label: 0, topic: 1, start: 0 },
                run(0, 0, 4),
                run(1, 0, 4),
                INSTANT,
                Channel { label: 0, topic: 2, start: 2 },
                Channel { label: 0, topic: 0, start: 4 },
                Subscribe { consumer: 0, channel: 1, to: 0, from: 1 },
                Subscribe { consumer: 1, channel: 2, to: 0, from: 1 },
                Subscribe { consumer: 2, channel: 3, to: 0, from: 5 },
                run(NOBODY, 0, 4),
                INSTANT,
                take(0),
                take(1),
                take(2),
                DeleteChannel { channel: 1 },
                Tell { to: 0 },
                INSTANT,
                take(0),
            ],
        ),
        (
            "deleted-and-created",
            &[
                join(0, 0),
                run(0, 0, 2),
                INSTANT,
                befall(0, Kind::Append, SLOW_THERE, 2),
                run(0, 0, 1),
                Delete { label: 0 },
                Create { label: 0, host: 1 },
                Channel { label: 0, topic: 0, start: 0 },
                INSTANT,
                retry(0, 0, 2),
                run(0, 1, 1),
                SECOND,
                run(0, 1, 2),
                Subscribe { consumer: 1, channel: 1, to: 1, from: 1 },
                INSTANT,
                take(1),
                take(0),
            ],
        ),
        (
            "cut-off",
            &[
                join(0, 0),
                run(0, 0, 1),
                INSTANT,
                Cut { to: 0, cut: 1 },
                run(0, 0, 1),
                SECONDS,
                take(0),
                Move { label: 0, host: 1, told: 1 },
                INSTANT,
                run(0, 1, 1),
                resume(0, 1),
                INSTANT,
                take(0),
                Cut { to: 0, cut: 0 },
                SECONDS,
                Move { label: 0, host: 0, told: 0 },
                SECONDS,
                retry(0, 0, 3),
            ],
        ),
        (
            "two-queues",
            &[
                Create { label: 1, host: 0 },
                Tell { to: 0 },
                INSTANT,
                befall(0, Kind::Append, SLOW_THERE, 2),
                befall(0, Kind::Append, SLOW_THERE, 2),
                run(0, 0, 4),
                Push { producer: 0, label: 1, to: 0, back: 0, ahead: 0, count: 3, lowest: 1, way: 1 },
                Delete { label: 1 },
                SECOND,
            ],
        ),
        (
            "remembered",
            &[
                run(0, 0, 2),
                Open { label: 0, to: 0 },
                LONG,
                run(NAMED, 0, 2),
                Stop { host: 0 },
                Move { label: 0, host: 1, told: 1 },
                SECOND,
                retry(0, 1, 2),
                retry(NAMED, 1, 2),
                Start { host: 0 },
                INSTANT,
                Move { label: 0, host: 0, told: 1 },
                SECOND,
                retry(0, 0, 2),
            ],
        ),
        ("refused", &[befall(0, Kind::Append, REFUSED, 0), run(0, 0, 2), run(1, 0, 1), INSTANT, retry(0, 0, 2)]),
        (
            "times-out",
            &[
                join(0, 0),
                befall(0, Kind::Append, SLOW_BACK, 6),
                run(0, 0, 3),
                INSTANT,
                Break { consumer: 0 },
                join(1, 0),
                INSTANT,
                take(1),
                run(0, 0, 1),
                SECONDS,
                take(1),
            ],
        ),
        (
            "behind-and-ahead",
            &[
                run(0, 0, 3),
                INSTANT,
                run(0, 0, 3),
                INSTANT,
                join(0, 0),
                befall(0, Kind::Append, SLOW_BACK, 3),
                run(0, 0, 3),
                INSTANT,
                take(0),
                SECOND,
                take(0),
            ],
        ),
        (
            "retried-while-pending",
            &[
                befall(0, Kind::Append, SLOW_THERE, 2),
                run(0, 0, 1),
                INSTANT,
                run(0, 0, 2),
                retry(0, 0, 3),
                Push { producer: 0, label: 0, to: 0, back: 2, ahead: 0, count: 3, lowest: 1, way: 1 },
                SECOND,
            ],
        ),
        (
            "away-and-back",
            &[
                run(0, 0, 1),
                INSTANT,
                befall(0, Kind::Append, LOST, 0),
                befall(0, Kind::Claim, SLOW_THERE, 3),
                run(0, 0, 1),
                Move { label: 0, host: 1, told: 1 },
                INSTANT,
                run(1, 1, 1),
                INSTANT,
                Move { label: 0, host: 0, told: 0 },
                SECOND,
                retry(0, 0, 1),
                Move { label: 0, host: 1, told: 0 },
                Move { label: 0, host: 0, told: 1 },
                INSTANT,
                run(1, 0, 1),
            ],
        ),
        (
            "never-found-out",
            &[
                run(0, 0, 1),
                INSTANT,
                befall(0, Kind::Append, UNANSWERED, 0),
                run(0, 0, 1),
                befall(0, Kind::Claim, SLOW_THERE, 6),
                befall(0, Kind::Claim, UNAVAILABLE, 0),
                befall(0, Kind::Claim, SLOW_THERE, 6),
                befall(0, Kind::Claim, SLOW_THERE, 6),
                SECONDS,
                befall(0, Kind::Claim, SLOW_THERE, 6),
                befall(0, Kind::Claim, SLOW_THERE, 6),
                befall(0, Kind::Claim, SLOW_THERE, 6),
                SECONDS,
                SECONDS,
                retry(0, 0, 2),
            ],
        ),
        (
            "opened-where-it-was",
            &[
                Open { label: 0, to: 0 },
                SECOND,
                run(NAMED, 0, 1),
                INSTANT,
                befall(0, Kind::Trim, SLOW_THERE, 3),
                befall(0, Kind::Append, LOST, 0),
                Open { label: 0, to: 0 },
                INSTANT,
                run(NAMED, 0, 1),
                INSTANT,
                befall(0, Kind::Trim, UNANSWERED, 0),
                Open { label: 0, to: 0 },
                SECOND,
                befall(0, Kind::Trim, SLOW_THERE, 3),
                Open { label: 0, to: 0 },
                Move { label: 0, host: 1, told: 1 },
                Open { label: 0, to: 1 },
                SECOND,
                run(NAMED, 1, 2),
            ],
        ),
        (
            "asks-who-does-not-know",
            &[
                join(0, 0),
                Move { label: 0, host: 1, told: 1 },
                INSTANT,
                run(0, 1, 3),
                join(0, 1),
                INSTANT,
                take(0),
                Subscribe { consumer: 1, channel: 0, to: 0, from: 5 },
                resume(0, 0),
                INSTANT,
                take(0),
                take(1),
            ],
        ),
        (
            "a-bad-start",
            &[
                Crash { host: 0 },
                Start { host: 0 },
                befall(0, Kind::Lease, UNAVAILABLE, 0),
                befall(0, Kind::Claim, SLOW_THERE, 6),
                befall(0, Kind::Tail, UNAVAILABLE, 0),
                SECOND,
                run(0, 0, 1),
                join(0, 0),
                SECONDS,
                take(0),
            ],
        ),
        (
            "another-of-that-name",
            &[
                run(0, 0, 1),
                INSTANT,
                Cut { to: 0, cut: 1 },
                Delete { label: 0 },
                Create { label: 0, host: 0 },
                Channel { label: 0, topic: 0, start: 0 },
                Cut { to: 0, cut: 0 },
                Subscribe { consumer: 0, channel: 1, to: 0, from: 1 },
                Push { producer: 1, label: 0, to: 0, back: 0, ahead: 0, count: 0, lowest: 1, way: 0 },
                INSTANT,
                take(0),
                Move { label: 0, host: 1, told: 0 },
                Delete { label: 0 },
                Tell { to: 1 },
                INSTANT,
            ],
        ),
        (
            "idle-without-a-lease",
            &[
                join(0, 0),
                run(0, 0, 1),
                INSTANT,
                take(0),
                Cut { to: 0, cut: 1 },
                SECONDS,
                take(0),
                Cut { to: 0, cut: 0 },
                SECOND,
                resume(0, 0),
                INSTANT,
                run(0, 0, 1),
                INSTANT,
                take(0),
            ],
        ),
    ];
    lists.into_iter().map(|(name, steps)| (name, Case::encode(steps))).collect()
}
