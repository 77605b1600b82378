//! Streams of health and reflection: clients keep them open, and they cost something all the while. So they are few.

use std::sync::Arc;

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use rmom_core::model::Code;
use tokio::sync::Semaphore;

use super::status::status;
use crate::serve::Lasting;

/// Watches of gRPC health that may be open at once, and as many streams of reflection.
pub const MAX_PROBE_STREAMS: usize = 256;

/// Those that are open.
#[derive(Clone)]
pub(super) struct ProbeStreams {
    watches: Arc<Semaphore>,
    reflections: Arc<Semaphore>,
}

impl ProbeStreams {
    pub(super) fn new() -> Self {
        let [watches, reflections] = [(); 2].map(|()| Arc::new(Semaphore::new(MAX_PROBE_STREAMS)));
        Self { watches, reflections }
    }

    /// Of which kind a method is, if it is a stream.
    fn of(&self, path: &str) -> Option<(&Arc<Semaphore>, &'static str)> {
        if path.ends_with("/Watch") {
            Some((&self.watches, "watches of health; ask with Check"))
        } else if path.ends_with("/ServerReflectionInfo") {
            Some((&self.reflections, "streams of reflection; ask later"))
        } else {
            None
        }
    }

    /// Refuses a stream if too many of its kind are open.
    pub(super) async fn limit(self, request: Request, next: Next) -> Response {
        let Some((open, what)) = self.of(request.uri().path()) else { return next.run(request).await };
        let Ok(place) = Arc::clone(open).try_acquire_owned() else {
            return status(Code::Overloaded, format!("there are {MAX_PROBE_STREAMS} {what}"), Vec::new()).into_http();
        };
        next.run(request).await.map(|body| Body::new(Lasting::new(body, place)))
    }
}
