//! The results of a run, as text and as JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    clock::{Times, ms},
    usage::Cost,
};
use crate::cli::{
    error::CliError,
    output::{Out, bytes, count},
};

/// The measurements, with their settings and costs.
pub(super) struct Report {
    bench: &'static str,
    settings: Vec<(&'static str, String)>,
    figures: Vec<Figure>,
    costs: Vec<Cost>,
    measured: Duration,
}

struct Figure {
    name: &'static str,
    text: String,
    value: Value,
}

impl Report {
    pub(super) const fn new(bench: &'static str, measured: Duration) -> Self {
        Self { bench, settings: Vec::new(), figures: Vec::new(), costs: Vec::new(), measured }
    }

    pub(super) fn setting(&mut self, name: &'static str, value: impl std::fmt::Display) {
        self.settings.push((name, value.to_string()));
    }

    /// Puts the settings of the cluster before those of the run.
    pub(super) fn target(&mut self, settings: Vec<(&'static str, String)>) {
        self.settings.splice(0..0, settings);
    }

    fn figure(&mut self, name: &'static str, text: String, value: impl Into<Value>) {
        self.figures.push(Figure { name, text, value: value.into() });
    }

    pub(super) fn count(&mut self, name: &'static str, number: u64) {
        self.figure(name, count(number), number);
    }

    /// Adds a rate: `number` events in the measured time.
    pub(super) fn rate(&mut self, name: &'static str, number: u64) {
        self.rate_over(name, number, self.measured);
    }

    pub(super) fn rate_over(&mut self, name: &'static str, number: u64, time: Duration) {
        let rate = number as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE);
        self.figure(name, count(rate.round() as u64), rate);
    }

    pub(super) fn bytes(&mut self, name: &'static str, number: u64) {
        self.figure(name, bytes(number), number);
    }

    pub(super) fn time(&mut self, name: &'static str, time: Duration) {
        self.figure(name, format!("{} ms", ms(time)), time.as_secs_f64() * 1e3);
    }

    pub(super) fn times(&mut self, name: &'static str, times: &Times) {
        self.figure(name, times.text(), times.json());
    }

    pub(super) fn costs(&mut self, costs: Vec<Cost>) {
        self.costs = costs;
    }

    pub(super) fn print(&self, json: bool) -> Result<(), CliError> {
        let mut out = Out::new();
        if json {
            out.line(self.json().to_string())?;
            return out.flush();
        }
        let settings: Vec<_> = self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        out.line(format!("{}: {}\n", self.bench, settings.join(", ")))?;
        let rows: Vec<_> = self.figures.iter().map(|figure| [figure.name.to_owned(), figure.text.clone()]).collect();
        out.table(["FIGURE", "VALUE"], &rows)?;
        if !self.costs.is_empty() {
            out.line("")?;
            let row = |cost: &Cost| {
                let share = cost.cpu.as_secs_f64() / self.measured.as_secs_f64().max(f64::MIN_POSITIVE);
                let cpu = format!("{:.2} s", cost.cpu.as_secs_f64());
                [cost.name.clone(), cpu, format!("{share:.2}"), bytes(cost.resident), bytes(cost.peak)]
            };
            let rows: Vec<_> = self.costs.iter().map(row).collect();
            out.table(["PROCESS", "CPU", "CORES", "MEMORY", "PEAK"], &rows)?;
        }
        out.flush()
    }

    fn json(&self) -> Value {
        // A name in the text is the key in JSON, with underscores for spaces.
        let key = |name: &str| name.replace([' ', '-'], "_").replace([',', '(', ')'], "");
        let settings: Map<_, _> =
            self.settings.iter().map(|(name, value)| (key(name), Value::from(value.clone()))).collect();
        let figures: Map<_, _> = self.figures.iter().map(|figure| (key(figure.name), figure.value.clone())).collect();
        let processes: Vec<_> = self.costs.iter().map(Cost::json).collect();
        json!({
            "bench": self.bench, "settings": settings, "figures": figures, "processes": processes,
            "measured_seconds": self.measured.as_secs_f64(),
        })
    }
}
