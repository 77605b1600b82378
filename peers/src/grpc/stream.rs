//! A stream of requests with some messages each.

use std::collections::VecDeque;

use rmom_proto::messages::{
    PushMessage, PushStreamMessages, PushStreamOpen, PushStreamRequest, push_stream_request::Request,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{QUEUE, connect, stream_endpoint, ttl_millis};
use crate::load::{Clock, Error, Figures, Load, content, runtime};

/// Messages of a request, if so many may be in flight.
const MESSAGES_OF_A_REQUEST: u64 = 100;

/// One producer; it encodes with prost.
pub(crate) fn run(at: &str, load: &Load) -> Result<Figures, Error> {
    runtime()?.block_on(async {
        let some = load.in_flight.min(MESSAGES_OF_A_REQUEST);
        let most = load.in_flight / some;
        let (requests, receiver) = mpsc::channel(most as usize + 1);
        let send = |request| {
            let request = PushStreamRequest { request: Some(request) };
            requests.try_send(request).map_err(|_| Error::Protocol("the stream ended".to_owned()))
        };
        send(Request::Open(PushStreamOpen { queue_label: QUEUE.to_owned(), ..PushStreamOpen::default() }))?;
        let mut client = connect(&stream_endpoint(at)?).await?;
        let mut acks = client.push_stream(ReceiverStream::new(receiver)).await?.into_inner();
        let mut through = 0;
        let (clock, mut figures) = (Clock::start(*load), Figures::new(load));
        // When each request was sent, oldest first.
        let mut sent = VecDeque::new();
        let mut next = 1;
        loop {
            while (sent.len() as u64) < most && !clock.is_over() {
                let now = clock.now();
                send(Request::Messages(messages(next, some, now, load.size)))?;
                sent.push_back(now);
                next += some;
            }
            if through + 1 == next && clock.is_over() {
                return Ok(figures);
            }
            let Some(ack) = acks.message().await? else {
                return Err(Error::Protocol("the stream ended".to_owned()));
            };
            let now = clock.now();
            while through < ack.through_sequence {
                let Some(at) = sent.pop_front() else {
                    return Err(Error::Protocol("an acknowledgement too many".to_owned()));
                };
                through += some;
                if clock.is_measured(now) {
                    figures.stored += some;
                    figures.acknowledged_after.saturating_record_n(now - at, some);
                }
            }
        }
    })
}

fn messages(first_sequence: u64, number: u64, due: u64, size: usize) -> PushStreamMessages {
    let message = |number| PushMessage {
        content: content(number, due, size).into(),
        ttl_millis: ttl_millis(),
        ..PushMessage::default()
    };
    let messages = (first_sequence..first_sequence + number).map(message).collect();
    PushStreamMessages { first_sequence, messages, lowest_unacknowledged: first_sequence }
}
