//! Damage to a stored batch.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use rmom_core::{model::Offset, ports::StoredBatch};

use super::pushed::checksum;

/// The most changes to one batch.
const MAX_ACTS: usize = 6;

/// A batch after its damage.
pub(super) struct Damaged {
    pub(super) stored: StoredBatch,
    /// Its format is newer than any that this binary knows.
    pub(super) newer: bool,
    /// Index, frames or checksum have changed.
    pub(super) bytes_differ: bool,
    /// The checksum was computed anew.
    pub(super) resealed: bool,
}

/// Damages a batch as the input says, possibly not at all.
pub(super) fn damage(input: &mut Unstructured<'_>, whole: &StoredBatch) -> Result<Damaged> {
    let mut stored = whole.clone();
    let mut resealed = false;
    let acts = usize::from(input.arbitrary::<u8>()?) % (MAX_ACTS + 1);
    for _ in 0..acts {
        let (act, at, value) = (input.arbitrary::<u8>()?, input.arbitrary::<u16>()?, input.arbitrary::<u8>()?);
        let StoredBatch { header, frames, checksum: sum } = &mut stored;
        match act % 10 {
            0 => flip(&mut header.index, at, value),
            1 => flip(frames, at, value),
            2 => header.index.truncate(usize::from(at) % (header.index.len() + 1)),
            3 => frames.truncate(usize::from(at) % (frames.len() + 1)),
            4 => header.index = header.index.iter().copied().chain([value]).collect(),
            5 => *frames = frames.iter().copied().chain([value]).collect(),
            6 => header.first = moved(header.first, value),
            7 => header.last = moved(header.last, value),
            8 => header.format = at,
            // One bit only, so that the fuzzer, which sees comparisons, does not forge a checksum.
            _ => *sum ^= 1 << (value % 32),
        }
    }
    if input.arbitrary::<u8>()? % 4 == 1 {
        stored.checksum = checksum(&stored.header.index, &stored.frames);
        resealed = true;
    }
    let newer = stored.header.format > whole.header.format;
    let bytes_differ =
        (&stored.header.index, &stored.frames, stored.checksum) != (&whole.header.index, &whole.frames, whole.checksum);
    Ok(Damaged { stored, newer, bytes_differ, resealed })
}

fn flip(bytes: &mut Bytes, at: u16, value: u8) {
    let mut flipped = bytes.to_vec();
    let length = flipped.len();
    if length > 0 {
        flipped[usize::from(at) % length] ^= value;
    }
    *bytes = flipped.into();
}

fn moved(offset: Offset, by: u8) -> Offset {
    match by {
        255 => Offset::new(i64::MAX as u64),
        254 => Offset::ZERO,
        by => Offset::new(offset.get().saturating_add(u64::from(by % 8)).saturating_sub(4).min(i64::MAX as u64)),
    }
}
