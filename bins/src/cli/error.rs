//! The failure of a command: an exit code for scripts, and a line or two of text.

use std::{fmt, io};

/// The reason why a command failed.
#[derive(Debug)]
pub struct CliError {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Refused,
    Usage,
    NotFound,
    Unavailable,
    OutputClosed,
    Interrupted,
}

impl CliError {
    fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), hint: None }
    }

    /// A server or this program refused: bad input, a duplicate, a limit.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// The command line makes no sense.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// There is no such queue, channel or broker.
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// The server did not answer in time. The same command may succeed later.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// The user stopped it.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// Adds the remedy.
    #[must_use]
    pub fn hint(self, hint: impl fmt::Display) -> Self {
        Self { hint: Some(hint.to_string()), ..self }
    }

    /// Puts the subject in front of the message.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.kind {
            // The reader of the output closed it, as `head` does, and has got enough.
            Kind::OutputClosed => 0,
            Kind::Refused => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Unavailable => 4,
            Kind::Interrupted => 130,
        }
    }

    /// False if there is nothing to report.
    #[must_use]
    pub const fn is_worth_telling(&self) -> bool {
        !matches!(self.kind, Kind::OutputClosed | Kind::Interrupted)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

/// An error of standard output.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Kind::OutputClosed, error),
            _ => Self::refused(format_args!("cannot write to standard output: {error}")),
        }
    }
}
