//! The answer to one `SubscribeToChannel`, read without tonic: messages are slices of the bytes read from the socket, where
//! tonic would first copy everything into a buffer of its own.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version, header};
use prost::Message as _;
use rmom_proto::{
    contract::FRAME_PREFIX_BYTES,
    messages::{Message as WireMessage, SubscriptionRequest},
};
use thiserror::Error;
use tonic::{Status, Streaming, body::Body, codec::Codec as _, transport::Channel};
use tonic_prost::ProstCodec;
use tower::{Service as _, ServiceExt as _};

use super::decode::{Malformed, decode};
use crate::Message;

const PATH: &str = "/messages.MessageStream/SubscribeToChannel";

/// How a stream ends.
#[derive(Debug, Error)]
pub(super) enum Ended {
    #[error("the broker ended the stream")]
    Well,
    #[error("{0}")]
    Failed(#[from] Status),
    #[error("the message takes {bytes} bytes; the limit is {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("a message in pieces at the end of the stream")]
    CutOff,
    #[error("a message with the compression flag {0}; nothing was said of compression")]
    Compressed(u8),
    #[error("{0}")]
    Malformed(#[from] Malformed),
}

/// Messages as they come.
#[derive(Debug)]
pub(super) struct Messages<B = Body> {
    body: B,
    frames: Frames,
}

/// Sends the request, and waits for the headers of its answer.
pub(super) async fn subscribe(
    channel: Channel,
    request: &SubscriptionRequest,
    max_message_bytes: usize,
) -> Result<(HeaderMap, Messages), Status> {
    let mut message = BytesMut::with_capacity(FRAME_PREFIX_BYTES + request.encoded_len());
    message.put_u8(0);
    message.put_u32(request.encoded_len() as u32);
    request.encode(&mut message).map_err(|error| Status::internal(error.to_string()))?;
    let mut request = Request::new(Body::new(http_body_util::Full::new(message.freeze())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(PATH);
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));

    let mut channel = channel;
    let channel = channel.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let response = channel.call(request).await.map_err(|error| Status::from_error(error.into()))?;
    let (head, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers)
        && status.code() != tonic::Code::Ok
    {
        return Err(status);
    }
    if head.status != StatusCode::OK {
        // The answer is not from a broker: tonic knows how to read the answers of proxies.
        let decoder = ProstCodec::<(), WireMessage>::default().decoder();
        let mut streaming = Streaming::new_response(decoder, body, head.status, None, None);
        let status = streaming.message().await.err();
        return Err(status.unwrap_or_else(|| Status::unknown(format!("HTTP status {}", head.status))));
    }
    Ok((head.headers, Messages { body, frames: Frames::new(max_message_bytes) }))
}

impl<B> Messages<B>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin,
{
    /// The next message, or the end of the stream. Must not be called again after the end.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Ended>> {
        loop {
            if let Some(frame) = self.frames.cut()? {
                return Poll::Ready(Ok(decode(frame)?));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(frame) => frame?,
                None if self.frames.is_between() => {
                    let lost = "the stream ended without a status";
                    return Poll::Ready(Err(Status::unknown(lost).into()));
                }
                None => return Poll::Ready(Err(Ended::CutOff)),
            };
            match frame.into_data() {
                Ok(data) => self.frames.put(data),
                Err(frame) => {
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    return Poll::Ready(Err(match status {
                        Some(status) if status.code() == tonic::Code::Ok => Ended::Well,
                        Some(status) => status.into(),
                        None => Status::unknown("the stream ended without a status").into(),
                    }));
                }
            }
        }
    }
}

/// Cuts a stream of bytes into gRPC messages.
#[derive(Debug)]
struct Frames {
    limit: usize,
    /// Bytes that have arrived and were not cut yet.
    chunk: Bytes,
    /// The beginning of a message that came in several chunks. If it is not empty, `chunk` is used up.
    partial: BytesMut,
}

impl Frames {
    fn new(limit: usize) -> Self {
        Self { limit, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    fn put(&mut self, chunk: Bytes) {
        assert!(self.chunk.is_empty(), "a chunk is cut before the next one comes");
        self.chunk = chunk;
    }

    /// True if no message has begun.
    fn is_between(&self) -> bool {
        self.chunk.is_empty() && self.partial.is_empty()
    }

    /// The next whole message, without its prefix.
    fn cut(&mut self) -> Result<Option<Bytes>, Ended> {
        if self.partial.is_empty() {
            match frame_bytes(&self.chunk, self.limit)? {
                Some(bytes) if bytes <= self.chunk.len() => {
                    let mut frame = self.chunk.split_to(bytes);
                    frame.advance(FRAME_PREFIX_BYTES);
                    return Ok(Some(frame));
                }
                Some(bytes) => self.partial.reserve(bytes),
                None => {}
            }
        }
        self.complete()
    }

    /// Moves the missing bytes of a message in pieces from the chunk.
    fn complete(&mut self) -> Result<Option<Bytes>, Ended> {
        while !self.chunk.is_empty() {
            let wanted = frame_bytes(&self.partial, self.limit)?;
            let missing = wanted.unwrap_or(FRAME_PREFIX_BYTES) - self.partial.len();
            self.partial.reserve(missing);
            self.partial.put(self.chunk.split_to(missing.min(self.chunk.len())));
            if frame_bytes(&self.partial, self.limit)? == Some(self.partial.len()) {
                let mut frame = std::mem::take(&mut self.partial).freeze();
                frame.advance(FRAME_PREFIX_BYTES);
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }
}

/// The length of the message that begins here, prefix included, if enough bytes are there to tell.
fn frame_bytes(mut bytes: &[u8], limit: usize) -> Result<Option<usize>, Ended> {
    if bytes.len() < FRAME_PREFIX_BYTES {
        return Ok(None);
    }
    match bytes.get_u8() {
        0 => {}
        flag => return Err(Ended::Compressed(flag)),
    }
    let bytes = bytes.get_u32() as usize;
    if bytes > limit {
        return Err(Ended::TooLarge { bytes, limit });
    }
    Ok(Some(FRAME_PREFIX_BYTES + bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt as _;
    use http_body::Frame;
    use uuid::Uuid;

    use super::*;

    fn framed(offset: u64, content: usize) -> Vec<u8> {
        let content = vec![7; content].into();
        let message = WireMessage { id: Uuid::nil().to_string(), offset, content, ..WireMessage::default() };
        let message = message.encode_to_vec();
        [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
    }

    /// A body that yields these frames.
    struct Scripted(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Scripted {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    /// The offsets of the messages, and the end.
    fn read(frames: Vec<Frame<Bytes>>, limit: usize) -> (Vec<u64>, Ended) {
        let mut messages = Messages { body: Scripted(frames.into()), frames: Frames::new(limit) };
        let mut offsets = Vec::new();
        loop {
            let next = std::future::poll_fn(|cx| messages.poll_message(cx)).now_or_never().expect("all of it is there");
            match next {
                Ok(message) => offsets.push(message.offset),
                Err(ended) => return (offsets, ended),
            }
        }
    }

    fn trailers(code: &'static str) -> Frame<Bytes> {
        Frame::trailers([(Status::GRPC_STATUS, HeaderValue::from_static(code))].into_iter().collect())
    }

    #[test]
    fn messages_are_cut_wherever_the_chunks_end() {
        let bytes: Vec<u8> = [3, 0, 400, 1].into_iter().zip(1..).flat_map(|(size, n)| framed(n, size)).collect();
        for size in 1..=bytes.len() {
            let chunks = bytes.chunks(size).map(|chunk| Frame::data(Bytes::copy_from_slice(chunk)));
            let (offsets, ended) = read(chunks.chain([trailers("0")]).collect(), 1_000);
            assert_eq!(offsets, [1, 2, 3, 4], "in chunks of {size}");
            assert!(matches!(ended, Ended::Well));
        }
    }

    #[test]
    fn how_it_ends_is_told() {
        let data = |bytes: &[u8]| Frame::data(Bytes::copy_from_slice(bytes));
        let whole = framed(1, 3);
        let (offsets, ended) = read(vec![data(&whole), trailers("14")], 1_000);
        assert_eq!(offsets, [1]);
        assert!(matches!(ended, Ended::Failed(status) if status.code() == tonic::Code::Unavailable));
        let unknown = |ended| matches!(ended, Ended::Failed(status) if status.code() == tonic::Code::Unknown);
        assert!(unknown(read(vec![data(&whole)], 1_000).1));
        assert!(unknown(read(vec![Frame::trailers(HeaderMap::new())], 1_000).1));
        for cut in [3, 20] {
            assert!(matches!(read(vec![data(&whole[..cut])], 1_000).1, Ended::CutOff));
        }
        assert!(matches!(read(vec![data(&[1, 0, 0, 0, 0])], 1_000).1, Ended::Compressed(1)));
        assert!(matches!(read(vec![data(&[0, 0, 0, 0, 0])], 1_000).1, Ended::Malformed(_)));
        // The prefix alone shows it, before any byte of the message has come.
        for pieces in [vec![data(&whole)], vec![data(&whole[..2]), data(&whole[2..6])]] {
            assert!(matches!(read(pieces, 40).1, Ended::TooLarge { bytes: 45, limit: 40 }));
        }
    }
}
