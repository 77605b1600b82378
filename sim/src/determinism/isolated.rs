//! An isolated thread for each simulation.

use std::{panic::resume_unwind, thread};

use parking_lot::Mutex;
use tokio::runtime;

use super::{
    libc_shim,
    trace::{self, Trace},
};

#[cfg(not(tokio_unstable))]
compile_error!(
    "rmom-sim needs tokio's seeded scheduler. Put this into .cargo/config.toml at the root of your workspace:\n\n\
     [build]\n\
     rustflags = [\"--cfg\", \"tokio_unstable\"]\n\n\
     (If the environment variable RUSTFLAGS is set, it replaces that: add `--cfg tokio_unstable` to it.)"
);

/// Held while a simulation runs: tokio's task ids are global to the process.
static RUNNING: Mutex<()> = Mutex::new(());

/// A runtime that shuts down, like that of a crashing host, drops its tasks in an order that depends on their ids modulo its
/// number of shards. There are 4 shards now; 64, which is also a power of two, leaves room for more.
const TASK_SHARDS: u64 = 64;

/// Runs a simulation on a thread of its own, one at a time in this process, so that a run does not depend on earlier or
/// concurrent ones. A panic is passed on.
///
/// On that thread randomness and time are simulated, even for libraries: `HashMap`'s order, `rand::rng()`,
/// `SystemTime::now()` and `Instant::now()` are functions of the cluster's seed and of simulated time. This needs Linux with
/// glibc; elsewhere a replay is exact only if no code uses them.
///
/// A [`Cluster`](crate::Cluster) cannot leave its thread, so create it in `simulation`. For an exact replay, no other code
/// in the process may start tasks meanwhile.
pub fn isolated<T: Send>(simulation: impl FnOnce() -> T + Send) -> T {
    run(|| trace::untraced(simulation))
}

/// Like [`isolated`], with a [`Trace`] of everything that happened: its digest, and its lines if `keep_lines`. A trace about
/// doubles the cost of the simulation.
pub fn traced<T: Send>(keep_lines: bool, simulation: impl FnOnce() -> T + Send) -> (T, Trace) {
    run(|| trace::trace(keep_lines, simulation))
}

fn run<T: Send>(simulation: impl FnOnce() -> T + Send) -> T {
    let _alone = RUNNING.lock();
    on_a_fresh_thread(align_task_ids);
    on_a_fresh_thread(|| {
        // Until the thread ends: destructors may still read the clock.
        libc_shim::enter();
        simulation()
    })
}

fn on_a_fresh_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(f).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Uses up task ids until the next one is the first of a round.
fn align_task_ids() {
    let runtime = runtime::Builder::new_current_thread().build().expect("a runtime without drivers takes no resources");
    runtime.block_on(async {
        loop {
            let id = tokio::spawn(async {}).id().to_string();
            let id: u64 = id.parse().expect("task ids are displayed as numbers");
            if (id + 1).is_multiple_of(TASK_SHARDS) {
                break;
            }
        }
    });
}
