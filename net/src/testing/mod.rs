//! Support for tests over real databases and real sockets (feature `testing`). It panics where a test should fail.

mod pg_server;
mod tcp_proxy;

pub use pg_server::{PgServer, TestDatabase};
pub use tcp_proxy::{Fault, TcpProxy};
