//! Errors of commands.

use std::{io, path::Path};

/// An error of a command; the text suggests a remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The reader closed the output, as `| head` does: this needs no message.
    #[error("standard output was closed")]
    OutputClosed,
    /// Standard output failed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// A file cannot be read or written.
    #[error("cannot {what} {file}: {error}")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// Its name, as the user gave it.
        file: String,
        /// The error.
        error: io::Error,
    },
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// Worker processes cannot be started.
    #[error("cannot start a worker process: {0}")]
    Worker(io::Error),
    /// Planting bugs failed.
    #[error(transparent)]
    Bugs(#[from] rmom_sim_lab::bugs::BugError),
}

impl Error {
    pub(crate) fn reading(file: &Path, error: io::Error) -> Self {
        Self::File { what: "read", file: file.display().to_string(), error }
    }

    pub(crate) fn writing(file: &Path, error: io::Error) -> Self {
        Self::File { what: "write", file: file.display().to_string(), error }
    }
}

/// Errors of standard output.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }
}
