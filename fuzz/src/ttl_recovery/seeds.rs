//! Initial inputs, as readable steps. `examples/seeds.rs` writes them to `corpus/`.

use super::{
    Case,
    steps::Step::{self, Befall, Clock, Crash, Cut, Move, Pass, Push, Retry, Start, Subscribe, Take},
};
use crate::world::Kind;

/// Times, by their numbers in `steps::TIMES`.
const ONE: Step = Pass { time: 0 };
const TWO: Step = Pass { time: 1 };
const TEN: Step = Pass { time: 3 };
const SECOND: Step = Pass { time: 6 };
const SECONDS: Step = Pass { time: 7 };

/// Lifetimes, by their numbers in `steps::LIVES`.
const DEFAULT: u8 = 0;
const LIVES_2: u8 = 2;
const LIVES_10: u8 = 4;
const LIVES_50: u8 = 5;
const LIVES_1000: u8 = 6;
const LIVES_20000: u8 = 7;

const JOIN: Step = Subscribe { consumer: 0, to: 0, from: 1 };
const TAKE: Step = Take { consumer: 0 };

/// `count` messages in one run, with alternating lifetimes.
const fn run(to: u8, count: u8, lives: u8, others: u8) -> Step {
    Push { to, count: count - 1, lives, others, way: 1 }
}

