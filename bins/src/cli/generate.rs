//! `rmom completions` and `rmom man`, generated from the definition of the command line that also parses it.

use std::{fs, io, path::Path};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{args::command, error::CliError, output::Out};
use crate::server::{BrokerArgs, ManagerArgs};

/// The manual's section for the servers as separate programs. In section 1, `rmom-broker` means `rmom broker`.
const SERVERS: &str = "8";

/// Prints a shell's completions.
pub(super) fn completions(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "rmom", &mut script);
    print(&script)
}

/// Writes all pages into the folders of their sections below a directory, or prints the page of `rmom`.
pub(super) fn man(directory: Option<&Path>) -> Result<(), CliError> {
    let pages = pages()?;
    let Some(directory) = directory else {
        return print(&pages[0].1);
    };
    let unwritable = |error: io::Error| {
        CliError::refused(format_args!("cannot write to {}: {error}", directory.display()))
            .hint("Name a directory that you may write to, for example: rmom man ~/.local/share/man")
    };
    for (name, page) in pages {
        let section = name.rsplit('.').next().unwrap_or_default();
        let folder = directory.join(format!("man{section}"));
        fs::create_dir_all(&folder).map_err(unwritable)?;
        fs::write(folder.join(name), page).map_err(unwritable)?;
    }
    Ok(())
}

/// The file names and contents of all pages, beginning with `rmom`.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    let mut rmom = command().disable_help_subcommand(true);
    rmom.build();
    add(&rmom, &mut pages)?;
    for server in [BrokerArgs::command(), ManagerArgs::command()] {
        pages.push(rendered(Man::new(server).section(SERVERS))?);
    }
    Ok(pages)
}

/// Adds the pages of a command and of all its subcommands.
fn add(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    pages.push(rendered(Man::new(command.clone()))?);
    command.get_subcommands().try_for_each(|sub| add(sub, pages))
}

/// The file name and content of a page, which names the version of all programs.
fn rendered(man: Man) -> io::Result<(String, Vec<u8>)> {
    let man = man.source(format!("rmom {}", crate::VERSION));
    let mut page = Vec::new();
    man.render(&mut page)?;
    Ok((man.get_filename(), page))
}

fn print(text: &[u8]) -> Result<(), CliError> {
    let mut out = Out::new();
    out.bytes(text)?;
    out.flush()
}
