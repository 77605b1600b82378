//! How fast a simulation is, and what its tick costs.
//!
//! `cargo run --profile sim -p rmom-sim --example pace -- [TICK_MILLIS] [RUNS] [PUSHES]`
#![allow(clippy::print_stdout, reason = "it is what this is for")]

use std::time::{Duration, Instant};

use rmom_client::{Client, Start};
use rmom_sim::{Cluster, SimError, broker_host, isolated};
use tokio::time::{sleep, timeout};

const PRODUCERS: u64 = 2;
/// Simulated time of one run.
const RUN: Duration = Duration::from_secs(30);
/// Between two pushes of a producer, if it pushes.
const PACE: Duration = Duration::from_millis(100);

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let (tick, runs, pushes) = (args.next().unwrap_or(1), args.next().unwrap_or(10), args.next().unwrap_or(150));
    let start = Instant::now();
    for seed in 1..=runs {
        isolated(|| simulate(seed, Duration::from_millis(tick), pushes)).expect("nothing fails here");
    }
    let took = start.elapsed();
    let simulated = RUN.as_secs_f64() * f64::from(u32::try_from(runs).unwrap_or(u32::MAX));
    println!(
        "tick {tick} ms, {pushes} pushes by each of {PRODUCERS}: {:.0} simulated seconds per second, {:.0} ms a run",
        simulated / took.as_secs_f64(),
        took.as_secs_f64() * 1_000.0 * RUN.as_secs_f64() / simulated,
    );
}

fn simulate(seed: u64, tick: Duration, pushes: u64) -> Result<(), SimError> {
    let mut cluster = Cluster::builder(seed).managers(2).brokers(3).tick(tick).build();
    for number in 1..=PRODUCERS {
        cluster.service(&format!("consumer-{number}"), move |client| consume(client, number));
        cluster.service(&format!("producer-{number}"), move |client| produce(client, number, pushes));
    }
    cluster.run_for(RUN / 3)?;
    cluster.crash(&broker_host(1));
    cluster.run_for(RUN / 3)?;
    cluster.restart(&broker_host(1));
    cluster.run_for(RUN / 3)
}

async fn consume(client: Client, number: u64) -> turmoil::Result {
    let label = format!("queue-{number}");
    while client.admin().create_queue(&label).await.is_err() {
        sleep(PACE).await;
    }
    let channel = client.admin().create_channel(&label, None, Start::Earliest).await?;
    let mut consumer = client.subscribe(channel.id).build();
    while timeout(RUN, consumer.next()).await.is_ok() {}
    Ok(())
}

async fn produce(client: Client, number: u64, pushes: u64) -> turmoil::Result {
    let label = format!("queue-{number}");
    while client.admin().queue(&label).await.is_err() {
        sleep(PACE).await;
    }
    let producer = client.producer(label).open().await?;
    for push in 1..=pushes {
        // Nobody looks whether it gets there.
        drop(producer.send(push.to_string()).await?);
        sleep(PACE).await;
    }
    std::future::pending().await
}
