//! The command line of `rmom`.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Args, Command as Definition, CommandFactory as _, Parser, Subcommand, ValueEnum, builder::Resettable};
use clap_complete::Shell;

use super::bench::args::BenchArgs;
use crate::server::{BrokerArgs, ManagerArgs, SERVE_BROKER_HELP, SERVE_MANAGER_HELP};

/// Options of all commands that apply only to those that ask a cluster.
pub(super) const CLIENT_OPTIONS: [&str; 5] = ["manager", "json", "ca", "cert", "key"];
/// Commands that ask no cluster.
const WITHOUT_A_CLUSTER: [&str; 3] = ["serve", "completions", "man"];
/// The address of the manager of `rmom dev`, and the default manager of other commands.
pub const DEFAULT_MANAGER: &str = "http://127.0.0.1:8082";

const EXAMPLES: &str = "\
Examples:
  rmom dev                                  run a broker on this machine (leave it running)
  echo hello | rmom push --create greetings push a message per line
  rmom subscribe greetings                  print the messages, from the first on

Exit codes: 0 done, 1 refused, 2 wrong usage, 3 not found, 4 unavailable or timed out.";

/// Durable messages: run brokers, manage queues, push and subscribe.
#[derive(Debug, Parser)]
#[command(name = "rmom", version = crate::VERSION, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Managers to ask, separated by commas; any of them can answer.
    #[arg(long, global = true, env = "RMOM_MANAGER", value_name = "URL", value_delimiter = ',', default_value = DEFAULT_MANAGER)]
    pub manager: Vec<String>,
    /// Certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Print JSON for programs instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The definition of the command line.
#[must_use]
pub fn command() -> Definition {
    hide_client_options(Cli::command())
}

/// The definition of the command line, as this process parses it: a variable that is empty counts as unset.
pub(super) fn command_in_environment() -> Definition {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let without_empty = Cli::command().mut_args(|option| match option.get_env() {
        Some(name) if is_empty(name) => option.env(Resettable::Reset),
        _ => option,
    });
    hide_client_options(without_empty)
}

/// Commands that ask no cluster do not list the options for that. They still parse them, to refuse them with a reason.
fn hide_client_options(command: Definition) -> Definition {
    let options = command.get_arguments().filter(|option| CLIENT_OPTIONS.contains(&option.get_id().as_str()));
    let hidden: Vec<_> = options.map(|option| option.clone().hide(true)).collect();
    let hide = |command: Definition, name| command.mut_subcommand(name, |sub| sub.args(hidden.clone()));
    WITHOUT_A_CLUSTER.into_iter().fold(command, hide)
}

/// Certificates for clusters that use TLS.
#[derive(Clone, Debug, Default, Args)]
pub struct TlsArgs {
    /// PEM file with the authority of the managers' and brokers' certificates; turns TLS on.
    #[arg(long, global = true, env = "RMOM_CA", value_name = "FILE", help_heading = "TLS")]
    pub ca: Option<PathBuf>,
    /// PEM file with this client's certificate, for clusters that require one.
    #[arg(long, global = true, env = "RMOM_CERT", value_name = "FILE", help_heading = "TLS")]
    pub cert: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[arg(long, global = true, env = "RMOM_KEY", value_name = "FILE", help_heading = "TLS")]
    pub key: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a manager and three brokers in this process, with an embedded database.
    Dev(DevArgs),
    /// Run one server of a cluster from its configuration file, in the foreground.
    #[command(
        subcommand,
        after_help = "Examples:\n  rmom serve manager Rocket.toml\n  rmom serve broker mom1.yaml\n\n\
                      The programs rmom-manager and rmom-broker do the same."
    )]
    Serve(ServeCommand),
    /// Show the state of the cluster, its problems and the next steps; exit code 4 if there are problems.
    #[command(after_help = "Examples:\n  rmom status\n  rmom --json status")]
    Status,
    /// Check managers, brokers, database, clocks and versions from this machine: print ok or the next step.
    Doctor(DoctorArgs),
    /// Create, delete and show queues.
    #[command(subcommand, after_help = "Examples:\n  rmom queue create orders\n  rmom queue show orders")]
    Queue(QueueCommand),
    /// Create, delete and show channels, the receiving ends of queues.
    #[command(
        subcommand,
        after_help = "Examples:\n  rmom channel create orders --topic paid\n  rmom channel list orders"
    )]
    Channel(ChannelCommand),
    /// Show brokers, and take them out of service.
    #[command(subcommand, after_help = "Examples:\n  rmom broker list\n  rmom broker drain 2")]
    Broker(BrokerCommand),
    /// Push messages to a queue: each argument, or each line of standard input.
    Push(PushArgs),
    /// Print the messages of a queue or channel as they arrive.
    Subscribe(SubscribeArgs),
    /// Measure a cluster: pushes, deliveries, latency, failover, idle cost.
    Bench(BenchArgs),
    /// Crash and restart brokers of a running `rmom dev`, to watch a failover.
    #[command(subcommand, after_help = "Example:\n  rmom dev-broker crash 1")]
    DevBroker(DevBrokerCommand),
    /// Print a shell's completions of rmom's command lines.
    #[command(after_help = "\
