//! Batches as they come from the store: what was encoded decodes to the same, and of arbitrary bytes none make a panic
//! or a message that nobody pushed.

use arbitrary::Arbitrary;
use bytes::Bytes;
use rmom_core::{
    frame::Batch,
    model::{Epoch, Offset, StoreTime},
    ports::{BatchHeader, StoredBatch},
};

#[derive(Arbitrary, Debug)]
struct Raw {
    first: u64,
    last: u64,
    format: u16,
    index: Vec<u8>,
    frames: Vec<u8>,
    checksum: u32,
}

/// One input.
///
/// # Panics
/// If it found something.
pub fn run(data: &[u8]) {
    let Ok(raw) = Raw::arbitrary_take_rest(arbitrary::Unstructured::new(data)) else { return };
    let header = BatchHeader {
        first: Offset::new(raw.first >> 1),
        last: Offset::new(raw.last >> 1),
        epoch: Epoch::new(1),
        stored_at: StoreTime::from_millis(1_000),
        expires_at: StoreTime::NEVER,
        format: raw.format,
        index: Bytes::from(raw.index),
    };
    let stored = StoredBatch { header, frames: Bytes::from(raw.frames), checksum: raw.checksum };
    let _ = Batch::decode(&stored);
}
