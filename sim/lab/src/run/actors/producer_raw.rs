//! Producers on the raw wire.

use rmom_proto::messages::{Header, ProducerStamp, Push, PushOkResponse, message_stream_client::MessageStreamClient};
use rmom_sim::{history::Event, manager_host};
use tokio::time::{Duration, Instant, sleep, sleep_until, timeout};
use tonic::transport::Channel;
use uuid::Uuid;

use super::{Actor, RETRY, headers, producer_library::body, spelled, topic, with_headers};
use crate::{
    run::{
        run_state::Outgoing,
        settings::{LOOKUP_TIMEOUT, delivery_timeout},
        wire::{self, RawError, Rest},
    },
    scenario::ProducerPlan,
};

/// How long a raw push waits for its answer.
const ANSWER: Duration = Duration::from_secs(3);

/// A connection to the broker that hosts a queue.
pub(super) struct Line {
    rest: Rest,
    label: String,
    broker: Option<MessageStreamClient<Channel>>,
}

impl Line {
    pub(super) fn new(actor: &Actor, label: &str) -> Self {
        let managers = usize::from(actor.run.scenario.topology.managers);
        // A manager that is lost for good would cost its deadline each time.
        let first = (1..=managers).find(|&n| actor.run.with(|state| !state.lost.contains(&manager_host(n))));
        let rest = Rest::new(managers, LOOKUP_TIMEOUT).first(first.unwrap_or(1));
        Self { rest, label: label.to_owned(), broker: None }
    }

    /// Finds the broker: the one found before, or the one that the managers name.
    pub(super) async fn find(&mut self) -> Result<(), RawError> {
        if self.broker.is_none() {
            let path = format!("/queues/{}", self.label);
            let place = self.rest.locate(&path).await.map_err(|error| RawError { unknown: false, ..error })?;
            self.broker = Some(wire::broker(&place));
        }
        Ok(())
    }

    /// One attempt, after [`Line::find`].
    pub(super) async fn push(&mut self, push: Push) -> Result<PushOkResponse, RawError> {
        let broker = self.broker.as_mut().expect("it was found");
        match timeout(ANSWER, broker.push_to_queue(push)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let error = RawError::from(status);
                self.broker = error.hosted_at.as_deref().map(wire::broker);
                Err(error)
            }
            Err(_) => {
                self.broker = None;
                Err(RawError::late())
            }
        }
    }
}

/// Pushes with a producer and sequences, each message until it is acknowledged.
pub(super) async fn stamped(actor: Actor, number: u8, plan: ProducerPlan) {
    actor.wait_for_the_workload().await;
    let label = actor.run.label(plan.queue);
    let mut line = Line::new(&actor, &label);
    while actor.may_push() && left(&actor, number, &plan) {
        // After a crash, or after its queue was replaced, it is a new producer.
        let life = actor.run.with(|state| {
            let progress = state.producers.entry(number).or_default();
            progress.life += 1;
            progress.life
        });
        let name = format!("p{number}.{life}");
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}:{name}", actor.run.scenario.seed).as_bytes());
        let mut queue_id = None;
        let mut sequence = 0;
        'life: while actor.may_push() && left(&actor, number, &plan) {
            let next = Instant::now() + Duration::from_millis(plan.pace_millis.max(1));
            actor.run.with(|state| state.producers.entry(number).or_default().pushed += 1);
            sequence += 1;
            let stamp = ProducerStamp { id: id.as_bytes().to_vec().into(), epoch: 0, lowest_unacknowledged: sequence };
            let give_up_at = Instant::now() + delivery_timeout(&actor.run.scenario);
            loop {
                let message = Message::new(&name, sequence, &plan, Some(stamp.clone()), queue_id);
                match attempt(&actor, &mut line, &label, message).await {
                    Ok(answer) => {
                        queue_id = Some(answer.queue_id);
                        break;
                    }
                    Err(error) if matches!(error.code.as_str(), "QUEUE_REPLACED" | "QUEUE_NOT_FOUND") => {
                        sleep(RETRY).await;
                        break 'life;
                    }
                    // A message is pushed until it is acknowledged, unless the run ends.
                    Err(_) if actor.run.phase().is_some_and(|phase| phase == rmom_sim::history::Phase::Audit) => return,
                    // By now the broker may have forgotten that it stored the message.
                    Err(_) if Instant::now() >= give_up_at => break 'life,
                    Err(_) => sleep(RETRY).await,
                }
            }
            sleep_until(next).await;
        }
    }
    actor.run.with(|state| state.finished.insert(number));
}