/// The inputs, by name.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let lists: [(&str, &[Step]); 20] = [
        (
            "at-the-boundary",
            &[run(0, 1, LIVES_10, LIVES_10), run(0, 2, LIVES_2, LIVES_10), ONE, Pass { time: 2 }, ONE, JOIN, ONE, TAKE],
        ),
        ("a-millisecond-before", &[run(0, 2, LIVES_10, LIVES_10), ONE, Pass { time: 2 }, JOIN, ONE, TAKE, ONE, TAKE]),
        ("some-of-a-batch", &[run(0, 4, LIVES_10, LIVES_1000), TEN, ONE, JOIN, ONE, TAKE]),
        ("some-of-a-batch-is-for-ever", &[run(0, 4, LIVES_10, DEFAULT), SECOND, SECOND, JOIN, ONE, TAKE]),
        (
            "recovered",
            &[
                run(0, 4, LIVES_50, LIVES_1000),
                Crash { host: 0 },
                Start { host: 0 },
                TEN,
                Subscribe { consumer: 0, to: 0, from: 1 },
                ONE,
                TAKE,
            ],
        ),
        (
            "recovered-elsewhere",
            &[
                run(0, 3, LIVES_50, LIVES_20000),
                ONE,
                Crash { host: 0 },
                Move { host: 1, told: 1 },
                SECOND,
                Subscribe { consumer: 0, to: 1, from: 1 },
                ONE,
                TAKE,
            ],
        ),
        (
            "trimmed-to-nothing",
            &[
                run(0, 3, LIVES_2, LIVES_2),
                SECOND,
                SECOND,
                Crash { host: 0 },
                Start { host: 0 },
                ONE,
                run(0, 1, LIVES_10, LIVES_10),
                Retry { to: 0, count: 3 },
                ONE,
            ],
        ),
        (
            "the-end-is-kept",
            &[
                run(0, 1, LIVES_20000, LIVES_20000),
                ONE,
                run(0, 1, LIVES_2, LIVES_2),
                SECOND,
                SECOND,
                Crash { host: 0 },
                Start { host: 0 },
                ONE,
                run(0, 1, LIVES_2, LIVES_2),
                ONE,
            ],
        ),
        ("set-forward", &[JOIN, run(0, 2, LIVES_1000, LIVES_20000), Clock { jump: 3 }, ONE, TAKE, SECOND, TAKE]),
        (
            "set-back",
            &[
                run(0, 1, LIVES_1000, LIVES_1000),
                TEN,
                Clock { jump: 7 },
                run(0, 1, LIVES_50, LIVES_50),
                ONE,
                JOIN,
                ONE,
                TAKE,
                SECOND,
                TAKE,
            ],
        ),
        (
            "set-back-a-little",
            &[
                JOIN,
                run(0, 1, LIVES_10, LIVES_10),
                ONE,
                Clock { jump: 4 },
                run(0, 1, LIVES_2, LIVES_2),
                TAKE,
                TWO,
                TAKE,
                TEN,
                TAKE,
            ],
        ),
        (
            "answers-take-time",
            &[
                Befall { to: 0, call: Kind::Lease as u8, fault: 7, time: 4 },
                Befall { to: 0, call: Kind::Append as u8, fault: 7, time: 4 },
                run(0, 2, LIVES_50, LIVES_1000),
                SECOND,
                JOIN,
                ONE,
                run(0, 2, LIVES_50, LIVES_10),
                TEN,
                TAKE,
                Pass { time: 4 },
                TAKE,
            ],
        ),
        (
            "lost-and-found",
            &[
                Befall { to: 0, call: Kind::Append as u8, fault: 3, time: 0 },
                run(0, 2, LIVES_50, LIVES_10),
                ONE,
                Befall { to: 0, call: Kind::Append as u8, fault: 4, time: 5 },
                run(0, 1, LIVES_1000, LIVES_1000),
                SECOND,
                JOIN,
                ONE,
                TAKE,
            ],
        ),
        (
            "cut-off",
            &[
                JOIN,
                run(0, 2, LIVES_20000, LIVES_1000),
                ONE,
                TAKE,
                Cut { to: 0, cut: 1 },
                SECONDS,
                Move { host: 1, told: 1 },
                Cut { to: 0, cut: 0 },
                ONE,
                Subscribe { consumer: 0, to: 1, from: 0 },
                run(1, 2, LIVES_50, LIVES_10),
                ONE,
                TAKE,
            ],
        ),
        (
            "behind-the-cache",
            &[
                run(0, 4, LIVES_50, LIVES_1000),
                ONE,
                JOIN,
                run(0, 4, LIVES_50, LIVES_2),
                ONE,
                run(0, 4, LIVES_20000, DEFAULT),
                TEN,
                TAKE,
                Pass { time: 4 },
                Subscribe { consumer: 1, to: 0, from: 3 },
                ONE,
                Take { consumer: 1 },
            ],
        ),
        (
            "twins",
            &[
                JOIN,
                run(0, 2, LIVES_50, LIVES_20000),
                ONE,
                Start { host: 0 },
                TEN,
                run(2, 2, LIVES_10, LIVES_50),
                Clock { jump: 6 },
                run(0, 2, LIVES_10, LIVES_50),
                ONE,
                TAKE,
                SECOND,
                TAKE,
                Subscribe { consumer: 0, to: 0, from: 0 },
                ONE,
                TAKE,
            ],
        ),
        (
            "trims-that-fail",
            &[
                run(0, 2, LIVES_50, LIVES_50),
                Befall { to: 0, call: Kind::Trim as u8, fault: 3, time: 0 },
                Befall { to: 0, call: Kind::Trim as u8, fault: 4, time: 6 },
                SECOND,
                run(0, 2, LIVES_1000, LIVES_50),
                SECOND,
                Befall { to: 0, call: Kind::Trim as u8, fault: 5, time: 5 },
                SECOND,
                Move { host: 1, told: 1 },
                ONE,
                run(1, 2, LIVES_1000, LIVES_50),
                SECOND,
            ],
        ),
        (
            "a-trim-is-abandoned",
            &[
                run(0, 2, LIVES_50, LIVES_1000),
                Befall { to: 0, call: Kind::Trim as u8, fault: 5, time: 6 },
                SECOND,
                Pass { time: 5 },
                Befall { to: 0, call: Kind::Append as u8, fault: 2, time: 0 },
                run(0, 2, LIVES_50, LIVES_20000),
                SECOND,
                JOIN,
                ONE,
                TAKE,
            ],
        ),
        (
            "asked-before-it-was-set-back",
            &[
                Befall { to: 0, call: Kind::Claim as u8, fault: 6, time: 5 },
                Move { host: 0, told: 1 },
                SECOND,
                SECOND,
                Pass { time: 5 },
                Pass { time: 5 },
                Pass { time: 5 },
                Pass { time: 4 },
                Pass { time: 4 },
                TEN,
                run(0, 1, LIVES_50, LIVES_50),
                Befall { to: 0, call: Kind::Lease as u8, fault: 6, time: 4 },
                TEN,
                Clock { jump: 6 },
                ONE,
                Move { host: 0, told: 1 },
                Pass { time: 4 },
                JOIN,
                Pass { time: 4 },
                TAKE,
            ],
        ),
        (
            "all-that-was-missed-is-gone",
            &[
                JOIN,
                run(0, 4, LIVES_10, LIVES_10),
                ONE,
                run(0, 4, LIVES_10, LIVES_10),
                SECOND,
                SECOND,
                Crash { host: 0 },
                Start { host: 0 },
                ONE,
                Subscribe { consumer: 0, to: 0, from: 3 },
                ONE,
                TAKE,
                run(0, 1, LIVES_50, LIVES_50),
                ONE,
                TAKE,
            ],
        ),
    ];
    lists.into_iter().map(|(name, steps)| (name, Case::encode(steps))).collect()
}
