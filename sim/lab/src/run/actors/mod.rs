//! The users of the cluster. Each has a host of its own, on which it starts anew after a crash.

mod accounts;
mod consumer_library;
mod consumer_raw;
mod crowd;
mod examiner;
mod idle;
mod operator;
mod prober;
mod producer_library;
mod producer_pipelined;
mod producer_raw;
mod stray;
mod watch;

use std::time::Duration;

use rmom_client::Client;
use rmom_sim::{
    Cluster,
    history::{Event, Phase, body_text},
};
use tokio::time::sleep;

use super::{run_state::RunState, settings};
use crate::scenario::{ConsumerKind, Host, ProducerKind};

/// How often an actor checks the shared state for changes.
const LOOK: Duration = Duration::from_millis(50);
/// The pause between an error and the next attempt.
const RETRY: Duration = Duration::from_millis(150);

/// An actor.
#[derive(Clone, Debug)]
struct Actor {
    /// The name of its host.
    host: String,
    run: RunState,
}

impl Actor {
    fn record(&self, event: Event) {
        self.run.history.record(&self.host, event);
    }

    /// Waits until the workload begins.
    async fn wait_for_the_workload(&self) {
        while self.run.phase().is_none() {
            sleep(LOOK).await;
        }
    }

    /// True while messages are still pushed.
    fn may_push(&self) -> bool {
        matches!(self.run.phase(), Some(Phase::Faults | Phase::Healed))
    }
}

/// A name on the wire, in one of two spellings that mean the same.
fn spelled(name: &str, number: u64) -> String {
    if number.is_multiple_of(2) { name.to_owned() } else { name.to_uppercase() }
}

/// The topic with this number; 0 means no topic.
fn topic(number: u64) -> String {
    if number == 0 { String::new() } else { format!("topic-{number}") }
}

/// The headers of the message with this number: every third message has some.
fn headers(number: u64) -> Vec<(&'static str, String)> {
    if number.is_multiple_of(3) { vec![("number", number.to_string()), ("empty", String::new())] } else { Vec::new() }
}

/// A message body with the headers of the message with this number, in the form that the history uses.
fn with_headers(body: &str, number: u64) -> String {
    let headers = headers(number);
    body_text(body.as_bytes(), headers.iter().map(|(name, value)| (*name, value.as_bytes())))
}

/// The prefix of every body that is not a message of the workload.
const MARKER: &str = "last-";

/// Starts all actors on their hosts.
pub(super) fn start(cluster: &mut Cluster, run: &RunState) {
    let scenario = run.scenario.clone();
    service(cluster, run, Host::Operator, operator::run);
    let connections = scenario.topology.limits.map_or(0, |limits| limits.connections);
    if connections > 0 {
        let actor = Actor { host: "crowd".to_owned(), run: run.clone() };
        cluster.service("crowd", move |_| {
            let crowding = crowd::run(actor.clone(), connections);
            async move {
                crowding.await;
                Ok(())
            }
        });
    }
    for (number, plan) in (1..).zip(&scenario.workload.producers) {
        let plan = plan.clone();
        service(cluster, run, Host::Producer(number), move |actor, client| {
            let plan = plan.clone();
            async move {
                match plan.kind {
                    ProducerKind::Library => producer_library::run(actor, client, number, plan, false).await,
                    ProducerKind::Named => producer_library::run(actor, client, number, plan, true).await,
                    ProducerKind::RawStamped => producer_raw::stamped(actor, number, plan).await,
                    ProducerKind::RawPipelined => producer_pipelined::run(actor, number, plan).await,
                    ProducerKind::RawPlain => producer_raw::plain(actor, number, plan).await,
                }
            }
        });
    }
    for (number, plan) in (1..).zip(&scenario.workload.consumers) {
        let plan = plan.clone();
        service(cluster, run, Host::Consumer(number), move |actor, client| {
            let plan = plan.clone();
            async move {
                match plan.kind {
                    ConsumerKind::Library => consumer_library::run(actor, client, number, plan).await,
                    ConsumerKind::RawResuming => consumer_raw::run(actor, client, number, plan, false).await,
                    ConsumerKind::RawOriginal => consumer_raw::run(actor, client, number, plan, true).await,
                }
            }
        });
    }
}

fn service<F>(cluster: &mut Cluster, run: &RunState, host: Host, body: impl Fn(Actor, Client) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let actor = Actor { host: host.to_string(), run: run.clone() };
    let timeout = settings::delivery_timeout(&run.scenario);
    let change = move |builder| settings::client(builder, timeout);
    cluster.service_with(&host.to_string(), change, move |client| {
        let running = body(actor.clone(), client);
        async move {
            running.await;
            Ok(())
        }
    });
}
