//! Good requests.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use http::{Request, header};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rmom_core::{
    manager::testing::{Behaviour, Calls, Fault, LONG, addr},
    model::{ChannelId, Epoch, Offset, QueueId, QueueLabel, Topic},
    ports::{QueueActivity, QueueDescription, QueueState, SubscriberDescription},
};
use serde_json::{Value, json};
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        routes,
        v1::{self, OPENAPI},
    },
    Bench, a_while,
};
use crate::{
    access::{Server, TABLE},
    serve::{ServeSettings, serve},
    testing::Pipes,
};

#[tokio::test(start_paused = true)]
async fn the_originals_routes() {
    let bench = Bench::start().await;
    assert_eq!(bench.ask("GET", "/queues").await.body, json!([]));
    let created = bench.ask("POST", "/queues/News-Queue").await;
    assert_eq!((created.status.as_u16(), &created.body), (200, &Value::Null));
    assert_eq!(bench.ask("POST", "/queues/news-queue").await.status, 400);
    assert_eq!(bench.ask("GET", "/queues").await.body, json!(["news-queue"]));
    let found = bench.ask("GET", "/queues/NEWS-queue").await;
    assert_eq!(found.body, json!({ "label": "news-queue", "host": "broker-1", "port": 50_051 }));
    assert_eq!(found.header(header::CONTENT_TYPE), "application/json");

    let channel = bench.ask("PUT", "/queues/news-queue/channels/Sports").await;
    assert_eq!(channel.status, 200);
    let id = channel.body["id"].as_str().unwrap().to_owned();
    let expected = json!({ "id": id, "host": "broker-1", "port": 50_051, "topic": "sports" });
    assert_eq!(channel.body, expected);
    let same = bench.ask("GET", &format!("/channels/{id}")).await;
    assert_eq!((same.status.as_u16(), same.body), (200, expected));
    // The original's client sends a JSON header without a body; any content type is accepted.
    for content_type in ["application/json", "text/plain", "nonsense"] {
        let request = Request::builder().method("PUT").uri("/queues/news-queue/channels/__NONE__");
        let request = request.header(header::CONTENT_TYPE, content_type).body(Body::from("{")).unwrap();
        let answer = bench.send(request).await;
        assert_eq!((answer.status.as_u16(), &answer.body["topic"]), (200, &json!("__none__")), "{content_type}");
    }
    for path in ["/queue/news-queue/topics", "/queues/news-queue/topics"] {
        let topics = bench.ask("GET", path).await;
        assert_eq!((topics.status.as_u16(), topics.body), (200, json!(["sports"])));
    }
    let ids = bench.ask("GET", "/channels").await.body;
    assert_eq!(ids.as_array().unwrap().len(), 4);
    assert!(ids.as_array().unwrap().contains(&json!(id)));

    let deleted = bench.ask("DELETE", &format!("/channels/{id}")).await;
    assert_eq!((deleted.status.as_u16(), deleted.body), (200, Value::Null));
    assert_eq!(bench.ask("GET", &format!("/channels/{id}")).await.status, 404);
    assert_eq!(bench.ask("DELETE", "/queues/news-queue").await.status, 200);
    assert_eq!(bench.ask("GET", "/queues/news-queue").await.status, 404);
    assert_eq!(bench.ask("GET", "/channels").await.body, json!([]));
}

