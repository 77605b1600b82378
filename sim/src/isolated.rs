//! Where a simulation runs.

use std::{panic::resume_unwind, thread};

use parking_lot::Mutex;
use tokio::runtime;

/// Simulations share what is global to the process: tokio's task ids.
static RUNNING: Mutex<()> = Mutex::new(());

/// A runtime that shuts down, as that of a host that crashes does, drops its tasks in an order that depends on their ids
/// modulo the number of shards in which it keeps them: 4 now; a power of two, so that this will do for a while.
const TASK_SHARDS: u64 = 64;

/// Runs a simulation on a thread of its own, one at a time in this process, so that a run does not depend on what ran
/// before it or runs beside it. A panic is passed on.
///
/// A [`Cluster`](crate::Cluster) cannot leave its thread, so make it in here. For a replay to be exact, nothing else in the
/// process may start tasks meanwhile.
pub fn isolated<T: Send>(simulation: impl FnOnce() -> T + Send) -> T {
    let _alone = RUNNING.lock();
    on_a_fresh_thread(align_task_ids);
    on_a_fresh_thread(simulation)
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
