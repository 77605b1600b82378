//! The databases, with a deadline on every call.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::ports::{
    AssignError, Catalog, CreateChannelError, CreateQueueError, Databases, ForgetError, Log, StoreError,
};

/// Pause before a write of unknown outcome is repeated, and between checks of a state that is not ready yet.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(100);

/// An error of the store, or one that includes the store's errors.
pub(super) trait StoreFailure: From<StoreError> {
    fn as_store(&self) -> Option<&StoreError>;
}

impl StoreFailure for StoreError {
    fn as_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

macro_rules! store_failure {
    ($($error:ident)*) => {$(
        impl StoreFailure for $error {
            fn as_store(&self) -> Option<&StoreError> {
                match self {
                    Self::Store(error) => Some(error),
                    _ => None,
                }
            }
        }
    )*};
}

store_failure! { AssignError CreateChannelError CreateQueueError ForgetError }

/// The databases, with a deadline on every call: the caller's or the store's own, whichever is earlier.
#[derive(Clone)]
pub(super) struct TimedStore {
    databases: Databases,
    timeout: Duration,
}

/// A write that succeeded.
pub(super) struct Written<T> {
    pub(super) value: T,
    /// True if an earlier attempt may have made the change.
    pub(super) repeated: bool,
}

impl TimedStore {
    pub(super) fn new(databases: Databases, timeout: Duration) -> Self {
        Self { databases, timeout }
    }

    /// The catalog itself, for making the calls that the other methods time.
    pub(super) fn catalog(&self) -> &dyn Catalog {
        &*self.databases.catalog
    }

    /// The database that holds a queue's log.
    pub(super) fn log(&self) -> &dyn Log {
        &*self.databases.log
    }

    /// Times a call that changes nothing.
    pub(super) async fn read<T, E: StoreFailure>(
        &self,
        by: Instant,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match timeout_at(self.limit(by), call).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unavailable("it did not answer in time".to_owned()).into()),
        }
    }

    /// Times a call that may change something. Makes it once.
    pub(super) async fn write<T, E: StoreFailure>(
        &self,
        by: Instant,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match timeout_at(self.limit(by), call).await {
            Ok(answer) => answer,
            Err(_) => Err(StoreError::Unknown("the store did not answer in time".to_owned()).into()),
        }
    }

    /// Makes a call that may change something, and repeats it while its outcome is unknown, until `by`.
    pub(super) async fn write_until_known<T, E, F>(
        &self,
        by: Instant,
        mut call: impl FnMut() -> F,
    ) -> Result<Written<T>, E>
    where
        E: StoreFailure,
        F: Future<Output = Result<T, E>>,
    {
        let mut unknown = None;
        loop {
            match self.write(by, call()).await {
                Ok(value) => return Ok(Written { value, repeated: unknown.is_some() }),
                Err(error) if error.as_store().is_some_and(StoreError::is_unknown) => unknown = Some(error),
                // A failure of this attempt says nothing about the one before.
                Err(error) if unknown.is_some() && error.as_store().is_some() => {}
                Err(error) => return Err(error),
            }
            let next = Instant::now() + RETRY_DELAY;
            if let Some(error) = unknown.take_if(|_| next >= by) {
                return Err(error);
            }
            mark!(WriteRepeated);
            sleep_until(next).await;
        }
    }

    fn limit(&self, by: Instant) -> Instant {
        by.min(Instant::now() + self.timeout)
    }
}
