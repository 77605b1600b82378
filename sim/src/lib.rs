//! Simulates rmom: runs the production code over a simulated network, replayed from a seed.
//!
//! A [`Cluster`] runs managers, brokers and clients on turmoil's hosts. The code is the production code, down to the bytes
//! of HTTP/2. Only the ports are replaced: the network ([`SimNet`]), wall time ([`SimClock`]), randomness
//! ([`SeededEntropy`]), and the store, a [`Database`] on a host of its own. A test lets time pass and injects faults: it
//! crashes hosts, cuts links, and makes the database fail.
//!
//! ```
//! use std::time::Duration;
//! use rmom_sim::{Cluster, broker_host, isolated};
//!
//! isolated(|| {
//!     let mut cluster = Cluster::builder(7).brokers(3).build();
//!     cluster.client("operator", |client| async move {
//!         tokio::time::sleep(Duration::from_secs(5)).await;
//!         assert_eq!(client.admin().brokers().await?.iter().filter(|broker| broker.live).count(), 2);
//!         Ok(())
//!     });
//!     cluster.run_for(Duration::from_secs(1))?;
//!     cluster.crash(&broker_host(1));
//!     cluster.run()
//! })
//! .unwrap();
//! ```

mod cluster;
mod database;
mod determinism;
mod explore;
pub mod history;

pub use cluster::{BROKER_PORT, Cluster, ClusterBuilder, MANAGER_PORT, SimError, SimNet, broker_host, manager_host};
pub use database::{DATABASE_HOST, DATABASE_MARKS, Database, DatabaseFault};
pub use determinism::{EPOCH_MILLIS, SeededEntropy, SimClock, Trace, isolated, traced};
pub use explore::{Explore, Failure, Faults, TestError, World, explore};
pub use history::Journal;
