//! Time to live across crashes: arbitrary lifetimes, a store's clock that is set forward and back, slow answers, brokers
//! that die and others that recover the queue, compared with promise 7 to the millisecond.
//!
//! `steps` defines the inputs, `play` carries them out with production's brokers, `model` is the oracle for live messages,
//! `clocks` for how wrong a broker may be about the time, `readers` checks delivered and omitted messages, and `finale` ends
//! each run: faults stop, a fresh broker has to find all live messages and no others, and expired messages leave the store.

mod clocks;
mod finale;
mod model;
mod play;
mod readers;
mod seeds;
mod steps;

pub(crate) use seeds::seeds;
pub use steps::Case;

use rmom_core::store::memory::State;

use self::{play::Play, steps::Step};
use crate::world;

impl Case {
    /// Runs the case.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn run(&self) {
        self.play();
    }

    /// Runs the case, and returns the final state of the store.
    fn play(&self) -> State {
        world::run(async {
            let mut play = Play::new(self.seed).await;
            for &step in &self.steps {
                play.look();
                play.step(step);
                if let Step::Pass { time } = step {
                    play.world.pass(steps::time(time)).await;
                }
            }
            play.end().await
        })
    }
}

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    world::decoded(data, Case::run);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_gives_the_same_run() {
        for (name, bytes) in seeds() {
            let stored = || world::decoded(&bytes, Case::play);
            assert_eq!(stored(), stored(), "{name}");
        }
    }
}
