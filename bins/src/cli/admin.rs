//! `rmom queue`, `rmom channel`, `rmom broker`.

use std::{cmp::Reverse, collections::BTreeMap};

use rmom_client::{Admin, Broker, Channel, Error, LiveQueue, MovedQueue, Place, Queue, Start, Uuid};
use serde_json::{Value, json};

use super::{
    args::{BrokerCommand, ChannelCommand, From, QueueCommand, Sort},
    error::CliError,
    output::{Out, bytes, count, duration, plural, tell},
    session::Session,
};

impl std::convert::From<From> for Start {
    fn from(from: From) -> Self {
        match from {
            From::Earliest => Self::Earliest,
            From::Latest => Self::Latest,
            From::Offset(offset) => Self::Offset(offset),
        }
    }
}

/// Prints the results of administrative commands.
pub(super) struct Printer {
    pub(super) out: Out,
    pub(super) json: bool,
}

impl Printer {
    /// Prints one JSON document, or the text that `human` writes.
    pub(super) fn print(
        &mut self,
        document: impl FnOnce() -> Value,
        human: impl FnOnce(&mut Out) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if self.json {
            self.out.line(document().to_string())?;
        } else {
            human(&mut self.out)?;
        }
        self.out.flush()
    }
}

pub(super) async fn queue(session: &Session, printer: &mut Printer, command: QueueCommand) -> Result<(), CliError> {
    let admin = session.client.admin();
    let explain = |error: Error| session.explain(&error);
    match command {
        QueueCommand::Create { label } => {
            let queue = admin.create_queue(&label).await.map_err(explain)?;
            printer.print(
                || queue_json(&queue),
                |out| out.line(format!("created {} at {}", queue.label, place(&queue.host, queue.port))),
            )
        }
        QueueCommand::Delete { label } => {
            admin.delete_queue(&label).await.map_err(explain)?;
            printer.print(|| json!({ "deleted": label }), |out| out.line(format!("deleted {label}")))
        }
        QueueCommand::List { prefix, sort, no_live } => {
            let (queues, live) = list(&admin, !no_live).await.map_err(explain)?;
            let queues = chosen(queues, &prefix, sort);
            if live == no_live {
                tell(OLDER_MANAGER);
            }
            printer.print(
                || queues.iter().map(queue_json).collect(),
                |out| {
                    if !live {
                        let row =
                            |queue: &Queue| [queue.label.clone(), queue.id.to_string(), place(&queue.host, queue.port)];
                        return out.table(["QUEUE", "ID", "BROKER"], &queues.iter().map(row).collect::<Vec<_>>());
                    }
                    let header = ["QUEUE", "ID", "BROKER", "STATE", "MESSAGES", "SIZE", "SUBSCRIBERS", "BEHIND"];
                    out.table(header, &queues.iter().map(listed).collect::<Vec<_>>())?;
                    remarks(&queues).into_iter().try_for_each(|line| out.line(line))
                },
            )
        }
        QueueCommand::Show { label } => {
            let queue = admin.queue(&label).await.map_err(explain)?;
            printer.print(|| queue_json(&queue), |out| show_queue(out, &queue))
        }
    }
}

/// The reason why a list is less complete than it could be.
const OLDER_MANAGER: &str = "rmom: the manager is of an older version, which does not ask brokers: states and depths are \
                             left out. Upgrade the managers, or ask for the list with --no-live.";

/// All queues, and whether their brokers were asked about them; an older manager refuses to ask.
async fn list(admin: &Admin, live: bool) -> Result<(Vec<Queue>, bool), Error> {
    if live {
        match admin.live_queues().await {
            // The request contains nothing else that could be wrong.
            Err(Error::Refused { code, .. }) if code == "INVALID_ARGUMENT" => {}
            queues => return queues.map(|queues| (queues, true)),
        }
    }
    admin.queues().await.map(|queues| (queues, false))
}

/// The selected queues, in order; unknown values come last. Managers list queues by label.
fn chosen(mut queues: Vec<Queue>, prefix: &str, sort: Sort) -> Vec<Queue> {
    // Labels are in lower case.
    let prefix = prefix.to_lowercase();
    queues.retain(|queue| queue.label.starts_with(&prefix));
    let most_first = |of: fn(&LiveQueue) -> u64| {
        move |queue: &Queue| Reverse(queue.live.as_ref().filter(|live| is_counted(live)).map(of))
    };
    match sort {
        Sort::Label => {}
        Sort::Depth => queues.sort_by_key(most_first(|live| live.depth_messages)),
        Sort::Lag => queues.sort_by_key(most_first(|live| live.largest_lag)),
    }
    queues
}

