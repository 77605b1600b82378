//! The observations of `rmom doctor`. Their texts are safe to print; see [`printable`].

use std::{fmt, time::Duration};

use rmom_client::{Broker, Status};

use crate::service::{authority, routers::Kind};

/// Limit on the characters of a text that came over the network.
const MAX_CHARACTERS: usize = 200;

/// All observations.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The version of this program.
    pub(super) version: String,
    /// Limit on the open files of this process. `None` means unlimited or not known.
    pub(super) open_files: Option<u64>,
    /// The managers of the command line, in its order.
    pub(super) managers: Vec<ManagerSeen>,
    /// The brokers named by the managers.
    pub(super) brokers: Vec<BrokerSeen>,
}

/// A manager of the command line, with the answer to each request or the reason why there is none.
#[derive(Debug)]
pub(super) struct ManagerSeen {
    pub(super) url: String,
    /// Time from the attempt to connect to the first answer. `None` means that no answer came.
    pub(super) took: Option<Duration>,
    /// The answer of `/version`.
    pub(super) about: Result<About, Fault>,
    /// The answer of `/readyz`.
    pub(super) readiness: Result<Readiness, Fault>,
    /// The answer of `/v1/status`.
    pub(super) status: Result<Status, Fault>,
}

impl ManagerSeen {
    fn is(&self, kind: Kind) -> bool {
        self.about.as_ref().is_ok_and(|about| about.kind == Some(kind))
    }

    pub(super) fn is_a_broker(&self) -> bool {
        self.is(Kind::Broker)
    }

    /// True if a manager answered. A manager that is starting does not report the state of the cluster, but says that it is
    /// not ready.
    pub(super) fn is_a_manager(&self) -> bool {
        let in_its_form = self.status.is_ok() || self.readiness.is_ok() || self.is(Kind::Manager);
        in_its_form && !self.is_a_broker()
    }
}

/// The answer of `/readyz`, in the form that managers give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// It opens its database.
    Starting,
    /// It waits for its database, for this reason.
    Waiting(String),
    /// It runs, but something is wrong. Without a code, the database is not the cause.
    NotReady {
        code: Option<String>,
        reason: String,
    },
}

/// A server's report on itself; empty if its version is older.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) kind: Option<Kind>,
    pub(super) version: Option<String>,
    /// Milliseconds by which its clock is ahead of this machine's.
    pub(super) ahead_millis: Option<i64>,
}

/// The reason why a request has no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Connecting failed, or the server did not answer.
    NoAnswer { reason: String, cause: Cause },
    /// The answer is not a manager's: its status, and what is wrong with it.
    NotOurs(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { reason, .. } => f.write_str(reason),
            Self::NotOurs(status) => write!(f, "it answered {status}"),
        }
    }
}

/// The cause of a failure, as far as the next step depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The server's certificate is not valid for this client.
    Certificate,
    /// The server answered a TLS handshake with something else.
    NoTls,
    /// The server closed a TLS connection on which this client showed no certificate.
    NoClientCertificate,
    Other,
}

/// A broker named by a manager.
#[derive(Debug)]
pub(super) struct BrokerSeen {
    pub(super) broker: Broker,
    /// The attempt to use it from this machine. `None` means that it is not alive, so that no attempt was made.
    pub(super) connection: Option<Result<BrokerAnswer, Fault>>,
}

/// A broker's answer.
#[derive(Debug)]
pub(super) struct BrokerAnswer {
    /// Time from the attempt to connect to the answer.
    pub(super) took: Duration,
    /// The answer of `/version`.
    pub(super) about: Result<About, Fault>,
}

impl BrokerSeen {
    pub(super) fn name(&self) -> String {
        let place = authority(&self.broker.host, self.broker.port);
        self.broker.id.map_or_else(|| format!("the broker at {place}"), |id| format!("broker {id} at {place}"))
    }
}

/// A text that came over the network, as it may be printed: on one line, without characters that control a terminal, and cut.
pub(super) fn printable(text: &str) -> String {
    let mut printed = String::new();
    for (index, character) in text.trim().chars().enumerate() {
        if index == MAX_CHARACTERS {
            printed.push('…');
            break;
        }
        if controls(character) {
            printed.extend(character.escape_default());
        } else {
            printed.push(character);
        }
    }
    printed
}

/// True for control characters, and for those that have no width or change the direction of the text around them.
fn controls(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_is_short_and_controls_no_terminal() {
        assert_eq!(printable(" größer als 1\n"), "größer als 1");
        assert_eq!(printable("a\nb\u{1b}[2J\u{202e}\u{9b}"), "a\\nb\\u{1b}[2J\\u{202e}\\u{9b}");
        assert_eq!(printable(&"ä".repeat(200)), "ä".repeat(200));
        assert_eq!(printable(&"ä".repeat(201)), format!("{}…", "ä".repeat(200)));
    }
}
