//! Checks the health of all managers and brokers, and sends requests that have to be refused.

use http::Method;
use rmom_core::model::{Code, limits::MAX_TTL};
use rmom_proto::messages::{
    Header, HeartbeatRequest, OpenProducerRequest, Position, ProducerStamp, Push, SubscriptionRequest,
    message_stream_client::MessageStreamClient,
};
use rmom_sim::{
    BROKER_PORT, broker_host,
    history::{Event, Phase},
    manager_host,
};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep, timeout};
use tonic::transport::Channel;
use uuid::Uuid;

use super::Actor;
use crate::run::{
    settings::{self, LOOKUP_TIMEOUT, MAX_MESSAGE_BYTES},
    wire::{self, RawError, Rest},
};

/// How long an answer may take; later answers are ignored.
const ANSWER: Duration = Duration::from_secs(1);
/// The pause between two rounds of health checks.
const HEALTH_PACE: Duration = Duration::from_millis(500);
/// The pause between two requests that have to be refused.
const INPUT_PACE: Duration = Duration::from_millis(300);

/// Asks managers and brokers for their health until the end.
pub(super) async fn look_after(actor: Actor) {
    let topology = &actor.run.scenario.topology;
    let rest = Rest::new(1, LOOKUP_TIMEOUT);
    // A broker may serve on until its lease ends, counted from the last request that left in time; a manager asks the
    // database for each answer.
    let lease = settings::broker(&actor.run.scenario).lease + Duration::from_millis(100);
    let mut brokers: Vec<_> = (1..=usize::from(topology.brokers.max(1)))
        .map(|number| (broker_host(number), wire::broker(&format!("{}:{BROKER_PORT}", broker_host(number)))))
        .collect();
    loop {
        let mut heard = true;
        for number in 1..=usize::from(topology.managers.max(1)) {
            let host = manager_host(number);
            let asked = ask(&actor, &host, Duration::from_millis(100), async {
                let (status, _) = rest.ask(number, &Method::GET, "/readyz", None).await.ok()?;
                Some(status == 200)
            });
            heard &= asked.await;
        }
        for (host, broker) in &mut brokers {
            let asked = ask(&actor, host, lease, async {
                match broker.get_heartbeat(HeartbeatRequest {}).await {
                    Ok(_) => Some(true),
                    Err(status) => RawError::from(status).answered.then_some(false),
                }
            });
            heard &= asked.await;
        }
        if heard && actor.run.phase() == Some(Phase::Drain) {
            actor.run.with(|state| state.examined = true);
        }
        sleep(HEALTH_PACE).await;
    }
}

/// Asks one process for its health. Returns true if it answered, or if the process is lost for good. A process that cannot
/// reach the database may report that it is healthy for at most `grace`: until then, its report of health may rest on what
/// it knew before the fault.
async fn ask(actor: &Actor, host: &str, grace: Duration, question: impl Future<Output = Option<bool>>) -> bool {
    let cut_off = || actor.run.with(|state| state.cut_off.get(host).copied());
    let (before, calm) = (cut_off(), actor.run.with(|state| state.converged));
    let asked = millis();
    let Ok(Some(healthy)) = timeout(ANSWER, question).await else {
        return actor.run.with(|state| state.lost.contains(host));
    };
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    if healthy && actor.run.with(|state| state.healed_at).is_some_and(|healed_at| asked > healed_at + grace) {
        actor.run.with(|state| state.well.insert(host.to_owned()));
    }
    let expected = match before {
        // If the link was repaired meanwhile, or repaired and broken again, either answer is correct.
        Some(since) if cut_off() == Some(since) && asked > since + grace => Some(false),
        Some(_) => None,
        None => calm.then_some(true),
    };
    actor.record(Event::Health { of: host.to_owned(), healthy, expected });
    true
}

/// Simulated time in milliseconds.
fn millis() -> u64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// A request that has to be refused.
struct Bad {
    /// A description for sentences.
    what: &'static str,
    expected: Code,
    names: Vec<String>,
    request: Request,
}

enum Request {
    Rest(Method, String, Option<Value>),
    Push(Box<Push>),
    Subscribe(SubscriptionRequest),
    Open(OpenProducerRequest),
}

