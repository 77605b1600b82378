//! Observers on the raw wire.

use http::Method;
use rmom_client::{Client, Start};
use rmom_proto::messages::{Message, Position, SubscriptionRequest};
use rmom_sim::history::{Event, Pos, body_text};
use tokio::time::{sleep, timeout};
use tonic::Streaming;
use uuid::Uuid;

use super::{
    Actor, LOOK, RETRY,
    consumer_library::{channel, create_channel, forget_if_gone, note_marker, work},
    topic,
};
use crate::{
    run::{
        settings::{LOOKUP_TIMEOUT, OPEN_TIMEOUT},
        wire::{self, RawError, Rest},
    },
    scenario::ConsumerPlan,
};

/// Observes until the end. It resumes after its last known position or, like the original's consumers, reads a new channel
/// from the start each time.
pub(super) async fn run(actor: Actor, client: Client, number: u8, plan: ConsumerPlan, original: bool) {
    while !actor.run.with(|state| state.ready) {
        sleep(LOOK).await;
    }
    let mut observer = Observer::new(&actor, &format!("c{number}"));
    loop {
        if has_left(&actor, number) {
            sleep(LOOK).await;
            continue;
        }
        let place = if original && actor.run.scenario.topology.channel_idle_millis.is_some() {
            create_disposable_channel(&actor, &mut observer.rest, &plan).await
        } else if original {
            let label = actor.run.label(plan.queue);
            create_channel(&actor, &client, &label, plan.topic.unwrap_or(0), Start::Earliest).await
        } else {
            Some(channel(&actor, &client, number, &plan).await)
        };
        let Some((id, _, start)) = place else {
            sleep(RETRY).await;
            continue;
        };
        let after =
            if original { None } else { actor.run.with(|state| state.consumers.entry(number).or_default().position) };
        if let Ok(stream) = observer.open(&actor, id, after, start).await {
            let code = observe(&actor, number, &plan, stream).await;
            if !original {
                forget_if_gone(&actor, number, &code);
            }
        } else if !original && let Some(code) = observer.last_code.take() {
            forget_if_gone(&actor, number, &code);
        }
        if original {
            actor.run.with(|state| state.channels.remove(&id));
        }
        sleep(RETRY).await;
    }
}

/// Creates a channel as the original's clients do, by the original's route.
async fn create_disposable_channel(actor: &Actor, rest: &mut Rest, plan: &ConsumerPlan) -> Option<(Uuid, u64, u64)> {
    let (label, topic) = (actor.run.label(plan.queue), topic(u64::from(plan.topic.unwrap_or(0))));
    let creating = |op| Event::ChannelCreating { op, label: label.clone(), topic: topic.clone(), latest: false };
    let op = actor.run.call(&actor.host, creating);
    let of_no_topic = if topic.is_empty() { "__none__" } else { &topic };
    let created = async {
        let path = format!("/queues/{label}/channels/{of_no_topic}");
        let created = rest.ok(Method::PUT, &path, None).await?;
        let id = created["id"].as_str().and_then(|id| id.parse::<Uuid>().ok()).expect("the answer names the channel");
        // The original's route does not return the queue's id.
        let found = rest.ok(Method::GET, &format!("/v1/channels/{id}"), None).await;
        let found = found.map_err(|error| RawError { unknown: true, ..error })?;
        Ok::<_, RawError>((id, found["queue_id"].as_u64().expect("the answer names the queue")))
    };
    match created.await {
        Ok((channel, queue_id)) => {
            actor.run.answered(
                &actor.host,
                op,
                Event::ChannelCreated { op, channel, queue_id, label, topic, start: 0 },
            );
            actor.run.with(|state| state.channels.insert(channel, queue_id));
            Some((channel, queue_id, 0))
        }
        Err(RawError { code, unknown, .. }) => {
            actor.run.answered(&actor.host, op, Event::AdminFailed { op, code, unknown });
            None
        }
    }
}

fn has_left(actor: &Actor, number: u8) -> bool {
    actor.run.with(|state| state.left.get(&number).is_some_and(|steps| *steps > 0))
}

/// Takes incoming messages and returns the code with which the stream ended.
async fn observe(actor: &Actor, number: u8, plan: &ConsumerPlan, mut stream: Stream) -> String {
    loop {
        if has_left(actor, number) {
            return stream.end(actor, "LEFT".to_owned());
        }
        if actor.run.with(|state| state.stalled.get(&number).is_some_and(|steps| *steps > 0)) {
            sleep(LOOK).await;
            continue;
        }
        match timeout(LOOK, stream.next(actor)).await {
            Err(_) => {}
            Ok(Err(code)) => return code,
            Ok(Ok(body)) => {
                actor.run.with(|state| state.consumers.entry(number).or_default().position = stream.position);
                note_marker(actor, number, &body);
                work(actor, plan).await;
            }
        }
    }
}

