//! The logging of a program.

use serde::Serialize;
use serde_json::Value;

use super::{
    table::settings,
    tree::{Section, Setting},
};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Serialize, clap::ValueEnum)]
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

    fn shown(&self) -> String {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
        .to_owned()
    }

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "human" => Some(Self::Human),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

settings! {
    /// The section `log`. The variable `RUST_LOG` overrides `level`, the flag `--log-format` overrides `format`.
    #[derive(PartialEq, Eq)]
    pub struct LogConfig = read_all(section);

    == "Logging"
    format: LogFormat ["text"] = LogFormat::Human, "`human`, `json`" =>
        "The shape of log lines. The flag `--log-format` wins over it.";
    level: String ["text"] = "info".to_owned(), "as `RUST_LOG`" =>
        "Log levels: `info`, `warn,rmom_core=debug`. The variable `RUST_LOG` wins over it.";
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".to_owned() }
    }
}

impl LogConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let config = Self::read_all(&mut section);
        if let Err(error) = crate::logging::filter(&config.level) {
            section.problem("level", format!("{error}; expected something like info, or warn,rmom_core=debug"));
        }
        section.finish();
        config
    }
}
