//! The command `rmom`.

mod admin;
pub mod args;
mod bench;
mod dev;
mod doctor;
mod error;
mod generate;
mod input;
mod notices;
mod output;
mod push;
mod session;
mod sim;
mod status;
mod subscribe;

use clap::{ArgMatches, FromArgMatches as _, parser::ValueSource};
pub use error::CliError;

use self::{
    admin::Printer,
    args::{CLIENT_OPTIONS, Cli, Command, ServeCommand, command_in_environment},
    output::{Out, tell},
    session::Session,
};
use crate::service::{Threads, block_on};

/// Runs the command line; returns the exit code.
#[must_use]
pub fn run() -> u8 {
    let matches = command_in_environment().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match &cli.command {
        Command::Serve(server) => match refuse_client_options(&matches) {
            // The servers have a runtime, a log and exit codes of their own.
            Ok(()) => return serve(server),
            Err(error) => Err(error),
        },
        Command::Completions { shell } => generate::completions(*shell),
        Command::Man { directory } => generate::man(directory.as_deref()),
        Command::Sim { args } => sim::run(args),
        command => {
            let threads = if let Command::Bench(args) = command { args.threads() } else { Threads::PerCore };
            block_on(threads, dispatch(cli)).unwrap_or_else(|error| Err(CliError::unavailable(error)))
        }
    };
    match result {
        Ok(()) => 0,
        Err(error) => {
            if error.is_worth_telling() {
                tell(format_args!("rmom: {error}"));
            }
            error.exit_code()
        }
    }
}

fn serve(server: &ServeCommand) -> u8 {
    match server {
        ServeCommand::Broker(args) => args.run().code(),
        ServeCommand::Manager(args) => args.run().code(),
    }
}

/// A server would ignore these options. The variables with the same meaning may be set for other commands.
fn refuse_client_options(matches: &ArgMatches) -> Result<(), CliError> {
    let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    CLIENT_OPTIONS.into_iter().find(given).map_or(Ok(()), |name| {
        Err(CliError::usage(format_args!(
            "--{name} is for commands that ask a cluster, and has no meaning for a server"
        ))
        .hint("A server has all its settings, TLS too, in its configuration file; docs/configuration.md lists them."))
    })
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let Cli { manager, tls, json, command } = cli;
    if let Command::Dev(args) = command {
        return Box::pin(dev::run(args, json)).await;
    }
    notices::start();
    if let Command::Bench(args) = command {
        return Box::pin(bench::run(&manager, &tls, args, json)).await;
    }
    let session = Session::new(&manager, &tls, |builder| builder)?;
    let printer = || Printer { out: Out::new(), json };
    match command {
        // These have been handled already, here or in `run`.
        Command::Serve(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Sim { .. }
        | Command::Dev(_)
        | Command::Bench(_) => Ok(()),
        Command::Doctor(args) => Box::pin(doctor::run(&session, &tls, &args, &mut printer())).await,
        Command::Status => status::show(&session, &mut printer()).await,
        Command::Queue(command) => admin::queue(&session, &mut printer(), command).await,
        Command::Channel(command) => admin::channel(&session, &mut printer(), command).await,
        Command::Broker(command) => admin::broker(&session, &mut printer(), command).await,
        Command::Push(args) => Box::pin(push::run(&session, args, json)).await,
        Command::Subscribe(args) => Box::pin(subscribe::run(&session, args, json)).await,
        Command::DevBroker(command) => dev::broker(&session, command, json).await,
    }
}
