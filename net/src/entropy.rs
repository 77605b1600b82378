//! Randomness from the operating system.

use rand::{TryRngCore as _, rngs::OsRng};
use rmom_core::ports::Entropy;

/// The operating system's generator. Called once per id, not once per message.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn bits(&self) -> u128 {
        let mut bytes = [0; 16];
        OsRng.try_fill_bytes(&mut bytes).expect("every system we run on has a generator, and ids need it");
        u128::from_ne_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_and_uuids_are_version_4() {
        assert_ne!(OsEntropy.bits(), OsEntropy.bits());
        assert_eq!(OsEntropy.uuid().get_version_num(), 4);
    }
}
