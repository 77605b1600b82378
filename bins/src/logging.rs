//! Logging to standard error, as readable text or JSON.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt::format::FmtSpan};

use crate::config::{LogConfig, LogFormat};

/// The variable that sets the level.
const VARIABLE: &str = "RUST_LOG";

/// Starts logging, once per process. `RUST_LOG` overrides the configured level; if it cannot be read, the configured level
/// applies and the log says so.
pub fn start(config: &LogConfig) {
    let from_environment = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let (filter, complaint) = match from_environment.as_deref().map(filter) {
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

/// Reads a level in `RUST_LOG`'s syntax. Spaces around commas are removed first: after them, the parser miscounts bytes,
/// misreads the rest, and can panic.
///
/// # Errors
/// The level cannot be read.
pub fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(text.split(',').map(str::trim).collect::<Vec<_>>().join(","))
}

fn configured(config: &LogConfig) -> EnvFilter {
    filter(&config.level).unwrap_or_else(|_| EnvFilter::new("info"))
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn spaces_change_nothing() {
        assert_eq!(filter("warn,a=debug").unwrap().to_string(), filter(" warn, a=debug ").unwrap().to_string());
        // tracing-subscriber alone panics at this.
        assert!(filter(" -\u{fffd}=\u{fffd}").is_err());
    }
}