#[tokio::test(start_paused = true)]
async fn labels_are_percent_encoded_segments() {
    let bench = Bench::start().await;
    for (path, label) in [("a%20b", "a b"), ("%C3%84", "ä"), ("a%2Fb", "a/b"), ("100%25", "100%"), ("a+b", "a+b")] {
        assert_eq!(bench.ask("POST", &format!("/queues/{path}")).await.status, 200, "{path}");
        assert_eq!(bench.ask("GET", &format!("/queues/{path}")).await.body["label"], json!(label));
        let location = format!("/v1/queues/{path}");
        assert_eq!(bench.ask("GET", &location).await.body["label"], json!(label));
    }
    let longest = "x".repeat(255);
    assert_eq!(bench.ask("POST", &format!("/queues/{longest}")).await.status, 200);
    let created = bench.post("/v1/queues", r#"{"label": "c/d ü"}"#).await;
    let location = created.header(header::LOCATION).to_owned();
    assert_eq!(bench.ask("GET", &location).await.body["label"], json!("c/d ü"), "{location}");
}

#[tokio::test(start_paused = true)]
async fn our_routes_for_queues() {
    let bench = Bench::start().await;
    let created = bench.post("/v1/queues", r#"{"label": "Q"}"#).await;
    assert_eq!((created.status.as_u16(), created.header(header::LOCATION)), (201, "/v1/queues/q"));
    let id = created.body["id"].as_u64().unwrap();
    let queue = json!({ "id": id, "label": "q", "broker_id": 1, "host": "broker-1", "port": 50_051 });
    assert_eq!(created.body, queue);
    assert_eq!(bench.ask("GET", "/v1/queues").await.body, json!({ "queues": [queue], "next": null }));

    let silent = bench.ask("GET", "/v1/queues/q").await;
    assert_eq!(
        (silent.status.as_u16(), &silent.body["live"], &silent.body["port"]),
        (200, &Value::Null, &json!(50_051))
    );
    assert!(silent.body["live_error"].as_str().unwrap().contains("broker-1"));
    let channel = ChannelId::new(uuid::Uuid::from_u128(5));
    let description = QueueDescription {
        queue: QueueId::new(id),
        epoch: Epoch::new(2),
        last_offset: Offset::new(9),
        depth_messages: 4,
        depth_bytes: 400,
        oldest_age: Duration::from_millis(1_500),
        subscribers: vec![SubscriberDescription {
            channel,
            topic: Topic::NONE,
            peer: "10.0.0.1:9".into(),
            offset: Offset::new(7),
            lag: 2,
        }],
    };
    bench.world.brokers.describe_as(&QueueLabel::parse("q").unwrap(), description);
    let live = bench.ask("GET", "/v1/queues/q").await.body;
    let subscriber =
        json!({ "channel_id": channel.to_string(), "topic": null, "peer": "10.0.0.1:9", "offset": 7, "lag": 2 });
    assert_eq!(
        live["live"],
        json!({
            "state": "served", "reason": null, "epoch": 2, "last_offset": 9, "depth_messages": 4, "depth_bytes": 400,
            "oldest_age_millis": 1500, "subscriber_count": 1, "largest_lag": 2, "subscribers": [subscriber],
        })
    );
    let deleted = bench.ask("DELETE", "/v1/queues/q").await;
    assert_eq!((deleted.status.as_u16(), deleted.body), (204, Value::Null));
    assert_eq!(bench.ask("GET", "/v1/queues/q").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_queues_has_what_their_brokers_say() {
    let bench = Bench::start().await;
    let id = bench.post("/v1/queues", r#"{"label": "q"}"#).await.body["id"].as_u64().unwrap();
    let state = QueueState {
        queue: QueueId::new(id),
        activity: QueueActivity::Halted,
        reason: Some("the store was rolled back".into()),
        epoch: Epoch::new(2),
        last_offset: Offset::new(9),
        depth_messages: 4,
        depth_bytes: 400,
        oldest_age: Duration::from_millis(1_500),
        subscribers: 3,
        largest_lag: 7,
    };
    bench.world.brokers.state_as(&QueueLabel::parse("q").unwrap(), state);
    let listed = bench.ask("GET", "/v1/queues?live=true&limit=1").await.body;
    let live = json!({
        "state": "halted", "reason": "the store was rolled back", "epoch": 2, "last_offset": 9, "depth_messages": 4,
        "depth_bytes": 400, "oldest_age_millis": 1500, "subscriber_count": 3, "largest_lag": 7,
    });
    let queue = json!({
        "id": id, "label": "q", "broker_id": 1, "host": "broker-1", "port": 50_051, "live": live, "live_error": null,
    });
    assert_eq!(listed, json!({ "queues": [queue], "next": null }));
    assert_eq!(bench.ask("GET", "/v1/queues?live=false").await.body["queues"][0]["live"], Value::Null);
    // A broker that does not answer leaves the rest of the list intact.
    bench.world.brokers.set(&addr(1), Behaviour::Hangs);
    let silent = bench.ask("GET", "/v1/queues?live=true").await;
    assert_eq!((silent.status.as_u16(), &silent.body["queues"][0]["live"]), (200, &Value::Null));
    let error = silent.body["queues"][0]["live_error"].as_str().unwrap().to_owned();
    assert_eq!(error, "the broker at broker-1:50051 did not answer within 1s");
    let wrong = bench.ask("GET", "/v1/queues?live=yes").await;
    assert_eq!((wrong.status.as_u16(), wrong.code()), (400, "INVALID_ARGUMENT"));
}

#[tokio::test(start_paused = true)]
async fn our_routes_for_channels() {
    let bench = Bench::start().await;
    bench.ask("POST", "/queues/q").await;
    for (body, topic, start) in [
        (r#"{}"#, Value::Null, 1),
        (r#"{"topic": null, "start": "earliest"}"#, Value::Null, 1),
        (r#"{"topic": "T", "start": "latest"}"#, json!("t"), 1),
        (r#"{"topic": "__none__", "start": 1}"#, Value::Null, 1),
    ] {
        let created = bench.post("/v1/queues/q/channels", body).await;
        assert_eq!(created.status, 201, "{body}: {created:?}");
        let id = created.body["id"].as_str().unwrap();
        assert_eq!(created.body["topic"], topic, "{body}");
        assert!(created.body["start"].as_u64().unwrap() <= start, "{body}");
        assert_eq!(created.header(header::LOCATION), format!("/v1/channels/{id}"));
        assert_eq!(bench.ask("GET", &format!("/v1/channels/{id}")).await.body, created.body);
    }
    let one_queue = bench.ask("GET", "/v1/queues/q/channels").await.body;
    assert_eq!(one_queue["channels"].as_array().unwrap().len(), 4);
    assert_eq!(bench.ask("GET", "/v1/channels").await.body, one_queue);
    let id = one_queue["channels"][0]["id"].as_str().unwrap();
    assert_eq!(bench.ask("DELETE", &format!("/v1/channels/{id}")).await.status, 204);
    assert_eq!(bench.ask("DELETE", &format!("/v1/channels/{id}")).await.code(), "CHANNEL_NOT_FOUND");
}

#[tokio::test(start_paused = true)]
async fn our_routes_for_brokers_and_status() {
    let bench = Bench::start().await;
    bench.world.broker(2, LONG).await;
    bench.ask("POST", "/queues/q").await;
    a_while().await;
    let brokers = bench.ask("GET", "/v1/brokers").await.body;
    let states: Vec<_> = brokers["brokers"].as_array().unwrap().iter().map(|broker| &broker["state"]).collect();
    assert_eq!(states, ["up", "up"]);
    let host = bench.ask("GET", "/v1/queues/q").await.body["broker_id"].as_u64().unwrap();
    assert_eq!(bench.ask("POST", &format!("/v1/brokers/{host}/drain")).await.status, 204);
    a_while().await;
    assert_ne!(bench.ask("GET", "/v1/queues/q").await.body["broker_id"], json!(host));
    assert_eq!(bench.ask("POST", &format!("/v1/brokers/{host}/undrain")).await.status, 204);
    let status = bench.ask("GET", "/v1/status").await.body;
    assert_eq!((&status["leading"], &status["counters"]["handovers"]), (&json!(true), &json!(1)));
    assert_eq!(status["last_cycle"]["live_brokers"], json!(2));
    assert_eq!((&status["healthy"], &status["problems"], &status["notes"]), (&json!(true), &json!([]), &json!([])));
    bench.world.brokers.complain(&addr(1), vec!["queue q: the store was rolled back".to_owned()]);
    bench.world.brokers.set(&addr(2), Behaviour::IsOld);
    let status = bench.ask("GET", "/v1/status").await.body;
    let what = &status["problems"][0]["what"];
    assert_eq!(what, "broker 1 at broker-1:50051: queue q: the store was rolled back");
    assert!(status["notes"][0].as_str().unwrap().starts_with("broker 2 at broker-2:50052 is of an older version"));
    assert_eq!(status["healthy"], json!(false));
}

#[tokio::test(start_paused = true)]
async fn a_manager_whose_connections_are_taken_is_not_ready_and_says_why() {
    let bench = Bench::start().await;
    a_while().await;
    assert_eq!(bench.ask("GET", "/readyz").await.status, 200);
    let pipes = Pipes::default();
    let settings = ServeSettings { max_connections: 1, ..ServeSettings::default() };
    let listener = pipes.listen("manager:1");
    let serving = serve(listener, bench.router.clone(), settings, bench.connections.clone(), CancellationToken::new());
    let serving = tokio::spawn(serving);
    let ask = async |path: &str| {
        let io = TokioIo::new(pipes.dial("manager:1").unwrap());
        let (mut client, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "manager").body(Body::empty()).unwrap();
        let (parts, body) = client.send_request(request).await.unwrap().into_parts();
        (parts.status.as_u16(), String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap())
    };
    let _only = pipes.dial("manager:1").unwrap();
    while !bench.connections.exhausted() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let why = "all 1 connections are taken (max_connections)";
    let (status, body) = ask("/readyz").await;
    assert!(status == 503 && body.contains(why), "{status} {body}");
    assert_eq!(ask("/healthz").await.0, 200, "a restart would not help");
    let (status, body) = ask("/v1/status").await;
    assert!(status == 200 && body.contains(&format!("this manager: {why}")), "{status} {body}");
    let (status, body) = ask("/v1/queues").await;
    assert!(status == 503 && body.contains("TOO_MANY_CONNECTIONS"), "{status} {body}");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn brokers_are_made_level() {
    let bench = Bench::start().await;
    for label in ["a", "b", "c"] {
        bench.ask("POST", &format!("/queues/{label}")).await;
    }
    let level = json!({ "moved": [], "left": 0 });
    assert_eq!(bench.ask("POST", "/v1/brokers/rebalance").await.body, level);
    bench.world.broker(2, LONG).await;
    let moved = json!({
        "label": "c", "served": true,
        "from": { "host": "broker-1", "port": 50_051 }, "to": { "host": "broker-2", "port": 50_052 },
    });
    assert_eq!(bench.ask("POST", "/v1/brokers/rebalance").await.body, json!({ "moved": [moved], "left": 0 }));
    bench.world.brokers.set(&addr(2), Behaviour::Hangs);
    let refused = bench.ask("POST", "/v1/brokers/rebalance").await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "UNSETTLED"));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_is_forgotten() {
    let bench = Bench::start().await;
    bench.world.broker(2, Duration::from_secs(1)).await;
    bench.world.brokers.set(&addr(2), Behaviour::Absent);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let early = bench.ask("DELETE", "/v1/brokers/2").await;
    assert_eq!((early.status.as_u16(), early.code()), (409, "BROKER_IN_USE"));
    assert!(early.detail().contains("60s"), "{early:?}");
    let gone = async || bench.ask("GET", "/v1/brokers").await.body["brokers"][1]["gone"].clone();
    assert_eq!(gone().await, json!(false));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(gone().await, json!(true));
    assert_eq!(bench.ask("DELETE", "/v1/brokers/2").await.status, 204);
    assert_eq!(bench.ask("DELETE", "/v1/brokers/2").await.status, 404);
    assert_eq!(bench.ask("GET", "/v1/brokers").await.body["brokers"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn lists_come_in_pages() {
    let bench = Bench::start().await;
    for label in ["a/b", "c", "d"] {
        bench.ask("POST", &format!("/queues/{}", label.replace('/', "%2F"))).await;
    }
    let page = async |path: &str, field: &str, name: &str| {
        let body = bench.ask("GET", path).await.body;
        let names: Vec<Value> = body[field].as_array().unwrap().iter().map(|one| one[name].clone()).collect();
        (json!(names), body["next"].clone())
    };
    assert_eq!(page("/v1/queues", "queues", "label").await, (json!(["a/b", "c", "d"]), Value::Null));
    assert_eq!(page("/v1/queues?limit=1", "queues", "label").await, (json!(["a/b"]), json!("a/b")));
    assert_eq!(page("/v1/queues?after=A%2Fb&limit=2", "queues", "label").await, (json!(["c", "d"]), Value::Null));
    let mut ids = [bench.channel("c", "__none__").await, bench.channel("c", "t").await, bench.channel("d", "t").await];
    ids.sort();
    let first = page("/v1/channels?limit=2", "channels", "id").await;
    assert_eq!(first, (json!([ids[0], ids[1]]), json!(ids[1])));
    let rest = page(&format!("/v1/channels?after={}", ids[1]), "channels", "id").await;
    assert_eq!(rest, (json!([ids[2]]), Value::Null));
    let (of_c, next) = page("/v1/queues/c/channels?limit=1", "channels", "id").await;
    assert_eq!((of_c.as_array().unwrap().len(), next), (1, of_c[0].clone()));
}

#[tokio::test(start_paused = true)]
async fn health() {
    let bench = Bench::start().await;
    a_while().await;
    assert_eq!(bench.ask("GET", "/healthz").await.status, 200);
    assert_eq!(bench.ask("GET", "/readyz").await.body, json!({ "status": "ready", "leading": true }));
    for fault in [Fault::Unavailable, Fault::Hangs] {
        bench.world.store.fail(Calls::All, fault);
        let answer = bench.ask("GET", "/readyz").await;
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "STORE_UNAVAILABLE"), "{fault:?}");
        assert_eq!(bench.ask("GET", "/healthz").await.status, 200, "{fault:?}");
    }
    bench.world.store.repair(Calls::All);
    // The manager stays healthy when its brokers have died.
    bench.world.brokers.set(&addr(1), Behaviour::Absent);
    a_while().await;
    assert_eq!(bench.ask("GET", "/readyz").await.status, 200);
    bench.manager.shutdown(Duration::from_secs(1)).await;
    assert_eq!(bench.ask("GET", "/readyz").await.code(), "SHUTTING_DOWN");
    assert_eq!(bench.ask("GET", "/healthz").await.status, 503);
}

/// The methods of a path, as listed in the `Allow` header.
async fn methods(bench: &Bench, path: &str) -> BTreeSet<String> {
    let path = path.replace("{label}", "q").replace("{id}", "1");
    let answer = bench.ask("BREW", &path).await;
    assert_eq!(answer.status, 405, "{path}");
    let all = answer.header(header::ALLOW).split(',').map(|method| method.trim().to_lowercase());
    all.filter(|method| method != "head").collect()
}

#[tokio::test(start_paused = true)]
async fn openapi_describes_every_route_and_no_other() {
    let bench = Bench::start().await;
    let document = bench.ask("GET", "/v1/openapi.json").await.body;
    assert_eq!(document, serde_json::from_str::<Value>(OPENAPI).unwrap());
    let described: BTreeMap<String, BTreeSet<String>> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, methods)| (path.clone(), methods.as_object().unwrap().keys().cloned().collect()))
        .collect();
    let mut served = BTreeMap::new();
    for (_, path, _) in v1::routes() {
        served.insert(path.to_owned(), methods(&bench, path).await);
    }
    assert_eq!(described, served);
    // Every reference has a target.
    for reference in OPENAPI.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

#[test]
fn the_table_of_rights_has_every_route_and_no_other() {
    let served: BTreeSet<_> = routes().map(|(method, path, _)| (method, path)).collect();
    let entries = TABLE.iter().filter(|entry| matches!(entry.server, Server::Manager | Server::Both));
    let listed: BTreeSet<_> = entries.map(|entry| (entry.method, entry.path)).collect();
    // The programs add this one, because it answers before the manager runs.
    let version = BTreeSet::from([("GET", "/version")]);
    assert_eq!(listed.difference(&served).copied().collect::<BTreeSet<_>>(), version);
    assert_eq!(served.difference(&listed).next(), None);
}

#[tokio::test(start_paused = true)]
async fn answers_have_the_members_that_openapi_requires() {
    let bench = Bench::start().await;
    bench.ask("POST", "/queues/q").await;
    let id = bench.channel("q", "t").await;
    a_while().await;
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let check = |schema: &str, value: &Value| {
        let properties = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        let described: BTreeSet<_> = properties.keys().collect();
        assert_eq!(described, value.as_object().unwrap().keys().collect(), "{schema}");
    };
    check("Queue", &bench.ask("GET", "/v1/queues").await.body["queues"][0]);
    check("DescribedQueue", &bench.ask("GET", "/v1/queues/q").await.body);
    check("DescribedQueue", &bench.ask("GET", "/v1/queues?live=true").await.body["queues"][0]);
    check("Channel", &bench.ask("GET", &format!("/v1/channels/{id}")).await.body);
    check("Broker", &bench.ask("GET", "/v1/brokers").await.body["brokers"][0]);
    let status = bench.ask("GET", "/v1/status").await.body;
    check("Status", &status);
    check("Cycle", &status["last_cycle"]);
    check("Counters", &status["counters"]);
    check("Probe", &status["brokers"][0]["probe"]);
    check("Problem", &bench.ask("GET", "/v1/queues/nope").await.body);
}
