//! Support for tests over real databases, real sockets and pipes within the process (feature `testing`). It panics where a
//! test should fail.

mod pg_server;
mod pipes;
mod tcp_proxy;

pub use pg_server::{PgServer, TestDatabase};
pub use pipes::Pipes;
pub use tcp_proxy::{Fault, TcpProxy};
