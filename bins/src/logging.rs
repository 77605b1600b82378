//! Where log lines go: standard error, for people or for programs.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

use crate::config::{LogConfig, LogFormat};

/// The variable that says what is logged.
const VARIABLE: &str = "RUST_LOG";

/// Starts logging, once per process. `RUST_LOG` wins over the configured level; if it cannot be read, the level stands
/// and the log says so.
pub fn start(config: &LogConfig) {
    let from_environment = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let (filter, complaint) = match from_environment.as_deref().map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (configured(config), Some(error)),
        None => (configured(config), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    // A second start, as in tests, changes nothing.
    let _ = match config.format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Some(error) = complaint {
        tracing::warn!(%error, "{VARIABLE} cannot be read; the configured level {:?} is used", config.level);
    }
}

fn configured(config: &LogConfig) -> EnvFilter {
    EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"))
}
