//! Tracks whether a connection has requests: one without any is closed in order after a while.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The requests of a connection.
pub(super) struct Activity {
    active: AtomicUsize,
    idle_since: Mutex<Instant>,
    closing: Notify,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { active: AtomicUsize::new(0), idle_since: Mutex::new(Instant::now()), closing: Notify::new() })
    }

    /// Begins a request, which lasts until the returned value is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Busy {
        self.active.fetch_add(1, AcqRel);
        Busy(self.clone())
    }

    /// Closes the connection once its requests have ended.
    pub(super) fn close(&self) {
        self.closing.notify_one();
    }

    /// Waits for [`Activity::close`].
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Waits until there has been no request for this time.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let end =
                if self.active.load(Acquire) == 0 { *self.idle_since.lock() + limit } else { Instant::now() + limit };
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// A request under way.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.idle_since.lock() = Instant::now();
        self.0.active.fetch_sub(1, AcqRel);
    }
}

/// A response's body, with the value that its request holds until the body has ended.
pub(crate) struct Lasting<T> {
    body: Body,
    _held: T,
}

impl<T> Lasting<T> {
    pub(crate) fn new(body: Body, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<T: Unpin> HttpBody for Lasting<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
