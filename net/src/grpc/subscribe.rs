//! `SubscribeToChannel`, beside tonic. The broker's chunks are already framed gRPC messages, shared by all subscribers, and
//! go to the socket unchanged. Any gRPC client can read them.

use std::convert::Infallible;

use axum::{body::Body, extract::State, response::Response};
use bytes::{Buf as _, Bytes};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, LengthLimitError, Limited, StreamBody};
use prost::Message as _;
use rmom_core::{
    broker::{Broker, BrokerError, Subscription},
    model::Code,
};
use rmom_proto::{
    contract::{self, FRAME_PREFIX_BYTES},
    messages::SubscriptionRequest,
};
use tokio::time::timeout;
use tonic::Status;

use super::{
    deadline::MAX_UNARY_DEADLINE,
    filled::{filled, joined},
    parse,
    status::{status, to_status},
};
use crate::access::rpc_of;

/// Response header with the id of the channel's queue, for positions.
pub const QUEUE_ID_HEADER: HeaderName = HeaderName::from_static(contract::QUEUE_ID_HEADER);
/// Response header with the epoch under which the subscription is served, for positions.
pub const EPOCH_HEADER: HeaderName = HeaderName::from_static(contract::EPOCH_HEADER);
/// Largest request, framing included; a channel id and a position take about a hundred bytes.
pub const MAX_SUBSCRIBE_REQUEST_BYTES: usize = 4_096;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// Serves one subscription.
pub(super) async fn handle(State(broker): State<Broker>, request: Request<Body>) -> Response {
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if !content_type.starts_with(b"application/grpc") {
        let mut response = Response::new(Body::from("this is a gRPC method; its content-type is application/grpc\n"));
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let call = rpc_of(&request);
    let open = async {
        let broker = broker.on_behalf_of(call.map_err(|denied| to_status(&denied))?);
        let request = read_request(request.into_body()).await?;
        let request = parse::subscribe(&request).map_err(|error| to_status(&error))?;
        broker.subscribe(request).await.map_err(|error| to_status(&error))
    };
    let opened = timeout(MAX_UNARY_DEADLINE, open).await.unwrap_or_else(|_| {
        Err(status(Code::DeadlineExceeded, format!("not subscribed within {MAX_UNARY_DEADLINE:?}"), Vec::new()))
    });
    match opened {
        Ok(subscription) => stream_of(subscription),
        Err(status) => status.into_http(),
    }
}

/// Reads the one message of a request.
async fn read_request(body: Body) -> Result<SubscriptionRequest, Status> {
    let body = Limited::new(body, MAX_SUBSCRIBE_REQUEST_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            malformed(format!("the request is longer than {MAX_SUBSCRIBE_REQUEST_BYTES} bytes"))
        } else {
            Status::cancelled(format!("the request broke off: {error}"))
        }
    })?;
    decode_request(body.to_bytes())
}

fn malformed(message: String) -> Status {
    status(Code::InvalidArgument, message, Vec::new())
}

fn decode_request(mut body: Bytes) -> Result<SubscriptionRequest, Status> {
    if body.len() < FRAME_PREFIX_BYTES {
        return Err(malformed(format!("the request has {} bytes, less than a gRPC message", body.len())));
    }
    let compressed = body.get_u8();
    let length = body.get_u32() as usize;
    match compressed {
        0 => {}
        1 => return Err(Status::unimplemented("compressed requests are not supported")),
        flag => return Err(malformed(format!("the request's compression flag is {flag}; it takes 0 or 1"))),
    }
    if length != body.len() {
        return Err(malformed(format!("the request announces one message of {length} bytes, and has {}", body.len())));
    }
    SubscriptionRequest::decode(body).map_err(|error| malformed(format!("the request cannot be decoded: {error}")))
}

/// Sends chunks as the connection has room for them, then the status.
fn stream_of(subscription: Subscription) -> Response {
    let queue = HeaderValue::from(subscription.queue().get());
    let epoch = HeaderValue::from(subscription.epoch().get());
    let frames = stream::unfold(Some(subscription), |subscription| async move {
        let mut subscription = subscription?;
        Some(match subscription.next().await {
            Ok(chunk) => {
                // An error is returned again with the next chunk.
                let chunk = filled(joined(chunk, |largest| subscription.at_hand(largest).ok().flatten()));
                (Ok::<_, Infallible>(Frame::data(chunk)), Some(subscription))
            }
            Err(error) => (Ok(Frame::trailers(trailers(&error))), None),
        })
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(QUEUE_ID_HEADER, queue);
    headers.insert(EPOCH_HEADER, epoch);
    response
}

fn trailers(error: &BrokerError) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    if to_status(error).add_header(&mut trailers).is_err() {
        // Message and details are encoded before they become headers, so this happens only through a defect of tonic.
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(tonic::Code::Internal as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::stable_code;

    fn framed(flag: u8, length: u32, message: &[u8]) -> Bytes {
        [&[flag], &length.to_be_bytes()[..], message].concat().into()
    }

    #[test]
    fn one_framed_message_is_read() {
        let request = SubscriptionRequest { channel_id: "c".into(), position: None };
        let message = request.encode_to_vec();
        assert_eq!(decode_request(framed(0, 3, &message)).unwrap(), request);
    }

    #[test]
    fn anything_else_is_refused_and_said_why() {
        let message = SubscriptionRequest { channel_id: "c".into(), position: None }.encode_to_vec();
        let refused = |body: Bytes| {
            let status = decode_request(body).unwrap_err();
            assert_eq!(stable_code(&status), Some(Code::InvalidArgument));
            status.message().to_owned()
        };
        assert_eq!(refused(Bytes::new()), "the request has 0 bytes, less than a gRPC message");
        assert_eq!(refused(framed(0, 4, &message)), "the request announces one message of 4 bytes, and has 3");
        assert_eq!(refused(framed(0, 2, &message)), "the request announces one message of 2 bytes, and has 3");
        assert_eq!(refused(framed(9, 3, &message)), "the request's compression flag is 9; it takes 0 or 1");
        assert!(refused(framed(0, 2, &[0xFF, 0xFF])).starts_with("the request cannot be decoded"));
        let compressed = decode_request(framed(1, 3, &message)).unwrap_err();
        assert_eq!(compressed.code(), tonic::Code::Unimplemented);
    }

    #[tokio::test]
    async fn a_long_request_is_cut_off() {
        let status = read_request(Body::from(vec![0; MAX_SUBSCRIBE_REQUEST_BYTES + 1])).await.unwrap_err();
        assert_eq!(status.message(), "the request is longer than 4096 bytes");
    }
}
