//! Randomness derived from the seed.

use std::fmt;

use parking_lot::Mutex;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use rmom_core::ports::Entropy;

/// Random bits that depend only on the seed and on how many were drawn before.
pub struct SeededEntropy(Mutex<StdRng>);

impl SeededEntropy {
    /// A source that starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Returns another source, independent of later draws from this one. Each host has one, so that no host's random bits
    /// depend on the draws of another.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.0.lock().next_u64())
    }
}

impl fmt::Debug for SeededEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededEntropy").finish_non_exhaustive()
    }
}

impl Entropy for SeededEntropy {
    fn bits(&self) -> u128 {
        let mut bytes = [0; 16];
        self.0.lock().fill_bytes(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}
