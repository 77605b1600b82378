//! openapi.json is written by hand. Every answer under `/v1/` that a test of this folder gets is compared with it, and one
//! test gets every answer that it describes.

use std::{collections::BTreeSet, sync::LazyLock};

use http::header;
use rmom_core::{
    manager::testing::{Behaviour, Calls, Fault, FaultyStore, addr},
    model::{ChannelId, QueueLabel, Start, Topic, limits::MAX_CHANNELS_PER_QUEUE},
    ports::{Catalog as _, CreateChannel},
};
use serde_json::{Map, Value};
use tokio::time::Duration;
use uuid::Uuid;

use super::{
    super::{RestSettings, router, v1::OPENAPI},
    Answer, Bench, a_while,
};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(OPENAPI).expect("openapi.json is JSON"));

/// Codes that any request may get, as the document's introduction says.
const EVERYWHERE: [&str; 2] = ["METHOD_NOT_ALLOWED", "INTERNAL"];

/// The described path that a request's path belongs to. One without variables goes first.
fn described(path: &str) -> Option<(&'static str, &'static Map<String, Value>)> {
    let path = path.split('?').next().unwrap_or(path);
    let fits = |pattern: &str| {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
        pattern.len() == path.len()
            && pattern
                .iter()
                .zip(path)
                .all(|(part, given)| *part == given || (part.starts_with('{') && !given.is_empty()))
    };
    let paths = DOCUMENT["paths"].as_object()?;
    let found =
        paths.iter().filter(|(pattern, _)| fits(pattern)).min_by_key(|(pattern, _)| pattern.matches('{').count());
    found.map(|(pattern, methods)| (pattern.as_str(), methods.as_object().expect("a path has methods")))
}

/// Compares an answer with the document.
pub(super) fn check(method: &str, path: &str, answer: &Answer) {
    let (Some((pattern, methods)), false) = (described(path), EVERYWHERE.contains(&answer.code())) else { return };
    let what = format!("{method} {path} ({pattern}) answered {answer:?}");
    let operation = methods.get(&method.to_lowercase()).unwrap_or_else(|| panic!("{what}, which is not described"));
    let response = operation["responses"].get(answer.status.as_str());
    let response = response.unwrap_or_else(|| panic!("{what}, a status that is not described"));
    let Some(content) = response.get("content").and_then(Value::as_object) else {
        assert_eq!(answer.body, Value::Null, "{what}, with a body that is not described");
        return;
    };
    let (content_type, media) = content.iter().next().expect("a content has a type");
    assert_eq!(answer.header(header::CONTENT_TYPE), content_type, "{what}");
    if let Some(schema) = media.get("schema") {
        let mut faults = Vec::new();
        validate(schema, &answer.body, "", &mut faults);
        assert!(faults.is_empty(), "{what}: {faults:?}");
    }
}

/// Validates by the keywords that the document uses. Objects have no member that is not described, except problems.
fn validate(schema: &Value, value: &Value, place: &str, faults: &mut Vec<String>) {
    let mut fault = |what: &str| faults.push(format!("{place}: {value} {what}"));
    for keyword in schema.as_object().expect("a schema is an object").keys() {
        assert!(KEYWORDS.contains(&keyword.as_str()), "the validator does not know {keyword}");
    }
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = DOCUMENT.pointer(&reference[1..]).expect("a reference has a target");
        return validate(target, value, place, faults);
    }
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let fits = |choice: &&Value| {
            let mut faults = Vec::new();
            validate(choice, value, place, &mut faults);
            faults.is_empty()
        };
        // An empty list of queues fits both kinds of page.
        if !choices.iter().any(|choice| fits(&choice)) {
            fault("fits none of oneOf");
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty() && !types.contains(&kind) {
        fault(&format!("is not of the types {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        fault("is not in enum");
    }
    let outside = |number: i64| {
        schema["minimum"].as_i64().is_some_and(|least| number < least)
            || schema["maximum"].as_i64().is_some_and(|most| number > most)
    };
    if value.as_i64().is_some_and(outside) {
        fault("is out of range");
    }
    if schema["format"] == "uuid" && value.as_str().is_some_and(|text| text.parse::<Uuid>().is_err()) {
        fault("is not a UUID");
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            validate(items, value, &format!("{place}/{index}"), faults);
        }
    }
    let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) else { return };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for missing in required.filter(|name| !members.contains_key(*name)) {
        faults.push(format!("{place}: {missing} is missing"));
    }
    for (name, value) in members {
        match properties.get(name) {
            Some(schema) => validate(schema, value, &format!("{place}/{name}"), faults),
            None if members.contains_key("detail") => {}
            None => faults.push(format!("{place}: {name} is not described")),
        }
    }
}