/// True if the broker has found out what the queue holds, which is the first thing that it does. Otherwise the broker's
/// zeros mean "not known".
fn is_counted(live: &LiveQueue) -> bool {
    live.state == "served" || live.epoch > 0 && live.last_offset > 0
}

/// A row of the list.
fn listed(queue: &Queue) -> [String; 8] {
    let unknown = || "?".to_owned();
    let known = queue.live.as_ref();
    let counted = known.filter(|live| is_counted(live));
    let number = |of: fn(&LiveQueue) -> u64| counted.map_or_else(unknown, |live| count(of(live)));
    [
        queue.label.clone(),
        queue.id.to_string(),
        place(&queue.host, queue.port),
        match known {
            Some(live) => live.state.clone(),
            None if queue.host.is_none() => "unassigned".to_owned(),
            None => unknown(),
        },
        number(|live| live.depth_messages),
        counted.map_or_else(unknown, |live| bytes(live.depth_bytes)),
        known.map_or_else(unknown, |live| count(live.subscriber_count)),
        number(|live| live.largest_lag),
    ]
}

/// Limit on the queues named in the remarks below a list: in a large cluster, many queues can have the same cause.
const MAX_REMARKS: usize = 10;

/// The reasons why queues are not served or not known, each once, with the next step.
fn remarks(queues: &[Queue]) -> Vec<String> {
    let mut reasons: BTreeMap<&str, (&str, u64)> = BTreeMap::new();
    for queue in queues.iter().filter(|queue| queue.host.is_some()) {
        let halted = queue.live.as_ref().filter(|live| live.state != "served").and_then(|live| live.reason.as_deref());
        let Some(reason) = queue.live_error.as_deref().or(halted) else { continue };
        reasons.entry(reason).or_insert((&queue.label, 0)).1 += 1;
    }
    let unassigned = queues.iter().filter(|queue| queue.host.is_none()).count() as u64;
    let mut lines = Vec::new();
    if reasons.is_empty() && unassigned == 0 {
        return lines;
    }
    lines.push(String::new());
    if unassigned > 0 {
        lines.push(format!("{} without a broker", plural(unassigned, "queue")));
    }
    for (reason, (first, number)) in reasons.iter().take(MAX_REMARKS) {
        let which = match number {
            1 => (*first).to_owned(),
            number => format!("{first} and {} more", count(number - 1)),
        };
        lines.push(format!("{which}: {reason}"));
    }
    if reasons.len() > MAX_REMARKS {
        lines.push(format!(
            "and {}; see all with: rmom queue list --json",
            plural((reasons.len() - MAX_REMARKS) as u64, "other reason")
        ));
    }
    lines.push("See the problems and the next steps with: rmom status".to_owned());
    lines
}

fn show_queue(out: &mut Out, queue: &Queue) -> Result<(), CliError> {
    out.line(format!("queue      {}", queue.label))?;
    out.line(format!("id         {}", queue.id))?;
    out.line(format!("broker     {}", place(&queue.host, queue.port)))?;
    let Some(live) = &queue.live else {
        let reason = queue.live_error.as_deref().unwrap_or("its broker does not answer");
        return out.line(format!("contents   not known now: {reason}"));
    };
    out.line(format!("messages   {} ({})", count(live.depth_messages), bytes(live.depth_bytes)))?;
    if live.depth_messages > 0 {
        out.line(format!("oldest     {} ago", duration(live.oldest_age)))?;
    }
    out.line(format!("offset     {}", live.last_offset))?;
    out.line(format!("epoch      {}", live.epoch))?;
    if live.subscribers.is_empty() {
        return out.line("no subscribers");
    }
    out.line("")?;
    let rows = live.subscribers.iter().map(|subscriber| {
        [
            subscriber.channel_id.to_string(),
            topic(subscriber.topic.as_deref()),
            subscriber.peer.clone(),
            subscriber.offset.to_string(),
            count(subscriber.lag),
        ]
    });
    out.table(["SUBSCRIBED CHANNEL", "TOPIC", "CLIENT", "OFFSET", "BEHIND"], &rows.collect::<Vec<_>>())
}

