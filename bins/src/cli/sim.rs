//! `rmom sim`: hands over to `rmom-sim`. That is a separate program, because it replaces functions of the C library that
//! brokers need.

use std::{env, ffi::OsString, io, path::Path, process::Command};

use super::error::CliError;

/// The program, found beside this one or on the path.
const PROGRAM: &str = "rmom-sim";

/// Becomes `rmom-sim` with these arguments; returns only if that fails.
pub(super) fn run(args: &[OsString]) -> Result<(), CliError> {
    let beside =
        env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM))).filter(|path| path.is_file());
    let error = become_program(beside.as_deref().unwrap_or(Path::new(PROGRAM)), args);
    let failed = CliError::unavailable(format_args!("cannot run {PROGRAM}: {error}"));
    Err(if error.kind() == io::ErrorKind::NotFound {
        failed.hint(format_args!(
            "It is built by itself: cargo build --profile sim -p rmom-sim-lab. Put it beside rmom or on the PATH."
        ))
    } else {
        failed
    })
}

#[cfg(unix)]
fn become_program(program: &Path, args: &[OsString]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    Command::new(program).args(args).exec()
}

#[cfg(not(unix))]
fn become_program(program: &Path, args: &[OsString]) -> io::Error {
    match Command::new(program).args(args).status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}
