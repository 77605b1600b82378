//! The fuzz targets. Each is a function of bytes that panics when it finds a bug. A fuzzer calls it with inputs that reach
//! new code, and `tests/replay.rs` with those in `corpus/` and `regressions/`.

#[macro_use]
mod world;

pub mod config;
pub mod log_frames;
pub mod ordering;
mod panics;
pub mod store_model;
pub mod ttl_recovery;
pub mod wire;

/// A target: its name, which is also that of its folders, and the function called with each input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("config", config::run),
    ("log_frames", log_frames::run),
    ("ordering", ordering::run),
    ("store_model", store_model::run),
    ("ttl_recovery", ttl_recovery::run),
    ("wire", wire::run),
];

/// The name and the content of each seed of a target.
pub type Seeds = fn() -> Vec<(&'static str, Vec<u8>)>;

/// Targets whose seeds are generated.
pub const SEEDS: &[(&str, Seeds)] = &[
    ("config", config::seeds::seeds),
    ("log_frames", log_frames::seeds::seeds),
    ("ordering", ordering::seeds),
    ("store_model", store_model::seeds::seeds),
    ("ttl_recovery", ttl_recovery::seeds),
    ("wire", wire::seeds::seeds),
];
