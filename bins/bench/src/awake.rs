//! Keeps the cores of a virtual machine from sleeping, since some wake late.

use std::{hint::black_box, os::unix::process::parent_id, thread, time::Duration};

use crate::load::Error;

/// How often it is looked whether whoever started this is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Spins on as many threads as there are cores until it is killed, or whoever started it is gone. It is for the scheduler
/// to see that they take nothing from anybody: start it under `chrt --idle 0`.
pub(crate) fn run() -> Result<(), Error> {
    let parent = parent_id();
    for _ in 0..thread::available_parallelism()?.get() {
        // No pause instruction: it would have the hypervisor take the core away.
        thread::spawn(|| {
            let mut turns = 0_u64;
            loop {
                turns = black_box(turns.wrapping_add(1));
            }
        });
    }
    while parent_id() == parent {
        thread::sleep(LOOK);
    }
    Ok(())
}
