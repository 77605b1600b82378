//! `rmom-broker CONFIG.yaml`: a broker.

use std::process::ExitCode;

fn main() -> ExitCode {
    rmom::server::broker().into()
}
