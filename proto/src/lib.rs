//! The formats of rmom: what goes over the wire ([`messages`]), what lies in the store ([`storage`]), and the rest of what
//! servers and clients have to agree on ([`contract`]).
//!
//! The messages are generated from the `.proto` files beside this crate. The tonic stubs are behind the feature `tonic`, so that the
//! core, which speaks to no socket, depends on prost alone.

pub mod contract;

/// The gRPC package `messages`: the original's service and messages, and rmom's additions.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// What is kept in the store beside the frames.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod storage {
    include!(concat!(env!("OUT_DIR"), "/rmom.storage.rs"));
}

/// The encoded `FileDescriptorSet` of all files, for gRPC reflection.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