Examples:
  rmom completions bash > ~/.local/share/bash-completion/completions/rmom
  rmom completions zsh > ~/.zfunc/_rmom       # with fpath+=~/.zfunc before compinit in ~/.zshrc
  rmom completions fish > ~/.config/fish/completions/rmom.fish")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print rmom's manual page, or write the pages of all commands and servers to a directory.
    #[command(after_help = "\
Examples:
  rmom man | man -l -
  rmom man ~/.local/share/man")]
    Man {
        /// Directory for the pages; its folders man1 and man8 are created.
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Simulate a cluster with faults, replayable from a seed; pass all arguments to rmom-sim.
    #[command(disable_help_flag = true, after_help = "Example:\n  rmom sim run --seeds 1000")]
    Sim {
        /// Arguments; see `rmom sim --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// `rmom serve`
#[derive(Debug, Subcommand)]
pub enum ServeCommand {
    /// Host queues: store pushed messages and deliver them.
    #[command(after_help = SERVE_BROKER_HELP)]
    Broker(BrokerArgs),
    /// Administer queues and channels, watch brokers, and move queues away from those that fail.
    #[command(after_help = SERVE_MANAGER_HELP)]
    Manager(ManagerArgs),
}

/// `rmom dev`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  rmom dev
  rmom dev --data /var/tmp/rmom
  rmom dev --ephemeral --port 0 --broker-port 0

Port 0 takes free ports. The data is kept between runs; it belongs to one process at a time.")]
pub struct DevArgs {
    /// Directory for messages.
    #[arg(long, value_name = "DIR", default_value = "rmom-data", conflicts_with = "ephemeral")]
    pub data: PathBuf,
    /// Delete all messages at the end.
    #[arg(long)]
    pub ephemeral: bool,
    /// The manager's port. 0 takes free ports for the manager and, unless --broker-port is given, the brokers.
    #[arg(long, value_name = "PORT", default_value_t = 8082)]
    pub port: u16,
    /// The first broker's port; the others follow it [default: 50051].
    #[arg(long, value_name = "PORT")]
    pub broker_port: Option<u16>,
    /// Number of brokers.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub brokers: u16,
    /// Address to listen on.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
}

/// `rmom doctor`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  rmom doctor
  rmom --manager http://m1:8082,http://m2:8082 doctor --timeout 5s
  rmom --json doctor

Every line is ok, a warning or a problem; exit code 4 if there is a problem. It asks every manager
that --manager names, and connects to every live broker as clients do.")]
pub struct DoctorArgs {
    /// Limit on the time of all checks together.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "10s")]
    pub timeout: Duration,
}

/// The order of a list of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// By label.
    Label,
    /// By the number of messages, largest first.
    Depth,
    /// By the largest lag of a subscriber, largest first.
    Lag,
}

/// `rmom queue`
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Create a queue; wait until a broker serves it.
    #[command(after_help = "Example:\n  rmom queue create orders")]
    Create {
        /// Label of 1 to 255 bytes, case-insensitive.
        label: String,
    },
    /// Delete a queue with its messages and channels, permanently.
    #[command(after_help = "Example:\n  rmom queue delete orders")]
    Delete {
        /// Its label.
        label: String,
    },
    /// List the queues with their brokers, contents, and how far their subscribers are behind.
    #[command(
        after_help = "Examples:\n  rmom queue list\n  rmom queue list --prefix orders/ --sort lag\n\n? means that a broker did not report the value."
    )]
    List {
        /// List only queues whose labels begin with this.
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
        /// Order of the list.
        #[arg(long, value_enum, default_value_t = Sort::Label, conflicts_with = "no_live")]
        sort: Sort,
        /// Do not ask brokers; list only labels, ids and brokers, from the database.
        #[arg(long)]
        no_live: bool,
    },
    /// Show a queue's broker and contents, its subscribers, and how far they are behind.
    #[command(after_help = "Example:\n  rmom queue show orders")]
    Show {
        /// Its label.
        label: String,
    },
}

