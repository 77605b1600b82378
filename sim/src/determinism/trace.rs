//! Everything that happens in a simulation, as one number by which two runs of a seed are compared.
//!
//! turmoil reports every segment that is sent, held, dropped, delivered and read, with its payload, through `tracing`; the
//! [`Recorder`](crate::history::Recorder) reports the events of applications and of the database. A trace contains both.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hasher as _},
};

use tracing::level_filters::LevelFilter;
use tracing::{
    Event, Metadata, Subscriber,
    dispatcher::{self, Dispatch},
    field::{Field, Visit},
    span,
    subscriber::{Interest, NoSubscriber},
};

use super::libc_shim;

/// The prefix of turmoil's targets.
const TURMOIL: &str = "turmoil";
/// The span in which turmoil runs a host. [`NODE_TARGET`] is the module that opens it, [`NODE_NAME`] the field with the
/// host's name.
const NODE: &str = "node";
/// See [`NODE`].
const NODE_TARGET: &str = "turmoil::sim";
/// See [`NODE`].
const NODE_NAME: &str = "name";

/// Every event of the network and of applications in one simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// A digest of all events, in order. Equal digests mean equal runs; digests of different versions of Rust cannot be
    /// compared.
    pub digest: u64,
    /// The number of events.
    pub events: u64,
    /// The events, one per line, if they were kept.
    pub lines: Vec<String>,
}

/// A trace that is being recorded.
struct Tracing {
    hasher: DefaultHasher,
    events: u64,
    lines: Option<Vec<String>>,
}

thread_local! {
    static TRACING: RefCell<Option<Tracing>> = const { RefCell::new(None) };
}

/// Runs `simulation` on this thread and traces it; keeps the lines if `keep_lines`.
pub(crate) fn trace<T>(keep_lines: bool, simulation: impl FnOnce() -> T) -> (T, Trace) {
    let lines = keep_lines.then(Vec::new);
    TRACING.set(Some(Tracing { hasher: DefaultHasher::new(), events: 0, lines }));
    let result = watch(LevelFilter::TRACE, simulation);
    let trace = TRACING.take().map_or_else(Trace::default, |tracing| Trace {
        digest: tracing.hasher.finish(),
        events: tracing.events,
        lines: tracing.lines.unwrap_or_default(),
    });
    (result, trace)
}

/// Runs `simulation` on this thread without a trace.
pub(crate) fn untraced<T>(simulation: impl FnOnce() -> T) -> T {
    // The span of a host has this level.
    watch(LevelFilter::INFO, simulation)
}

fn watch<T>(level: LevelFilter, simulation: impl FnOnce() -> T) -> T {
    let behind = dispatcher::get_default(Clone::clone);
    tracing::subscriber::with_default(Watcher { level, behind }, simulation)
}

/// Adds an event, if this thread is recording a trace.
pub(crate) fn note(event: impl fmt::Display) {
    TRACING.with_borrow_mut(|tracing| {
        if let Some(tracing) = tracing {
            let now = turmoil::sim_elapsed().unwrap_or_default().as_micros();
            let line = format!("{now} {event}");
            tracing.hasher.write(line.as_bytes());
            tracing.hasher.write_u8(b'\n');
            tracing.events += 1;
            if let Some(lines) = &mut tracing.lines {
                lines.push(line);
            }
        }
    });
}

/// Receives turmoil's events, and passes everything on to the previous subscriber.
struct Watcher {
    level: LevelFilter,
    behind: Dispatch,
}

impl Watcher {
    /// True if the trace needs it.
    fn is_ours(&self, metadata: &Metadata<'_>) -> bool {
        is_node(metadata) || (metadata.target() == TURMOIL && *metadata.level() <= self.level)
    }
}

/// True for the span in which turmoil runs a host.
fn is_node(metadata: &Metadata<'_>) -> bool {
    metadata.name() == NODE && metadata.target() == NODE_TARGET
}

impl Subscriber for Watcher {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let behind = self.behind.register_callsite(metadata);
        if self.is_ours(metadata) { Interest::always() } else { behind }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.is_ours(metadata) || self.behind.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // The levels that other subscribers need cannot be queried.
        self.behind.is::<NoSubscriber>().then_some(self.level)
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        if is_node(attributes.metadata()) {
            // turmoil enters the span at once, and the next host's span comes after its end.
            attributes.record(&mut HostName);
        }
        self.behind.new_span(attributes)
    }

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == TURMOIL && TRACING.with_borrow(Option::is_some) {
            let mut line = Line::default();
            event.record(&mut line);
            // This event only counts the ticks.
            if !line.0.starts_with(" message=step ") {
                note(format_args!("network{}", line.0));
            }
        }
        if self.behind.enabled(event.metadata()) {
            self.behind.event(event);
        }
    }

    fn record(&self, span: &span::Id, values: &span::Record<'_>) {
        self.behind.record(span, values);
    }

    fn record_follows_from(&self, span: &span::Id, follows: &span::Id) {
        self.behind.record_follows_from(span, follows);
    }

    fn enter(&self, span: &span::Id) {
        self.behind.enter(span);
    }

    fn exit(&self, span: &span::Id) {
        self.behind.exit(span);
    }

    fn clone_span(&self, id: &span::Id) -> span::Id {
        self.behind.clone_span(id)
    }

    fn try_close(&self, id: span::Id) -> bool {
        self.behind.try_close(id)
    }
}

/// Reads a host's name from its span.
struct HostName;

impl Visit for HostName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == NODE_NAME {
            libc_shim::set_host(value);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

/// The fields of an event.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
