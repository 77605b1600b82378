//! A client address that opens as many connections to a broker as it can get, and holds them. Other clients must not notice.

use http::Method;
use rmom_core::{
    marks::reached,
    ports::{BoxIo, Transport as _},
};
use rmom_net::serve::RESERVED_CONNECTIONS_PER_PEER;
use rmom_sim::{BROKER_PORT, SimNet, broker_host};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt as _,
    time::{Duration, sleep, timeout},
};

use super::Actor;
use crate::run::{
    marks::{CONNECTION_REFUSED, RESERVE_USED, TURNED_AWAY},
    wire::exchange,
};

/// How long it holds the connections, and how long it then pauses: less than a server waits for the first byte.
const PACE: Duration = Duration::from_millis(1_500);
/// How long connecting, or an answer, may take.
const ANSWER: Duration = Duration::from_secs(1);

/// Crowds one broker after the other until pushing ends. `limit` is the brokers' limit on connections from one address.
pub(super) async fn run(actor: Actor, limit: u32) {
    actor.wait_for_the_workload().await;
    let brokers = usize::from(actor.run.scenario.topology.brokers.max(1));
    for number in (1..=brokers).cycle() {
        if !actor.may_push() {
            return;
        }
        let authority = format!("{}:{BROKER_PORT}", broker_host(number));
        let held = crowd(&authority, limit as usize + RESERVED_CONNECTIONS_PER_PEER).await;
        sleep(PACE).await;
        drop(held);
        sleep(PACE).await;
    }
}

/// Takes all connections that one address may have, checks that only the reserve is left, and returns the connections that
/// it holds.
async fn crowd(authority: &str, places: usize) -> Vec<BoxIo> {
    let mut held = Vec::with_capacity(places);
    while held.len() < places {
        let Ok(Ok(io)) = timeout(ANSWER, SimNet.connect(authority)).await else { return held };
        held.push(io);
    }
    let Ok(Ok(mut more)) = timeout(ANSWER, SimNet.connect(authority)).await else { return held };
    if matches!(timeout(ANSWER, more.read(&mut [0; 1])).await, Ok(Ok(0))) {
        reached(CONNECTION_REFUSED);
        // The last connection uses a place in the reserve.
        held.pop();
        sleep(ANSWER / 10).await;
        ask(authority).await;
    }
    held
}

/// Sends a request that the reserve serves, and one that it refuses.
async fn ask(authority: &str) {
    let get = |path| exchange(authority, &Method::GET, path, [][..].into(), ANSWER);
    if matches!(get("/metrics").await, Ok((200, _))) {
        reached(RESERVE_USED);
    }
    sleep(ANSWER / 10).await;
    if let Ok((503, answer)) = get("/").await {
        let code = serde_json::from_slice(&answer).map_or(Value::Null, |answer: Value| answer["code"].clone());
        if code == "TOO_MANY_CONNECTIONS" {
            reached(TURNED_AWAY);
        }
    }
}
