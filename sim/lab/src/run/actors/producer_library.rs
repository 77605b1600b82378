//! A producer that uses our library.

use rmom_client::{Client, Delivery, NewMessage, Producer};
use rmom_sim::history::Event;
use tokio::time::{Duration, sleep, timeout};

use super::{Actor, LOOK, RETRY, headers, spelled, topic, with_headers};
use crate::{
    run::{
        run_state::Outgoing,
        settings::{MAX_MESSAGE_BYTES, delivery_timeout},
    },
    scenario::ProducerPlan,
};

/// How long opening a named producer may take before the next attempt.
const OPEN: Duration = Duration::from_secs(20);

/// Pushes the messages of the plan, with one producer after the other if necessary.
pub(super) async fn run(actor: Actor, client: Client, number: u8, plan: ProducerPlan, named: bool) {
    actor.wait_for_the_workload().await;
    let label = actor.run.label(plan.queue);
    // After a crash, an unnamed producer is a new one; a named one continues.
    if !named {
        begin_anew(&actor, number);
    }
    let mut old: Option<(String, Producer)> = None;
    while actor.may_push() && !is_finished(&actor, number, &plan) {
        let progress = actor.run.with(|state| {
            let progress = state.producers.entry(number).or_default();
            progress.opened += 1;
            *progress
        });
        let name = format!("p{number}.{}", progress.life);
        // Messages pushed after a reopening are new messages, whatever sequences they get.
        let prefix = format!("{name}.{}", progress.opened);
        let builder = client.producer(spelled(&label, progress.opened));
        let builder = if named { builder.named(&name) } else { builder };
        if named {
            actor.run.with(|state| state.opening.insert(number));
            actor.record(Event::ProducerOpening { producer: name.clone(), label: label.clone() });
        }
        let opened = timeout(OPEN, builder.open()).await;
        if opened.is_ok() {
            actor.run.with(|state| state.opening.remove(&number));
        }
        let producer = match opened {
            Ok(Ok(producer)) => producer,
            failed => {
                if named && failed.is_ok_and(|opened| opened.is_err_and(|error| is_gone(error.code()))) {
                    begin_anew(&actor, number);
                }
                sleep(RETRY).await;
                continue;
            }
        };
        if let Some((name, old)) = old.take() {
            push_late(&actor, &plan, &label, &name, &old).await;
        }
        // The producer is reopened half-way.
        let until = if named && progress.opened == 1 { plan.pushes.div_ceil(2) } else { plan.pushes };
        let gone = push(&actor, &plan, number, &label, [&name, &prefix], &producer, until).await;
        if gone {
            begin_anew(&actor, number);
            sleep(RETRY).await;
        } else if named && progress.opened == 1 {
            old = Some((name, producer));
        } else if named {
            // Failures have already been reported by the deliveries.
            let _ = producer.close().await;
        } else {
            wait_for_outcomes(&actor).await;
        }
    }
    // The workload can end before the producer is reopened.
    if old.is_some() {
        wait_for_outcomes(&actor).await;
    }
    if is_finished(&actor, number, &plan) {
        actor.run.with(|state| state.finished.insert(number));
    }
}

/// True if the producer's queue no longer exists.
fn is_gone(code: &str) -> bool {
    matches!(code, "QUEUE_NOT_FOUND" | "QUEUE_REPLACED")
}

/// Waits until every push of this host has an outcome.
async fn wait_for_outcomes(actor: &Actor) {
    while actor.run.with(|state| state.open_pushes.values().any(|host| *host == actor.host)) {
        sleep(LOOK).await;
    }
}

fn is_finished(actor: &Actor, number: u8, plan: &ProducerPlan) -> bool {
    actor.run.with(|state| state.producers.entry(number).or_default().pushed >= plan.pushes)
}

fn begin_anew(actor: &Actor, number: u8) {
    actor.run.with(|state| {
        let progress = state.producers.entry(number).or_default();
        progress.life += 1;
        progress.opened = 0;
    });
}

