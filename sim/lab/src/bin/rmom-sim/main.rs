//! `rmom-sim`: a single seed replays any failure.

mod args;
mod bugs;
mod check;
mod commit;
mod error;
mod exit;
mod files;
mod measure;
mod output;
mod replay;
mod scenario;
mod shrink;
mod sweep;
mod violations;
mod worker;

use std::process::ExitCode;

use clap::Parser as _;

use self::{
    args::{Cli, Command},
    error::Error,
    exit::Exit,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) => {
            // To clap, help and version are errors too. Its own exit code for errors is 2, which here means a broken
            // promise.
            let exit = if asked.use_stderr() { Exit::Error } else { Exit::Passed };
            let _ = asked.print();
            return exit.into();
        }
    };
    match dispatch(cli.command) {
        Ok(exit) => exit.into(),
        Err(Error::OutputClosed) => Exit::Passed.into(),
        Err(error) => {
            output::eprint(format_args!("rmom-sim: {error}"));
            Exit::Error.into()
        }
    }
}

fn dispatch(command: Command) -> Result<Exit, Error> {
    match command {
        Command::Run(args) => sweep::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Shrink(args) => shrink::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Scenario(args) => scenario::print(&args),
        Command::Bugs(args) => bugs::run(&args),
        Command::Worker(args) => worker::run(&args),
    }
}
