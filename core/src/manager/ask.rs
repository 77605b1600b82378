//! Asks many brokers at once. The answers are shown to operators: a broker that does not answer costs only its own answer.

use futures_util::{StreamExt as _, stream};
use tokio::time::{Duration, Instant, timeout_at};

use super::Inner;
use crate::{model::BrokerAddr, ports::ControlError};

/// Limit on the brokers that are asked at once.
pub const MAX_ASKED_AT_ONCE: usize = 256;

/// A broker's answer.
pub(super) type Answer<T> = Result<T, ControlError>;

impl Inner {
    /// Asks each broker its question. This takes `describe_deadline` at most, and no more than half of the time left until
    /// `by`: brokers that do not answer must not use up the time of the whole operation.
    pub(super) async fn ask_all<Q, T, F>(
        &self,
        questions: impl IntoIterator<Item = (BrokerAddr, Q)>,
        by: Instant,
        ask: impl Fn(BrokerAddr, Q, Duration) -> F,
    ) -> Vec<(BrokerAddr, Answer<T>)>
    where
        F: Future<Output = Answer<T>>,
    {
        let now = Instant::now();
        let deadline = self.settings.describe_deadline.min(by.saturating_duration_since(now) / 2);
        let until = now + deadline;
        let ask = |(addr, question): (BrokerAddr, Q)| {
            let answer = ask(addr.clone(), question, deadline);
            async move {
                let answer = timeout_at(until, answer).await;
                let late = |_| Err(ControlError::DeadlineExceeded { addr: addr.clone(), deadline });
                let answer = answer.unwrap_or_else(late);
                (addr, answer)
            }
        };
        stream::iter(questions).map(ask).buffer_unordered(MAX_ASKED_AT_ONCE).collect().await
    }
}
