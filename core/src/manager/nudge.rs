//! Nudges: calls that hurry a broker up after the store was changed. Nothing depends on them, since brokers find out by
//! themselves when they next renew their lease; so they are made in the background, and dropped when there are too many.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

use super::{ManagerSettings, status::Counters};
use crate::{
    model::{BrokerAddr, QueueLabel},
    ports::{BrokerControl, ControlError},
};

/// One call to be made.
pub(super) enum Nudge {
    /// A queue was assigned to this broker.
    Rebuild(BrokerAddr, QueueLabel),
    /// Something of this broker's was deleted or assigned to another.
    Refresh(BrokerAddr),
}

/// Where nudges are handed in.
pub(super) struct Nudges {
    pending: mpsc::Sender<Nudge>,
    counters: Arc<Counters>,
}

impl Nudges {
    /// Hands a nudge in, or drops it if too many are waiting.
    pub(super) fn send(&self, nudge: Nudge) {
        if self.pending.try_send(nudge).is_err() {
            self.counters.update(|counters| counters.nudges_dropped += 1);
        }
    }
}

/// Makes the calls.
pub(super) struct Nudger {
    pending: mpsc::Receiver<Nudge>,
    control: Arc<dyn BrokerControl>,
    counters: Arc<Counters>,
    deadline: Duration,
    concurrency: usize,
}

pub(super) fn nudges(
    settings: &ManagerSettings,
    control: Arc<dyn BrokerControl>,
    counters: &Arc<Counters>,
) -> (Nudges, Nudger) {
    let (sender, receiver) = mpsc::channel(settings.max_pending_nudges.max(1));
    let nudger = Nudger {
        pending: receiver,
        control,
        counters: Arc::clone(counters),
        deadline: settings.nudge_deadline,
        concurrency: settings.max_concurrent_nudges.max(1),
    };
    (Nudges { pending: sender, counters: Arc::clone(counters) }, nudger)
}

impl Nudger {
    /// Makes calls until nobody can hand any in.
    pub(super) async fn run(mut self) {
        let Self { pending, control, counters, deadline, concurrency } = &mut self;
        let (control, counters, deadline) = (&*control, &*counters, *deadline);
        stream::poll_fn(|context| pending.poll_recv(context))
            .for_each_concurrent(*concurrency, |nudge| async move {
                if let Err(error) = call(&**control, &nudge, deadline).await {
                    counters.update(|counters| counters.nudges_failed += 1);
                    mark!(NudgeFailed);
                    debug!(%error, "a broker could not be hurried up; it will find out by itself");
                }
            })
            .await;
    }
}

async fn call(control: &dyn BrokerControl, nudge: &Nudge, deadline: Duration) -> Result<(), ControlError> {
    let (Nudge::Rebuild(addr, _) | Nudge::Refresh(addr)) = nudge;
    let answer = timeout(deadline, async {
        match nudge {
            Nudge::Rebuild(addr, label) => control.rebuild(addr, label, deadline).await,
            Nudge::Refresh(addr) => control.refresh(addr, deadline).await,
        }
    });
    answer.await.unwrap_or_else(|_| Err(ControlError::DeadlineExceeded { addr: addr.clone(), deadline }))
}
