//! The codec of stored and delivered messages.
//!
//! A message is encoded once, when it is pushed, as the length-prefixed gRPC message that subscribers read. Batches of
//! messages are stored in this form and go from memory or store to any number of sockets unchanged. The batch's index has
//! all that has to be known of a message without decoding it: length, topic, lifetime, producer.

mod batch;
mod builder;
mod index;
mod stored;

pub use batch::{Batch, Chunk};
pub use builder::{BatchBuilder, Encoded, encoded_len};
pub use index::{FrameError, Run, runs};
pub use rmom_proto::contract::FRAME_PREFIX_BYTES;
pub use stored::{BatchHeader, StoredBatch};

/// Version of index and frames that this binary writes.
pub const FORMAT: u16 = 1;

/// The newest version that this binary reads; it reads all earlier ones as well. A release that introduces a new version
/// only reads it; the next release writes it. Brokers of two successive releases can therefore run together, both during an
/// upgrade and when it is undone: each reads what the other writes.
pub const READS_UP_TO: u16 = 1;

const _: () = assert!(FORMAT == READS_UP_TO || FORMAT + 1 == READS_UP_TO, "see READS_UP_TO");

fn checksum(index: &[u8], frames: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(index);
    hasher.update(frames);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
