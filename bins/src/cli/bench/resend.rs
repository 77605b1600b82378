//! A producer that sends every request several times, like one that receives no acknowledgements: a stream of pushes without
//! the client library, which resends only when it has to.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use rmom_client::Uuid;
use rmom_proto::messages::{
    ProducerStamp, PushAck, PushMessage, PushStreamMessages, PushStreamOpen, PushStreamRequest,
    push_stream_request::Request as Kind,
};
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{http::uri::PathAndQuery, tokio_stream::wrappers::ReceiverStream},
    transport::Endpoint,
};

use super::{
    clock::Micros,
    env::TTL,
    payload::Source,
    pusher::{Account, Plan, Pushed, topic_of},
};
use crate::cli::error::CliError;

/// Limit on the requests without acknowledgement, the same as the client library's.
const REQUESTS_IN_FLIGHT: usize = 8;
/// Limit on the messages of a request, and on the bytes of their contents, the same as the client library's.
const REQUEST_MESSAGES: u64 = 1_000;
const REQUEST_BYTES: usize = 1 << 20;

/// Pushes over a stream of its own, every request `times` times, one copy right after the other. The copies are identical
/// and encoded once, so that the measured cost is the broker's and the sockets'.
pub(super) async fn push(endpoint: &Endpoint, plan: Plan, producer: u32, times: u32) -> Result<Pushed, CliError> {
    let explain = |what: String| CliError::refused(format_args!("producer {producer}: {what}"));
    let failed = |status: Status| explain(status.message().to_owned());
    let (requests, mut acks) = open(endpoint, &plan.queue, producer, times).await.map_err(failed)?;
    let mut source = Source::new(producer, &plan.messages.size);
    let mut account = Account::new(&plan);
    // For each request without acknowledgement: the time of sending, its last sequence, and the bytes of all contents up to
    // it.
    let mut waiting: VecDeque<(Micros, u64, u64)> = VecDeque::new();
    let (per_request, mut acknowledged, mut bytes) = (messages_per_request(&plan), 0, 0);
    let mut last = PushAck::default();
    loop {
        let mut now = plan.clock.now();
        while waiting.len() < REQUESTS_IN_FLIGHT && !plan.is_done(now, source.made()) {
            let request = request(&mut source, &plan, per_request, acknowledged + 1, &mut bytes);
            waiting.push_back((now, source.made(), bytes));
            for _ in 0..times {
                // If the stream has ended, the acknowledgements tell the reason.
                let _ = requests.send(request.clone()).await;
            }
            now = plan.clock.now();
        }
        if waiting.is_empty() {
            break;
        }
        last = acks.message().await.map_err(failed)?.ok_or_else(|| explain("the broker ended the stream".into()))?;
        acknowledged = last.through_sequence.max(acknowledged);
        let now = plan.clock.now();
        while let Some(&(sent, through, bytes)) = waiting.front()
            && through <= acknowledged
        {
            account.stored(now, sent, through, bytes);
            waiting.pop_front();
        }
    }
    // The last copies are under way.
    drop(requests);
    while let Some(ack) = acks.message().await.map_err(failed)? {
        last = ack;
    }
    let repeated = source.made() * u64::from(times - 1);
    if last.duplicates != repeated {
        return Err(explain(format!("{repeated} messages were sent again, and the broker knew {}", last.duplicates)));
    }
    account.pushed.duplicates = repeated;
    Ok(account.pushed)
}

/// The messages that may be in flight, divided among the requests, within the limits of a request.
fn messages_per_request(plan: &Plan) -> u64 {
    let fit = (REQUEST_BYTES / plan.messages.size.max()).max(1) as u64;
    let in_flight =
        plan.messages.in_flight.map_or(u64::MAX, |number| u64::from(number).div_ceil(REQUESTS_IN_FLIGHT as u64));
    REQUEST_MESSAGES.min(fit).min(in_flight)
}

/// Encodes the next messages.
fn request(source: &mut Source, plan: &Plan, count: u64, lowest_unacknowledged: u64, bytes: &mut u64) -> Bytes {
    let first_sequence = source.made() + 1;
    let ttl_millis = TTL.as_secs() * 1_000;
    let mut message = || {
        let (content, number) = source.next(Micros::default());
        *bytes += content.len() as u64;
        PushMessage { content, topic: topic_of(number, plan.messages.topics), ttl_millis, ..PushMessage::default() }
    };
    let messages = (0..count).map(|_| message()).collect();
    let run = PushStreamMessages { first_sequence, messages, lowest_unacknowledged };
    PushStreamRequest { request: Some(Kind::Messages(run)) }.encode_to_vec().into()
}

/// Opens a stream, and waits until the broker confirms it.
async fn open(
    endpoint: &Endpoint,
    queue: &str,
    producer: u32,
    times: u32,
) -> Result<(mpsc::Sender<Bytes>, Streaming<PushAck>), Status> {
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
    // The queue belongs to the run, so no other producer has this name.
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{queue}/{producer}").as_bytes());
    let stamp = ProducerStamp { id: Bytes::copy_from_slice(id.as_bytes()), epoch: 0, lowest_unacknowledged: 1 };
    let open = PushStreamOpen { queue_label: queue.to_owned(), producer: Some(stamp), queue_id: 0 };
    let open = PushStreamRequest { request: Some(Kind::Open(open)) }.encode_to_vec();
    let (requests, receiver) = mpsc::channel(REQUESTS_IN_FLIGHT * times as usize + 1);
    requests.try_send(open.into()).map_err(|error| Status::internal(error.to_string()))?;
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static("/messages.MessageStream/PushStream");
    let mut acks = grpc.streaming(Request::new(ReceiverStream::new(receiver)), path, Encoded).await?.into_inner();
    match acks.message().await? {
        Some(_) => Ok((requests, acks)),
        None => Err(Status::unavailable("the broker ended the stream")),
    }
}

/// Sends requests that are already encoded, and decodes acknowledgements.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
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

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = PushAck;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<PushAck>, Status> {
        PushAck::decode(src).map(Some).map_err(|error| Status::internal(format!("no acknowledgement: {error}")))
    }
}
