//! The callers of requests, for gRPC and REST alike.
//!
//! [`table`] lists all RPCs and routes with the right that each needs. [`call_of`] finds the caller of a request and its
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

/// The call that a request to this path makes.
///
/// # Errors
/// [`Denied::Unlisted`]: the table gives the path no right, so that nothing can be asked of the broker or the manager.
pub(crate) fn call_of<B>(request: &http::Request<B>, path: &str) -> Result<Call, Denied> {
    let right = entry(request.method().as_str(), path).and_then(|entry| entry.right).ok_or(Denied::Unlisted)?;
    Ok(Call::new(caller_of(request.extensions()), right))
}

/// Adds the [`Call`] to each request, for handlers. A handler that finds none has no way to the broker or the manager.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let call = match request.extensions().get::<MatchedPath>() {
        // The methods of a gRPC service share one route.
        Some(route) if !route.as_str().contains("{method}") => call_of(&request, route.as_str()),
        _ => call_of(&request, request.uri().path()),
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
