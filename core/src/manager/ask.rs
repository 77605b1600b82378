//! Asking many brokers at once. Their answers are for people: a broker that does not answer costs its own answer, never the
//! others'.

use futures_util::{StreamExt as _, stream};
use tokio::time::{Duration, Instant, timeout_at};

use super::Inner;
use crate::{model::BrokerAddr, ports::ControlError};

/// Most brokers that are asked at once.
pub const MAX_ASKED_AT_ONCE: usize = 256;

/// What a broker answered.
pub(super) type Answer<T> = Result<T, ControlError>;

impl Inner {
    /// Asks each broker its question. That takes `describe_deadline` at most, and no more than half of what is left until
    /// `by`: brokers that do not answer must not cost the whole operation.
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
