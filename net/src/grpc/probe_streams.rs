//! Limits streams of health and reflection. Clients keep them open, and they cost something all the while; so there are few
//! of them, and one address cannot take them all.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use parking_lot::Mutex;
use rmom_core::model::{Code, Origin};

use super::status::status;
use crate::serve::{Lasting, Peer};

/// Limit on the watches of gRPC health that are open at once; streams of reflection have the same limit.
pub const MAX_PROBE_STREAMS: usize = 256;
/// Limit for one address, again for either kind.
pub const MAX_PROBE_STREAMS_PER_PEER: usize = MAX_PROBE_STREAMS / 4;

/// The streams that are open.
#[derive(Clone, Default)]
pub(super) struct ProbeStreams {
    watches: Arc<Open>,
    reflections: Arc<Open>,
}

/// The open streams of one kind.
#[derive(Default)]
struct Open(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    /// Never more entries than streams.
    origins: BTreeMap<Origin, usize>,
}

/// The place of one stream, held until it is dropped.
struct Place {
    open: Arc<Open>,
    origin: Option<Origin>,
}

impl Open {
    /// Takes a place for a stream of this origin, or names the limit that was reached.
    fn take(self: &Arc<Self>, origin: Option<Origin>) -> Result<Place, String> {
        let mut counts = self.0.lock();
        if counts.all >= MAX_PROBE_STREAMS {
            return Err(format!("there are {MAX_PROBE_STREAMS}"));
        }
        if let Some(origin) = &origin {
            let of_origin = counts.origins.entry(origin.clone()).or_default();
            if *of_origin >= MAX_PROBE_STREAMS_PER_PEER {
                return Err(format!("your address has {MAX_PROBE_STREAMS_PER_PEER}"));
            }
            *of_origin += 1;
        }
        counts.all += 1;
        Ok(Place { open: self.clone(), origin })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.0.lock();
        counts.all -= 1;
        if let Some(origin) = &self.origin
            && let Some(of_origin) = counts.origins.get_mut(origin)
        {
            *of_origin -= 1;
            if *of_origin == 0 {
                counts.origins.remove(origin);
            }
        }
    }
}

impl ProbeStreams {
    /// The kind of a method, if it is a stream.
    fn of(&self, path: &str) -> Option<(&Arc<Open>, &'static str)> {
        if path.ends_with("/Watch") {
            Some((&self.watches, "watches of health; ask with Check"))
        } else if path.ends_with("/ServerReflectionInfo") {
            Some((&self.reflections, "streams of reflection; close some, or ask later"))
        } else {
            None
        }
    }

    /// Refuses a stream if too many of its kind are open.
    pub(super) async fn limit(self, request: Request, next: Next) -> Response {
        let Some((open, what)) = self.of(request.uri().path()) else { return next.run(request).await };
        let origin = request.extensions().get::<Peer>().and_then(Peer::origin).cloned();
        match open.take(origin) {
            Ok(place) => next.run(request).await.map(|body| Body::new(Lasting::new(body, place))),
            Err(limit) => status(Code::Overloaded, format!("{limit} {what}"), Vec::new()).into_http(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_streams_to_others() {
        let open = Arc::<Open>::default();
        let from = |n: usize| Some(Origin::of(&format!("10.0.0.{n}:1")));
        let mut places: Vec<_> = (0..MAX_PROBE_STREAMS_PER_PEER).map(|_| open.take(from(1)).ok().unwrap()).collect();
        assert_eq!(open.take(from(1)).err().unwrap(), "your address has 64");
        places
            .extend((0..MAX_PROBE_STREAMS - MAX_PROBE_STREAMS_PER_PEER).map(|n| open.take(from(n + 2)).ok().unwrap()));
        assert_eq!(open.take(from(999)).err().unwrap(), "there are 256");
        drop(places);
        let places: Vec<_> = (0..MAX_PROBE_STREAMS).map(|_| open.take(None)).collect();
        assert!(places.iter().all(Result::is_ok), "behind a proxy an address has no share");
        drop(places);
        let counts = open.0.lock();
        assert!(counts.all == 0 && counts.origins.is_empty(), "those that end are forgotten");
    }
}
