//! Requests to a manager's routes, with arbitrary values of each segment and field.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{
    answers::Judgement,
    cluster::{Cluster, Port},
    exchange,
    values::{self, text},
};

/// The most requests of one input.
const MAX_REQUESTS: usize = 6;
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];
/// The routes; `L` stands for a label, `T` for a topic, `C` for a channel's id, `B` for a broker's.
const ROUTES: [&str; 23] = [
    "/queues",
    "/queues/",
    "/queues/L",
    "/queue/L/topics",
    "/queues/L/topics",
    "/queues/L/channels/T",
    "/channels",
    "/channels/C",
    "/v1/queues",
    "/v1/queues/L",
    "/v1/queues/L/channels",
    "/v1/channels",
    "/v1/channels/C",
    "/v1/brokers",
    "/v1/brokers/B",
    "/v1/brokers/rebalance",
    "/v1/brokers/B/drain",
    "/v1/brokers/B/undrain",
    "/v1/status",
    "/v1/openapi.json",
    "/healthz",
    "/readyz",
    "/nothing",
];
const CONTENT_TYPES: [&str; 4] = ["application/json", "application/problem+json; charset=utf-8", "text/plain", ""];

pub(super) async fn requests(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<()> {
    let mut client = exchange::connect(cluster, Port::Manager).await;
    for _ in 0..MAX_REQUESTS {
        if input.is_empty() {
            break;
        }
        let mut judgement = Judgement::default();
        let method = METHODS[usize::from(input.arbitrary::<u8>()?) % METHODS.len()];
        let path = path(cluster, input, &mut judgement)?;
        let body = body(input, &mut judgement)?;
        let content_type = CONTENT_TYPES[usize::from(input.arbitrary::<u8>()?) % CONTENT_TYPES.len()];
        let what = format!("{method} {path} {body:?}");
        let request = Request::builder()
            .method(method)
            .uri(format!("http://manager{path}"))
            .header("content-type", content_type)
            .body(Full::new(body))
            .expect("it is a request");
        let answer = exchange::send(&mut client, request, false).await;
        judgement.check_rest(&what, &answer);
    }
    Ok(())
}

fn path(cluster: &Cluster, input: &mut Unstructured<'_>, judgement: &mut Judgement) -> Result<String> {
    let route = ROUTES[usize::from(input.arbitrary::<u8>()?) % ROUTES.len()];
    let mut path = String::new();
    for segment in route.split('/').skip(1) {
        let value = match segment {
            "L" | "T" => text(input)?,
            "C" => values::channel_id(cluster, input)?,
            "B" => match input.arbitrary::<u8>()? {
                0..=127 => values::number(input)?.to_string(),
                _ => text(input)?,
            },
            plain => plain.to_owned(),
        };
        // The method determines whether a route reads a segment.
        match segment {
            "L" => judgement.doubtful.label(&value),
            "T" => judgement.doubtful.topic(&value),
            "C" => judgement.doubtful.channel(&value),
            "B" => judgement.doubtful.note("broker_id", !value.parse().is_ok_and(|id: u64| id <= i64::MAX as u64)),
            // Several routes take a label here.
            "" => judgement.doubtful.label(""),
            _ => {}
        }
        path.push('/');
        path.extend(utf8_percent_encode(&value, NON_ALPHANUMERIC));
    }
    Ok(path.replace("%2E", ".").replace("openapi%2Ejson", "openapi.json"))
}

/// An empty body, one that the routes take, or other bytes.
fn body(input: &mut Unstructured<'_>, judgement: &mut Judgement) -> Result<Bytes> {
    Ok(match input.arbitrary::<u8>()? % 4 {
        0 => Bytes::new(),
        1 => {
            let label = text(input)?;
            judgement.doubtful.label(&label);
            json!({ "label": label }).to_string().into()
        }
        2 => {
            let (topic, number) = (text(input)?, values::number(input)?);
            judgement.doubtful.topic(&topic);
            judgement.doubtful.note("start", number == 0 || number > i64::MAX as u64);
            json!({ "topic": topic, "start": number }).to_string().into()
        }
        _ => {
            // Any field of it can have the wrong type.
            for field in ["label", "topic", "start", "queue_label"] {
                judgement.doubtful.note(field, true);
            }
            values::bytes(input)?.into()
        }
    })
}