/// Pushes as the original's clients do.
pub(super) async fn plain(actor: Actor, number: u8, plan: ProducerPlan) {
    actor.wait_for_the_workload().await;
    let label = actor.run.label(plan.queue);
    let mut line = Line::new(&actor, &label);
    while actor.may_push() && left(&actor, number, &plan) {
        let next = Instant::now() + Duration::from_millis(plan.pace_millis.max(1));
        let sequence = actor.run.with(|state| {
            let progress = state.producers.entry(number).or_default();
            progress.pushed += 1;
            u64::from(progress.pushed)
        });
        let name = format!("p{number}");
        while actor.may_push() {
            let message = Message::new(&name, sequence, &plan, None, None);
            match attempt(&actor, &mut line, &label, message).await {
                Err(error) if !error.unknown => sleep(RETRY).await,
                Ok(_) | Err(_) => break,
            }
        }
        sleep_until(next).await;
    }
    actor.run.with(|state| state.finished.insert(number));
}

pub(super) fn left(actor: &Actor, number: u8, plan: &ProducerPlan) -> bool {
    actor.run.with(|state| state.producers.entry(number).or_default().pushed < plan.pushes)
}

/// A raw push and its entry in the history.
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) body: String,
    pub(super) producer: Option<(String, ProducerStamp)>,
    pub(super) sequence: u64,
    pub(super) ttl_millis: Option<u64>,
    pub(super) queue_id: Option<u64>,
}

impl Message {
    pub(super) fn new(
        name: &str,
        sequence: u64,
        plan: &ProducerPlan,
        stamp: Option<ProducerStamp>,
        queue_id: Option<u64>,
    ) -> Self {
        Self {
            topic: topic(if plan.topics == 0 { 0 } else { sequence % u64::from(plan.topics) + 1 }),
            body: body(name, sequence, plan.body_bytes),
            producer: stamp.map(|stamp| (name.to_owned(), stamp)),
            sequence,
            ttl_millis: plan.ttl_millis,
            queue_id,
        }
    }
}

fn headers_of(number: u64) -> Vec<Header> {
    let headers = headers(number).into_iter();
    headers.map(|(name, value)| Header { name: name.to_owned(), value: value.into() }).collect()
}

/// Finds the broker, pushes once, and records the push and its outcome.
pub(super) async fn attempt(
    actor: &Actor,
    line: &mut Line,
    label: &str,
    message: Message,
) -> Result<PushOkResponse, RawError> {
    line.find().await?;
    let Message { topic, body, producer, sequence, ttl_millis, queue_id } = message;
    let (name, stamp) = producer.unzip();
    let request = Push {
        content: body.clone().into(),
        headers: headers_of(sequence),
        topic: spelled(&topic, sequence / 3),
        queue_label: spelled(label, sequence),
        sequence: if stamp.is_some() { sequence } else { 0 },
        producer: stamp,
        ttl_millis: ttl_millis.unwrap_or(0),
        queue_id: queue_id.unwrap_or(0),
    };
    let outgoing = Outgoing {
        label: label.to_owned(),
        topic,
        body: with_headers(&body, sequence),
        producer: name,
        sequence,
        ttl_millis,
        queue_id,
        tries_millis: None,
        expected: None,
    };
    let push = actor.run.push_sent(&actor.host, outgoing);
    let answer = line.push(request).await;
    let outcome = match &answer {
        Ok(answer) => Event::PushAcked {
            push,
            queue_id: (answer.queue_id > 0).then_some(answer.queue_id),
            id: answer.id.parse().ok(),
            offset: (answer.offset > 0).then_some(answer.offset),
            duplicate: answer.duplicate,
        },
        Err(error) => Event::PushFailed { push, code: error.code.clone(), unknown: error.unknown },
    };
    actor.run.push_ended(&actor.host, push, outcome);
    answer
}