pub(super) async fn channel(session: &Session, printer: &mut Printer, command: ChannelCommand) -> Result<(), CliError> {
    let admin = session.client.admin();
    let explain = |error: Error| session.explain(&error);
    match command {
        ChannelCommand::Create { queue, topic, from } => {
            let channel = admin.create_channel(&queue, topic.as_deref(), from.into()).await.map_err(explain)?;
            printer.print(|| channel_json(&channel), |out| out.line(channel.id.to_string()))
        }
        ChannelCommand::Delete { id } => {
            let id = parse_id(&id)?;
            admin.delete_channel(id).await.map_err(explain)?;
            printer.print(|| json!({ "deleted": id }), |out| out.line(format!("deleted {id}")))
        }
        ChannelCommand::List { queue } => {
            let channels = match &queue {
                Some(label) => admin.queue_channels(label).await,
                None => admin.channels().await,
            };
            let channels = channels.map_err(explain)?;
            printer.print(
                || channels.iter().map(channel_json).collect(),
                |out| {
                    let row = |channel: &Channel| {
                        [
                            channel.id.to_string(),
                            channel.queue_label.clone(),
                            topic(channel.topic.as_deref()),
                            channel.start.to_string(),
                        ]
                    };
                    out.table(["CHANNEL", "QUEUE", "TOPIC", "START"], &channels.iter().map(row).collect::<Vec<_>>())
                },
            )
        }
        ChannelCommand::Show { id } => {
            let channel = admin.channel(parse_id(&id)?).await.map_err(explain)?;
            printer.print(
                || channel_json(&channel),
                |out| {
                    out.line(format!("channel    {}", channel.id))?;
                    out.line(format!("queue      {} (id {})", channel.queue_label, channel.queue_id))?;
                    out.line(format!("topic      {}", topic(channel.topic.as_deref())))?;
                    out.line(format!("start      {}", channel.start))?;
                    out.line(format!("broker     {}", place(&channel.host, channel.port)))
                },
            )
        }
    }
}

pub(super) async fn broker(session: &Session, printer: &mut Printer, command: BrokerCommand) -> Result<(), CliError> {
    let admin = session.client.admin();
    let explain = |error: Error| session.explain(&error);
    match command {
        BrokerCommand::List => {
            let brokers = admin.brokers().await.map_err(explain)?;
            printer.print(
                || brokers.iter().map(broker_json).collect(),
                |out| {
                    let row = |broker: &Broker| {
                        [
                            broker.id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                            place(&Some(broker.host.clone()), Some(broker.port)),
                            if broker.gone { "gone" } else { &broker.state }.to_owned(),
                            if broker.live { "yes" } else { "no" }.to_owned(),
                            broker.queues.to_string(),
                        ]
                    };
                    let rows: Vec<_> = brokers.iter().map(row).collect();
                    out.table(["ID", "BROKER", "STATE", "ALIVE", "QUEUES"], &rows)
                },
            )
        }
        BrokerCommand::Drain { id } => {
            admin.drain(id).await.map_err(explain)?;
            let human = format!("draining broker {id}; watch its queues leave with: rmom broker list");
            printer.print(|| json!({ "draining": id }), |out| out.line(human))
        }
        BrokerCommand::Undrain { id } => {
            admin.undrain(id).await.map_err(explain)?;
            printer.print(|| json!({ "undrained": id }), |out| out.line(format!("broker {id} takes queues again")))
        }
        BrokerCommand::Forget { id, force } => {
            admin.forget(id, force).await.map_err(explain)?;
            printer.print(|| json!({ "forgotten": id }), |out| out.line(format!("forgot broker {id}")))
        }
        BrokerCommand::Rebalance => rebalance(session, printer).await,
    }
}

