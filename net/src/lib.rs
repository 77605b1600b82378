//! rmom in production: the implementations of the core's ports, and the services on top of the core.
//!
//! - [`transport`], [`clock`], [`entropy`]: the ports, over TCP, TLS and the operating system.
//! - [`store`]: the durable stores.
//! - [`access`]: the callers of requests, and the right that each method needs.
//! - [`serve`]: HTTP/1.1 and HTTP/2 on one port, over any transport.
//! - [`grpc`]: the broker's service, and the manager's client for it.
//! - [`rest`]: the manager's administrative API.
//! - [`metrics`]: Prometheus text.
//!
//! Services and clients run unchanged in the simulation, over its transport.

pub mod access;
pub mod clock;
pub mod entropy;
pub mod grpc;
pub mod metrics;
pub mod rest;
pub mod serve;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