/// Pushes through one producer until `until` messages were pushed in all. True if it stopped and cannot go on. Every body
/// begins with `prefix`.
async fn push(
    actor: &Actor,
    plan: &ProducerPlan,
    number: u8,
    label: &str,
    [name, prefix]: [&str; 2],
    producer: &Producer,
    until: u32,
) -> bool {
    let mut sequence = producer.stored_before();
    while actor.may_push() {
        let more = actor.run.with(|state| {
            let progress = state.producers.entry(number).or_default();
            let more = progress.pushed < until;
            progress.pushed += u32::from(more);
            more
        });
        if !more {
            return false;
        }
        sequence += 1;
        let topic = topic(if plan.topics == 0 { 0 } else { sequence % u64::from(plan.topics) + 1 });
        let body = body(prefix, sequence, plan.body_bytes);
        let too_large = plan.too_large_every > 0 && sequence.is_multiple_of(u64::from(plan.too_large_every));
        let content = if too_large { body.clone() + &".".repeat(MAX_MESSAGE_BYTES) } else { body.clone() };
        let mut message = NewMessage::new(content).topic(spelled(&topic, sequence / 3));
        for (name, value) in headers(sequence) {
            message = message.header(name, value);
        }
        if let Some(millis) = plan.ttl_millis {
            message = message.ttl(Duration::from_millis(millis.max(1)));
        }
        let push = actor.run.push_sent(
            &actor.host,
            Outgoing {
                label: label.to_owned(),
                topic,
                body: with_headers(&body, sequence),
                producer: Some(name.to_owned()),
                sequence,
                ttl_millis: plan.ttl_millis,
                queue_id: None,
                tries_millis: tries(actor),
                expected: too_large.then(|| "MESSAGE_TOO_LARGE".to_owned()),
            },
        );
        match producer.send(message).await {
            Ok(delivery) => {
                let actor = actor.clone();
                tokio::task::spawn_local(async move { outcome(&actor, push, delivery).await });
            }
            Err(error) => {
                let (code, unknown) =
                    (error.code().to_owned(), error.outcome_unknown() && error.code() != "PRODUCER_POISONED");
                actor.run.push_ended(&actor.host, push, Event::PushFailed { push, code, unknown });
                return true;
            }
        }
        if sequence.is_multiple_of(u64::from(plan.burst.max(1))) {
            sleep(Duration::from_millis(plan.pace_millis.max(1) * u64::from(plan.burst.max(1)))).await;
        }
    }
    false
}

/// How long our library tries to deliver a message, in milliseconds.
fn tries(actor: &Actor) -> Option<u64> {
    u64::try_from(delivery_timeout(&actor.run.scenario).as_millis()).ok()
}

/// Pushes once more through a producer whose name was opened again. Messages passed to it earlier may still be in flight.
async fn push_late(actor: &Actor, plan: &ProducerPlan, label: &str, name: &str, old: &Producer) {
    let name = format!("{name}-late");
    let body = body(&name, 1, plan.body_bytes);
    let (topic, ttl_millis) = (String::new(), None);
    let outgoing = Outgoing {
        label: label.to_owned(),
        topic,
        body: body.clone(),
        producer: Some(name),
        sequence: 1,
        ttl_millis,
        queue_id: None,
        tries_millis: tries(actor),
        expected: None,
    };
    let push = actor.run.push_sent(&actor.host, outgoing);
    match old.send(NewMessage::new(body)).await {
        Ok(delivery) => outcome(actor, push, delivery).await,
        Err(error) => {
            let (code, unknown) = (error.code().to_owned(), error.outcome_unknown());
            actor.run.push_ended(&actor.host, push, Event::PushFailed { push, code, unknown });
        }
    }
}

async fn outcome(actor: &Actor, push: u64, delivery: Delivery) {
    let outcome = match delivery.await {
        Ok(receipt) => Event::PushAcked {
            push,
            queue_id: None,
            id: Some(receipt.id),
            offset: receipt.offset,
            duplicate: receipt.duplicate,
        },
        Err(error) => Event::PushFailed { push, code: error.code().to_owned(), unknown: error.outcome_unknown() },
    };
    actor.run.push_ended(&actor.host, push, outcome);
}

/// A unique body of the requested length.
pub(super) fn body(name: &str, sequence: u64, bytes: u32) -> String {
    let name = format!("{name}-{sequence:06}");
    let width = (bytes as usize).min(crate::run::settings::MAX_MESSAGE_BYTES / 2);
    format!("{name:.<width$}")
}
