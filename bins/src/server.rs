//! The command lines of `rmom-broker` and `rmom-manager`, which are also those of `rmom serve`.

use std::{
    fmt::Display,
    future::Future,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Parser;

use crate::{
    config::{
        BrokerConfig, ConfigError, DEFAULT_FILE, Loaded, LogConfig, LogFormat, ManagerConfig, process_environment,
    },
    logging,
    service::{Exit, Threads, block_on, run_broker, run_manager},
};

macro_rules! after_help {
    ($examples:literal) => {
        concat!(
            $examples,
            "

Environment: RMOM_ and the key in capitals overrides a setting, __ between the parts of its path:
RMOM_PORT, RMOM_DATABASE__URL. RUST_LOG sets the log levels (info, or warn,rmom_core=debug).

Exit codes: 0 stopped on request; 2 wrong usage or configuration; 69 the address is in use, or the
database cannot be used as it is; 70 a defect; 75 another process registered as this broker. If the
database is down, the server waits for it."
        )
    };
}

const BROKER_HELP: &str = after_help!(
    "\
Examples:
  rmom-broker mom1.yaml
  rmom-broker mom1.yaml --check-config"
);
/// The help of `rmom serve broker`.
pub(crate) const SERVE_BROKER_HELP: &str = after_help!(
    "\
Examples:
  rmom serve broker mom1.yaml
  rmom serve broker mom1.yaml --check-config"
);
const MANAGER_HELP: &str = after_help!(
    "\
Examples:
  rmom-manager Rocket.toml
  rmom-manager --profile release --log-format json"
);
/// The help of `rmom serve manager`.
pub(crate) const SERVE_MANAGER_HELP: &str = after_help!(
    "\
Examples:
  rmom serve manager Rocket.toml
  rmom serve manager --profile release --log-format json"
);

/// Hosts queues: stores pushed messages and delivers them.
#[derive(Debug, Parser)]
#[command(name = "rmom-broker", version = crate::VERSION, after_help = BROKER_HELP)]
pub struct BrokerArgs {
    /// Configuration file, in YAML.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    common: CommonArgs,
}

/// Administers queues and channels, watches brokers, and moves queues away from those that fail.
#[derive(Debug, Parser)]
#[command(name = "rmom-manager", version = crate::VERSION, after_help = MANAGER_HELP)]
pub struct ManagerArgs {
    /// Configuration file, in TOML with a table per profile.
    #[arg(value_name = "CONFIG", env = "ROCKET_CONFIG", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Table that overrides [default]; without it, the variable ROCKET_PROFILE names one.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// Check the configuration, print its effective form (without passwords), and exit.
    #[arg(long)]
    check_config: bool,
    /// Format of log lines; overrides log.format of the file.
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
}

/// `rmom-broker`.
#[must_use]
pub fn broker() -> Exit {
    BrokerArgs::parse().run()
}

/// `rmom-manager`.
#[must_use]
pub fn manager() -> Exit {
    ManagerArgs::parse().run()
}

impl BrokerArgs {
    /// Runs a broker until it ends, or checks its configuration.
    #[must_use]
    pub fn run(&self) -> Exit {
        let loaded = BrokerConfig::load(&self.config, &process_environment());
        start(&self.common, loaded, |config| &mut config.log, BrokerConfig::to_yaml, run_broker)
    }
}

impl ManagerArgs {
    /// Runs a manager until it ends, or checks its configuration.
    #[must_use]
    pub fn run(&self) -> Exit {
        let loaded = ManagerConfig::load(&self.config, self.profile.as_deref(), &process_environment());
        start(&self.common, loaded, |config| &mut config.log, ManagerConfig::to_toml, run_manager)
    }
}

fn start<C, F: Future<Output = Exit>>(
    args: &CommonArgs,
    loaded: Result<Loaded<C>, ConfigError>,
    log: impl FnOnce(&mut C) -> &mut LogConfig,
    show: impl FnOnce(&C) -> String,
    run: impl FnOnce(C) -> F,
) -> Exit {
    let Loaded { mut config, warnings } = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(error);
            return Exit::Usage;
        }
    };
    let log = log(&mut config);
    log.format = args.log_format.unwrap_or(log.format);
    if args.check_config {
        warnings.iter().for_each(|warning| complain(format_args!("warning: {warning}")));
        // If the reader has closed the output, it does not need the text.
        let _ = io::stdout().lock().write_all(show(&config).as_bytes());
        return Exit::Ok;
    }
    logging::start(log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match block_on(Threads::LeaveOne, run(config)) {
        Ok(exit) => exit,
        Err(error) => {
            complain(error);
            Exit::Unavailable
        }
    }
}

/// Reports an error before logging has started.
fn complain(message: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}
