//! How the servers end: exit codes that a supervisor can act on, after `sysexits.h`.

use std::process::ExitCode;

/// Why a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to stop, or had only to check its configuration.
    Ok,
    /// Wrong arguments or configuration. Starting it again will not help.
    Usage,
    /// The address is taken, or the database cannot be used as it is (newer schema, a server that is too old).
    Unavailable,
    /// A defect of rmom.
    Internal,
    /// Another process registered as this broker: the same external host and port run twice.
    Replaced,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 2,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Replaced => 75,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
