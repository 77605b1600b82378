//! Waits between attempts: exponential, with jitter, so that clients do not all come back at once.

use std::time::Duration;

use crate::config::Settings;

/// The waits of one series of attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { min: settings.backoff_min, max: settings.backoff_max, next: settings.backoff_min }
    }

    /// Between half of this step and the whole of it; the next step is twice as long.
    pub(crate) fn next(&mut self, settings: &Settings) -> Duration {
        let step = self.next;
        self.next = step.saturating_mul(2).min(self.max);
        let half = step / 2;
        let range = u64::try_from((step - half).as_micros()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_micros(settings.below(range))
    }

    /// An attempt succeeded; the next series starts afresh.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_are_jittered() {
        let mut settings = Settings { entropy: Arc::new(|| 0), ..Settings::default() };
        let series = |settings: &Settings| {
            let mut backoff = Backoff::new(settings);
            (0..8).map(|_| backoff.next(settings).as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(series(&settings), [10, 20, 40, 80, 160, 320, 500, 500]);
        settings.entropy = Arc::new(|| u128::MAX - 455); // the largest remainder of some step, or near
        assert!(series(&settings).iter().zip([20, 40, 80, 160, 320, 640, 1000, 1000]).all(|(&wait, top)| wait <= top));
        let mut backoff = Backoff::new(&settings);
        backoff.next(&settings);
        backoff.reset();
        assert!(backoff.next(&settings) <= settings.backoff_min);
    }
}
