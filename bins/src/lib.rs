//! The programs of rmom: what `rmom-broker`, `rmom-manager` and `rmom` do once their arguments are parsed.

pub mod cli;
pub mod config;
pub mod dev;
pub mod logging;
pub mod server;
pub mod service;

/// The version of these programs, with the commit that they were built from if that is known: `0.1.0 (0123456789ab)`.
pub const VERSION: &str = env!("RMOM_VERSION_AND_COMMIT");
