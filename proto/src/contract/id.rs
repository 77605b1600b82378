//! The ids of producers and messages.

use uuid::Uuid;

/// The id of a named producer: the UUID of version 5 for `rmom:producer:NAME` in the namespace for URLs.
#[must_use]
pub fn producer_id(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("rmom:producer:{name}").as_bytes())
}

/// The ids of one producer's messages in one queue. Brokers and clients derive the same ids, and every copy of a push has the
/// same id.
///
/// Version 8 of RFC 9562: the upper 60 free bits are a SHA-1 of producer and queue, the lower 62 the sequence, so ids of one
/// producer and queue never collide. A producer's epoch is left out: a named producer continues counting where its predecessor
/// stopped.
#[derive(Clone, Copy, Debug)]
pub struct MessageIds {
    high: u64,
}

impl MessageIds {
    /// The ids of the messages that `producer` pushes to the queue with id `queue`.
    #[must_use]
    pub fn new(producer: Uuid, queue: u64) -> Self {
        Self { high: Uuid::new_v5(&producer, &queue.to_be_bytes()).as_u64_pair().0 }
    }

    /// The id at a sequence.
    #[must_use]
    pub const fn at(self, sequence: u64) -> Uuid {
        let high = (self.high & !0xF000) | 0x8000;
        let low = (sequence & (u64::MAX >> 2)) | (0b10 << 62);
        Uuid::from_u64_pair(high, low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_stable_distinct_and_valid() {
        let id = |queue, sequence| MessageIds::new(Uuid::from_u128(7), queue).at(sequence);
        assert_eq!(id(1, 1).to_string(), "6b85be3e-5935-85c6-8000-000000000001");
        let all = [id(1, 1), id(1, 2), id(2, 1), id(1, 1 << 40)];
        for (i, a) in all.iter().enumerate() {
            assert_eq!((a.get_version_num(), a.get_variant()), (8, uuid::Variant::RFC4122));
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
