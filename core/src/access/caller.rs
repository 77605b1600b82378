//! The client behind a call.

use std::sync::Arc;

use crate::model::Origin;

/// The identity that a client has proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// The client has proved no identity. This holds for every client until rmom has users.
    Anonymous,
    /// Code in the server's own process.
    Process,
}

/// The client on whose behalf a call is made. It is made once for each connection, and clones are cheap.
#[derive(Clone, Debug)]
pub struct Caller {
    peer: Arc<str>,
    origin: Option<Origin>,
    principal: Principal,
}

impl Caller {
    /// A client at the other end of a connection. `counts` is false behind a proxy, whose address all clients share.
    #[must_use]
    pub fn anonymous(peer: &Arc<str>, counts: bool) -> Self {
        Self { peer: peer.clone(), origin: counts.then(|| Origin::of(peer)), principal: Principal::Anonymous }
    }

    /// A client that came over no connection that the server knows of.
    #[must_use]
    pub fn unknown() -> Self {
        Self { peer: "unknown".into(), origin: None, principal: Principal::Anonymous }
    }

    /// Code in the server's own process, such as `rmom dev` and tests. Never for requests that came over a connection.
    #[must_use]
    pub fn process() -> Self {
        Self { peer: "this process".into(), origin: None, principal: Principal::Process }
    }

    /// The client's end of the connection, for operators.
    #[must_use]
    pub fn peer(&self) -> &Arc<str> {
        &self.peer
    }

    /// The origin whose share of the limits the call takes. `None`: only the limits on all apply.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// The identity.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }
}
