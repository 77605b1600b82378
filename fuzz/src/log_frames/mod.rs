//! Batches from the store: decoding reverses encoding, damage is an error, and arbitrary bytes cause neither a panic nor a
//! message that was never pushed.

mod damage;
mod pushed;
pub mod seeds;

use arbitrary::{Result, Unstructured};
use bytes::{Buf as _, Bytes};
use rmom_core::{
    frame::{Batch, runs},
    model::{Epoch, Offset, StoreTime, Topic},
    ports::{BatchHeader, StoredBatch},
};

use self::{
    damage::{Damaged, damage},
    pushed::Pushed,
};

/// The time at which every batch here is stored.
const STORED_AT: StoreTime = StoreTime::from_millis(1_000_000);
/// The epoch of every batch here.
const EPOCH: Epoch = Epoch::new(3);
/// The most questions about one batch.
const MAX_QUESTIONS: usize = 8;

/// Runs one input, whose first byte selects the kind.
///
/// # Panics
/// If it finds a bug.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let done = match input.arbitrary::<u8>().map(|kind| kind % 3) {
        Ok(0) => round_trip(&mut input),
        Ok(1) => damaged(&mut input),
        _ => raw(&mut input),
    };
    // An input that is too short stops early; its actions until then count.
    let _ = done;
}

/// A subscriber's query of a batch.
struct Question {
    after: Offset,
    topic: Topic,
    now: StoreTime,
}

impl Question {
    fn ask(input: &mut Unstructured<'_>, first: Offset) -> Result<Self> {
        let around_first = first.get().saturating_sub(2).saturating_add(u64::from(input.arbitrary::<u8>()? % 40));
        let after = Offset::new(around_first.min(i64::MAX as u64));
        let topic = pushed::topic(input)?;
        let now = match input.arbitrary::<u8>()? {
            // The latest possible reading of a clock.
            255 => StoreTime::from_millis(StoreTime::NEVER.millis() - 1),
            steps => STORED_AT.plus_millis(u64::from(steps)),
        };
        Ok(Self { after, topic, now })
    }
}

/// Pushed messages are read unchanged, from the batch as built and from the decoded one.
fn round_trip(input: &mut Unstructured<'_>) -> Result<()> {
    let pushed = Pushed::arbitrary(input)?;
    let encoded = pushed.encode();
    assert_eq!(encoded.frames, pushed.frames(|_| true), "a frame is the message as prost encodes it");
    assert_eq!(encoded.runs, pushed.runs());
    let stored = pushed::stored(&encoded);
    assert_eq!(runs(stored.header.format, &stored.header.index, encoded.first, encoded.last), Ok(pushed.runs()));
    let decoded = Batch::decode(&stored).expect("what was encoded can be decoded");
    let built = encoded.stored(EPOCH, STORED_AT);
    for batch in [&built, &decoded] {
        assert_eq!((batch.first(), batch.last(), batch.messages()), (pushed.first, pushed.last(), pushed.count()));
        assert_eq!((batch.epoch(), batch.stored_at()), (EPOCH, STORED_AT));
        assert_eq!(batch.expires_at(), pushed.expires_at());
        assert_eq!(batch.frame_bytes(), stored.frames.len());
    }
    for _ in 0..MAX_QUESTIONS {
        if input.is_empty() {
            break;
        }
        let Question { after, topic, now } = Question::ask(input, pushed.first)?;
        let expected = pushed.frames(|message| message.is_for(after, &topic, now));
        for batch in [&built, &decoded] {
            let chunk = batch.chunk(after, &topic, now);
            assert_eq!(chunk.frames, expected, "after {after}, topic {topic}, at {now}");
            assert_eq!(chunk.messages, whole_frames(&chunk.frames));
            assert_eq!(chunk.through, pushed.last());
        }
    }
    Ok(())
}

/// Reading a damaged batch gives an error that says so, or the pushed messages.
fn damaged(input: &mut Unstructured<'_>) -> Result<()> {
    let pushed = Pushed::arbitrary(input)?;
    let encoded = pushed.encode();
    let Damaged { stored, newer, bytes_differ, resealed } = damage(input, &pushed::stored(&encoded))?;
    match read(input, &stored)? {
        Err(text) => {
            assert!(!text.is_empty());
            assert!(!newer || text.contains("newer"), "{text}");
        }
        Ok(()) if newer => panic!("a newer format was read"),
        // A correct checksum permits any message.
        Ok(()) if resealed => {}
        Ok(()) => {
            assert!(!bytes_differ, "damaged bytes were read");
            assert_eq!(stored.frames, pushed.frames(|_| true));
        }
    }
    Ok(())
}

/// Arbitrary bytes in all parts of a batch.
fn raw(input: &mut Unstructured<'_>) -> Result<()> {
    let offset = |raw: u64| Offset::new(raw >> 1);
    let (first, last) = (offset(input.arbitrary()?), offset(input.arbitrary()?));
    let (format, right_checksum, length) = (input.arbitrary()?, input.arbitrary::<bool>()?, input.arbitrary::<u16>()?);
    let index = Bytes::copy_from_slice(input.bytes(usize::from(length).min(input.len()))?);
    let frames = Bytes::copy_from_slice(input.bytes(input.len() / 2)?);
    let checksum = if right_checksum { pushed::checksum(&index, &frames) } else { input.arbitrary()? };
    let header =
        BatchHeader { first, last, epoch: EPOCH, stored_at: STORED_AT, expires_at: StoreTime::NEVER, format, index };
    let _ = read(input, &StoredBatch { header, frames, checksum })?;
    Ok(())
}

/// Reads an untrusted batch. The result must consist of whole frames of the batch, in their order.
fn read(input: &mut Unstructured<'_>, stored: &StoredBatch) -> Result<Result<(), String>> {
    let header = &stored.header;
    let producers = runs(header.format, &header.index, header.first, header.last);
    let batch = match Batch::decode(stored) {
        Err(error) => return Ok(Err(error.to_string())),
        Ok(batch) => batch,
    };
    let producers = producers.expect("a batch that can be read has producers");
    assert_eq!(producers.iter().map(|run| run.count).sum::<u64>(), batch.messages());
    assert_eq!(whole_frames(&stored.frames), batch.messages());
    for _ in 0..MAX_QUESTIONS {
        if input.is_empty() {
            break;
        }
        let Question { after, topic, now } = Question::ask(input, batch.first())?;
        let chunk = batch.chunk(after, &topic, now);
        assert_eq!(chunk.messages, whole_frames(&chunk.frames));
        assert!(chunk.messages <= batch.last().since(after).min(batch.messages()));
        assert_eq!(chunk.through, batch.last());
        let mut there = frames_of(&stored.frames).into_iter();
        assert!(frames_of(&chunk.frames).iter().all(|frame| there.any(|other| other == *frame)));
    }
    Ok(Ok(()))
}

fn whole_frames(frames: &Bytes) -> u64 {
    frames_of(frames).len() as u64
}

/// Splits frames like a gRPC client.
fn frames_of(frames: &Bytes) -> Vec<Bytes> {
    let mut rest = frames.clone();
    let mut all = Vec::new();
    while rest.has_remaining() {
        assert_eq!(rest.get_u8(), 0, "no frame is compressed");
        let length = rest.get_u32() as usize;
        all.push(rest.split_to(length));
    }
    all
}
