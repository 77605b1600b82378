//! What makes a run a function of its seed: time, randomness, an isolated thread, and a trace to compare runs by.

mod clock;
mod entropy;
mod isolated;
pub(crate) mod libc_shim;
pub(crate) mod trace;

pub use self::{
    clock::{EPOCH_MILLIS, SimClock},
    entropy::SeededEntropy,
    isolated::{isolated, traced},
    trace::Trace,
};
