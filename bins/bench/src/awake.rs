//! Keeps the cores of a virtual machine from sleeping, in case they wake late.

use std::{
    fs,
    hint::black_box,
    io,
    os::unix::process::{CommandExt as _, parent_id},
    process::{self, Command},
    thread,
    time::Duration,
};

use crate::load::Error;

/// How often it is looked whether whoever started this is still there.
const LOOK: Duration = Duration::from_millis(500);
/// Where the scheduler shares cores among sessions first (`kernel.sched_autogroup_enabled`), how much it gives to ours: least.
const AUTOGROUP: (&str, &str) = ("/proc/self/autogroup", "19");

/// Spins on as many threads as there are cores until it is killed, or whoever started it is gone. It is for the scheduler
/// to see that they take nothing from anybody: start it under `chrt --idle 0`.
///
/// That alone means nothing to processes of other sessions, such as each backend of PostgreSQL: without a session of its
/// own, and a low share for it, this would take half of every core from them.
pub(crate) fn run() -> Result<(), Error> {
    if !is_session_leader()? {
        return Err(in_own_session().into());
    }
    // Where there are no such groups, there is no such file.
    let _ = fs::write(AUTOGROUP.0, AUTOGROUP.1);
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

/// The session is the sixth field; the second, a name in brackets, may have blanks.
fn is_session_leader() -> Result<bool, Error> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let session = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(3));
    Ok(session == Some(process::id().to_string().as_str()))
}

/// Becomes the same program in a session of its own; returns only if that fails.
fn in_own_session() -> io::Error {
    let this = match std::env::current_exe() {
        Ok(this) => this,
        Err(error) => return error,
    };
    Command::new("setsid").arg("--wait").arg(this).args(std::env::args_os().skip(1)).exec()
}
