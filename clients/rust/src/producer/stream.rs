//! One `PushStream` to a broker, and the codec that encodes a batch directly from the messages that wait for
//! acknowledgement: sending and resending clone nothing.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::{EncodeError, Message as _};
use rmom_proto::messages::{
    OpenProducerRequest, OpenProducerResponse, ProducerStamp, PushAck, PushMessage, PushStreamOpen, PushStreamRequest,
    message_stream_client::MessageStreamClient, push_stream_request::Request as Opening,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};
use uuid::Uuid;

use super::queue::Run;
use crate::Error;

/// Limit on the requests without acknowledgement. While that many are out, pushed messages wait, and the next request takes
/// them all: batches grow with the load.
pub(crate) const MAX_RUNS_IN_FLIGHT: usize = 8;

/// How long a broker may take to end a stream that the producer ended.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// A request of a stream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    Open(PushStreamOpen),
    Run { run: Run, first_sequence: u64, lowest_unacknowledged: u64 },
}

// Field numbers of messages.proto, as tags of the wire format: (number << 3) | type, where 0 is a varint and 2 is bytes.
const REQUEST_MESSAGES: u8 = 2 << 3 | 2;
const FIRST_SEQUENCE: u8 = 1 << 3;
const MESSAGES: u8 = 2 << 3 | 2;
const LOWEST_UNACKNOWLEDGED: u8 = 3 << 3;

/// Encodes `PushStreamRequest { messages: PushStreamMessages { first_sequence, messages, lowest_unacknowledged } }`.
struct RunEncoder<'a> {
    messages: &'a [PushMessage],
    first_sequence: u64,
    lowest_unacknowledged: u64,
    /// Length of the inner message.
    len: usize,
}

impl<'a> RunEncoder<'a> {
    fn new(messages: &'a [PushMessage], first_sequence: u64, lowest_unacknowledged: u64) -> Self {
        let delimited = |message: &PushMessage| {
            let len = message.encoded_len();
            1 + varint_len(len as u64) + len
        };
        let len = 1 + varint_len(first_sequence) + 1 + varint_len(lowest_unacknowledged);
        let len = len + messages.iter().map(delimited).sum::<usize>();
        Self { messages, first_sequence, lowest_unacknowledged, len }
    }

    fn encoded_len(&self) -> usize {
        1 + varint_len(self.len as u64) + self.len
    }

    fn encode(&self, dst: &mut impl BufMut) -> Result<(), EncodeError> {
        dst.put_u8(REQUEST_MESSAGES);
        put_varint(self.len as u64, dst);
        dst.put_u8(FIRST_SEQUENCE);
        put_varint(self.first_sequence, dst);
        for message in self.messages {
            dst.put_u8(MESSAGES);
            message.encode_length_delimited(dst)?;
        }
        dst.put_u8(LOWEST_UNACKNOWLEDGED);
        put_varint(self.lowest_unacknowledged, dst);
        Ok(())
    }
}

