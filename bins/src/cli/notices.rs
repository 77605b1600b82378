//! Reports events of the client library on the terminal: a connection was lost.

use std::{
    fmt,
    io::{IsTerminal as _, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use super::output::tell;
use crate::logging::filter;

/// Interval between reports while a connection is down.
const INTERVAL: Duration = Duration::from_secs(5);

/// The target of the events to report: the client library.
const TARGET: &str = "rmom_client";

/// With `RUST_LOG`, logs everything that it selects; otherwise lost connections, in one line each.
pub(super) fn start() {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let registry = tracing_subscriber::registry();
    // A second start, as in tests, changes nothing.
    let _ = match asked.as_deref().map(filter) {
        Some(Ok(filter)) => registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(stderr().is_terminal())
                    .with_writer(stderr)
                    .with_filter(filter),
            )
            .try_init(),
        Some(Err(error)) => {
            tell(format_args!("rmom: RUST_LOG cannot be read: {error}"));
            registry.with(notices()).try_init()
        }
        None => registry.with(notices()).try_init(),
    };
}

/// Without a filter every span of the HTTP libraries would be kept as well, which cost a third of the CPU time of unary
/// pushes.
fn notices<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Notices::default().with_filter(Targets::new().with_target(TARGET, Level::WARN))
}

#[derive(Default)]
struct Notices {
    told: Mutex<Option<Instant>>,
}

/// The fields of a reconnection attempt.
#[derive(Default)]
struct Retry {
    error: Option<String>,
    wait: bool,
}

impl Visit for Retry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "error" => self.error = Some(format!("{value:?}")),
            "wait" => self.wait = true,
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Notices {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut retry = Retry::default();
        event.record(&mut retry);
        // The command itself reports errors that end it; only retried ones would go unnoticed.
        let (Some(error), true) = (retry.error, retry.wait) else { return };
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.is_none_or(|at| now.duration_since(at) >= INTERVAL) {
            *told = Some(now);
            drop(told);
            tell(format_args!("rmom: connecting again: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;

    #[test]
    fn what_nobody_is_told_is_not_even_made() {
        let subscriber = tracing_subscriber::registry().with(notices());
        assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::WARN));
        tracing::subscriber::with_default(subscriber, || {
            assert!(tracing::enabled!(target: "rmom_client::producer", Level::WARN));
            assert!(!tracing::enabled!(target: "h2::client", Level::WARN));
            assert!(tracing::trace_span!(target: "rmom_client", "a span").is_disabled());
        });
    }
}
