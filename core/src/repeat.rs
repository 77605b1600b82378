//! Logs a recurring event once, and then at growing intervals.
//!
//! Otherwise a lasting fault would write a line for each attempt, and these lines would hide the rest of the log.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The first interval in which the event is not logged again.
pub const FIRST_SILENCE: Duration = Duration::from_secs(10);
/// The longest interval; an event that has not happened for this long is news again.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(600);

/// How long everything must have gone well before an event that happens now and then counts as over.
pub const CALM: Duration = Duration::from_secs(30);

/// Decides when to log a recurring event again. Use one for each kind of event. It takes a few bytes and never grows.
///
/// ```ignore
/// if let Some(times) = self.refusals.happened() {
///     tracing::warn!(times, "connection refused: max_connections");
/// }
/// ```
#[derive(Debug, Default)]
pub struct Repeat {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of times that the event happened since it was last logged.
    unsaid: u64,
    said: Option<Said>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    last_happened: Instant,
    at: Instant,
    silence: Duration,
}

impl Repeat {
    /// The event happened. If it should be logged now, returns how often it happened since it was last logged, this time
    /// included.
    pub fn happened(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.unsaid += 1;
        let silence = match &mut state.said {
            Some(said) => {
                let quiet = now.duration_since(said.last_happened);
                said.last_happened = now;
                if quiet >= LONGEST_SILENCE {
                    FIRST_SILENCE
                } else if now.duration_since(said.at) < said.silence {
                    return None;
                } else {
                    (said.silence * 2).min(LONGEST_SILENCE)
                }
            }
            None => FIRST_SILENCE,
        };
        state.said = Some(Said { last_happened: now, at: now, silence });
        Some(std::mem::take(&mut state.unsaid))
    }

    /// The event is over: the next time is news. True if it had been logged, so that its end is worth a line too.
    pub fn over(&self) -> bool {
        let mut state = self.state.lock();
        state.unsaid = 0;
        state.said.take().is_some()
    }

    /// All went well this time. The event is over if it has not happened for [`CALM`].
    pub fn went_well(&self) {
        let mut state = self.state.lock();
        if state.said.is_some_and(|said| said.last_happened.elapsed() >= CALM) {
            *state = State::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_once_and_then_at_growing_intervals() {
        let repeat = Repeat::default();
        let begun = Instant::now();
        let mut said = Vec::new();
        for _ in 0..3_600 {
            if let Some(times) = repeat.happened() {
                said.push((begun.elapsed().as_secs(), times));
            }
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(
            said,
            [
                (0, 1),
                (10, 10),
                (30, 20),
                (70, 40),
                (150, 80),
                (310, 160),
                (630, 320),
                (1_230, 600),
                (1_830, 600),
                (2_430, 600),
                (3_030, 600)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_its_end_or_a_long_quiet_time_it_is_news() {
        let repeat = Repeat::default();
        assert_eq!(repeat.happened(), Some(1));
        assert_eq!(repeat.happened(), None);
        assert!(repeat.over());
        assert!(!repeat.over());
        assert_eq!(repeat.happened(), Some(1));
        advance(FIRST_SILENCE).await;
        assert_eq!(repeat.happened(), Some(1));
        advance(FIRST_SILENCE).await;
        assert_eq!(repeat.happened(), None);
        advance(LONGEST_SILENCE).await;
        assert_eq!(repeat.happened(), Some(2));
        advance(FIRST_SILENCE).await;
        assert_eq!(repeat.happened(), Some(1), "the intervals begin anew");
    }

    #[tokio::test(start_paused = true)]
    async fn what_went_well_for_a_while_makes_the_next_time_news() {
        let repeat = Repeat::default();
        assert_eq!((repeat.happened(), repeat.happened()), (Some(1), None));
        repeat.went_well();
        assert_eq!(repeat.happened(), None, "it comes and goes");
        advance(CALM).await;
        repeat.went_well();
        assert_eq!(repeat.happened(), Some(1));
    }
}
