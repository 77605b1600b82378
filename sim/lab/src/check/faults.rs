//! When faults affected the run.

use rmom_sim::{
    DATABASE_HOST,
    history::{Event, Phase, Record},
};

/// The faults of a run and the simulated times, in microseconds, at which they were on.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Start and end of each fault, in order of their starts.
    spans: Vec<(u64, u64)>,
    /// The hosts that each fault affected; empty if unknown.
    hosts: Vec<Vec<String>>,
}

impl Faults {
    pub(super) fn new(history: &[Record]) -> Self {
        let (mut spans, mut hosts): (Vec<(u64, u64)>, Vec<_>) = (Vec::new(), Vec::new());
        let mut open: Vec<(usize, usize)> = Vec::new();
        for record in history {
            let at = record.at_micros;
            match &record.event {
                Event::FaultBegan { step, hosts: affected, .. } => {
                    open.push((*step, spans.len()));
                    spans.push((at, u64::MAX));
                    hosts.push(affected.clone());
                }
                Event::FaultEnded { step } => {
                    if let Some(place) = open.iter().position(|(began, _)| began == step) {
                        spans[open.remove(place).1].1 = at;
                    }
                }
                Event::PhaseBegan { phase: Phase::Healed } => open.drain(..).for_each(|(_, span)| spans[span].1 = at),
                // These faults last only an instant, but their consequences last longer.
                Event::StoreClock { .. } | Event::StoreRolledBack => {
                    spans.push((at, at));
                    hosts.push(vec![DATABASE_HOST.to_owned()]);
                }
                _ => {}
            }
        }
        Self { spans, hosts }
    }

    /// True if a fault affected one of these hosts between two times. A fault without named hosts may have affected any
    /// host.
    pub(super) fn began(&self, hosts: &[&str], from: u64, to: u64) -> bool {
        self.spans.iter().zip(&self.hosts).any(|(&(began, ended), affected)| {
            let meant = affected.is_empty() || affected.iter().any(|host| hosts.contains(&host.as_str()));
            began <= to && from <= ended && meant
        })
    }

    /// The end of the first fault-free period of length `span` after `from`.
    pub(super) fn quiet_for(&self, span: u64, from: u64) -> u64 {
        let mut quiet_since = from;
        for &(began, ended) in &self.spans {
            if began >= quiet_since.saturating_add(span) {
                break;
            }
            quiet_since = quiet_since.max(ended);
        }
        quiet_since.saturating_add(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_time_overlaps_with_no_fault() {
        let faults = Faults { spans: vec![(100, 200), (150, 160), (230, 240), (500, 510)], hosts: Vec::new() };
        assert_eq!(faults.quiet_for(50, 10), 60);
        assert_eq!(faults.quiet_for(50, 60), 290);
        assert_eq!(faults.quiet_for(50, 300), 350);
        assert_eq!(faults.quiet_for(50, 490), 560);
    }
}
