//! The database schemas of rmom. Each migration is a file that never changes once it is released; a change of the schema is
//! a new file, here and in the list below.

/// A migration.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number, from 1 without gaps.
    pub version: i64,
    /// Its name, as `sqlx migrate` reads it from the file's.
    pub name: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal $file:literal,)*) => {
        &[$(Migration { version: $version, name: $name, sql: include_str!($file) }),*]
    };
}

/// The migrations of a PostgreSQL database, in order.
pub const POSTGRES: &[Migration] = migrations![
    1 "initial" "postgres/0001_initial.sql",
    2 "deleted requests" "postgres/0002_deleted_requests.sql",
    3 "bounded logs" "postgres/0003_bounded_logs.sql",
    4 "lease lengths" "postgres/0004_lease_lengths.sql",
    5 "channel pages" "postgres/0005_channel_pages.sql",
    6 "idle channels" "postgres/0006_idle_channels.sql",
];

/// The migrations of an SQLite database, in order.
pub const SQLITE: &[Migration] = migrations![
    1 "initial" "sqlite/0001_initial.sql",
    2 "deleted requests" "sqlite/0002_deleted_requests.sql",
    3 "bounded logs" "sqlite/0003_bounded_logs.sql",
    4 "lease lengths" "sqlite/0004_lease_lengths.sql",
    5 "channel pages" "sqlite/0005_channel_pages.sql",
    6 "idle channels" "sqlite/0006_idle_channels.sql",
];