/// All requests that have to be refused. `label` names a queue; `channel` is a channel of it with the queue's id; `body`
/// occurs nowhere else.
fn bad_input(label: &str, channel: (Uuid, u64), body: &str) -> Vec<Bad> {
    let bad = |what, expected, names: &[&str], request| Bad {
        what,
        expected,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        request,
    };
    let post = |path: String, body| Request::Rest(Method::POST, path, Some(body));
    let channels = format!("/v1/queues/{label}/channels");
    let stamp = ProducerStamp { id: Uuid::nil().as_bytes().to_vec().into(), epoch: 0, lowest_unacknowledged: 1 };
    let good = Push { content: body.to_owned().into(), queue_label: label.to_owned(), ..Push::default() };
    let push = |push| Request::Push(Box::new(push));
    let subscribe = |channel_id: &str, position| {
        Request::Subscribe(SubscriptionRequest { channel_id: channel_id.to_owned(), position })
    };
    let (limit, max_ttl) = (MAX_MESSAGE_BYTES.to_string(), MAX_TTL.as_millis().to_string());
    let too_long = format!("{body}{}", "x".repeat(MAX_MESSAGE_BYTES));
    let header = |name: &str| Header { name: name.to_owned(), value: "v".into() };
    vec![
        bad(
            "a queue without a name",
            Code::InvalidName,
            &["queue_label"],
            post("/v1/queues".into(), json!({"label": ""})),
        ),
        bad(
            "a queue with a long name",
            Code::InvalidName,
            &["queue_label", "255"],
            post("/v1/queues".into(), json!({"label": "q".repeat(300)})),
        ),
        bad(
            "a queue whose label is a number",
            Code::InvalidArgument,
            &["label"],
            post("/v1/queues".into(), json!({"label": 7})),
        ),
        bad(
            "a queue with an unknown field",
            Code::InvalidArgument,
            &["colour"],
            post("/v1/queues".into(), json!({"label": body, "colour": 1})),
        ),
        bad(
            "a channel with a line break in its topic",
            Code::InvalidName,
            &["topic"],
            post(channels.clone(), json!({"topic": "a\nb"})),
        ),
        bad(
            "a channel that starts at a word",
            Code::InvalidArgument,
            &["start"],
            post(channels.clone(), json!({"start": "now"})),
        ),
        bad(
            "a channel beyond the end",
            Code::OffsetOutOfRange,
            &["start", "1000000000"],
            post(channels, json!({"start": 1_000_000_000})),
        ),
        bad(
            "a channel id that is none",
            Code::InvalidArgument,
            &["channel_id"],
            Request::Rest(Method::GET, "/channels/none".into(), None),
        ),
        bad(
            "a queue that does not exist",
            Code::QueueNotFound,
            &["no-such-queue"],
            Request::Rest(Method::DELETE, "/v1/queues/no-such-queue".into(), None),
        ),
        bad(
            "a push to a queue without a name",
            Code::InvalidName,
            &["queue_label"],
            push(Push { queue_label: String::new(), ..good.clone() }),
        ),
        bad(
            "a push with a line break in its topic",
            Code::InvalidName,
            &["topic"],
            push(Push { topic: "a\nb".into(), ..good.clone() }),
        ),
        bad(
            "a push with a sequence and no producer",
            Code::InvalidArgument,
            &["sequence"],
            push(Push { sequence: 3, ..good.clone() }),
        ),
        bad(
            "a push with a producer and no sequence",
            Code::InvalidArgument,
            &["sequence"],
            push(Push { producer: Some(stamp.clone()), ..good.clone() }),
        ),
        bad(
            "a push with a producer of five bytes",
            Code::InvalidArgument,
            &["producer_id", "16"],
            push(Push {
                producer: Some(ProducerStamp { id: vec![7; 5].into(), ..stamp }),
                sequence: 1,
                ..good.clone()
            }),
        ),
        bad(
            "a push that is too large",
            Code::MessageTooLarge,
            &["content", &limit],
            push(Push { content: too_long.into(), ..good.clone() }),
        ),
        bad(
            "a push that lives too long",
            Code::InvalidArgument,
            &["ttl_millis", &max_ttl],
            push(Push { ttl_millis: u64::MAX / 2, ..good.clone() }),
        ),
        bad(
            "a push with a header without a name",
            Code::InvalidArgument,
            &["headers", "255"],
            push(Push { headers: vec![header("")], ..good.clone() }),
        ),
        bad(
            "a push with 65 headers",
            Code::InvalidArgument,
            &["headers", "64"],
            push(Push { headers: vec![header("h"); 65], ..good }),
        ),
        bad("a subscription to no channel", Code::InvalidArgument, &["channel_id"], subscribe("none", None)),
        bad(
            "a subscription beyond the end",
            Code::OffsetOutOfRange,
            &["1000000000"],
            subscribe(&channel.0.to_string(), Some(Position { queue_id: channel.1, epoch: 0, offset: 1_000_000_000 })),
        ),
        bad(
            "a subscription after no queue's offset",
            Code::InvalidArgument,
            &["position"],
            subscribe(&Uuid::nil().to_string(), Some(Position::default())),
        ),
        bad(
            "a named producer of five bytes",
            Code::InvalidArgument,
            &["producer_id", "16"],
            Request::Open(OpenProducerRequest { queue_label: label.to_owned(), producer_id: vec![7; 5].into() }),
        ),
    ]
}

