//! An application that uses our library and keeps its position.

use rmom_client::{Client, Error, Position, Start};
use rmom_sim::history::{Event, Phase, Pos, body_text};
use tokio::time::{Duration, sleep, timeout};
use uuid::Uuid;

use super::{Actor, LOOK, MARKER, RETRY, spelled, topic};
use crate::scenario::ConsumerPlan;

/// Takes messages until the end.
pub(super) async fn run(actor: Actor, client: Client, number: u8, plan: ConsumerPlan) {
    while !actor.run.with(|state| state.ready) {
        sleep(LOOK).await;
    }
    loop {
        while actor.run.with(|state| state.left.get(&number).is_some_and(|steps| *steps > 0)) {
            sleep(LOOK).await;
        }
        let (channel, _, _) = channel(&actor, &client, number, &plan).await;
        let (position, object) = actor.run.with(|state| {
            let place = state.consumers.entry(number).or_default();
            place.objects += 1;
            (place.position, place.objects)
        });
        let application = format!("c{number}");
        let name = format!("{application}.{object}");
        actor.run.with(|state| state.open_consumers.insert(name.clone(), (actor.host.clone(), position)));
        let (consumer, resumed) = (name.clone(), position);
        actor.record(Event::ConsumerStarted { consumer, application, channel, resumed });
        let builder = client.subscribe(channel);
        let builder = match position {
            Some(Pos { queue_id, epoch, offset }) => builder.resume_from(Position { queue_id, epoch, offset }),
            None => builder,
        };
        let error = take(&actor, number, &plan, &name, builder.build()).await;
        let code = error.map(|error| error.code().to_owned());
        actor.run.consumer_stopped(&actor.host, &name, code.clone());
        if let Some(code) = code {
            forget_if_gone(&actor, number, &code);
            sleep(RETRY).await;
        }
    }
}

/// Takes messages until the application has to leave or the consumer cannot go on.
async fn take(
    actor: &Actor,
    number: u8,
    plan: &ConsumerPlan,
    name: &str,
    mut consumer: rmom_client::Consumer,
) -> Option<Error> {
    loop {
        let (stalled, left) = actor.run.with(|state| {
            let any = |steps: Option<&usize>| steps.is_some_and(|steps| *steps > 0);
            (any(state.stalled.get(&number)), any(state.left.get(&number)))
        });
        if left {
            return None;
        }
        if stalled {
            sleep(LOOK).await;
            continue;
        }
        let message = match timeout(LOOK, consumer.next()).await {
            Err(_) => continue,
            Ok(Err(error)) => return Some(error),
            Ok(Ok(message)) => message,
        };
        let position = consumer.position().map(|at| Pos { queue_id: at.queue_id, epoch: at.epoch, offset: at.offset });
        let body =
            body_text(&message.content, message.headers.iter().map(|header| (header.name.as_str(), &header.value[..])));
        // The application saves the position in the step in which it takes the message.
        actor.run.with(|state| {
            state.consumers.entry(number).or_default().position = position;
            if let Some((_, kept)) = state.open_consumers.get_mut(name) {
                *kept = position;
            }
        });
        note_marker(actor, number, &body);
        actor.record(Event::Delivered {
            consumer: name.to_owned(),
            id: message.id,
            offset: message.offset,
            topic: message.topic.unwrap_or_default(),
            body,
            position,
        });
        work(actor, plan).await;
    }
}

/// Spends the time that a message costs the application.
pub(super) async fn work(actor: &Actor, plan: &ConsumerPlan) {
    if plan.work_millis > 0 && !matches!(actor.run.phase(), Some(Phase::Drain | Phase::Audit)) {
        sleep(Duration::from_millis(plan.work_millis)).await;
    }
}

/// Notes that the last message of a queue has arrived.
pub(super) fn note_marker(actor: &Actor, number: u8, body: &str) {
    if body.starts_with(MARKER) {
        actor.run.with(|state| state.done.insert(number));
    }
}

/// If the consumer's channel no longer exists, alone or with its queue, the consumer will create another one.
pub(super) fn forget_if_gone(actor: &Actor, number: u8, code: &str) {
    if matches!(code, "CHANNEL_NOT_FOUND" | "QUEUE_NOT_FOUND" | "QUEUE_REPLACED") {
        actor.run.with(|state| {
            let place = state.consumers.entry(number).or_default();
            if let Some((channel, _, _)) = place.channel.take() {
                state.channels.remove(&channel);
            }
            place.position = None;
        });
    }
}

/// The consumer's channel, its queue's id and its start. Creates the channel if the consumer has none.
pub(super) async fn channel(actor: &Actor, client: &Client, number: u8, plan: &ConsumerPlan) -> (Uuid, u64, u64) {
    loop {
        if let Some(channel) = actor.run.with(|state| state.consumers.entry(number).or_default().channel) {
            return channel;
        }
        let start = if plan.latest { Start::Latest } else { Start::Earliest };
        if let Some(created) =
            create_channel(actor, client, &actor.run.label(plan.queue), plan.topic.unwrap_or(0), start).await
        {
            actor.run.with(|state| state.consumers.entry(number).or_default().channel = Some(created));
        } else {
            sleep(RETRY).await;
        }
    }
}

/// Creates a channel and returns its id, its queue's id and its start.
pub(super) async fn create_channel(
    actor: &Actor,
    client: &Client,
    label: &str,
    topic_number: u8,
    start: Start,
) -> Option<(Uuid, u64, u64)> {
    let topic = topic(u64::from(topic_number));
    let latest = matches!(start, Start::Latest);
    let creating = |op| Event::ChannelCreating { op, label: label.to_owned(), topic: topic.clone(), latest };
    let op = actor.run.call(&actor.host, creating);
    let wanted = Some(spelled(&topic, op)).filter(|topic| !topic.is_empty());
    match client.admin().create_channel(&spelled(label, op), wanted.as_deref(), start).await {
        Ok(created) => {
            let (channel, queue_id, start) = (created.id, created.queue_id, created.start.saturating_sub(1));
            let label = label.to_owned();
            actor.run.answered(&actor.host, op, Event::ChannelCreated { op, channel, queue_id, label, topic, start });
            actor.run.with(|state| state.channels.insert(channel, queue_id));
            Some((channel, queue_id, start))
        }
        Err(error) => {
            let (code, unknown) = (error.code().to_owned(), error.outcome_unknown());
            actor.run.answered(&actor.host, op, Event::AdminFailed { op, code, unknown });
            None
        }
    }
}
