//! Delivered and stored messages, decoded as any gRPC client would.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use rmom_proto::messages::Message;

/// A delivered or stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) offset: u64,
    pub(crate) id: String,
    pub(crate) content: String,
    pub(crate) topic: String,
    pub(crate) ttl_millis: u64,
}

/// The messages of some frames.
///
/// # Panics
/// If they are not whole, uncompressed, length-prefixed messages.
pub(crate) fn decode(mut frames: Bytes) -> Vec<Delivered> {
    let mut messages = Vec::new();
    while frames.has_remaining() {
        assert_eq!(frames.get_u8(), 0, "a frame is not compressed");
        let length = frames.get_u32() as usize;
        assert!(length <= frames.len(), "frames are whole");
        let message = Message::decode(frames.split_to(length)).expect("a frame is a message");
        let content = String::from_utf8(message.content.to_vec()).expect("only text was pushed");
        let Message { offset, id, topic, ttl_millis, .. } = message;
        messages.push(Delivered { offset, id, content, topic, ttl_millis });
    }
    messages
}