/// `rmom channel`
#[derive(Debug, Subcommand)]
pub enum ChannelCommand {
    /// Create a channel and print its id.
    #[command(after_help = "Example:\n  rmom channel create orders --topic paid --from latest")]
    Create {
        /// The queue's label.
        queue: String,
        /// Deliver only messages with this topic.
        #[arg(long)]
        topic: Option<String>,
        /// Start: earliest, latest, or an offset.
        #[arg(long, value_name = "START", default_value = "earliest")]
        from: From,
    },
    /// Delete a channel.
    #[command(after_help = "Example:\n  rmom channel delete 0f8fad5b-d9cb-469f-a165-70867728950e")]
    Delete {
        /// Its id.
        id: String,
    },
    /// List the channels of one queue, or of all.
    #[command(after_help = "Example:\n  rmom channel list orders")]
    List {
        /// The queue's label.
        queue: Option<String>,
    },
    /// Show a channel's queue, topic and start, and the queue's broker.
    #[command(after_help = "Example:\n  rmom channel show 0f8fad5b-d9cb-469f-a165-70867728950e")]
    Show {
        /// Its id.
        id: String,
    },
}

/// `rmom broker`
#[derive(Debug, Subcommand)]
pub enum BrokerCommand {
    /// List the brokers with the number of their queues.
    #[command(after_help = "Example:\n  rmom broker list")]
    List,
    /// Move a broker's queues to other brokers, and give it no new ones.
    #[command(after_help = "Example:\n  rmom broker drain 2")]
    Drain {
        /// Its id, from `rmom broker list`.
        id: u64,
    },
    /// Remove a broker that is permanently gone; if it comes back, it registers as a new one.
    #[command(after_help = "Example:\n  rmom broker forget 4")]
    Forget {
        /// Its id.
        id: u64,
        /// Do not wait until it has been gone for a minute; never removes a broker that is alive.
        #[arg(long)]
        force: bool,
    },
    /// Move queues from brokers with many to brokers with few, now.
    #[command(after_help = "\
Example:
  rmom broker rebalance

The leading manager does this by itself, gently, unless its configuration says rebalance = false.")]
    Rebalance,
    /// Let a drained broker take queues again.
    #[command(after_help = "Example:\n  rmom broker undrain 2")]
    Undrain {
        /// Its id.
        id: u64,
    },
}

/// `rmom dev-broker`
#[derive(Debug, Subcommand)]
pub enum DevBrokerCommand {
    /// Stop a broker abruptly, like a power cut.
    #[command(after_help = "Example:\n  rmom dev-broker crash 1")]
    Crash {
        /// Its number in the output of `rmom dev`.
        number: u16,
    },
    /// Start a crashed broker again.
    #[command(after_help = "Example:\n  rmom dev-broker restart 1")]
    Restart {
        /// Its number in the output of `rmom dev`.
        number: u16,
    },
}

/// `rmom push`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rmom push orders 'one message' 'another'
  git log --oneline | rmom push --create history
  rmom push orders --producer importer-1 < orders.txt

