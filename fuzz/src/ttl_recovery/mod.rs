//! Time to live, across crashes: arbitrary lifetimes, a store's clock that is set forward and back, answers that take their
//! time, brokers that die and others that recover the queue, compared with promise 7 to the millisecond.
//!
//! `steps` is what an input can say, `play` does it with production's brokers, `model` is the oracle for what is alive,
//! `clocks` for how wrong a broker may be about the time, `readers` looks at what is delivered and what is left out, and
//! `finale` ends each run: faults stop, a fresh broker has to find what is alive and nothing else, and what is dead leaves
//! the store.

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
    /// Plays it.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn run(&self) {
        self.play();
    }

    /// Plays it, and returns what is stored in the end.
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

/// One input.
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