/// Moves a few queues at a time until the brokers are level.
async fn rebalance(session: &Session, printer: &mut Printer) -> Result<(), CliError> {
    let admin = session.client.admin();
    let mut moved = Vec::new();
    loop {
        let step = admin.rebalance().await.map_err(|error| session.explain(&error))?;
        if !printer.json {
            for queue in &step.moved {
                let (from, to) = (at(&queue.from), at(&queue.to));
                let served = if queue.served { "" } else { " (not served there yet)" };
                printer.out.line(format!("moved {} from {from} to {to}{served}", queue.label))?;
            }
            printer.out.flush()?;
        }
        let stuck = step.moved.iter().filter(|queue| !queue.served).count() as u64;
        let done = step.left == 0 || step.moved.is_empty();
        moved.extend(step.moved);
        if stuck > 0 && !done {
            let message = format!("{} moved, and not served at the new broker in time", plural(stuck, "queue"));
            return Err(CliError::unavailable(message).hint("See the state of the brokers with: rmom broker list"));
        }
        if done {
            break;
        }
    }
    let row = |queue: &MovedQueue| json!({ "label": queue.label, "from": at(&queue.from), "to": at(&queue.to) });
    printer.print(
        || json!({ "moved": moved.iter().map(row).collect::<Vec<_>>() }),
        |out| match moved.len() as u64 {
            0 => out.line("the brokers are level; nothing was moved"),
            count => out.line(format!("the brokers are level; {} moved", plural(count, "queue"))),
        },
    )
}

/// A broker's host and port.
fn at(place: &Place) -> String {
    crate::service::authority(&place.host, place.port)
}

fn parse_id(text: &str) -> Result<Uuid, CliError> {
    Uuid::parse_str(text).map_err(|_| {
        CliError::usage(format_args!("{text:?} is not a channel id"))
            .hint("An id looks like 0f8fad5b-d9cb-469f-a165-70867728950e; see them with: rmom channel list")
    })
}

fn place(host: &Option<String>, port: Option<u16>) -> String {
    match (host, port) {
        (Some(host), Some(port)) => crate::service::authority(host, port),
        _ => "no broker yet".to_owned(),
    }
}

fn topic(topic: Option<&str>) -> String {
    topic.unwrap_or("(all)").to_owned()
}

fn queue_json(queue: &Queue) -> Value {
    let mut json = json!({ "id": queue.id, "label": queue.label, "host": queue.host, "port": queue.port });
    if let Some(live) = &queue.live {
        json["live"] = live_json(live);
    }
    if let Some(error) = &queue.live_error {
        json["live_error"] = error.as_str().into();
    }
    json
}

fn live_json(live: &LiveQueue) -> Value {
    let subscribers: Vec<Value> = live
        .subscribers
        .iter()
        .map(|subscriber| {
            json!({
                "channel_id": subscriber.channel_id, "topic": subscriber.topic, "peer": subscriber.peer,
                "offset": subscriber.offset, "lag": subscriber.lag,
            })
        })
        .collect();
    let age = u64::try_from(live.oldest_age.as_millis()).unwrap_or(u64::MAX);
    json!({
        "state": live.state, "reason": live.reason, "epoch": live.epoch, "last_offset": live.last_offset, "depth_messages": live.depth_messages,
        "depth_bytes": live.depth_bytes, "oldest_age_millis": age,
        "subscriber_count": live.subscriber_count, "largest_lag": live.largest_lag, "subscribers": subscribers,
    })
}

fn channel_json(channel: &Channel) -> Value {
    json!({
        "id": channel.id, "queue_id": channel.queue_id, "queue_label": channel.queue_label, "topic": channel.topic,
        "start": channel.start, "host": channel.host, "port": channel.port,
    })
}

