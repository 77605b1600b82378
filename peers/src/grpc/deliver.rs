//! Messages as fast as clients take them: the server frames them once and sends the same bytes over and over.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use bytes::{BufMut as _, BytesMut};
use futures_util::stream;
use prost::Message as _;
use rmom_proto::messages::{Message, SubscriptionRequest};
use tokio::{runtime::Runtime, task::JoinSet, time::sleep};
use tonic::Status;

use super::{connect, stream_endpoint, ttl_millis};
use crate::load::{Error, Figures, HEADER_BYTES, Load, content, header};

/// Messages of a chunk, as in a batch of rmom; then they are sent again.
const MESSAGES_OF_A_CHUNK: u64 = 1_000;
/// Before each gRPC message: a flag, and its length.
const FRAME_PREFIX_BYTES: usize = 5;
/// Largest message content that can be asked for.
const MAX_SIZE: usize = 1 << 20;

/// Answers a subscription. The channel's id says how many bytes a message has.
pub(super) async fn serve(mut request: Bytes) -> Response {
    let _ = request.split_to(FRAME_PREFIX_BYTES.min(request.len()));
    let size = SubscriptionRequest::decode(request).ok().and_then(|request| request.channel_id.parse().ok());
    let Some(size) = size.filter(|size| (HEADER_BYTES..=MAX_SIZE).contains(size)) else {
        let why = format!("channels here are bytes of a message, {HEADER_BYTES} to {MAX_SIZE}");
        return Status::invalid_argument(why).into_http();
    };
    let chunk = chunk(size);
    let mut response =
        Response::new(Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone()))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Framed messages, as a gRPC client reads them.
fn chunk(size: usize) -> Bytes {
    let mut chunk = BytesMut::new();
    for number in 0..MESSAGES_OF_A_CHUNK {
        let message = Message {
            id: "01234567-89ab-cdef-0123-456789abcdef".to_owned(),
            content: content(number, 0, size).into(),
            offset: number + 1,
            ttl_millis: ttl_millis(),
            ..Message::default()
        };
        chunk.put_u8(0);
        chunk.put_u32(message.encoded_len() as u32);
        chunk.put_slice(&message.encode_to_vec());
    }
    chunk.freeze()
}

/// `subscribers` clients with a connection each.
pub(crate) fn run(at: &str, load: &Load) -> Result<Figures, Error> {
    Runtime::new()?.block_on(async {
        let mut clients = JoinSet::new();
        let mut counters = Vec::new();
        for _ in 0..load.subscribers.max(1) {
            let delivered = Arc::new(AtomicU64::new(0));
            counters.push(Arc::clone(&delivered));
            clients.spawn(receive(at.to_owned(), load.size, delivered));
        }
        let sum = || counters.iter().map(|delivered| delivered.load(Relaxed)).sum::<u64>();
        let measure = async {
            sleep(load.warm_up).await;
            let (before, started) = (sum(), Instant::now());
            sleep(load.duration).await;
            (sum() - before, started.elapsed())
        };
        tokio::select! {
            (delivered, duration) = measure => Ok(Figures { delivered, duration, ..Figures::new(load) }),
            Some(ended) = clients.join_next() => match ended {
                Ok(Err(error)) => Err(error),
                _ => Err(Error::Protocol("a stream ended".to_owned())),
            },
        }
    })
}

async fn receive(at: String, size: usize, delivered: Arc<AtomicU64>) -> Result<(), Error> {
    let mut client = connect(&stream_endpoint(&at)?).await?;
    let request = SubscriptionRequest { channel_id: size.to_string(), position: None };
    let mut messages = client.subscribe_to_channel(request).await?.into_inner();
    let mut wanted = 0;
    while let Some(message) = messages.message().await? {
        let (found, _) = header(&message.content)?;
        if found != wanted {
            return Err(Error::Broken { wanted, found });
        }
        wanted = (wanted + 1) % MESSAGES_OF_A_CHUNK;
        delivered.fetch_add(1, Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;

    use super::*;

    #[test]
    fn a_chunk_is_as_many_messages_as_it_should_be() {
        let mut chunk = chunk(100);
        for wanted in 0..MESSAGES_OF_A_CHUNK {
            assert_eq!(chunk.get_u8(), 0);
            let length = chunk.get_u32() as usize;
            let message = Message::decode(chunk.split_to(length)).unwrap();
            assert_eq!((header(&message.content).unwrap().0, message.content.len()), (wanted, 100));
        }
        assert!(chunk.is_empty());
    }
}
