//! Real processes for tests: start, wait, signal, kill, and show their logs when a test fails.
//!
//! Everything binds port 0 on loopback and lives in a temporary directory. All processes are killed when the test ends,
//! however it ends.

// Each test binary uses a part of this.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::print_stderr)]

mod cluster;
mod http;
mod process;

pub use cluster::{Cluster, ClusterOptions, Server};
pub use http::{get, post, request};
pub use process::{Output, Process, command, program, rmom, rmom_in, run};

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Limit on the time of anything that usually takes well under a second.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `look` every few milliseconds until it returns an answer.
///
/// # Panics
/// If there is none in time; the message includes `what`.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}