const KEYWORDS: [&str; 12] = [
    "$ref",
    "additionalProperties",
    "description",
    "enum",
    "format",
    "items",
    "maximum",
    "minimum",
    "oneOf",
    "properties",
    "required",
    "type",
];

/// A request: its method, its path, and its body.
type Asked<'a> = (&'a str, &'a str, Option<&'a str>);

/// Sends requests, each of which [`check`] compares with the document, and notes their operation and status.
async fn note(bench: &Bench, seen: &mut BTreeSet<(String, String, String)>, requests: &[Asked<'_>]) {
    for &(method, path, body) in requests {
        let answer = match body {
            Some(body) => bench.post(path, body.to_owned()).await,
            None => bench.ask(method, path).await,
        };
        let (pattern, _) = described(path).expect("the path is described");
        seen.insert((pattern.to_owned(), method.to_lowercase(), answer.status.as_str().to_owned()));
    }
}

const NO_CHANNEL: &str = "/v1/channels/00000000-0000-4000-8000-000000000000";

/// A request of every operation that succeeds.
const GOOD: [Asked<'static>; 15] = [
    ("POST", "/v1/queues", Some(r#"{"label": "made"}"#)),
    ("GET", "/v1/queues", None),
    ("GET", "/v1/queues?live=true", None),
    ("GET", "/v1/queues/q", None),
    ("POST", "/v1/queues/q/channels", Some(r#"{"topic": "t", "start": 1}"#)),
    ("GET", "/v1/queues/q/channels", None),
    ("GET", "/v1/channels", None),
    ("GET", "/v1/brokers", None),
    ("POST", "/v1/brokers/1/drain", None),
    ("POST", "/v1/brokers/1/undrain", None),
    ("GET", "/v1/status", None),
    ("GET", "/v1/openapi.json", None),
    ("DELETE", "/v1/queues/made", None),
    // Rebalancing is refused while a broker does not answer.
    ("DELETE", "/v1/brokers/2?force=true", None),
    ("POST", "/v1/brokers/rebalance", None),
];

const BAD: [Asked<'static>; 28] = [
    // 400
    ("GET", "/v1/queues?limit=0", None),
    ("POST", "/v1/queues", Some("{")),
    ("GET", "/v1/queues/%20", None),
    ("DELETE", "/v1/queues/%20", None),
    ("GET", "/v1/queues/q/channels?limit=0", None),
    ("POST", "/v1/queues/q/channels", Some(r#"{"start": 0}"#)),
    ("GET", "/v1/channels?limit=0", None),
    ("GET", "/v1/channels/1", None),
    ("DELETE", "/v1/channels/1", None),
    ("DELETE", "/v1/brokers/x", None),
    ("POST", "/v1/brokers/x/drain", None),
    ("POST", "/v1/brokers/x/undrain", None),
    // 404
    ("GET", "/v1/queues/none", None),
    ("DELETE", "/v1/queues/none", None),
    ("GET", "/v1/queues/none/channels", None),
    ("POST", "/v1/queues/none/channels", Some("{}")),
    ("GET", NO_CHANNEL, None),
    ("DELETE", NO_CHANNEL, None),
    ("DELETE", "/v1/brokers/99", None),
    ("POST", "/v1/brokers/99/drain", None),
    ("POST", "/v1/brokers/99/undrain", None),
    // 409
    ("POST", "/v1/queues", Some(r#"{"label": "q"}"#)),
    ("DELETE", "/v1/brokers/1?force=true", None),
    // 415
    ("POST", "/v1/queues", None),
    ("POST", "/v1/queues/q/channels", None),
    // Others of which the kinds differ.
    ("GET", "/v1/queues?live=yes", None),
    ("GET", "/v1/queues?nonsense=1", None),
    ("DELETE", "/v1/brokers/1?nonsense=1", None),
];

/// Creates as many channels of the queue `q` as there may be.
async fn fill_with_channels(store: &FaultyStore) {
    let queue = store.queue(&QueueLabel::parse("q").unwrap()).await.unwrap().expect("it exists").id;
    for n in 0..MAX_CHANNELS_PER_QUEUE as u128 {
        let id = ChannelId::new(Uuid::from_u128(n));
        let create = CreateChannel { id, queue, topic: Topic::NONE, start: Start::Earliest, disposable: false };
        if store.create_channel(&create).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_that_openapi_describes_is_given() {
    let bench = Bench::start().await;
    bench.world.broker(2, Duration::from_secs(1)).await;
    bench.world.brokers.set(&addr(2), Behaviour::Absent);
    bench.ask("POST", "/queues/q").await;
    let (kept, deleted) = (bench.channel("q", "t").await, bench.channel("q", "t").await);
    let (kept, deleted) = (format!("/v1/channels/{kept}"), format!("/v1/channels/{deleted}"));
    a_while().await;
    let mut seen = BTreeSet::new();
    // Each operation on something that exists, also while the store fails: 503 and 504.
    let known = [("GET", kept.as_str(), None), ("DELETE", deleted.as_str(), None)];
    note(&bench, &mut seen, &BAD).await;
    let large = "x".repeat(RestSettings::default().max_body_bytes + 1);
    note(&bench, &mut seen, &[("POST", "/v1/queues", Some(&large)), ("POST", "/v1/queues/q/channels", Some(&large))])
        .await;
    bench.world.store.fail(Calls::All, Fault::Unavailable);
    note(&bench, &mut seen, &[&GOOD[..], &known].concat()).await;
    bench.world.store.fail(Calls::All, Fault::Hangs);
    let settings = RestSettings { request_deadline: Duration::from_millis(100), ..RestSettings::default() };
    let hasty =
        Bench { router: router(bench.manager.on_behalf_of_nobody(), settings, bench.connections.clone()), ..bench };
    let in_time = |(_, path, _): &&Asked<'_>| !["/v1/status", "/v1/openapi.json"].contains(path);
    let slow: Vec<_> = GOOD.iter().chain(&known).filter(in_time).copied().collect();
    note(&hasty, &mut seen, &slow).await;
    hasty.world.store.repair(Calls::All);
    let settings = RestSettings::default();
    let bench =
        Bench { router: router(hasty.manager.on_behalf_of_nobody(), settings, hasty.connections.clone()), ..hasty };
    // The probes find their feet again, and broker 2 is gone.
    a_while().await;
    a_while().await;
    note(&bench, &mut seen, &[&GOOD[..], &known].concat()).await;
    fill_with_channels(&bench.world.store).await;
    note(&bench, &mut seen, &[("POST", "/v1/queues/q/channels", Some("{}"))]).await;

    let mut described = BTreeSet::new();
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            described.extend(statuses.map(|status| (path.clone(), method.clone(), status.clone())));
        }
    }
    let never: Vec<_> = described.difference(&seen).collect();
    assert!(never.is_empty(), "described, and never given: {never:?}");
}

#[test]
fn the_check_finds_what_differs() {
    let faults = |schema: &str, value: Value| {
        let mut faults = Vec::new();
        validate(&DOCUMENT["components"]["schemas"][schema], &value, "", &mut faults);
        faults.len()
    };
    let channel = |id: &str, start: Value| {
        serde_json::json!({
            "id": id, "queue_id": 1, "queue_label": "q", "topic": null, "start": start, "host": "h", "port": 1,
        })
    };
    let id = "00000000-0000-4000-8000-000000000000";
    assert_eq!(faults("Channel", channel(id, 1.into())), 0);
    assert_eq!(faults("Channel", channel("1", 1.into())), 1, "not a UUID");
    assert_eq!(faults("Channel", channel(id, Value::Null)), 1, "null is not described");
    assert_eq!(faults("Channel", channel(id, (-1).into())), 1, "less than the minimum");
    let mut more = channel(id, 1.into());
    more["more"] = true.into();
    assert_eq!(faults("Channel", more), 1, "a member that is not described");
    let mut less = channel(id, 1.into());
    less.as_object_mut().unwrap().remove("port");
    assert_eq!(faults("Channel", less), 1, "a required member is missing");
    let list = serde_json::json!({ "channels": [channel("1", 1.into())], "next": null });
    assert_eq!(faults("ChannelList", list), 1, "in a list");
}
