//! Metrics in Prometheus' text format.
//!
//! Written by hand: the numbers live in the core, so there is nothing to register, only to print.

mod broker;
mod manager;
mod store;
mod text;

pub use broker::{MAX_LISTED_CHANNELS, MAX_LISTED_QUEUES, broker, per_object};
pub use manager::manager;
pub use store::{Lane, Wait};
pub use text::{Kind, TEXT_FORMAT, Text};

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use rmom_core::{
        manager::RegisteredBroker,
        model::{BrokerId, Incarnation},
        ports::BrokerState,
    };

    use super::*;
    use crate::serve::ServeStats;

    /// The names of the metrics on a page.
    fn names(page: &str) -> impl Iterator<Item = String> {
        page.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned()))
    }

    #[test]
    fn the_operators_document_lists_every_metric_and_no_other() {
        let stats = ServeStats::default();
        stats.watch_store(&[Lane::new("work")]);
        let mut managed = manager::tests::status(true);
        managed.brokers[0].registered = Some(RegisteredBroker {
            id: BrokerId::new(1),
            incarnation: Incarnation::new(uuid::Uuid::from_u128(1)),
            state: BrokerState::Up,
            lease_current: true,
            queues: 3,
        });
        let status = broker::tests::status(1);
        let pages = [broker(&status, &stats), per_object(&status, "", ""), manager(&managed, &stats)];
        let exist: BTreeSet<_> = pages.iter().flat_map(|page| names(page)).collect();
        let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
        let (_, section) = document.split_once("\n## Metrics\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
        let listed: BTreeSet<_> = section.lines().filter_map(row).collect();
        assert_eq!(listed, exist);
    }
}
