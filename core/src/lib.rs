//! All the logic of rmom, without the outside world: brokers, managers and the model of the store.
//!
//! No code here opens a socket, speaks SQL, reads a clock or draws a random number. The [`ports`] provide all of that, so
//! that the same code runs over TCP and PostgreSQL in production, and over a simulated network in tests, where a seed is
//! enough to replay a run. Durations use `tokio::time`, which the simulation controls.

#[macro_use]
pub mod marks;

pub mod access;
pub mod broker;
pub mod frame;
pub mod manager;
pub mod model;
pub mod ports;
pub mod repeat;
pub mod store;
