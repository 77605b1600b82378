//! Random numbers for brokers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rmom_core::ports::Entropy;

/// Numbers derived from a seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Chance(AtomicU64);

impl Chance {
    pub(crate) fn new(seed: u8) -> Self {
        Self(AtomicU64::new(u64::from(seed)))
    }

    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Entropy for Chance {
    fn bits(&self) -> u128 {
        u128::from(self.draw()) << 64 | u128::from(self.draw())
    }
}
