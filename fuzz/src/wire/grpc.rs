//! Calls of a broker's methods, with arbitrary values of each field.

use arbitrary::{Result, Unstructured};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::Full;
use prost::Message;
use rmom_core::model::limits::{MAX_BATCH_MESSAGES, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_TTL};
use rmom_proto::messages::{
    self as wire, message_stream_server::SERVICE_NAME, push_stream_request::Request as PushStreamPart,
};

use super::{
    answers::Judgement,
    cluster::{Cluster, MAX_MESSAGE_BYTES, Port},
    exchange,
    values::{self, Wrong, number, text},
};

/// The most calls of one input.
const MAX_CALLS: usize = 6;
/// The most requests of one stream of pushes.
const MAX_RUNS: u8 = 4;

/// A call, ready to be made.
struct Call {
    method: &'static str,
    body: BytesMut,
    judgement: Judgement,
    decodes: fn(Bytes) -> bool,
}

pub(super) async fn calls(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<()> {
    let mut client = exchange::connect(cluster, Port::Broker).await;
    for _ in 0..MAX_CALLS {
        if input.is_empty() {
            break;
        }
        let mut call = call(cluster, input)?;
        // Sometimes the message is damaged.
        if input.arbitrary::<u8>()? == 1 && call.body.len() > 5 {
            let at = usize::from(input.arbitrary::<u16>()?) % (call.body.len() - 5);
            call.body[5 + at] ^= input.arbitrary::<u8>()?;
            call.judgement.garbled = true;
        }
        let what = format!("{} {:?}", call.method, call.body);
        let request = Request::post(format!("http://broker/{SERVICE_NAME}/{}", call.method))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(call.body.freeze()))
            .expect("it is a request");
        let answer = exchange::send(&mut client, request, call.method == "SubscribeToChannel").await;
        call.judgement.check_grpc(&what, &answer, call.decodes);
    }
    Ok(())
}

fn frame(body: &mut BytesMut, message: &impl Message) {
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).expect("messages are small here"));
    message.encode(body).expect("a buffer that grows has room");
}

fn decodes<M: Message + Default>(message: Bytes) -> bool {
    M::decode(message).is_ok()
}

/// A call of a unary method that answers an `A`.
fn unary<A: Message + Default>(method: &'static str, request: &impl Message, judgement: Judgement) -> Call {
    let mut body = BytesMut::new();
    frame(&mut body, request);
    Call { method, body, judgement, decodes: decodes::<A> }
}

