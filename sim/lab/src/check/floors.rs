//! How much has to happen in a run before it proves anything.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Phase, Record};

use crate::report::Counts;

/// A run that kept all promises but stays below any of these minimums is vacuous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floors {
    /// Acknowledged pushes.
    pub acknowledgements: u64,
    /// Messages received.
    pub deliveries: u64,
    /// Faults during which a push was in flight.
    pub faults_in_flight: u64,
}

impl Default for Floors {
    /// The minimums of a sweep. Its scenarios push some hundred messages to some consumers under half a dozen faults. A run
    /// below these minimums did not get under way, or its faults hit idle moments.
    fn default() -> Self {
        Self { acknowledgements: 50, deliveries: 50, faults_in_flight: 2 }
    }
}

/// A sentence naming the floor that was not reached, or `None` if the run counts.
#[must_use]
pub fn vacuous(counts: &Counts, floors: &Floors) -> Option<String> {
    let reached = [
        ("acknowledgements", counts.acknowledgements, floors.acknowledgements),
        ("deliveries", counts.deliveries, floors.deliveries),
        ("faults while something was in flight", counts.faults_in_flight, floors.faults_in_flight),
    ];
    let (what, count, floor) = reached.into_iter().find(|(_, count, floor)| count < floor)?;
    Some(format!("{what}: {count}, below the floor of {floor}"))
}

impl Counts {
    /// Counts the events of a history.
    #[must_use]
    pub fn of(history: &[Record]) -> Self {
        let mut counts = Self::default();
        let mut in_flight = 0_u64;
        // The faults that are on; true once a push was in flight.
        let mut faults: BTreeMap<usize, bool> = BTreeMap::new();
        for record in history {
            match &record.event {
                Event::PushSent { .. } => {
                    counts.pushes += 1;
                    in_flight += 1;
                    faults.values_mut().for_each(|met| *met = true);
                }
                Event::PushAcked { .. } => {
                    counts.acknowledgements += 1;
                    in_flight = in_flight.saturating_sub(1);
                }
                Event::PushFailed { .. } => in_flight = in_flight.saturating_sub(1),
                Event::Delivered { .. } | Event::StreamMessage { .. } => counts.deliveries += 1,
                Event::FaultBegan { step, .. } => {
                    counts.faults += 1;
                    faults.insert(*step, in_flight > 0);
                }
                Event::FaultEnded { step } => counts.faults_in_flight += u64::from(faults.remove(step) == Some(true)),
                Event::PhaseBegan { phase: Phase::Healed } => {
                    counts.faults_in_flight += std::mem::take(&mut faults).into_values().map(u64::from).sum::<u64>();
                }
                Event::Claimed { epoch, .. } => counts.failovers += u64::from(*epoch > 1),
                _ => {}
            }
        }
        counts.faults_in_flight += faults.into_values().map(u64::from).sum::<u64>();
        counts.simulated_millis = history.last().map_or(0, |last| last.at_micros / 1_000);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::testing::HistoryBuilder;

    #[test]
    fn a_history_is_counted() {
        let mut run = HistoryBuilder::new();
        run.fault(0).end_fault(0);
        let push = run.send("a");
        run.fault(1).end_fault(1).store("a").ack(push).fault(2);
        let push = run.send("b");
        run.fail(push, "FENCED", false)
            .fault(3)
            .take_over(2)
            .stream(1)
            .see(1, [1])
            .consumer("b1", None)
            .deliver("b1", [1]);
        run.finish();
        let counts = Counts::of(&run.history);
        let expected = Counts {
            pushes: 2,
            acknowledgements: 1,
            deliveries: 2,
            faults: 4,
            faults_in_flight: 2,
            failovers: 1,
            simulated_millis: run.history.len() as u64,
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_run_below_a_floor_is_vacuous() {
        let floors = Floors { acknowledgements: 2, deliveries: 3, faults_in_flight: 1 };
        let enough = Counts { acknowledgements: 2, deliveries: 3, faults_in_flight: 1, ..Counts::default() };
        assert_eq!(vacuous(&enough, &floors), None);
        let few = Counts { deliveries: 2, ..enough };
        assert_eq!(vacuous(&few, &floors).as_deref(), Some("deliveries: 2, below the floor of 3"));
        assert!(vacuous(&Counts { acknowledgements: 1, ..enough }, &floors).is_some());
        assert!(vacuous(&Counts { faults_in_flight: 0, ..enough }, &floors).is_some());
    }
}
