//! Hand-made HTTP/2 frames.

use arbitrary::{Result, Unstructured};
use rmom_net::serve::HTTP2_MAX_FRAME_BYTES;

use super::values;

/// The beginning of each connection.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
/// Header fields: the first ones form a request to a method, the last ones are for REST and for errors.
const FIELDS: [(&str, &str); 16] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/messages.MessageStream/PushStream"),
    (":authority", "broker"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    (":path", "/messages.MessageStream/SubscribeToChannel"),
    (":path", "/messages.MessageStream/PushToQueue"),
    (":path", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    (":path", "/grpc.health.v1.Health/Watch"),
    (":path", "/v1/queues"),
    (":method", "GET"),
    ("grpc-timeout", "99999999H"),
    ("grpc-encoding", "gzip"),
    ("content-length", "18446744073709551615"),
    ("connection", "close"),
];

/// A frame with a correct head, unless the input chooses another length.
pub(super) fn frame(input: &mut Unstructured<'_>, sent: &mut Vec<u8>) -> Result<()> {
    let (kind, flags, stream) = (input.arbitrary::<u8>()? % 12, input.arbitrary::<u8>()?, input.arbitrary::<u8>()?);
    let payload = match input.arbitrary::<u8>()? % 4 {
        0 if kind == HEADERS => fields(input)?,
        1 => grpc_message(&values::bytes(input)?),
        // Some payloads are numbers of fixed length.
        2 => values::number(input)?.to_be_bytes()[..if kind == SETTINGS { 6 } else { 4 }].to_vec(),
        _ => values::bytes(input)?,
    };
    let length = match input.arbitrary::<u8>()? {
        u8::MAX => values::number(input)?,
        _ => payload.len() as u64,
    };
    sent.extend_from_slice(&length.to_be_bytes()[5..]);
    sent.extend([kind, flags, 0, 0, 0, stream]);
    sent.extend_from_slice(&payload);
    Ok(())
}

fn grpc_message(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// Header fields as literals without indexing, in HPACK.
fn fields(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let chosen = input.arbitrary::<u16>()?;
    let mut block = Vec::new();
    for (_, (name, value)) in FIELDS.iter().enumerate().filter(|(at, _)| chosen & (1 << at) != 0) {
        block.push(0);
        for text in [name, value] {
            // Below 127, so that the length fits into one byte.
            block.push(u8::try_from(text.len()).expect("fields are short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    Ok(block)
}

/// An answer consists of frames of known kinds, beginning with settings; the last may be cut off.
pub(super) fn check_frames(mut answer: &[u8]) {
    assert!(answer.len() < HEAD_BYTES || answer[3] == SETTINGS, "the answer begins with no settings: {answer:?}");
    while let Some((head, rest)) = answer.split_at_checked(HEAD_BYTES) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        assert!(length <= HTTP2_MAX_FRAME_BYTES, "a frame of {length} bytes");
        assert!(head[3] <= 9, "a frame of kind {}", head[3]);
        answer = rest.get(length as usize..).unwrap_or_default();
    }
}
