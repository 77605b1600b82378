//! The recorder of a run's history.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Event, Record};
use crate::determinism::{libc_shim, trace};

/// Records events, each with the simulated time and the host that observed it. Clones share the list; it outlives crashed
/// hosts.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Record>>>);

impl Recorder {
    /// Adds an event that `host` caused or observed now.
    pub fn record(&self, host: &str, event: Event) {
        let mut records = self.0.lock();
        let now = u64::try_from(libc_shim::elapsed().as_micros()).unwrap_or(u64::MAX);
        // Hosts run through the same tick one after the other, each with its own clock. The list is in the order of events,
        // and its times never go back.
        let at_micros = records.last().map_or(now, |last: &Record| last.at_micros.max(now));
        let record = Record { at_micros, host: host.to_owned(), event };
        trace::note(format_args!("{} {:?}", record.host, record.event));
        records.push(record);
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// True if nothing was recorded yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The number of records that satisfy `which`.
    pub fn count(&self, which: impl Fn(&Record) -> bool) -> usize {
        self.0.lock().iter().filter(|record| which(record)).count()
    }

    /// The first record that satisfies `which`, after the first `skipped` ones, and its place in the list.
    pub fn find(&self, skipped: usize, which: impl Fn(&Record) -> bool) -> Option<(usize, Record)> {
        let records = self.0.lock();
        let mut rest = records.iter().enumerate().skip(skipped);
        rest.find(|(_, record)| which(record)).map(|(at, record)| (at, record.clone()))
    }

    /// All records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.0.lock().clone()
    }
}