fn call(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<Call> {
    let (kind, mut judge) = (input.arbitrary::<u8>()? % 12, Judgement::default());
    Ok(match kind {
        0 => push(input)?,
        1 => push_stream(input)?,
        2 => subscribe(cluster, input)?,
        3 => {
            let request = wire::OpenProducerRequest {
                queue_label: label(input, &mut judge.wrong)?,
                producer_id: values::producer_id(input)?.into(),
            };
            judge.wrong.producer_id(&request.producer_id);
            unary::<wire::OpenProducerResponse>("OpenProducer", &request, judge)
        }
        4 => {
            let request = wire::CreateChannelRequest {
                queue_label: label(input, &mut judge.wrong)?,
                topic: topic(input, &mut judge.wrong)?,
            };
            unary::<wire::CreateChannelResponse>("CreateChannel", &request, judge)
        }
        5 => {
            let request = wire::DeleteChannelRequest { channel_id: values::channel_id(cluster, input)? };
            judge.wrong.channel(&request.channel_id);
            unary::<wire::DeleteChannelOkResponse>("DeleteChannel", &request, judge)
        }
        6 => {
            let request = wire::CreateQueueRequest { queue_label: label(input, &mut judge.wrong)? };
            unary::<wire::CreateQueueOkResponse>("CreateQueue", &request, judge)
        }
        7 => {
            let request = wire::DeleteQueueRequest { queue_label: label(input, &mut judge.wrong)? };
            unary::<wire::DeleteQueueOkResponse>("DeleteQueue", &request, judge)
        }
        8 => {
            let request = wire::RebuildQueueRequest { queue_label: label(input, &mut judge.wrong)? };
            unary::<wire::RebuildQueueOkResponse>("RebuildQueue", &request, judge)
        }
        9 => {
            let request = wire::DescribeQueueRequest { queue_label: label(input, &mut judge.wrong)? };
            unary::<wire::DescribeQueueResponse>("DescribeQueue", &request, judge)
        }
        10 => unary::<wire::HeartbeatOkResponse>("GetHeartbeat", &wire::HeartbeatRequest {}, judge),
        _ => unary::<wire::RefreshResponse>("Refresh", &wire::RefreshRequest {}, judge),
    })
}

fn label(input: &mut Unstructured<'_>, wrong: &mut Wrong) -> Result<String> {
    let label = text(input)?;
    wrong.label(&label);
    Ok(label)
}

fn topic(input: &mut Unstructured<'_>, wrong: &mut Wrong) -> Result<String> {
    let topic = text(input)?;
    wrong.topic(&topic);
    Ok(topic)
}

fn push(input: &mut Unstructured<'_>) -> Result<Call> {
    let Judgement { mut wrong, mut doubtful, .. } = Judgement::default();
    let request = wire::Push {
        content: values::content(input)?,
        topic: topic(input, &mut wrong)?,
        queue_label: label(input, &mut wrong)?,
        producer: values::producer(input)?,
        sequence: number(input)?,
        headers: values::headers(input)?,
        ttl_millis: number(input)?,
        queue_id: number(input)?,
    };
    wrong.counter("queue_id", request.queue_id);
    wrong.note("sequence", request.producer.is_some() != (request.sequence != 0));
    match &request.producer {
        None => {}
        Some(producer) => {
            stamp(producer, &mut wrong);
            // The lowest sequence must fit the sequence of the push.
            doubtful.note("lowest_unacknowledged", true);
            // The next sequence has to be valid as well.
            wrong.counter("sequence", request.sequence.saturating_add(1));
        }
    }
    let encoded = request.encoded_len();
    message_limits(&request.headers, request.ttl_millis, encoded, &mut doubtful);
    Ok(unary::<wire::PushOkResponse>("PushToQueue", &request, Judgement { wrong, doubtful, garbled: false }))
}

fn stamp(producer: &wire::ProducerStamp, wrong: &mut Wrong) {
    wrong.producer_id(&producer.id);
    wrong.counter("lowest_unacknowledged", producer.lowest_unacknowledged);
}

/// Limits of a message, which are doubtful since a duplicate is acknowledged in any case.
fn message_limits(headers: &[wire::Header], ttl_millis: u64, encoded: usize, doubtful: &mut Wrong) {
    let bad_name = |header: &wire::Header| header.name.is_empty() || header.name.len() > MAX_HEADER_NAME_BYTES;
    doubtful.note("headers", headers.len() > MAX_HEADERS || headers.iter().any(bad_name));
    doubtful.note("ttl_millis", u128::from(ttl_millis) > MAX_TTL.as_millis());
    // A slightly shorter message may also be too large, with the bytes that the broker adds.
    doubtful.note("content", encoded + 128 > MAX_MESSAGE_BYTES);
}

fn subscribe(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<Call> {
    let mut judgement = Judgement::default();
    let channel_id = values::channel_id(cluster, input)?;
    judgement.wrong.channel(&channel_id);
    let position = if input.arbitrary::<u8>()? % 2 == 0 {
        None
    } else {
        let position = wire::Position { queue_id: number(input)?, epoch: number(input)?, offset: number(input)? };
        judgement.wrong.note("position", position.queue_id == 0);
        judgement.wrong.counter("queue_id", position.queue_id);
        judgement.wrong.counter("epoch", position.epoch);
        judgement.wrong.counter("offset", position.offset);
        Some(position)
    };
    let request = wire::SubscriptionRequest { channel_id, position };
    Ok(unary::<wire::Message>("SubscribeToChannel", &request, judgement))
}

/// Faults are found only if no earlier fault ended the stream.
fn push_stream(input: &mut Unstructured<'_>) -> Result<Call> {
    let (mut body, mut doubtful) = (BytesMut::new(), Wrong::default());
    for _ in 0..input.arbitrary::<u8>()? % (MAX_RUNS + 1) {
        let part = match input.arbitrary::<u8>()? % 8 {
            0..=2 => Some(PushStreamPart::Open(open(input, &mut doubtful)?)),
            3..=6 => Some(PushStreamPart::Messages(run(input, &mut doubtful)?)),
            _ => None,
        };
        frame(&mut body, &wire::PushStreamRequest { request: part });
    }
    // The requests must be in the correct order.
    for field in ["open", "request", "first_sequence", "sequence", "lowest_unacknowledged"] {
        doubtful.note(field, true);
    }
    let judgement = Judgement { doubtful, ..Judgement::default() };
    Ok(Call { method: "PushStream", body, judgement, decodes: decodes::<wire::PushAck> })
}

fn open(input: &mut Unstructured<'_>, doubtful: &mut Wrong) -> Result<wire::PushStreamOpen> {
    let open = wire::PushStreamOpen {
        queue_label: label(input, doubtful)?,
        producer: values::producer(input)?,
        queue_id: number(input)?,
    };
    doubtful.counter("queue_id", open.queue_id);
    if let Some(producer) = &open.producer {
        stamp(producer, doubtful);
    }
    Ok(open)
}

fn run(input: &mut Unstructured<'_>, doubtful: &mut Wrong) -> Result<wire::PushStreamMessages> {
    let (first_sequence, lowest_unacknowledged) = (number(input)?, number(input)?);
    let count = match input.arbitrary::<u8>()? {
        u8::MAX => MAX_BATCH_MESSAGES + 1,
        count => usize::from(count % 4),
    };
    let message = wire::PushMessage {
        content: values::content(input)?,
        topic: topic(input, doubtful)?,
        headers: values::headers(input)?,
        ttl_millis: number(input)?,
    };
    // Empty messages suffice to exceed the limit on their number.
    let message = if count > MAX_BATCH_MESSAGES { wire::PushMessage::default() } else { message };
    message_limits(&message.headers, message.ttl_millis, message.encoded_len(), doubtful);
    doubtful.note("messages", count == 0);
    doubtful.counter("lowest_unacknowledged", lowest_unacknowledged);
    Ok(wire::PushStreamMessages { first_sequence, messages: vec![message; count], lowest_unacknowledged })
}