/// Opens one raw stream after the other.
pub(super) struct Observer {
    name: String,
    rest: Rest,
    /// The address at which the last broker said that the queue is.
    hint: Option<String>,
    /// The code with which opening failed.
    pub(super) last_code: Option<String>,
}

/// An open raw stream.
pub(super) struct Stream {
    number: u64,
    messages: Streaming<Message>,
    /// The position of the last message received, or the start of the stream.
    pub(super) position: Option<Pos>,
}

impl Observer {
    pub(super) fn new(actor: &Actor, name: &str) -> Self {
        let rest = Rest::new(usize::from(actor.run.scenario.topology.managers), LOOKUP_TIMEOUT);
        Self { name: name.to_owned(), rest, hint: None, last_code: None }
    }

    /// Sends the next subscription to this broker, whatever the managers say.
    pub(super) fn ask_next(&mut self, authority: String) {
        self.hint = Some(authority);
    }

    /// Subscribes once. `start` is the channel's.
    pub(super) async fn open(
        &mut self,
        actor: &Actor,
        channel: Uuid,
        after: Option<Pos>,
        start: u64,
    ) -> Result<Stream, RawError> {
        let opened = self.try_open(actor, channel, after, start).await;
        self.last_code = opened.as_ref().err().map(|error| error.code.clone());
        self.hint = opened.as_ref().err().and_then(|error| error.hosted_at.clone());
        opened
    }

    async fn try_open(
        &mut self,
        actor: &Actor,
        channel: Uuid,
        after: Option<Pos>,
        start: u64,
    ) -> Result<Stream, RawError> {
        let authority = match self.hint.take() {
            Some(hint) => hint,
            None => self.rest.locate(&format!("/channels/{channel}")).await?,
        };
        let mut broker = wire::broker(&authority);
        let position = after.map(|Pos { queue_id, epoch, offset }| Position { queue_id, epoch, offset });
        let request = SubscriptionRequest { channel_id: channel.to_string(), position };
        let stream = actor.run.stream_opening(&actor.host);
        actor.record(Event::StreamAsked { stream, observer: self.name.clone(), channel, after });
        let host = authority.split(':').next().unwrap_or_default().to_owned();
        let opened = |position| Event::StreamOpened {
            stream,
            observer: self.name.clone(),
            channel,
            after,
            broker: host.clone(),
            position,
        };
        let error = match timeout(OPEN_TIMEOUT, broker.subscribe_to_channel(request)).await {
            Ok(Ok(response)) => {
                let number = |name| response.metadata().get(name)?.to_str().ok()?.parse().ok();
                let position = number("rmom-queue-id").zip(number("rmom-epoch")).map(|(queue_id, epoch)| Pos {
                    queue_id,
                    epoch,
                    offset: after.map_or(start, |after| after.offset),
                });
                actor.record(opened(position));
                return Ok(Stream { number: stream, messages: response.into_inner(), position: position.or(after) });
            }
            Ok(Err(status)) => RawError::from(status),
            Err(_) => RawError::late(),
        };
        if error.answered {
            actor.record(opened(None));
        }
        actor.run.stream_ended(&actor.host, stream, &error.code);
        Err(error)
    }
}

impl Stream {
    /// Returns the next message's body, or the code with which the stream ended. Can be dropped and called again.
    pub(super) async fn next(&mut self, actor: &Actor) -> Result<String, String> {
        let message = match self.messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(self.end(actor, "END".to_owned())),
            Err(status) => return Err(self.end(actor, RawError::from(status).code)),
        };
        let headers = message.headers.iter().map(|header| (header.name.as_str(), header.value.as_ref()));
        let body = body_text(&message.content, headers);
        if let Some(position) = &mut self.position {
            position.offset = message.offset;
        }
        actor.record(Event::StreamMessage {
            stream: self.number,
            id: message.id.parse().unwrap_or_default(),
            offset: message.offset,
            topic: message.topic,
            body: body.clone(),
        });
        Ok(body)
    }

    /// Records the end of the stream.
    pub(super) fn end(&self, actor: &Actor, code: String) -> String {
        actor.run.stream_ended(&actor.host, self.number, code.clone());
        code
    }
}
