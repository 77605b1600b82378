//! Where a simulation runs.

use std::{panic::resume_unwind, thread};

use parking_lot::Mutex;
use tokio::runtime;

use crate::{
    system,
    trace::{self, Trace},
};

#[cfg(not(tokio_unstable))]
compile_error!(
    "rmom-sim needs tokio's seeded scheduler. Put this into .cargo/config.toml at the root of your workspace:\n\n\
     [build]\n\
     rustflags = [\"--cfg\", \"tokio_unstable\"]\n\n\
     (If the environment variable RUSTFLAGS is set, it replaces that: add `--cfg tokio_unstable` to it.)"
);

/// Simulations share what is global to the process: tokio's task ids.
static RUNNING: Mutex<()> = Mutex::new(());

/// A runtime that shuts down, as that of a host that crashes does, drops its tasks in an order that depends on their ids
/// modulo the number of shards in which it keeps them: 4 now; a power of two, so that this will do for a while.
const TASK_SHARDS: u64 = 64;

/// Runs a simulation on a thread of its own, one at a time in this process, so that a run does not depend on what ran
/// before it or runs beside it. A panic is passed on.
///
/// On that thread chance and time are simulated, for libraries too: `HashMap`'s order, `rand::rng()`, `SystemTime::now()`
/// and `Instant::now()` are functions of the cluster's seed and of simulated time. So it is on Linux with glibc; elsewhere a
/// replay is exact only as far as nobody uses those.
///
/// A [`Cluster`](crate::Cluster) cannot leave its thread, so make it in here. For a replay to be exact, nothing else in the
/// process may start tasks meanwhile.
pub fn isolated<T: Send>(simulation: impl FnOnce() -> T + Send) -> T {
    run(|| trace::untraced(simulation))
}

/// As [`isolated`], with a [`Trace`] of everything that happened: its digest, and its lines if they are to be kept. A trace
/// costs about as much again as the simulation.
pub fn traced<T: Send>(keep_lines: bool, simulation: impl FnOnce() -> T + Send) -> (T, Trace) {
    run(|| trace::trace(keep_lines, simulation))
}

fn run<T: Send>(simulation: impl FnOnce() -> T + Send) -> T {
    let _alone = RUNNING.lock();
    on_a_fresh_thread(align_task_ids);
    on_a_fresh_thread(|| {
        // To the end of the thread: what is left behind may still look at the clock.
        system::enter();
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
