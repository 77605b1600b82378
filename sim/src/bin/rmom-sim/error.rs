//! How a command fails that could not do what it was asked to.

use std::{io, path::Path};

/// Why; the text says what to do about it where there is something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody reads the output any more, as after `| head`: no reason to complain.
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
        /// Its name, as it was given.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Worker processes cannot be started.
    #[error("cannot start a worker process: {0}")]
    Worker(io::Error),
    /// Planted bugs.
    #[error(transparent)]
    Bugs(#[from] rmom_sim::bugs::BugError),
}

impl Error {
    pub(crate) fn reading(file: &Path, error: io::Error) -> Self {
        Self::File { what: "read", file: file.display().to_string(), error }
    }

    pub(crate) fn writing(file: &Path, error: io::Error) -> Self {
        Self::File { what: "write", file: file.display().to_string(), error }
    }
}

/// Of standard output.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Output(error),
        }
    }
}
