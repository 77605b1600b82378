//! A limit on how often strangers make the broker ask the store.

use parking_lot::Mutex;
use tokio::time::Instant;

use super::BrokerError;

/// A token bucket that holds a second's worth.
#[derive(Debug)]
pub(super) struct Lookups {
    per_second: u32,
    state: Mutex<(f64, Option<Instant>)>,
}

impl Lookups {
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_second, state: Mutex::new((f64::from(per_second), None)) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// [`BrokerError::Overloaded`] when there is none.
    pub(super) fn take(&self) -> Result<(), BrokerError> {
        let mut state = self.state.lock();
        let (tokens, last) = &mut *state;
        let now = Instant::now();
        let capacity = f64::from(self.per_second);
        if let Some(last) = last {
            *tokens = (*tokens + now.duration_since(*last).as_secs_f64() * capacity).min(capacity);
        }
        *last = Some(now);
        if *tokens < 1.0 {
            let limit = usize::try_from(self.per_second).unwrap_or(usize::MAX);
            return Err(BrokerError::Overloaded { what: "look-ups in the store per second", limit });
        }
        *tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tokens_come_back() {
        let lookups = Lookups::new(2);
        assert!(lookups.take().is_ok() && lookups.take().is_ok());
        assert!(lookups.take().is_err());
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(lookups.take().is_ok());
        assert!(lookups.take().is_err());
    }
}
