//! The build and the command line: the details that another person needs to reproduce a run.

use std::{env, path::Path};

pub(crate) use rmom_sim_lab::report::commit;

/// The command line that starts this program with these arguments, as the user started it.
pub(crate) fn command(arguments: &str) -> String {
    // `cargo run` sets `CARGO` for the program.
    if env::var_os("CARGO").is_none() {
        return format!("rmom-sim {arguments}");
    }
    let exe = env::current_exe().unwrap_or_default();
    let profile = exe.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    match profile {
        "" | "debug" => format!("cargo run -p rmom-sim-lab -- {arguments}"),
        profile => format!("cargo run -p rmom-sim-lab --profile {profile} -- {arguments}"),
    }
}
