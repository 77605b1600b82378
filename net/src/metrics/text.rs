//! The text format, version 0.0.4.

use std::fmt::{Display, Write as _};

use crate::serve::ServeStats;

/// The content type of the format.
pub const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a metric's value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows until its process restarts. Its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A page of metrics. All samples of a metric stand together, under its help and type.
#[derive(Debug, Default)]
pub struct Text {
    page: String,
}

impl Text {
    /// An empty page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric with the samples that `samples` gives. Without samples it is left out, as the format demands.
    pub fn metric<L, V>(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) where
        L: AsRef<[(&'static str, String)]>,
        V: Display,
    {
        debug_assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let mut headed = false;
        for (labels, value) in samples {
            if !headed {
                headed = true;
                let help = help.replace('\\', r"\\").replace('\n', r"\n");
                let _ = writeln!(self.page, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            self.page.push_str(name);
            let mut before = '{';
            for (label, text) in labels.as_ref() {
                let _ = write!(self.page, "{before}{label}=\"");
                escape(&mut self.page, text);
                self.page.push('"');
                before = ',';
            }
            if before == ',' {
                self.page.push('}');
            }
            let _ = writeln!(self.page, " {value}");
        }
    }

    /// A metric with one sample and no labels.
    pub fn single(&mut self, kind: Kind, name: &'static str, help: &'static str, value: impl Display) {
        self.metric(kind, name, help, [([], value)]);
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        self.page
    }
}

/// Adds the counters of one of our servers; the same for brokers and managers.
pub(super) fn serving(text: &mut Text, connections: &ServeStats) {
    text.single(Kind::Gauge, "rmom_connections", "Connections now.", connections.open());
    text.single(Kind::Counter, "rmom_connections_total", "Connections accepted.", connections.accepted());
    let help = "New connections beyond this number go into the reserve.";
    text.single(Kind::Gauge, "rmom_connections_limit", help, connections.limit());
    let help = "Connections in the reserve beyond the limits now.";
    text.single(Kind::Gauge, "rmom_connections_reserved", help, connections.reserved());
    let help = "Bytes that clients may send now before they are read.";
    text.single(Kind::Gauge, "rmom_receive_window_bytes", help, connections.windows());
    let refusals = connections.refusals();
    let label = |limit: &str| [("limit", limit.to_owned())];
    let help = "Connections closed at once because the reserve was full too.";
    let refused = refusals.map(|(limit, connections, _)| (label(limit), connections));
    text.metric(Kind::Counter, "rmom_connections_refused_total", help, refused);
    let help = "Requests refused on connections in the reserve, which were then closed.";
    let turned_away = refusals.map(|(limit, _, requests)| (label(limit), requests));
    text.metric(Kind::Counter, "rmom_requests_turned_away_total", help, turned_away);
    let help = "Connections closed with GOAWAY because they had no requests for a while.";
    text.single(Kind::Counter, "rmom_connections_closed_idle_total", help, connections.closed_idle());
    let help = "Failures to accept a connection.";
    text.single(Kind::Counter, "rmom_accept_errors_total", help, connections.accept_errors());
    super::store::store(text, connections.store());
}

fn escape(page: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => page.push_str(r"\\"),
            '"' => page.push_str(r#"\""#),
            '\n' => page.push_str(r"\n"),
            c => page.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_the_format_has_it() {
        let mut text = Text::new();
        text.single(Kind::Gauge, "up", "Is it up?", 1);
        let samples = [([("queue", "a".to_owned())], 1.5), ([("queue", "b\"\\\n".to_owned())], 2.0)];
        text.metric(Kind::Counter, "pushed_total", "Pushed.\nAll \\ of it.", samples);
        text.metric(Kind::Gauge, "absent", "No sample.", std::iter::empty::<([(&str, String); 0], u64)>());
        let expected = "# HELP up Is it up?\n# TYPE up gauge\nup 1\n\
            # HELP pushed_total Pushed.\\nAll \\\\ of it.\n# TYPE pushed_total counter\n\
            pushed_total{queue=\"a\"} 1.5\npushed_total{queue=\"b\\\"\\\\\\n\"} 2\n";
        assert_eq!(text.finish(), expected);
    }
}
