//! Initial inputs: `cargo run -p rmom-fuzz --example seeds` writes them to `corpus/log_frames`.

use bytes::Bytes;
use rmom_core::{broker::NewMessage, model::Topic};

use super::pushed::{Pushed, stored};

/// A message: its producer, topic (as a number) and lifetime, and content.
type Message<'a> = (u8, u8, u8, &'a [u8]);

const SOME: [Message<'_>; 4] =
    [(0, 0, 0, b"one"), (0, 1, 5, b""), (1, 2, 255, b"a longer content of some bytes"), (0x10, 4, 0, b"\0\xff")];
/// Queries: the offset after which, the topic, and the time.
const QUESTIONS: [[u8; 3]; 4] = [[0, 0, 0], [3, 0, 4], [2, 1, 5], [2, 2, 255]];

fn batch(kind: u8, first: u8, messages: &[Message<'_>]) -> Vec<u8> {
    let mut input = vec![kind, first, u8::try_from(messages.len() - 1).expect("seeds are small")];
    for (producer, topic, lifetime, content) in messages {
        input.extend([*producer, *topic, *lifetime, 0, u8::try_from(content.len()).expect("seeds are small")]);
        input.extend_from_slice(content);
    }
    input
}

fn questions(mut input: Vec<u8>) -> Vec<u8> {
    input.extend(QUESTIONS.iter().flatten());
    input
}

/// One change to a batch: its kind, place and value, and whether the checksum is computed anew.
fn damage(act: u8, at: u16, value: u8, seal: bool) -> Vec<u8> {
    let mut input = batch(1, 0, &SOME);
    input.extend([1, act, at.to_le_bytes()[0], at.to_le_bytes()[1], value, u8::from(seal)]);
    questions(input)
}

/// A real batch as raw bytes.
fn raw(last: u64) -> Vec<u8> {
    let message = NewMessage { content: Bytes::from_static(b"content"), topic: Topic::NONE, ..NewMessage::default() };
    let batch = stored(&Pushed::one(message).encode());
    let (index, frames) = (&batch.header.index, &batch.frames);
    let mut input = vec![2];
    input.extend((1_u64 << 1).to_le_bytes());
    input.extend((last << 1).to_le_bytes());
    input.extend(batch.header.format.to_le_bytes());
    input.push(1);
    input.extend(u16::try_from(index.len()).expect("seeds are small").to_le_bytes());
    input.extend_from_slice(index);
    input.extend_from_slice(frames);
    // The frames are the first half of the remaining bytes.
    input.resize(input.len() + frames.len(), 0);
    input
}

/// The name and content of each.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("one-message", questions(batch(0, 0, &SOME[..1]))),
        ("some-messages", questions(batch(0, 1, &SOME))),
        ("the-last-offsets", questions(batch(0, 5, &SOME))),
        ("one-topic-and-lifetime", questions(batch(0, 3, &[(0, 1, 9, b"x"), (0, 1, 9, b"y"), (1, 1, 9, b"z")]))),
        ("undamaged", damage(0, 0, 0, false)),
        ("index-flipped", damage(0, 9, 0x10, false)),
        ("frames-flipped-and-sealed", damage(1, 3, 0x10, true)),
        ("frames-truncated", damage(3, 20, 0, false)),
        ("one-message-more-by-the-header", damage(7, 0, 5, false)),
        ("newer", damage(8, 2, 0, false)),
        ("raw", raw(1)),
        ("raw-too-many", raw(2)),
    ]
}