pub(super) fn broker_json(broker: &Broker) -> Value {
    json!({
        "id": broker.id, "host": broker.host, "port": broker.port, "state": broker.state, "live": broker.live,
        "queues": broker.queues, "gone": broker.gone,
    })
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::get};
    use rmom_client::Client;

    use super::*;

    fn queue(label: &str, live: Option<LiveQueue>, live_error: Option<&str>) -> Queue {
        let live_error = live_error.map(str::to_owned);
        Queue { id: 7, label: label.into(), host: Some("b1".into()), port: Some(5), live, live_error }
    }

    fn live(state: &str, epoch: u64, reason: Option<&str>) -> LiveQueue {
        LiveQueue {
            state: state.into(),
            reason: reason.map(str::to_owned),
            epoch,
            last_offset: 9,
            depth_messages: 1_500,
            depth_bytes: 1_536,
            oldest_age: std::time::Duration::ZERO,
            subscriber_count: 2,
            largest_lag: 4_000,
            subscribers: Vec::new(),
        }
    }

    #[test]
    fn a_list_says_what_is_known_of_each_queue() {
        let served = queue("q", Some(live("served", 1, None)), None);
        assert_eq!(listed(&served), ["q", "7", "b1:5", "served", "1,500", "1.5 KiB", "2", "4,000"]);
        assert_eq!(remarks(std::slice::from_ref(&served)), [""; 0]);
        let waiting = queue("w", Some(live("waiting", 0, Some("it is read"))), None);
        assert_eq!(listed(&waiting), ["w", "7", "b1:5", "waiting", "?", "?", "2", "?"]);
        // The queue was claimed, but its contents could not be read.
        let unread = LiveQueue { last_offset: 0, ..live("halted", 3, Some("it is damaged")) };
        assert_eq!(listed(&queue("h", Some(unread), None))[3..], ["halted", "?", "?", "2", "?"]);
        let silent = queue("s", None, Some("no answer"));
        assert_eq!(listed(&silent), ["s", "7", "b1:5", "?", "?", "?", "?", "?"]);
        let nowhere = Queue { host: None, port: None, ..queue("n", None, Some("no broker")) };
        assert_eq!(listed(&nowhere)[2..4], ["no broker yet", "unassigned"]);
        let also_silent = queue("t", None, Some("no answer"));
        assert_eq!(
            remarks(&[served, waiting, silent, nowhere, also_silent]),
            [
                "",
                "1 queue without a broker",
                "w: it is read",
                "s and 1 more: no answer",
                "See the problems and the next steps with: rmom status"
            ]
        );
    }

    #[test]
    fn many_reasons_do_not_fill_the_screen() {
        let queues: Vec<_> = (0..30).map(|n| queue("q", None, Some(&format!("reason {n:02}")))).collect();
        let lines = remarks(&queues);
        assert_eq!(lines.len(), MAX_REMARKS + 3);
        assert_eq!(lines[MAX_REMARKS + 1], "and 20 other reasons; see all with: rmom queue list --json");
    }

    /// A client of a manager that gives this answer to a list of queues.
    async fn client_of(answer: fn(Option<&str>) -> (StatusCode, Value)) -> Client {
        let queues = get(move |uri: axum::http::Uri| async move {
            let (status, body) = answer(uri.query());
            (status, Json(body)).into_response()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, Router::new().route("/v1/queues", queues)).await });
        Client::builder().managers([url]).build().unwrap()
    }

    #[tokio::test]
    async fn an_older_manager_still_lists_its_queues() {
        fn page() -> Value {
            json!({ "queues": [{ "id": 7, "label": "q", "host": "b1", "port": 5 }], "next": null })
        }
        let older = client_of(|query| match query {
            None => (StatusCode::OK, page()),
            Some(_) => (StatusCode::BAD_REQUEST, json!({ "code": "INVALID_ARGUMENT", "detail": "query: unknown" })),
        })
        .await;
        let (queues, live) = list(&older.admin(), true).await.unwrap();
        assert_eq!((queues[0].label.as_str(), live), ("q", false));
        let (_, live) = list(&client_of(|_| (StatusCode::OK, page())).await.admin(), true).await.unwrap();
        assert!(live);
        let broken = client_of(|_| (StatusCode::CONFLICT, json!({ "code": "INTERNAL", "detail": "no" }))).await;
        assert_eq!(list(&broken.admin(), true).await.unwrap_err().code(), "INTERNAL");
    }

    #[test]
    fn queues_are_chosen_by_prefix_and_sorted_by_what_is_known() {
        let holding = |depth, lag| {
            let live = LiveQueue { depth_messages: depth, largest_lag: lag, ..live("served", 1, None) };
            queue(&format!("a{depth}"), Some(live), None)
        };
        let unknown = queue("a-unknown", None, Some("it does not answer"));
        let all = || vec![unknown.clone(), holding(1, 30), queue("b", None, None), holding(3, 10), holding(2, 20)];
        let labels = |prefix, sort| -> Vec<String> {
            chosen(all(), prefix, sort).into_iter().map(|queue| queue.label).collect()
        };
        assert_eq!(labels("", Sort::Label).len(), 5);
        assert_eq!(labels("A", Sort::Label), ["a-unknown", "a1", "a3", "a2"], "as the manager has them");
        assert_eq!(labels("a", Sort::Depth), ["a3", "a2", "a1", "a-unknown"]);
        assert_eq!(labels("a", Sort::Lag), ["a1", "a2", "a3", "a-unknown"]);
    }
}
