//! The logging of a program.

use serde::Serialize;
use serde_json::Value;

use super::tree::{Section, Setting};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable text.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

impl Setting for LogFormat {
    const EXPECTED: &'static str = "human or json";

    fn from_value(value: &Value) -> Option<Self> {
        Self::from_text(value.as_str()?)
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The section `log`. The variable `RUST_LOG` overrides `level`, the flag `--log-format` overrides `format`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogConfig {
    /// The format of log lines.
    pub format: LogFormat,
    /// The level, in `RUST_LOG`'s syntax: `info`, `warn,rmom_core=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".to_owned() }
    }
}

impl LogConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let config = Self {
            format: section.value_or("format", defaults.format),
            level: section.value_or("level", defaults.level),
        };
        if let Err(error) = crate::logging::filter(&config.level) {
            section.problem("level", format!("{error}; expected something like info, or warn,rmom_core=debug"));
        }
        section.finish();
        config
    }
}
