//! The broker's gRPC service, used by an unmodified client: the generated tonic client, over loopback, with a broker over
//! the store in memory.

mod bad_input;
mod control;
mod original;
mod port;
mod push_stream;
mod room;
mod subscribe;
mod support;
