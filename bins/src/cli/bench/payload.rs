//! The contents of a run's messages, and the check that they arrive once and in order.

use bytes::Bytes;

use super::{args::Sizes, clock::Micros};

/// The beginning of a content: the producer (4 bytes), the number of its message (8) and the due time (8).
pub(super) const HEADER_BYTES: usize = 20;

/// The beginning of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Producers of a run count from 0.
    pub(super) producer: u32,
    /// A producer's messages count from 0.
    pub(super) number: u64,
    /// Its due time.
    pub(super) due: Micros,
}

impl Header {
    fn parse(content: &[u8]) -> Option<Self> {
        let (producer, rest) = content.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (due, _) = rest.split_first_chunk()?;
        let due = Micros(u64::from_be_bytes(*due));
        Some(Self { producer: u32::from_be_bytes(*producer), number: u64::from_be_bytes(*number), due })
    }
}

/// Makes the messages of one producer.
#[derive(Clone, Debug)]
pub(super) struct Source {
    producer: u32,
    next: u64,
    sizes: Sizes,
    random: u64,
    /// Random, so that neither database nor network can compress it.
    noise: Vec<u8>,
}

impl Source {
    pub(super) fn new(producer: u32, sizes: &Sizes) -> Self {
        let mut random = u64::from(producer);
        let mut noise = Vec::with_capacity(sizes.max() + 8);
        while noise.len() < sizes.max() {
            noise.extend_from_slice(&next_random(&mut random).to_be_bytes());
        }
        Self { producer, next: 0, sizes: sizes.clone(), random, noise }
    }

    /// Content and number of the next message.
    pub(super) fn next(&mut self, due: Micros) -> (Bytes, u64) {
        let number = self.next;
        self.next += 1;
        let size = self.sizes.pick(next_random(&mut self.random));
        let mut content = Vec::with_capacity(size);
        content.extend_from_slice(&self.producer.to_be_bytes());
        content.extend_from_slice(&number.to_be_bytes());
        content.extend_from_slice(&due.0.to_be_bytes());
        content.extend_from_slice(&self.noise[HEADER_BYTES..size]);
        (content.into(), number)
    }

    /// Number of messages made.
    pub(super) const fn made(&self) -> u64 {
        self.next
    }
}

/// SplitMix64: the same sizes and bytes in every run.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a message that was never pushed: {0}")]
    Foreign(String),
    #[error("LOST: message {wanted} of producer {producer}; received {number} instead")]
    Lost { producer: u32, wanted: u64, number: u64 },
    #[error("DUPLICATED or out of order: received message {number} of producer {producer}, expected {wanted}")]
    Repeated { producer: u32, wanted: u64, number: u64 },
}

/// Checks what one subscriber receives: of each producer every `step`-th message, each once and in order.
#[derive(Clone, Debug)]
pub(super) struct Checker {
    step: u64,
    /// The expected next message of each producer, from `first_producer` on.
    wanted: Vec<u64>,
    first_producer: u32,
    received: u64,
}

impl Checker {
    /// A checker for producers `first .. first + count`; the first expected message of each is `offset`.
    pub(super) fn new(first_producer: u32, count: u32, offset: u64, step: u64) -> Self {
        Self { step, wanted: vec![offset; count as usize], first_producer, received: 0 }
    }

    /// Checks a message.
    pub(super) fn check(&mut self, content: &[u8]) -> Result<Header, Broken> {
        let header =
            Header::parse(content).ok_or_else(|| Broken::Foreign(format!("it has {} bytes", content.len())))?;
        let Header { producer, number, .. } = header;
        let index = producer.checked_sub(self.first_producer).map(|index| index as usize);
        let Some(wanted) = index.and_then(|index| self.wanted.get_mut(index)) else {
            return Err(Broken::Foreign(format!("there is no producer {producer}")));
        };
        match number.cmp(wanted) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => return Err(Broken::Lost { producer, wanted: *wanted, number }),
            std::cmp::Ordering::Less => return Err(Broken::Repeated { producer, wanted: *wanted, number }),
        }
        *wanted += self.step;
        self.received += 1;
        Ok(header)
    }

    /// Number of messages checked.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }
}

/// Number of messages among `made` that pass a filter which takes every `step`-th from `offset` on.
pub(super) const fn passing(made: u64, offset: u64, step: u64) -> u64 {
    made.saturating_sub(offset).div_ceil(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(producer: u32, number: u64) -> Bytes {
        let mut source = Source::new(producer, &"20-90".parse().unwrap());
        let mut last = source.next(Micros(5));
        while last.1 < number {
            last = source.next(Micros(5));
        }
        last.0
    }

    #[test]
    fn each_message_once_and_in_order() {
        let mut checker = Checker::new(7, 2, 0, 1);
        for (producer, number) in [(7, 0), (7, 1), (8, 0), (7, 2)] {
            let header = Header { producer, number, due: Micros(5) };
            assert_eq!(checker.check(&content(producer, number)), Ok(header));
        }
        assert_eq!(checker.received(), 4);
    }

    #[test]
    fn what_is_lost_doubled_or_strange_is_told() {
        let mut checker = Checker::new(0, 1, 0, 1);
        assert_eq!(checker.check(&content(0, 1)), Err(Broken::Lost { producer: 0, wanted: 0, number: 1 }));
        checker.check(&content(0, 0)).unwrap();
        assert_eq!(checker.check(&content(0, 0)), Err(Broken::Repeated { producer: 0, wanted: 1, number: 0 }));
        assert!(matches!(checker.check(&content(1, 1)), Err(Broken::Foreign(_))));
        assert!(matches!(checker.check(b"short"), Err(Broken::Foreign(_))));
    }

    #[test]
    fn a_filter_lets_every_third_through() {
        let mut checker = Checker::new(0, 1, 2, 3);
        checker.check(&content(0, 2)).unwrap();
        checker.check(&content(0, 5)).unwrap();
        assert!(checker.check(&content(0, 6)).is_err());
        assert_eq!([2, 3, 5, 6, 8].map(|made| passing(made, 2, 3)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn sizes_are_kept() {
        let mut source = Source::new(0, &"20,333".parse().unwrap());
        let sizes: std::collections::BTreeSet<usize> = (0..100).map(|_| source.next(Micros(0)).0.len()).collect();
        assert_eq!(sizes, [20, 333].into());
        assert_eq!(source.made(), 100);
    }
}
