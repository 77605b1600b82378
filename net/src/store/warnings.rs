//! What a server warns of while a statement runs.
//!
//! PostgreSQL reports success for a commit whose wait for a synchronous standby was cancelled, and warns that the transaction
//! "might not have been replicated to the standby". sqlx only logs what servers warn of, as an event of `tracing`, within the
//! poll that reads it. So [`watched`] polls a statement with a subscriber of its own, which takes these events.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    dispatcher::with_default,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::Interest,
};

/// The target of sqlx's events.
const TARGET: &str = "sqlx::postgres::notice";

/// For the whole process: a new one makes `tracing` ask all subscribers about all places that it knows. There are two, since
/// `tracing` asks only the thread's own subscriber about a new place if it knows of a single one: in a process without
/// another subscriber, a warning outside of [`watched`] would switch these events off for good.
static WATCH: LazyLock<[Dispatch; 2]> = LazyLock::new(|| [Dispatch::new(Watch), Dispatch::new(Watch)]);

thread_local! {
    /// What was warned of in the poll under way.
    static WARNING: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A statement, and what the server warned of last while it ran.
pub(super) struct Watched<F> {
    statement: Pin<Box<F>>,
    warning: Option<String>,
}

/// Runs a statement. Other events of `tracing` within its polls are dropped.
pub(super) fn watched<F: Future>(statement: F) -> Watched<F> {
    Watched { statement: Box::pin(statement), warning: None }
}

impl<F: Future> Future for Watched<F> {
    type Output = (F::Output, Option<String>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = with_default(&WATCH[0], || self.statement.as_mut().poll(cx));
        if let Some(warning) = WARNING.take() {
            self.warning = Some(warning);
        }
        polled.map(|answer| (answer, self.warning.take()))
    }
}

/// Takes what servers warn of.
struct Watch;

impl Watch {
    fn takes(metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::WARN
    }
}

impl Subscriber for Watch {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::takes(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::takes(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        WARNING.set(Some(message.0));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message.
struct Message(String);

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warn(what: &str) {
        tracing::event!(target: "sqlx::postgres::notice", Level::WARN, message = what);
    }

    /// `tracing` decides at the first event of a place whether anybody takes its events.
    #[tokio::test]
    async fn a_warning_outside_of_a_statement_switches_nothing_off() {
        assert_eq!(watched(async { 1 }).await, (1, None), "the subscribers are made");
        let place = || tracing::event!(target: "sqlx::postgres::notice", Level::WARN, message = "of a collation");
        place();
        assert_eq!(watched(async { place() }).await.1.as_deref(), Some("of a collation"));
    }

    #[tokio::test]
    async fn only_what_is_warned_of_within_the_statement_counts() {
        warn("before");
        let (answer, warning) = watched(async {
            tracing::warn!("of something else");
            tracing::event!(target: "sqlx::postgres::notice", Level::INFO, message = "a notice");
            1
        })
        .await;
        assert_eq!((answer, warning), (1, None));
        let warned = watched(async {
            tokio::task::yield_now().await;
            warn("might not have been replicated");
            tokio::task::yield_now().await;
        });
        let ((), warning) = warned.await;
        assert_eq!(warning.as_deref(), Some("might not have been replicated"));
        assert_eq!(watched(async { 2 }).await, (2, None), "it is of one statement");
    }
}
