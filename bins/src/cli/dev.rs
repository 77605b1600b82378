//! `rmom dev` and `rmom dev-broker`.

use std::io;

use serde_json::json;

use super::{
    args::{DEFAULT_MANAGER, DevArgs, DevBrokerCommand},
    error::CliError,
    output::{Out, tell},
    session::Session,
};
use crate::{
    config::{LogConfig, LogFormat},
    dev::{DevCluster, DevError, DevOptions},
    logging,
    service::Signals,
};

/// Default port of the first broker.
const DEFAULT_BROKER_PORT: u16 = 50_051;

/// Runs a cluster until it is told to stop.
pub(super) async fn run(args: DevArgs, json: bool) -> Result<(), CliError> {
    logging::start(&LogConfig { format: LogFormat::Human, level: "warn".to_owned() });
    let mut signals = Signals::new()?;
    let options = DevOptions {
        data: (!args.ephemeral).then(|| args.data.clone()),
        host: args.host,
        port: args.port,
        broker_port: args.broker_port.unwrap_or(if args.port == 0 { 0 } else { DEFAULT_BROKER_PORT }),
        brokers: args.brokers,
    };
    let cluster = tokio::select! {
        biased;
        _ = signals.next() => return Err(CliError::interrupted()),
        cluster = DevCluster::start(options) => cluster.map_err(explain)?,
    };
    announce(&cluster, &args, json)?;
    signals.next().await;
    tell("rmom: stopping; once more stops at once");
    tokio::select! {
        biased;
        _ = signals.next() => tell("rmom: stopped at once"),
        () = cluster.shutdown() => {}
    }
    Ok(())
}

fn announce(cluster: &DevCluster, args: &DevArgs, json: bool) -> Result<(), CliError> {
    let mut out = Out::new();
    let manager = cluster.manager_url();
    let brokers: Vec<String> = cluster.brokers().map(ToString::to_string).collect();
    if json {
        let data = (!args.ephemeral).then(|| args.data.display().to_string());
        out.line(json!({ "manager": manager, "brokers": brokers, "data": data }).to_string())?;
        return out.flush();
    }
    let elsewhere = if manager == DEFAULT_MANAGER { String::new() } else { format!(" --manager {manager}") };
    let kept =
        if args.ephemeral { "in memory, gone at the end".to_owned() } else { format!("in {}", args.data.display()) };
    out.line("rmom runs; Ctrl-C stops it\n")?;
    out.line(format!("  manager   {manager}"))?;
    for (index, broker) in brokers.iter().enumerate() {
        out.line(format!("  broker {}  {broker}", index + 1))?;
    }
    out.line(format!("  messages  {kept}\n"))?;
    out.line("Next, in another terminal:\n")?;
    out.line(format!("  seq 1 10 | rmom{elsewhere} push --create numbers"))?;
    out.line(format!("  rmom{elsewhere} subscribe numbers\n"))?;
    out.line("and while that runs, watch a broker die without anybody noticing:\n")?;
    out.line(format!("  rmom{elsewhere} queue show numbers      says which broker hosts it"))?;
    out.line(format!("  rmom{elsewhere} dev-broker crash 1      if that is broker 1"))?;
    out.line(format!("  seq 11 20 | rmom{elsewhere} push numbers"))?;
    out.flush()
}

fn explain(error: DevError) -> CliError {
    match &error {
        DevError::Listen { reason, .. } if reason.kind() == io::ErrorKind::AddrInUse => CliError::unavailable(error)
            .hint("Is another rmom dev running? Stop it, or choose other ports with --port and --broker-port (0: any free)."),
        DevError::Listen { reason, .. } if reason.kind() == io::ErrorKind::PermissionDenied => {
            CliError::unavailable(error).hint("Choose ports above 1023 with --port and --broker-port (0: any free).")
        }
        DevError::TooManyPorts { .. } => CliError::usage(error),
        DevError::Store(rmom_net::store::OpenError::InUse { .. }) => {
            CliError::unavailable(error).hint("Another rmom dev may keep its messages there; choose elsewhere with --data DIR.")
        }
        DevError::Directory { .. } | DevError::Store(_) => CliError::unavailable(error)
            .hint("Choose another directory with --data DIR, or keep nothing with --ephemeral."),
        _ => CliError::unavailable(error),
    }
}

/// Crashes or restarts a broker of a cluster that `rmom dev` runs.
pub(super) async fn broker(session: &Session, command: DevBrokerCommand, json: bool) -> Result<(), CliError> {
    let (number, action, done) = match command {
        DevBrokerCommand::Crash { number } => (number, "crash", "crashed"),
        DevBrokerCommand::Restart { number } => (number, "restart", "started again"),
    };
    session.post(&format!("/v1/dev/brokers/{number}/{action}")).await?;
    let mut out = Out::new();
    if json {
        out.line(json!({ "broker": number, "done": action }).to_string())?;
    } else {
        out.line(format!("broker {number} {done}"))?;
    }
    out.flush()
}
