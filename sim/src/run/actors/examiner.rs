//! Asks everybody how they are, and sends what has to be refused.

use http::Method;
use rmom_proto::messages::{HeartbeatRequest, Push, SubscriptionRequest};
use tokio::time::timeout;

use super::Me;
use crate::{
    broker_host,
    history::Event,
    hosts::BROKER_PORT,
    manager_host,
    run::{
        settings::{LOOKUP_TIMEOUT, MAX_MESSAGE_BYTES},
        wire::{self, RawError, Rest},
    },
};

/// The longest label and topic, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// True if all brokers and managers say that they are well.
pub(super) async fn all_are_well(me: &Me) -> bool {
    let topology = &me.stage.scenario.topology;
    let mut all = true;
    for number in 1..=usize::from(topology.brokers.max(1)) {
        let host = broker_host(number);
        let heartbeat = wire::broker(&format!("{host}:{BROKER_PORT}"));
        let healthy = timeout(LOOKUP_TIMEOUT, { heartbeat }.get_heartbeat(HeartbeatRequest {})).await;
        all &= tell(me, host, healthy.is_ok_and(|answer| answer.is_ok()));
    }
    let rest = Rest::new(usize::from(topology.managers), LOOKUP_TIMEOUT);
    for number in 1..=usize::from(topology.managers.max(1)) {
        let answer = rest.ask(number, &Method::GET, "/queues", None).await;
        all &= tell(me, manager_host(number), answer.is_ok_and(|(status, _)| status == 200));
    }
    all
}

/// That somebody is not well is no lie as long as it has time to become so; that is for convergence to judge.
fn tell(me: &Me, of: String, healthy: bool) -> bool {
    let expected = healthy.then_some(true);
    me.record(Event::Health { of, healthy, expected });
    healthy
}

/// Sends bad input of many kinds, to managers and to the broker of `label`. An answer that is lost says nothing.
pub(super) async fn send_bad_input(me: &Me, label: &str) {
    let managers = usize::from(me.stage.scenario.topology.managers);
    let mut rest = Rest::new(managers, LOOKUP_TIMEOUT);
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    let limit = MAX_NAME_BYTES.to_string();

    let answer = rest.ok(Method::POST, &format!("/queues/{long}"), None).await;
    told(me, "a label that is too long", "INVALID_NAME", &["label", &limit], answer.map(drop));
    let answer = rest.ok(Method::POST, "/queues/%20blank", None).await;
    told(me, "a label that begins with a blank", "INVALID_NAME", &["label"], answer.map(drop));
    let answer = rest.ok(Method::GET, "/queues/no-such-queue", None).await;
    told(me, "the label of no queue", "QUEUE_NOT_FOUND", &["no-such-queue"], answer.map(drop));
    let answer = rest.ok(Method::PUT, &format!("/queues/{label}/channels/{long}"), None).await;
    told(me, "a topic that is too long", "INVALID_NAME", &["topic", &limit], answer.map(drop));

    let Ok(authority) = rest.locate(&format!("/queues/{label}")).await else { return };
    let mut broker = wire::broker(&authority);
    let push = |content: Vec<u8>, topic: &str| Push {
        content: content.into(),
        topic: topic.to_owned(),
        queue_label: label.to_owned(),
        ..Push::default()
    };
    let sent = "bad-topic, a message with a topic that is too long";
    let answer = timeout(LOOKUP_TIMEOUT, broker.push_to_queue(push(b"bad-topic,".to_vec(), &long))).await;
    told(me, sent, "INVALID_NAME", &["topic", &limit], flat(answer));
    let sent = "a message that is too large";
    let content = vec![b'x'; MAX_MESSAGE_BYTES + 1];
    let answer = timeout(LOOKUP_TIMEOUT, broker.push_to_queue(push(content, ""))).await;
    told(me, sent, "MESSAGE_TOO_LARGE", &[&MAX_MESSAGE_BYTES.to_string()], flat(answer));
    let request = SubscriptionRequest { channel_id: "no uuid".to_owned(), position: None };
    let answer = timeout(LOOKUP_TIMEOUT, broker.subscribe_to_channel(request)).await;
    told(me, "a channel id that is none", "INVALID_ARGUMENT", &["channel_id"], flat(answer));
}

type Late = tokio::time::error::Elapsed;

fn flat<T>(answer: Result<Result<T, tonic::Status>, Late>) -> Result<(), RawError> {
    answer.map_err(|_| RawError::late())?.map(drop).map_err(RawError::from)
}

fn told(me: &Me, what: &str, expected: &str, names: &[&str], answer: Result<(), RawError>) {
    let (got, message) = match answer {
        Ok(()) => ("ok".to_owned(), String::new()),
        // Nobody has answered.
        Err(error) if !error.told => return,
        Err(error) => (error.code, error.message),
    };
    let (what, expected) = (what.to_owned(), expected.to_owned());
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    me.record(Event::BadInput { what, expected, got, message, names });
}
