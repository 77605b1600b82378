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

pub mod bugs;
mod chance;
pub mod check;
mod cluster;
mod commit;
mod database;
pub mod diagram;
mod explore;
pub mod history;
mod hosts;
mod isolated;
mod journal;
mod links;
pub mod marks;
mod net;
pub mod report;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod story;
mod system;
mod time;
mod trace;

pub use chance::SeededEntropy;
pub use cluster::{Cluster, ClusterBuilder, SimError};
pub use commit::commit;
pub use database::{DATABASE_HOST, Database};
pub use explore::{Explore, Failure, Faults, TestError, World, explore};
pub use hosts::{broker_host, manager_host};
pub use isolated::{isolated, traced};
pub use journal::Journal;
pub use net::SimNet;
pub use time::{EPOCH_MILLIS, SimClock};
pub use trace::Trace;
