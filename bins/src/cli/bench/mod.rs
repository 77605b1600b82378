//! `rmom bench`: measures a cluster through the interfaces of applications, and checks every message on the way.

pub(super) mod args;
mod audit;
mod clock;
mod cluster;
mod database;
mod env;
mod failover;
mod idle;
mod latency;
mod pace;
mod payload;
mod process;
mod push;
mod pusher;
mod report;
mod resend;
mod subscribe;
mod usage;

use tokio::runtime::Handle;

use self::{
    args::{BenchArgs, What},
    env::Env,
};
use super::{args::TlsArgs, error::CliError};
use crate::service::Signals;

/// Number of brokers in a cluster of the run's own if one has to take over from another.
const FAILOVER_BROKERS: u16 = 3;

pub(super) async fn run(managers: &[String], tls: &TlsArgs, args: BenchArgs, json: bool) -> Result<(), CliError> {
    if let What::Push(push) = &args.what {
        push.check()?;
    }
    let mut signals = Signals::new()?;
    let brokers = if matches!(args.what, What::Failover(_)) { FAILOVER_BROKERS } else { 1 };
    // An interrupt is handled below, because a started cluster has to be stopped.
    let mut env = Box::pin(Env::start(&args.target, brokers, managers, tls)).await?;
    let mut target = env.own.as_ref().map(cluster::OwnCluster::settings).unwrap_or_default();
    target.push(("threads of the load", Handle::current().metrics().num_workers().to_string()));
    let measured = tokio::select! {
        biased;
        _ = signals.next() => Err(CliError::interrupted()),
        measured = Box::pin(measure(&mut env, &args.what)) => measured,
    };
    tokio::select! {
        biased;
        _ = signals.next() => {}
        () = env.end() => {}
    }
    let mut report = measured?;
    report.target(target);
    report.print(json)
}

async fn measure(env: &mut Env, what: &What) -> Result<report::Report, CliError> {
    env.ready().await?;
    match what {
        What::Push(args) => push::run(env, args).await,
        What::Subscribe(args) => subscribe::run(env, args).await,
        What::Latency(args) => latency::run(env, args).await,
        What::Failover(args) => failover::run(env, args).await,
        What::Idle(args) => idle::run(env, args).await,
    }
}
