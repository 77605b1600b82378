//! What can be done to a store, with names from a small universe, so that operations meet each other.

use proptest::{collection::vec, option, prelude::*};

/// How many hosts there are for brokers.
pub(super) const HOSTS: u8 = 3;
/// How many labels there are for queues.
pub(super) const LABELS: u8 = 3;
/// How many ids there are for channels, producers, managers and topics.
pub(super) const IDS: u8 = 3;
/// How long the clock's step is: expiries and leases fall on steps, so that their boundaries are met.
pub(super) const STEP_MILLIS: u64 = 500;
pub(super) const LONGEST_SEQUENCE: usize = 60;

/// A queue by how many were created after it, be it deleted or not; beyond the first, one that never was.
pub(super) type Nth = u8;

/// Which epoch or number a caller goes by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Knowledge {
    Latest,
    Stale,
    NeverWas,
}

/// Where a batch claims to belong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Behind the last.
    Next,
    /// Where the last one begins.
    OfTheLast,
    /// Where the last one ends.
    EndOfTheLast,
    /// At the very first offset.
    First,
    /// One too far.
    Beyond,
    /// Behind the last, but not after the batch that is there.
    AfterAnother,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) queue: Nth,
    pub(super) epoch: Knowledge,
    pub(super) place: Place,
    pub(super) count: u64,
    /// In steps of the clock.
    pub(super) lifetime: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Earliest,
    Latest,
    /// So much beyond the first.
    At(u64),
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// Moves the clock to so many steps after the start.
    Clock(u64),
    /// In place of a run that it knows, or once more.
    Register {
        host: u8,
        replaces: Knowledge,
        again: bool,
    },
    Renew {
        host: u8,
        run: Knowledge,
        lease: u64,
    },
    Retire {
        host: u8,
        run: Knowledge,
    },
    Drain {
        host: u8,
        draining: bool,
    },
    /// A lease that has been over for so many steps.
    Forget {
        host: u8,
        gone_for: u64,
    },
    Create {
        label: u8,
        assignee: Option<u8>,
        again: bool,
    },
    Assign {
        queue: Nth,
        assignment: Knowledge,
        to: u8,
    },
    Delete {
        queue: Nth,
    },
    /// By the assignee, or by a host of its own choice.
    Claim {
        queue: Nth,
        by: Option<u8>,
        run: Knowledge,
        again: bool,
    },
    Append(Vec<Append>),
    Trim {
        queue: Nth,
        epoch: Knowledge,
        short_of_end: u64,
        /// Whether it saves the producers.
        saves: bool,
        /// From when on it looks for what expires, in steps after the start; none: from the beginning of time.
        from: Option<u64>,
        limit: u32,
    },
    OpenProducer {
        queue: Nth,
        producer: u8,
    },
    Purge {
        limit: u32,
    },
    CreateChannel {
        id: u8,
        queue: Nth,
        topic: u8,
        from: From,
    },
    DeleteChannel {
        id: u8,
    },
    Lead {
        manager: u8,
        lease: u64,
    },
    Resign {
        manager: u8,
    },
    Headers {
        queue: Nth,
        after: u64,
        limit: u32,
    },
    Read {
        queue: Nth,
        after: u64,
        max_bytes: usize,
    },
    Reopen,
    LookAtEverything,
}

fn knowledge() -> impl Strategy<Value = Knowledge> {
    prop_oneof![8 => Just(Knowledge::Latest), 1 => Just(Knowledge::Stale), 1 => Just(Knowledge::NeverWas)]
}

fn queue() -> impl Strategy<Value = Nth> {
    prop_oneof![12 => 0..LABELS, 3 => LABELS..2 * LABELS, 1 => Just(Nth::MAX)]
}

/// One more than there are is one that nobody knows.
fn host() -> impl Strategy<Value = u8> {
    prop_oneof![9 => 0..HOSTS, 1 => Just(HOSTS)]
}

fn append() -> impl Strategy<Value = Append> {
    let place = prop_oneof![
        10 => Just(Place::Next),
        1 => Just(Place::OfTheLast),
        1 => Just(Place::EndOfTheLast),
        1 => Just(Place::First),
        1 => Just(Place::Beyond),
        1 => Just(Place::AfterAnother),
    ];
    (queue(), knowledge(), place, 1..4_u64, option::weighted(0.8, 0..6_u64))
        .prop_map(|(queue, epoch, place, count, lifetime)| Append { queue, epoch, place, count, lifetime })
}

fn operation() -> impl Strategy<Value = Operation> {
    let from = prop_oneof![Just(From::Earliest), Just(From::Latest), (0..8_u64).prop_map(From::At)];
    prop_oneof![
        8 => (0..20_u64).prop_map(Operation::Clock),
        3 => (0..HOSTS, knowledge(), any::<bool>())
            .prop_map(|(host, replaces, again)| Operation::Register { host, replaces, again }),
        3 => (host(), knowledge(), 0..8_u64).prop_map(|(host, run, lease)| Operation::Renew { host, run, lease }),
        1 => (host(), knowledge()).prop_map(|(host, run)| Operation::Retire { host, run }),
        1 => (host(), any::<bool>()).prop_map(|(host, draining)| Operation::Drain { host, draining }),
        1 => (host(), 0..4_u64).prop_map(|(host, gone_for)| Operation::Forget { host, gone_for }),
        4 => (0..LABELS, option::of(host()), any::<bool>())
            .prop_map(|(label, assignee, again)| Operation::Create { label, assignee, again }),
        4 => (queue(), knowledge(), host())
            .prop_map(|(queue, assignment, to)| Operation::Assign { queue, assignment, to }),
        2 => queue().prop_map(|queue| Operation::Delete { queue }),
        8 => (queue(), option::weighted(0.2, host()), knowledge(), proptest::bool::weighted(0.2))
            .prop_map(|(queue, by, run, again)| Operation::Claim { queue, by, run, again }),
        24 => vec(append(), 1..4).prop_map(Operation::Append),
        8 => (
            queue(),
            knowledge(),
            prop_oneof![Just(0), 1..5_u64],
            proptest::bool::weighted(0.7),
            option::weighted(0.5, 0..12_u64),
            0..5_u32,
        )
            .prop_map(|(queue, epoch, short_of_end, saves, from, limit)| {
                Operation::Trim { queue, epoch, short_of_end, saves, from, limit }
            }),
        2 => (queue(), 0..IDS).prop_map(|(queue, producer)| Operation::OpenProducer { queue, producer }),
        2 => (1..5_u32).prop_map(|limit| Operation::Purge { limit }),
        5 => (0..IDS, queue(), 0..IDS, from)
            .prop_map(|(id, queue, topic, from)| Operation::CreateChannel { id, queue, topic, from }),
        2 => (0..IDS).prop_map(|id| Operation::DeleteChannel { id }),
        4 => (0..IDS, 0..8_u64).prop_map(|(manager, lease)| Operation::Lead { manager, lease }),
        1 => (0..IDS).prop_map(|manager| Operation::Resign { manager }),
        3 => (queue(), 0..12_u64, 0..4_u32)
            .prop_map(|(queue, after, limit)| Operation::Headers { queue, after, limit }),
        3 => (queue(), 0..12_u64, 0..80_usize)
            .prop_map(|(queue, after, max_bytes)| Operation::Read { queue, after, max_bytes }),
        1 => Just(Operation::Reopen),
        2 => Just(Operation::LookAtEverything),
    ]
}

/// Sequences of operations.
pub(super) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), 1..=LONGEST_SEQUENCE)
}
