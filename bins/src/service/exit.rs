//! The end of a server: exit codes for supervisors, after `sysexits.h`.

use std::process::ExitCode;

/// The reason why a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to stop, or only had to check its configuration.
    Ok,
    /// Wrong arguments or configuration. A restart will not help.
    Usage,
    /// The address is taken, or the database cannot be used in its present state (newer schema, a server that is too old).
    Unavailable,
    /// A defect of rmom.
    Internal,
    /// Another process registered as this broker: two have the same external host and port.
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
