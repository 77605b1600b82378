//! What is fuzzed, each a function of bytes that panics when it finds something: a fuzzer calls it with what leads it to
//! code that no input reached before, and `tests/replay.rs` with what is kept in `corpus/` and `regressions/`.

#[macro_use]
mod world;

pub mod log_frames;
pub mod ordering;
pub mod ttl_recovery;

/// A target: its name, which is also that of its folders, and what is called with each input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 3] =
    [("log_frames", log_frames::run), ("ordering", ordering::run), ("ttl_recovery", ttl_recovery::run)];

/// Inputs of a target: the names of their files in `corpus/`, and what is in them.
pub type Seeds = (&'static str, Vec<(&'static str, Vec<u8>)>);

/// Inputs that are written down as steps.
#[must_use]
pub fn seeds() -> [Seeds; 2] {
    [("ordering", ordering::seeds()), ("ttl_recovery", ttl_recovery::seeds())]
}
