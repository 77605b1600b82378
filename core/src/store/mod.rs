//! The store in memory, which is the model of what a store does, and the suite that every store has to pass.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod faulty;
pub mod memory;

pub use memory::MemoryStore;
