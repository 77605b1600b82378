//! The broker's gRPC service as an unmodified client sees it: the generated tonic client, over loopback, against a broker
//! over the store in memory.

mod bad_input;
mod control;
mod original;
mod port;
mod push_stream;
mod room;
mod subscribe;
mod support;
