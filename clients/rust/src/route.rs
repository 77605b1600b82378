//! Finds the broker that hosts a queue, and finds it again.

use http::Method;
use rmom_proto::contract::{Code, authority};
use serde::Deserialize;
use tracing::debug;
use uuid::Uuid;

use crate::{Client, Error, rest::segment};

/// Limit on the hints in a row that are followed at once; after that the client waits. A hint is a broker's word on where
/// the queue is.
const MAX_HINTS_IN_A_ROW: u32 = 2;

/// The object to find.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// The host of a queue, by label.
    Queue(String),
    /// The host of a channel's queue.
    Channel(Uuid),
}

/// The route to a queue's host.
#[derive(Debug)]
pub(crate) struct Route {
    target: Target,
    /// The last known address.
    host: Option<String>,
    /// The address that a broker named.
    hint: Option<String>,
    hints_in_a_row: u32,
}

#[derive(Deserialize)]
struct Placed {
    host: String,
    port: u16,
}

impl Route {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, host: None, hint: None, hints_in_a_row: 0 }
    }

    /// The `host:port` to try now: a broker's hint, the managers' answer, or, while no manager answers, the queue's last
    /// known address.
    pub(crate) async fn find(&mut self, client: &Client) -> Result<String, Error> {
        let found = match self.hint.take() {
            Some(hint) => hint,
            None => match self.ask_managers(client).await {
                Ok(found) => found,
                Err(error) if is_definite(&error) => return Err(error),
                Err(error) => {
                    let Some(host) = &self.host else { return Err(error) };
                    debug!(%error, host, "the managers do not say where the queue is; trying where it was last");
                    host.clone()
                }
            },
        };
        self.host = Some(found.clone());
        Ok(found)
    }

    async fn ask_managers(&self, client: &Client) -> Result<String, Error> {
        let path = match &self.target {
            Target::Queue(label) => format!("/queues/{}", segment(label)),
            Target::Channel(id) => format!("/channels/{id}"),
        };
        let timeout = client.settings().lookup_timeout;
        let placed: Placed = client.managers().json(Method::GET, &path, None, timeout).await?;
        Ok(authority(&placed.host, placed.port))
    }

    /// An attempt failed. True if the next can be made at once, because a broker named an address.
    pub(crate) fn failed(&mut self, error: &Error) -> bool {
        self.hint = error.hosted_at().filter(|hint| Some(hint) != self.host.as_ref());
        self.hints_in_a_row = if self.hint.is_some() { self.hints_in_a_row + 1 } else { 0 };
        (1..=MAX_HINTS_IN_A_ROW).contains(&self.hints_in_a_row)
    }

    /// An attempt succeeded.
    pub(crate) fn arrived(&mut self) {
        self.hints_in_a_row = 0;
    }
}

/// True if a manager that has the facts says that the object does not exist.
fn is_definite(error: &Error) -> bool {
    let definite = [
        Code::QueueNotFound.as_str(),
        Code::ChannelNotFound.as_str(),
        Code::InvalidName.as_str(),
        Code::InvalidArgument.as_str(),
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    ];
    matches!(error, Error::Refused { code, .. } if definite.contains(&code.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_hosted(host: &str) -> Error {
        let details = [("host", host), ("port", "7")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Error::Refused { by: "b:1".into(), code: "NOT_HOSTED".into(), message: String::new(), details }
    }

    #[test]
    fn brokers_that_point_at_each_other_do_not_make_the_client_spin() {
        let mut route = Route::new(Target::Queue("q".into()));
        route.host = Some("a:7".into());
        assert!(!route.failed(&not_hosted("a")), "a broker that points at itself is no news");
        let waits: Vec<_> = (0..6).map(|i| !route.failed(&not_hosted(if i % 2 == 0 { "b" } else { "c" }))).collect();
        assert_eq!(waits, [false, false, true, true, true, true]);
        route.arrived();
        assert!(route.failed(&not_hosted("b")));
    }
}