/// Sends the requests that have to be refused, one after the other, during the workload.
pub(super) async fn provoke(actor: Actor) {
    let mut rest = Rest::new(usize::from(actor.run.scenario.topology.managers), LOOKUP_TIMEOUT);
    let mut line: Option<MessageStreamClient<Channel>> = None;
    while actor.may_push() {
        let number = actor.run.next_op();
        // The order depends on the seed, so a sweep covers all of them often.
        let queues = actor.run.scenario.workload.queues.max(1);
        let label = actor.run.label(u8::try_from(number % u64::from(queues)).unwrap_or(0) + 1);
        let body = format!("bad-{number}");
        // If there is no channel yet, these requests name one that does not exist.
        let channel = actor.run.with(|state| {
            let queue = state.queues.iter().find(|queue| queue.label == label)?.id;
            state.channels.iter().find(|(_, of)| Some(**of) == queue).map(|(id, of)| (*id, *of))
        });
        let mut all = bad_input(&label, channel.unwrap_or((Uuid::nil(), 1)), &body);
        let nth = usize::try_from((number ^ actor.run.scenario.seed) % all.len() as u64).unwrap_or(0);
        let Bad { what, expected, names, request } = all.swap_remove(nth);
        let answer = timeout(ANSWER, send(&mut rest, &mut line, &label, request)).await;
        let (got, message) = match answer {
            Ok(Ok(())) => ("ok".to_owned(), String::new()),
            // An error says nothing about the request if the process is unreachable, cannot tell, or does not host the
            // queue.
            Ok(Err(error)) if is_about_the_request(&error, expected) => (error.code, error.message),
            _ => {
                line = None;
                sleep(INPUT_PACE).await;
                continue;
            }
        };
        let expected = expected.as_str().to_owned();
        actor.record(Event::BadInput { what: format!("{what} ({body})"), expected, got, message, names });
        sleep(INPUT_PACE).await;
    }
}

fn is_about_the_request(error: &RawError, expected: Code) -> bool {
    let Some(code) = Code::from_wire(&error.code).filter(|_| error.answered) else { return error.answered };
    // Queues are created and deleted meanwhile.
    code == expected
        || !(code.is_retryable() || matches!(code, Code::QueueNotFound | Code::QueueReplaced | Code::ChannelNotFound))
}

async fn send(
    rest: &mut Rest,
    line: &mut Option<MessageStreamClient<Channel>>,
    label: &str,
    request: Request,
) -> Result<(), RawError> {
    let request = match request {
        Request::Rest(method, path, body) => return rest.ok(method, &path, body).await.map(drop),
        request => request,
    };
    let broker = match line {
        Some(broker) => broker,
        None => line.insert(wire::broker(&rest.locate(&format!("/queues/{label}")).await?)),
    };
    match request {
        Request::Push(push) => broker.push_to_queue(*push).await.map(drop)?,
        Request::Subscribe(subscribe) => broker.subscribe_to_channel(subscribe).await.map(drop)?,
        Request::Open(open) => broker.open_producer(open).await.map(drop)?,
        Request::Rest(..) => {}
    }
    Ok(())
}
