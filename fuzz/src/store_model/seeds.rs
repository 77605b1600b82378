//! Initial inputs: `cargo run -p rmom-fuzz --example seeds` writes them to `corpus/store_model`.
//!
//! Each operation is a byte and its arguments. The number of a queue is the number of queues created after it: 0 is the
//! newest.

const CLOCK: u8 = 0;
const REGISTER: u8 = 1;
const RENEW: u8 = 2;
const RETIRE: u8 = 3;
const DRAIN: u8 = 4;
const CREATE: u8 = 5;
const ASSIGN: u8 = 6;
const DELETE: u8 = 7;
const CLAIM: u8 = 8;
const APPEND: u8 = 9;
const TRIM: u8 = 10;
const OPEN_PRODUCER: u8 = 11;
const PURGE: u8 = 12;
const CREATE_CHANNEL: u8 = 13;
const DELETE_CHANNEL: u8 = 14;
const LEAD: u8 = 15;
const RESIGN: u8 = 16;
const HEADERS: u8 = 17;
const READ: u8 = 18;
const REOPEN: u8 = 19;
const LOOK: u8 = 20;

/// A batch at the end of the newest queue, of three messages that live for two steps of the clock.
const BATCH: [u8; 7] = [APPEND, 0, 0, 0, 5, 2, 3];
/// The same with an old epoch.
const STALE_BATCH: [u8; 7] = [APPEND, 0, 0, 6, 5, 2, 3];
/// The next epoch of the newest queue, by its assignee.
const NEXT_EPOCH: [u8; 5] = [CLAIM, 0, 0, 0, 0];
/// Trims everything that has expired from the newest queue.
const TRIM_ALL: [u8; 5] = [TRIM, 0, 0, 0, 4];

/// The name and content of each.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("append-and-read", [&BATCH[..], &BATCH, &[HEADERS, 0, 0, 3, READ, 0, 1, 79, LOOK]].concat()),
        ("three-queues-in-a-group", vec![APPEND, 2, 0, 0, 5, 0, 0, 1, 0, 5, 1, 1, 2, 0, 0, 2, 0, LOOK]),
        ("fenced", [&BATCH[..], &NEXT_EPOCH, &STALE_BATCH, &BATCH, &[REOPEN], &BATCH].concat()),
        ("expires-and-is-trimmed", [&BATCH[..], &[CLOCK, 2], &TRIM_ALL, &BATCH, &[REOPEN, LOOK]].concat()),
        ("the-clock-goes-back", [&[CLOCK, 9], &BATCH[..], &[CLOCK, 1], &BATCH, &TRIM_ALL].concat()),
        (
            "deleted-and-born-again",
            [&BATCH[..], &[DELETE, 0, CREATE, 2, 1, 0], &NEXT_EPOCH, &[PURGE, 3], &BATCH].concat(),
        ),
        (
            "moves",
            [&[ASSIGN, 0, 0, 1], &NEXT_EPOCH[..], &BATCH, &[RETIRE, 1, 0, REGISTER, 1, 0, 0], &NEXT_EPOCH].concat(),
        ),
        ("channels", vec![CREATE_CHANNEL, 0, 0, 1, 1, CREATE_CHANNEL, 1, 1, 0, 5, DELETE_CHANNEL, 0, REOPEN]),
        (
            "brokers",
            vec![RENEW, 0, 0, 4, DRAIN, 0, 1, CLOCK, 5, RENEW, 0, 0, 4, RENEW, 1, 6, 4, REGISTER, 1, 0, 0, LOOK],
        ),
        ("leaders", vec![LEAD, 0, 3, LEAD, 1, 3, CLOCK, 3, LEAD, 1, 3, RESIGN, 1, LEAD, 2, 3, REOPEN]),
        (
            "producers",
            vec![OPEN_PRODUCER, 0, 1, OPEN_PRODUCER, 0, 1, REOPEN, OPEN_PRODUCER, 0, 1, OPEN_PRODUCER, 255, 0],
        ),
    ]
}
