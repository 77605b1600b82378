//! Keeps chunks of a subscription large enough that clients do not take them for an attack.
//!
//! A client's HTTP/2 implementation may count DATA frames that it has received and its application has not read, because
//! each costs memory beside its bytes. h2, which most Rust clients use, has a budget of half its connection's window. A
//! frame of less than 256 bytes takes the missing bytes from the budget, and the connection ends when the budget is used up.
//! With windows of 64 KiB, this happens after 160 messages of 50 bytes, although flow control would let more than a thousand
//! through. Therefore small chunks that are ready are joined, and chunks that are still small are filled up with zeros in a
//! field that no version of the schema uses. Clients skip fields that they do not know.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use rmom_proto::contract::FRAME_PREFIX_BYTES;

/// Size of the smallest chunk. h2 charges for smaller frames.
pub(super) const MIN_CHUNK_BYTES: usize = 256;
/// Chunks are joined up to this many bytes; larger ones are sent as they are, without copying.
const MAX_JOINED_BYTES: usize = 8 << 10;
/// The field of `Message` that holds the zeros; messages.proto reserves it.
const FILLER_FIELD: u32 = 15;

/// Joins a chunk with the following ones that are ready. `ready` returns the next one if it fits the given size.
pub(super) fn joined(first: Bytes, mut ready: impl FnMut(usize) -> Option<Bytes>) -> Bytes {
    let left = MAX_JOINED_BYTES.saturating_sub(first.len());
    if left == 0 {
        return first;
    }
    let Some(second) = ready(left) else { return first };
    let mut all = BytesMut::with_capacity(MAX_JOINED_BYTES);
    all.put(first);
    all.put(second);
    while let Some(next) = ready(MAX_JOINED_BYTES - all.len()) {
        all.put(next);
    }
    all.freeze()
}

/// A chunk of at least [`MIN_CHUNK_BYTES`] with the same messages.
pub(super) fn filled(chunk: Bytes) -> Bytes {
    let lacks = MIN_CHUNK_BYTES.saturating_sub(chunk.len());
    if lacks == 0 {
        return chunk;
    }
    let Some(last) = last_message(&chunk) else { return chunk };
    let mut all = BytesMut::with_capacity(MIN_CHUNK_BYTES + 8);
    all.put(chunk);
    // As a rule, the field's key and its length take one byte each.
    let zeros = lacks.saturating_sub(2);
    encode_key(FILLER_FIELD, WireType::LengthDelimited, &mut all);
    encode_varint(zeros as u64, &mut all);
    all.put_bytes(0, zeros);
    let length = u32::try_from(all.len() - last - FRAME_PREFIX_BYTES).expect("the chunk is small");
    all[last + 1..last + FRAME_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    all.freeze()
}

/// Where the frame of the last message begins.
fn last_message(chunk: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let length = chunk.get(at + 1..at + FRAME_PREFIX_BYTES)?.try_into().ok().map(u32::from_be_bytes)?;
        let next = at + FRAME_PREFIX_BYTES + length as usize;
        if next >= chunk.len() {
            return (next == chunk.len()).then_some(at);
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;
    use prost::Message as _;
    use rmom_proto::messages::Message;

    use super::*;

    fn message(content: usize) -> Message {
        Message { id: "m".into(), content: vec![7; content].into(), offset: 1, ..Message::default() }
    }

    fn chunk(messages: &[Message]) -> Bytes {
        let mut chunk = BytesMut::new();
        for message in messages {
            chunk.put_u8(0);
            chunk.put_u32(u32::try_from(message.encoded_len()).unwrap());
            message.encode(&mut chunk).unwrap();
        }
        chunk.freeze()
    }

    fn messages(mut chunk: Bytes) -> Vec<Message> {
        let mut messages = Vec::new();
        while chunk.has_remaining() {
            assert_eq!(chunk.get_u8(), 0);
            let length = chunk.get_u32() as usize;
            messages.push(Message::decode(chunk.split_to(length)).unwrap());
        }
        messages
    }

    #[test]
    fn small_chunks_are_filled_and_mean_the_same() {
        for size in 0..=MIN_CHUNK_BYTES {
            for sent in [vec![message(size)], vec![message(size / 2), message(0), message(size / 3)]] {
                let small = chunk(&sent);
                let filled = filled(small.clone());
                assert!(filled.len() >= MIN_CHUNK_BYTES, "{size}: {}", filled.len());
                assert!(filled.len() <= small.len().max(MIN_CHUNK_BYTES + 1), "{size}: {}", filled.len());
                assert_eq!(messages(filled), sent);
            }
        }
        assert_eq!(filled(Bytes::from_static(b"no frame")), "no frame");
    }

    #[test]
    fn what_is_ready_is_joined_in_order_up_to_a_limit() {
        let one = chunk(&[message(1_000)]);
        let mut sizes = [1_000, 900, 800, 5_000].into_iter().peekable();
        let mut ready = |largest| {
            let next = chunk(&[message(*sizes.peek()?)]);
            (next.len() <= largest).then(|| sizes.next()).map(|_| next)
        };
        let all = messages(joined(one.clone(), &mut ready));
        assert_eq!(all.iter().map(|message| message.content.len()).collect::<Vec<_>>(), [1_000, 1_000, 900, 800]);
        let large = Bytes::from(vec![0; MAX_JOINED_BYTES]);
        assert_eq!(joined(large.clone(), |_| unreachable!()), large);
        assert_eq!(joined(one.clone(), |_| None), one);
    }
}
