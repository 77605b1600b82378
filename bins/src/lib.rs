//! The programs of rmom: the work of `rmom-broker`, `rmom-manager` and `rmom` once their arguments are parsed.

pub mod cli;
pub mod config;
pub mod dev;
pub mod logging;
pub mod server;
pub mod service;

/// The version of these programs, with the commit of the build if it is known: `0.1.0 (0123456789ab)`.
pub const VERSION: &str = env!("RMOM_VERSION_AND_COMMIT");
