//! The callers of requests, for gRPC and REST alike.
//!
//! [`table`] lists all RPCs and routes with the right that each needs. [`identify`] and [`rpc_of`] find the caller of a request and its
//! method's entry; tokens and client certificates will be read there.

mod table;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use http::{Extensions, StatusCode, request::Parts};
use rmom_core::access::{Call, Caller, Denied, Permit, admit};

pub use table::{Entry, Server, TABLE, entry};

use crate::serve::Peer;

/// The caller of a request with these extensions.
pub(crate) fn caller_of(extensions: &Extensions) -> Caller {
    extensions.get::<Peer>().map_or_else(Caller::unknown, |peer| peer.caller.clone())
}

/// The call that a request of this method to this path makes.
///
/// # Errors
/// [`Denied::Unlisted`]: the table gives the path no right, so that nothing can be asked of the broker or the manager.
fn call_of<B>(request: &http::Request<B>, method: &str, path: &str) -> Result<Call, Denied> {
    let right = entry(method, path).and_then(|entry| entry.right).ok_or(Denied::Unlisted)?;
    Ok(Call::new(caller_of(request.extensions()), right))
}

/// The call of the RPC that a request names by its path. tonic does not look at the HTTP method, so neither does this.
///
/// # Errors
/// As of [`identified`].
pub(crate) fn rpc_of<B>(request: &http::Request<B>) -> Result<Call, Denied> {
    call_of(request, "POST", request.uri().path())
}

/// Adds the [`Call`] to each request, for handlers. A handler that finds none has no way to the broker or the manager.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let call = match request.extensions().get::<MatchedPath>() {
        // The methods of a gRPC service share one route.
        Some(route) if !route.as_str().contains("{method}") => {
            call_of(&request, request.method().as_str(), route.as_str())
        }
        _ => rpc_of(&request),
    };
    if let Ok(call) = call {
        request.extensions_mut().insert(call);
    }
    next.run(request).await
}

/// The call that [`identify`] added to a request.
///
/// # Errors
/// [`Denied::Unlisted`]: there is none.
pub(crate) fn identified(extensions: &Extensions) -> Result<Call, Denied> {
    extensions.get::<Call>().cloned().ok_or(Denied::Unlisted)
}

/// Admits a request that concerns the whole server, such as one for `/metrics`.
pub struct Admitted(
    /// The proof.
    pub Permit,
);

impl<S: Sync> FromRequestParts<S> for Admitted {
    type Rejection = (StatusCode, String);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let permit = identified(&parts.extensions)
            .and_then(|call| admit(&call, call.right().ok_or(Denied::Unlisted)?.on_cluster()));
        permit.map(Self).map_err(|denied| (StatusCode::INTERNAL_SERVER_ERROR, denied.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use rmom_core::access::Right;

    use super::*;

    #[test]
    fn an_rpc_is_named_by_its_path_alone() {
        for method in ["POST", "PUT", "GET"] {
            let request = http::Request::builder().method(method).uri("/messages.MessageStream/GetHeartbeat");
            let call = rpc_of(&request.body(()).unwrap()).unwrap();
            assert_eq!(call.right(), Some(Right::Inspect), "{method}");
        }
        let unknown = http::Request::builder().method("POST").uri("/messages.MessageStream/Nothing").body(()).unwrap();
        assert_eq!(rpc_of(&unknown).err(), Some(Denied::Unlisted));
    }
}
