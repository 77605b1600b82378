//! All the logic of rmom, and none of the world: brokers, managers and the model of the store.
//!
//! Nothing here opens a socket, speaks SQL, reads a clock or draws a random number: the [`ports`] bring all of that in,
//! so that the same code runs over TCP and PostgreSQL in production and over a simulated network in tests, where a seed
//! is enough to replay it. Durations are `tokio::time`, which the simulation controls.

#[macro_use]
pub mod marks;

pub mod broker;
pub mod frame;
pub mod manager;
pub mod model;
pub mod ports;
pub mod repeat;
pub mod store;