It ends when everything is stored. With --producer NAME, lines that an interrupted run of the same
name and input stored already are skipped, so that each line is stored once.")]
pub struct PushArgs {
    /// The queue's label.
    pub queue: String,
    /// Messages; without any, each line of standard input is one.
    pub messages: Vec<String>,
    /// Topic of the messages.
    #[arg(long)]
    pub topic: Option<String>,
    /// Create the queue if it does not exist.
    #[arg(long)]
    pub create: bool,
    /// Lifetime of the messages, such as 90s, 15m, 12h, 7d [default: the broker's].
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub ttl: Option<Duration>,
    /// Push under this name, one name for each input: skips as many messages as earlier runs with the name stored.
    #[arg(long, value_name = "NAME")]
    pub producer: Option<String>,
    /// Give up when a message has not been stored for this long.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "2m")]
    pub timeout: Duration,
}

/// `rmom subscribe`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rmom subscribe orders
  rmom subscribe orders --topic paid --from latest --json
  rmom subscribe orders --count 10 --idle-timeout 5s
  rmom subscribe 0f8fad5b-d9cb-469f-a165-70867728950e

An id is a channel's. Anything else is a queue's label: a channel is made for this run and deleted at
its end. Each message is printed with a newline after it. When a broker dies, it goes on at the next
one where it stopped.")]
pub struct SubscribeArgs {
    /// A queue's label, or a channel's id.
    #[arg(value_name = "QUEUE|CHANNEL")]
    pub source: String,
    /// Only messages with this topic (for a queue).
    #[arg(long)]
    pub topic: Option<String>,
    /// Start in a queue: earliest, latest, or an offset [default: earliest].
    #[arg(long, value_name = "START")]
    pub from: Option<From>,
    /// Keep the channel that was created, and print its id to standard error.
    #[arg(long)]
    pub keep: bool,
    /// Stop after N messages.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Stop when no message has arrived for this long; exit code 4 if --count is not reached.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub idle_timeout: Option<Duration>,
    /// Stop after this long; exit code 4 if --count is not reached.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// The start of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// At the oldest message.
    #[default]
    Earliest,
    /// After the newest message.
    Latest,
    /// At an offset.
    Offset(u64),
}

impl FromStr for From {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            offset => match offset.parse() {
                Ok(offset) if (1..=i64::MAX as u64).contains(&offset) => Ok(Self::Offset(offset)),
                _ => Err("expected earliest, latest, or an offset (1 and up)"),
            },
        }
    }
}

/// Reads seconds as `10` or `10s`; also `250ms`, `15m`, `12h`, `7d`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let error = "expected a time such as 250ms, 10s, 15m, 12h or 7d";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error)?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(error),
    };
    let millis = number.checked_mul(millis).filter(|&millis| millis > 0).ok_or(error)?;
    // A hundred years: the longest lifetime that brokers accept, and far below the overflow of sums of times.
    if millis > rmom_core::model::limits::MAX_TTL.as_secs() * 1_000 {
        return Err("that is more than a hundred years");
    }
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn only_commands_that_ask_a_cluster_list_the_options_for_that() {
        fn check(command: &mut Definition, listed: bool) {
            let help = command.render_long_help().to_string();
            for option in CLIENT_OPTIONS {
                assert_eq!(help.contains(&format!("--{option}")), listed, "{option}: {help}");
            }
            command.get_subcommands_mut().for_each(|sub| check(sub, listed));
        }
        let mut rmom = command().disable_help_subcommand(true);
        rmom.build();
        for (name, listed) in
            [("serve", false), ("completions", false), ("man", false), ("push", true), ("queue", true)]
        {
            check(rmom.find_subcommand_mut(name).unwrap(), listed);
        }
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands() {
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("  rmom "), "{}", sub.get_name());
                check(sub);
            }
        }
        check(&command());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "s", "-1s", "1.5s", "10 s", "0s", "1w", "99999999999999999999", "40000d"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn starts_are_words_or_offsets() {
        assert_eq!("earliest".parse(), Ok(From::Earliest));
        assert_eq!("latest".parse(), Ok(From::Latest));
        assert_eq!("17".parse(), Ok(From::Offset(17)));
        for text in ["0", "-1", "first", "9223372036854775808", ""] {
            assert!(text.parse::<From>().is_err(), "{text:?}");
        }
    }
}
