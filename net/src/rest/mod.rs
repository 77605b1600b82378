//! The managers' REST API: the nine routes of the original, with its status codes, our additions under `/v1/`, and the
//! health checks.
//!
//! Every error is a JSON document with a stable `code` ([`error`]). Under `/v1/` it is a problem document (RFC 9457); on
//! the original's routes the same document is plain `application/json`, and the status is the original's.

mod error;
mod original;
mod pages;
mod request;
#[cfg(test)]
mod tests;
mod v1;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::MethodRouter,
};
use futures_util::FutureExt as _;
use http::{Method, header, request::Parts};
use rmom_core::{
    access::Call,
    manager::{Manager, ManagerError},
};
use tokio::time::timeout;
use tracing::error;

use self::error::RestError;
use crate::{
    access::{identified, identify},
    serve::ServeStats,
};

/// Limits of the REST API.
#[derive(Clone, Debug)]
pub struct RestSettings {
    /// How long a request may take, including the reading of its body. It is above the manager's own deadlines, whose errors
    /// say more.
    pub request_deadline: Duration,
    /// Largest body of a request in bytes.
    pub max_body_bytes: usize,
}

impl Default for RestSettings {
    fn default() -> Self {
        Self { request_deadline: Duration::from_secs(10), max_body_bytes: 64 << 10 }
    }
}

/// State shared by the handlers.
#[derive(Clone)]
struct Api {
    manager: Manager,
    settings: Arc<RestSettings>,
    /// The connections of the server that this API is on.
    connections: Arc<ServeStats>,
}

/// A method (`*`: all), a path, and their handler.
type RouteEntry = (&'static str, &'static str, MethodRouter<Api>);

/// All routes.
fn routes() -> impl Iterator<Item = RouteEntry> {
    original::routes().into_iter().chain(v1::routes()).chain(pages::routes())
}

/// The manager, acting for the caller of a request.
struct Asked(Manager<Call>);

impl FromRequestParts<Api> for Asked {
    type Rejection = RestError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, RestError> {
        Ok(Self(api.manager.on_behalf_of(identified(&parts.extensions).map_err(ManagerError::from)?)))
    }
}

/// The REST API, health checks and metrics of a manager, on a server with these connections.
pub fn router(manager: Manager, settings: RestSettings, connections: Arc<ServeStats>) -> Router {
    let api = Api { manager, settings: Arc::new(settings), connections };
    routes()
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
        .fallback(|| async { RestError::NoSuchRoute })
        .method_not_allowed_fallback(|method: Method| async { RestError::MethodNotAllowed(method) })
        .layer(middleware::from_fn(identify))
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

/// Wraps every route: refuses requests without a route, makes sure that an answer comes, and renders errors.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let mut response = match check(&request, &api.settings) {
        Err(error) => error.into_response(),
        Ok(()) => {
            let deadline = api.settings.request_deadline;
            match timeout(deadline, AssertUnwindSafe(next.run(request)).catch_unwind()).await {
                Ok(Ok(response)) => response,
                Ok(Err(_)) => {
                    // The panic hook has got the panic's text.
                    error!(%method, %path, "a request made this manager panic");
                    RestError::Panicked.into_response()
                }
                Err(_) => RestError::DeadlineExceeded(deadline).into_response(),
            }
        }
    };
    match response.extensions_mut().remove::<Arc<RestError>>() {
        Some(error) if path == "/v1" || path.starts_with("/v1/") => error.as_problem(),
        Some(error) => error.as_original(),
        None => response,
    }
}

fn check(request: &Request, settings: &RestSettings) -> Result<(), RestError> {
    request::check_encoding(request.uri().path())?;
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: u64| length > settings.max_body_bytes as u64) {
        return Err(RestError::BodyTooLarge(settings.max_body_bytes));
    }
    Ok(())
}
