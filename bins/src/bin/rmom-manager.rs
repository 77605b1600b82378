//! `rmom-manager [CONFIG.toml]`: a manager.

use std::process::ExitCode;

fn main() -> ExitCode {
    rmom::server::manager().into()
}
