//! Every byte that a socket may bring: against a broker's gRPC services and a manager's REST routes, as production puts
//! them together, over pipes within the process and a store in memory.
//!
//! Whatever comes, nobody panics, no connection stays when its client has gone, the answer is bounded, and afterwards both
//! answer as before. A request that is well-formed gets a well-formed answer, which names the field that is wrong.

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

/// One input: its first byte says of which kind.
///
/// # Panics
/// If it found something.
pub fn run(data: &[u8]) {
    let panics = Panics::watch();
    let mut runtime = Builder::new_current_thread();
    runtime.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&[]));
    let runtime = runtime.build().expect("a runtime can be built");
    runtime.block_on(async {
        let cluster = Cluster::start().await;
        // An input that is too short stops early; what it did until then counts.
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
