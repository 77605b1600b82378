//! `rmom`: durable messages from the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    rmom::cli::run().into()
}
