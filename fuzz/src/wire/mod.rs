//! Any bytes on a socket: against a broker's gRPC services and a manager's REST routes, as production assembles them, over
//! pipes within the process and an in-memory store.
//!
//! For any bytes, nothing panics, no connection outlives its client, the answer is bounded, and afterwards both servers
//! answer as before. A well-formed request gets a well-formed answer, which names the wrong field.

mod answers;
mod cluster;
mod exchange;
mod grpc;
mod http2;
mod raw;
mod rest;
pub mod seeds;
mod values;

use arbitrary::{Result, Unstructured};
use tokio::runtime::{Builder, RngSeed};

use self::cluster::Cluster;
use crate::panics::Panics;

/// Runs one input, whose first byte selects the kind.
///
/// # Panics
/// If it finds a bug.
pub fn run(data: &[u8]) {
    let panics = Panics::watch();
    let mut runtime = Builder::new_current_thread();
    runtime.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&[]));
    let runtime = runtime.build().expect("a runtime can be built");
    runtime.block_on(async {
        let cluster = Cluster::start().await;
        // An input that is too short stops early; its actions until then count.
        let _ = act(&cluster, &mut Unstructured::new(data)).await;
        cluster.is_well().await;
    });
    drop(runtime);
    panics.check();
}

async fn act(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<()> {
    match input.arbitrary::<u8>()? % 5 {
        0 => raw::bytes(cluster, input).await,
        1 => raw::http1(cluster, input).await,
        2 => raw::http2(cluster, input).await,
        3 => grpc::calls(cluster, input).await,
        _ => rest::requests(cluster, input).await,
    }
}
