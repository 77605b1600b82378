//! The programs of rmom: what `rmom-broker`, `rmom-manager` and `rmom` do once their arguments are parsed.

pub mod cli;
pub mod config;
pub mod dev;
pub mod logging;
pub mod server;
pub mod service;
