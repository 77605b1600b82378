//! Why a store could not be opened.

use std::path::PathBuf;

/// Why a store could not be opened. The texts say what to do, and never hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The database URL cannot be read.
    #[error("the database URL cannot be read: {reason}; it looks like postgres://USER:PASSWORD@HOST:5432/DATABASE")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there.
    #[error("cannot reach the database at {at}: {reason}; is the server running, and are host and port right?")]
    Unreachable {
        /// Host and port, or the socket.
        at: String,
        /// What the network said.
        reason: String,
    },
    /// The user is not known, or the password is wrong.
    #[error("the database at {at} does not accept user {user:?} with this password: {reason}")]
    WrongPassword {
        /// Host and port, or the socket.
        at: String,
        /// The user.
        user: String,
        /// What the server said.
        reason: String,
    },
    /// The server has no such database.
    #[error("there is no database {database:?} at {at}; create it with: createdb {database}")]
    NoSuchDatabase {
        /// Host and port, or the socket.
        at: String,
        /// The database.
        database: String,
    },
    /// A later version of rmom has been here.
    #[error("the database at {at} has schema version {found}, this program knows {known}: run the newer program")]
    NewerSchema {
        /// Which database.
        at: String,
        /// The database's version.
        found: i64,
        /// The program's version.
        known: i64,
    },
    /// Migrations are due, and switched off.
    #[error(
        "the database at {at} has schema version {found}, this program needs {known}, and migrations are switched off: \
         start one program with migrations on, or run `sqlx migrate run --source migrations/{folder}`"
    )]
    OlderSchema {
        /// Which database.
        at: String,
        /// The database's version; 0: none.
        found: i64,
        /// The program's version.
        known: i64,
        /// The folder below `migrations/`.
        folder: &'static str,
    },
    /// A migration was applied, but not the one that this program knows under that number.
    #[error("migration {version} of the database at {at} is not the one this program knows; restore a backup")]
    ChangedSchema {
        /// Which database.
        at: String,
        /// The migration.
        version: i64,
    },
    /// A migration failed; it was rolled back.
    #[error("the schema of the database at {at} could not be brought up to date: {reason}")]
    MigrationFailed {
        /// Which database.
        at: String,
        /// What the database said.
        reason: String,
    },
    /// The server would confirm commits that a crash can undo.
    #[error(
        "the database at {at} runs with {setting}, so that a crash would undo what was confirmed; switch that on, or set \
         allow_unsafe_durability if the data may be lost"
    )]
    UnsafeDurability {
        /// Host and port, or the socket.
        at: String,
        /// The setting, as `name=value`.
        setting: String,
    },
    /// Nothing can be written.
    #[error("the database at {at} cannot be written: {reason}")]
    ReadOnly {
        /// Which database.
        at: String,
        /// Why not.
        reason: String,
    },
    /// Another process has the file open.
    #[error("{} is in use by another process; stop that one, or choose another file", file.display())]
    InUse {
        /// The database file.
        file: PathBuf,
    },
    /// The file cannot be opened or created.
    #[error("cannot open {}: {reason}", file.display())]
    File {
        /// The database file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The server is too old, or the database was created with settings that do not do.
    #[error("the database at {at} does not do: {reason}")]
    Unsuitable {
        /// Which database.
        at: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A migration waits for others that use its tables, and would hold up all that comes after it.
    #[error(
        "the schema of the database at {at} could not be brought up to date for now: {reason}; a backup (pg_dump) or a long \
         transaction may be under way there: end it, or wait for it"
    )]
    MigrationBusy {
        /// Which database.
        at: String,
        /// What the database said.
        reason: String,
    },
    /// Anything else that the database said.
    #[error("the database at {at} failed: {reason}")]
    Failed {
        /// Which database.
        at: String,
        /// What it said.
        reason: String,
    },
}

impl OpenError {
    /// True if it may pass without a change to this program's configuration: the server starts, is promoted, is set up or is
    /// told the password, somebody else migrates.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::WrongPassword { .. }
            | Self::NoSuchDatabase { .. }
            | Self::ReadOnly { .. }
            | Self::OlderSchema { .. }
            | Self::MigrationBusy { .. } => true,
            Self::BadUrl { .. }
            | Self::NewerSchema { .. }
            | Self::ChangedSchema { .. }
            | Self::MigrationFailed { .. }
            | Self::UnsafeDurability { .. }
            | Self::InUse { .. }
            | Self::File { .. }
            | Self::Unsuitable { .. }
            | Self::Failed { .. } => false,
        }
    }
}
