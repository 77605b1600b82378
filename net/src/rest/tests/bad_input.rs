//! Bad requests: the answer is a clear error with a stable code, and nothing is changed.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{Request, header};
use rmom_core::manager::testing::{Behaviour, Calls, Fault, addr};
use serde_json::{Value, json};

use super::{
    super::{RestSettings, router},
    Bench, a_while,
};

const NO_CHANNEL: &str = "00000000-0000-4000-8000-000000000000";

/// Sends requests without a body; checks the status, the code and a part of the text.
async fn check(bench: &Bench, cases: &[(&str, &str, u16, &str, &str)]) {
    for &(method, path, status, code, text) in cases {
        let answer = bench.ask(method, path).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{method} {path}: {answer:?}");
        assert!(answer.detail().contains(text), "{method} {path}: {answer:?}");
        assert_eq!(answer.body["status"], json!(status), "{method} {path}");
        let problem = answer.header(header::CONTENT_TYPE) == "application/problem+json";
        assert_eq!(problem, path.starts_with("/v1/"), "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn names_and_ids() {
    let bench = Bench::start().await;
    bench.ask("POST", "/queues/q").await;
    let long = "x".repeat(256);
    let (post_long, put_long) = (format!("/queues/{long}"), format!("/queues/q/channels/{long}"));
    let v1_long = format!("/v1/queues/{long}");
    let unknown = (format!("/channels/{NO_CHANNEL}"), format!("/v1/channels/{NO_CHANNEL}"));
    check(
        &bench,
        &[
            ("POST", "/queues/", 400, "INVALID_NAME", "queue_label is empty"),
            ("POST", &post_long, 400, "INVALID_NAME", "the limit is 255"),
            ("GET", &post_long, 400, "INVALID_NAME", "the limit is 255"),
            ("DELETE", &post_long, 400, "INVALID_NAME", "the limit is 255"),
            ("GET", &v1_long, 400, "INVALID_NAME", "the limit is 255"),
            ("POST", "/queues/__None__", 400, "INVALID_NAME", "reserved"),
            ("POST", "/queues/a%0Ab", 400, "INVALID_NAME", "cannot be printed"),
            ("POST", "/queues/%20a", 400, "INVALID_NAME", "white space"),
            ("GET", "/queue/a%00/topics", 400, "INVALID_NAME", "queue_label"),
            ("PUT", &put_long, 400, "INVALID_NAME", "topic"),
            ("PUT", "/queues/q/channels/a%7Fb", 400, "INVALID_NAME", "topic"),
            ("POST", "/queues/%zz", 400, "INVALID_ARGUMENT", "path"),
            ("POST", "/queues/%f", 400, "INVALID_ARGUMENT", "path"),
            ("POST", "/queues/%FF%FE", 400, "INVALID_ARGUMENT", "UTF-8"),
            ("PUT", "/queues/q/channels/%C3%28", 400, "INVALID_ARGUMENT", "UTF-8"),
            ("GET", "/v1/queues/%C0%80", 400, "INVALID_ARGUMENT", "UTF-8"),
            ("POST", "/queues/Q", 400, "QUEUE_EXISTS", "the queue q exists"),
            ("GET", "/queues/r", 404, "QUEUE_NOT_FOUND", "no queue r"),
            ("DELETE", "/queues/r", 404, "QUEUE_NOT_FOUND", "no queue r"),
            ("GET", "/queue/r/topics", 404, "QUEUE_NOT_FOUND", "no queue r"),
            ("PUT", "/queues/r/channels/t", 404, "QUEUE_NOT_FOUND", "no queue r"),
            ("GET", "/v1/queues/r", 404, "QUEUE_NOT_FOUND", "no queue r"),
            ("DELETE", "/v1/queues/r", 404, "QUEUE_NOT_FOUND", "no queue r"),
            ("GET", "/v1/queues/r/channels", 404, "QUEUE_NOT_FOUND", "no queue r"),
            ("GET", &unknown.0, 404, "CHANNEL_NOT_FOUND", NO_CHANNEL),
            ("DELETE", &unknown.0, 404, "CHANNEL_NOT_FOUND", NO_CHANNEL),
            ("GET", &unknown.1, 404, "CHANNEL_NOT_FOUND", NO_CHANNEL),
            ("DELETE", &unknown.1, 404, "CHANNEL_NOT_FOUND", NO_CHANNEL),
            // The status that the original's framework sent.
            ("GET", "/channels/nonsense", 422, "INVALID_ARGUMENT", "channel_id is not a UUID: \"nonsense\""),
            ("DELETE", "/channels/nonsense", 422, "INVALID_ARGUMENT", "channel_id"),
            ("GET", "/v1/channels/nonsense", 400, "INVALID_ARGUMENT", "channel_id"),
            ("DELETE", "/v1/channels/1234", 400, "INVALID_ARGUMENT", "channel_id"),
            ("POST", "/v1/brokers/nonsense/drain", 400, "INVALID_ARGUMENT", "broker_id"),
            ("POST", "/v1/brokers/-1/undrain", 400, "INVALID_ARGUMENT", "broker_id"),
            ("POST", "/v1/brokers/9223372036854775808/drain", 400, "INVALID_ARGUMENT", "broker_id"),
            ("POST", "/v1/brokers/99999999999999999999/drain", 400, "INVALID_ARGUMENT", "broker_id"),
            ("GET", "/v1/queues?limit=0", 400, "INVALID_ARGUMENT", "limit"),
            ("GET", "/v1/queues?limit=1001", 400, "INVALID_ARGUMENT", "1 to 1000"),
            ("GET", "/v1/channels?limit=many", 400, "INVALID_ARGUMENT", "limit"),
            ("GET", "/v1/channels?after=nonsense", 400, "INVALID_ARGUMENT", "channel_id"),
            ("GET", "/v1/queues?after=%20", 400, "INVALID_NAME", "queue_label"),
            ("GET", "/v1/queues?page=2", 400, "INVALID_ARGUMENT", "query"),
            ("DELETE", "/v1/brokers/nonsense", 400, "INVALID_ARGUMENT", "broker_id"),
            ("DELETE", "/v1/brokers/99", 404, "BROKER_NOT_FOUND", "no broker 99"),
            ("DELETE", "/v1/brokers/1?force=true", 409, "BROKER_IN_USE", "alive"),
            ("DELETE", "/v1/brokers/1?force=maybe", 400, "INVALID_ARGUMENT", "query"),
            ("POST", "/v1/brokers/99/drain", 404, "BROKER_NOT_FOUND", "no broker 99"),
        ],
    )
    .await;
    assert_eq!(bench.ask("GET", "/queues").await.body, json!(["q"]));
    assert_eq!(bench.ask("GET", "/channels").await.body, json!([]));
}

#[tokio::test(start_paused = true)]
async fn routes_and_methods() {
    let bench = Bench::start().await;
    check(
        &bench,
        &[
            ("GET", "/", 404, "NO_SUCH_ROUTE", "openapi"),
            ("GET", "/nope", 404, "NO_SUCH_ROUTE", ""),
            ("POST", "/queues/a/b", 404, "NO_SUCH_ROUTE", ""),
            ("PUT", "/queues//channels/t", 400, "INVALID_NAME", "queue_label is empty"),
            ("GET", "/v1/nope", 404, "NO_SUCH_ROUTE", ""),
            ("POST", "/queues", 405, "METHOD_NOT_ALLOWED", "POST"),
            ("PUT", "/queues/q", 405, "METHOD_NOT_ALLOWED", "PUT"),
            ("PATCH", "/v1/queues/q", 405, "METHOD_NOT_ALLOWED", "PATCH"),
            ("GET", "/v1/brokers/rebalance", 405, "METHOD_NOT_ALLOWED", "GET"),
            ("GET", "/v1/brokers/1/drain", 405, "METHOD_NOT_ALLOWED", "GET"),
            ("BREW", "/channels", 405, "METHOD_NOT_ALLOWED", "BREW"),
        ],
    )
    .await;
    assert_eq!(bench.ask("PUT", "/queues/q").await.header(header::ALLOW), "POST,DELETE,GET,HEAD");
    assert_eq!(bench.ask("PATCH", "/v1/queues/q").await.header(header::ALLOW), "GET,HEAD,DELETE");
}

#[tokio::test(start_paused = true)]
async fn bodies() {
    let bench = Bench::start().await;
    bench.ask("POST", "/queues/q").await;
    let (queues, channels) = ("/v1/queues", "/v1/queues/q/channels");
    for (path, body, code, text) in [
        (queues, "", "INVALID_ARGUMENT", "EOF"),
        (queues, "{", "INVALID_ARGUMENT", "EOF"),
        (queues, "{\"label\": \"a\"} x", "INVALID_ARGUMENT", "trailing"),
        (queues, "[]", "INVALID_ARGUMENT", "body"),
        (queues, "{\"label\": \"\u{0}\"}", "INVALID_ARGUMENT", "control character"),
        (queues, "{}", "INVALID_ARGUMENT", "missing field `label`"),
        (queues, r#"{"label": "a", "colour": 1}"#, "INVALID_ARGUMENT", "unknown field `colour`"),
        (queues, r#"{"label": "a", "label": "b"}"#, "INVALID_ARGUMENT", "duplicate field `label`"),
        (queues, r#"{"label": 5}"#, "INVALID_ARGUMENT", "label: it has to be a string, not a number"),
        (queues, r#"{"label": null}"#, "INVALID_ARGUMENT", "label: it has to be a string, not null"),
        (queues, r#"{"label": ""}"#, "INVALID_NAME", "queue_label is empty"),
        (queues, r#"{"label": "__NONE__"}"#, "INVALID_NAME", "reserved"),
        (channels, r#"{"topic": ["a"]}"#, "INVALID_ARGUMENT", "topic: it has to be a string, not an array"),
        (channels, r#"{"topic": "a\nb"}"#, "INVALID_NAME", "topic"),
        (channels, r#"{"start": "middle"}"#, "INVALID_ARGUMENT", "start: it has to be \"earliest\""),
        (channels, r#"{"start": 0}"#, "INVALID_ARGUMENT", "start"),
        (channels, r#"{"start": -1}"#, "INVALID_ARGUMENT", "start"),
        (channels, r#"{"start": 1.5}"#, "INVALID_ARGUMENT", "start"),
        (channels, r#"{"start": 9223372036854775808}"#, "INVALID_ARGUMENT", "the limit is"),
        (channels, r#"{"start": true}"#, "INVALID_ARGUMENT", "start"),
        (channels, r#"{"start": 99}"#, "OFFSET_OUT_OF_RANGE", "beyond the end of the queue, which is 0"),
        (channels, r#"{"strat": "latest"}"#, "INVALID_ARGUMENT", "unknown field `strat`"),
    ] {
        let answer = bench.post(path, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, code), "{body}: {answer:?}");
        assert!(answer.detail().contains(text), "{body}: {answer:?}");
    }
    let invalid_utf8 = bench.post(queues, Bytes::from_static(b"{\"label\": \"\xff\"}")).await;
    assert_eq!((invalid_utf8.status.as_u16(), invalid_utf8.code()), (400, "INVALID_ARGUMENT"), "{invalid_utf8:?}");
    assert_eq!(bench.post(queues, r#"{"label": "Q"}"#).await.status, 409);
    assert_eq!(bench.post("/v1/queues/r/channels", "{}").await.status, 404);
    assert_eq!(bench.ask("GET", "/queues").await.body, json!(["q"]));
    assert_eq!(bench.ask("GET", "/channels").await.body, json!([]));
}

#[tokio::test(start_paused = true)]
async fn content_types_and_sizes() {
    let bench = Bench::start().await;
    let post = |content_type: Option<&'static str>, body: Body| {
        let mut request = Request::builder().method("POST").uri("/v1/queues");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(body).unwrap()
    };
    let body = r#"{"label": "a"}"#;
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")]
    {
        let answer = bench.send(post(content_type, Body::from(body))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (415, "UNSUPPORTED_MEDIA_TYPE"), "{content_type:?}");
        assert!(answer.detail().contains(content_type.unwrap_or("absent")), "{answer:?}");
    }
    // A body that is too large is refused whether announced or not; a body of exactly the limit is accepted.
    let padded = |bytes: usize| format!("{{\"label\": \"a\"{}}}", " ".repeat(bytes - 14)).into_bytes();
    let chunked = |bytes: Vec<u8>| {
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            bytes.chunks(1_000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    let json = Some("application/json; charset=utf-8");
    let mut announced = post(json, Body::from(padded(65_537)));
    announced.headers_mut().insert(header::CONTENT_LENGTH, 65_537.into());
    for request in [announced, post(json, Body::from(padded(65_537))), post(json, chunked(padded(65_537)))] {
        let answer = bench.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (413, "BODY_TOO_LARGE"));
        assert_eq!(answer.body["limit"], json!("65536"));
    }
    assert_eq!(bench.ask("GET", "/queues").await.body, json!([]));
    assert_eq!(bench.send(post(json, chunked(padded(65_536)))).await.status, 201);
    let broken = Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]));
    let answer = bench.send(post(json, broken)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (400, "INVALID_ARGUMENT"));
}

#[tokio::test(start_paused = true)]
async fn brokers_and_stores_that_fail() {
    let bench = Bench::start().await;
    bench.ask("POST", "/queues/q").await;
    let id = bench.channel("q", "t").await;
    bench.world.brokers.set(&addr(1), Behaviour::Absent);
    a_while().await;
    let (channel, v1_channel) = (format!("/channels/{id}"), format!("/v1/channels/{id}"));
    check(
        &bench,
        &[
            ("POST", "/queues/new", 503, "NO_BROKER", "no broker is available"),
            ("GET", "/queues/q", 503, "NO_BROKER", "the queue q has no live broker"),
            ("PUT", "/queues/q/channels/t", 503, "NO_BROKER", "the queue q has no live broker"),
            ("GET", &channel, 503, "NO_BROKER", "the queue q has no live broker"),
            ("GET", &v1_channel, 503, "NO_BROKER", "the queue q has no live broker"),
        ],
    )
    .await;
    let answer = bench.post("/v1/queues", r#"{"label": "new"}"#).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "NO_BROKER"));
    assert_eq!(answer.header(header::RETRY_AFTER), "1");
    // Requests that need no broker work.
    let described = bench.ask("GET", "/v1/queues/q").await;
    assert_eq!((described.status.as_u16(), &described.body["live"]), (200, &Value::Null));
    assert_eq!(bench.ask("GET", "/queues/q/topics").await.body, json!(["t"]));
    assert_eq!(bench.ask("GET", "/queues").await.body, json!(["q"]), "an error created a queue");

    bench.world.brokers.set(&addr(1), Behaviour::ServesNothing);
    a_while().await;
    let slow = bench.ask("POST", "/queues/slow").await;
    assert_eq!((slow.status.as_u16(), slow.code()), (503, "NOT_HOSTED"), "{slow:?}");
    assert!(slow.detail().contains("it exists") && slow.body["queue_id"].is_string(), "{slow:?}");

    for (fault, code) in [(Fault::Unavailable, "STORE_UNAVAILABLE"), (Fault::Hangs, "STORE_UNAVAILABLE")] {
        bench.world.store.fail(Calls::All, fault);
        for (method, path) in [("GET", "/queues"), ("DELETE", "/queues/q"), ("GET", "/v1/brokers")] {
            check(&bench, &[(method, path, 503, code, "")]).await;
        }
    }
    bench.world.store.repair(Calls::All);
    bench.world.store.fail(Calls::Administration, Fault::Refused);
    check(&bench, &[("DELETE", "/queues/q", 503, "STORE_REFUSED", "no room")]).await;
}

#[tokio::test(start_paused = true)]
async fn every_request_has_a_deadline() {
    let bench = Bench::start().await;
    // A client that sends half a body and waits.
    let half = futures_util::StreamExt::chain(
        futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]),
        futures_util::stream::pending(),
    );
    let request = Request::builder().method("POST").uri("/v1/queues").header(header::CONTENT_TYPE, "application/json");
    let begun = tokio::time::Instant::now();
    let answer = bench.send(request.body(Body::from_stream(half)).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, "DEADLINE_EXCEEDED"));
    assert_eq!(begun.elapsed().as_secs(), 10);
    // The request's deadline is below the manager's own.
    bench.world.store.fail(Calls::All, Fault::Hangs);
    let settings = RestSettings { request_deadline: Duration::from_millis(100), ..RestSettings::default() };
    let hasty =
        Bench { router: router(bench.manager.on_behalf_of_nobody(), settings, bench.connections.clone()), ..bench };
    check(&hasty, &[("GET", "/queues", 504, "DEADLINE_EXCEEDED", "100ms")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_answer_too() {
    let bench = Bench::start().await;
    bench.ask("POST", "/queues/q").await;
    bench.world.brokers.set(&addr(1), Behaviour::Panics);
    check(
        &bench,
        &[("POST", "/queues/r", 500, "INTERNAL", "a defect"), ("GET", "/v1/queues/q", 500, "INTERNAL", "a defect")],
    )
    .await;
    assert_eq!(bench.ask("GET", "/readyz").await.status, 200);
}