/// Seven bits in each byte, and at least one byte.
fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(mut value: u64, dst: &mut impl BufMut) {
    while value >= 0x80 {
        dst.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    dst.put_u8(value as u8);
}

/// Encodes [`Outgoing`], decodes acknowledgements.
#[derive(Clone, Copy, Debug)]
struct PushCodec;

impl Codec for PushCodec {
    type Encode = Outgoing;
    type Decode = PushAck;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for PushCodec {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Room is reserved in one piece, so that a growing batch is not moved.
        let encoded = match item {
            Outgoing::Open(open) => {
                let request = PushStreamRequest { request: Some(Opening::Open(open)) };
                dst.reserve(request.encoded_len());
                request.encode(dst)
            }
            Outgoing::Run { run, first_sequence, lowest_unacknowledged } => {
                let messages = &run.payload.messages[run.range];
                let request = RunEncoder::new(messages, first_sequence, lowest_unacknowledged);
                dst.reserve(request.encoded_len());
                request.encode(dst)
            }
        };
        encoded.map_err(|error| Status::internal(format!("a request does not fit its buffer: {error}")))
    }
}

impl Decoder for PushCodec {
    type Item = PushAck;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<PushAck>, Status> {
        PushAck::decode(src).map(Some).map_err(|error| Status::internal(format!("no acknowledgement: {error}")))
    }
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct PushStream {
    /// The broker's address.
    pub(crate) authority: String,
    /// The queue's id, from the broker's answer when it opened the stream.
    pub(crate) queue_id: u64,
    requests: mpsc::Sender<Outgoing>,
    acks: Streaming<PushAck>,
}

impl PushStream {
    /// Opens a stream and waits at most `timeout` until the broker confirms it.
    pub(crate) async fn open(
        channel: Channel,
        authority: &str,
        open: PushStreamOpen,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let opening = async {
            let (requests, receiver) = mpsc::channel(MAX_RUNS_IN_FLIGHT + 1);
            requests.try_send(Outgoing::Open(open)).expect("the channel is empty, and its receiver is here");
            let mut grpc = Grpc::new(channel);
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            let path = PathAndQuery::from_static("/messages.MessageStream/PushStream");
            let response = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, PushCodec).await?;
            let mut acks = response.into_inner();
            let first = acks.message().await?;
            Ok((requests, acks, first))
        };
        let (requests, acks, first) = match tokio::time::timeout(timeout, opening).await {
            Err(_) => {
                let what = format!("opening a stream of pushes at {authority}");
                return Err(Error::DeadlineExceeded { what, after: timeout, sent: false });
            }
            Ok(Err(status)) => return Err(Error::from_status(authority, &status)),
            Ok(Ok(opened)) => opened,
        };
        let protocol = |reason: String| Err(Error::Protocol { authority: authority.to_owned(), reason });
        match first {
            Some(PushAck { through_sequence: 0, queue_id: 1.., .. }) => {}
            Some(ack) => return protocol(format!("it opened a stream of pushes with {ack:?}")),
            None => return protocol("it ended a stream of pushes that it had not opened".to_owned()),
        }
        let queue_id = first.map_or(0, |ack| ack.queue_id);
        Ok(Self { authority: authority.to_owned(), queue_id, requests, acks })
    }

    /// Sends a run. False means that the stream is over; [`PushStream::next_ack`] returns the reason.
    pub(crate) fn send(&self, run: Run, first_sequence: u64, lowest_unacknowledged: u64) -> bool {
        // There is room for as many runs as may be out.
        self.requests.try_send(Outgoing::Run { run, first_sequence, lowest_unacknowledged }).is_ok()
    }

    /// The next acknowledgement. Cancel-safe.
    pub(crate) async fn next_ack(&mut self) -> Result<PushAck, Error> {
        match self.acks.message().await {
            Ok(Some(ack)) => Ok(ack),
            Ok(None) => Err(Error::Call {
                authority: self.authority.clone(),
                status: tonic::Code::Unavailable,
                message: "the broker ended the stream".to_owned(),
            }),
            Err(status) => Err(Error::from_status(&self.authority, &status)),
        }
    }

    /// Ends the stream in good order, so that the broker does not see it as broken.
    pub(crate) async fn finish(self) {
        let Self { requests, mut acks, .. } = self;
        drop(requests);
        let ended = async { while let Ok(Some(_)) = acks.message().await {} };
        let _ = tokio::time::timeout(FINISH_TIMEOUT, ended).await;
    }
}

/// Takes the next epoch of a named producer.
pub(crate) async fn open_producer(
    channel: Channel,
    authority: &str,
    queue_label: String,
    id: Uuid,
    timeout: Duration,
) -> Result<OpenProducerResponse, Error> {
    let request = OpenProducerRequest { queue_label, producer_id: id_bytes(id) };
    let mut client = MessageStreamClient::new(channel);
    match tokio::time::timeout(timeout, client.open_producer(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error::from_status(authority, &status)),
        Err(_) => {
            let what = format!("opening a named producer at {authority}");
            Err(Error::DeadlineExceeded { what, after: timeout, sent: true })
        }
    }
}

/// The stamp by which a producer identifies itself.
pub(crate) fn stamp(id: Uuid, epoch: u64, lowest_unacknowledged: u64) -> ProducerStamp {
    ProducerStamp { id: id_bytes(id), epoch, lowest_unacknowledged }
}

fn id_bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

#[cfg(test)]
mod tests {
    use rmom_proto::messages::{Header, PushStreamMessages};

    use super::*;

    #[test]
    fn runs_are_encoded_as_prost_would() {
        let message = |n: usize| PushMessage {
            content: vec![7; n].into(),
            topic: if n.is_multiple_of(2) { "t".into() } else { String::new() },
            headers: vec![Header { name: "h".into(), value: "v".into() }; n % 3],
            ttl_millis: n as u64,
        };
        for count in [1, 2, 40] {
            for sequence in [1, 127, 128, 1 << 21, u64::MAX >> 1, u64::MAX] {
                let messages: Vec<_> = (0..count).map(|n| message(n * 17)).collect();
                let encoder = RunEncoder::new(&messages, sequence, sequence / 2 + 1);
                let (mut ours, reserved) = (Vec::new(), encoder.encoded_len());
                encoder.encode(&mut ours).unwrap();
                let theirs = PushStreamRequest {
                    request: Some(Opening::Messages(PushStreamMessages {
                        first_sequence: sequence,
                        messages,
                        lowest_unacknowledged: sequence / 2 + 1,
                    })),
                };
                assert_eq!(ours.len(), reserved);
                assert_eq!(PushStreamRequest::decode(&ours[..]).unwrap(), theirs);
            }
        }
    }
}
