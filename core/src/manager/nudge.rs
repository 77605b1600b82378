//! Nudges: calls that hurry a broker up after the store was changed. Nothing depends on them, since brokers find out by
//! themselves when they next renew their lease; so they are made in the background, and dropped when there are too many.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

use super::{ManagerSettings, status::Counters};
use crate::{
    model::BrokerAddr,
    ports::{BrokerControl, ControlError},
};

/// Where nudges are handed in.
pub(super) struct Nudges {
    pending: mpsc::Sender<BrokerAddr>,
    counters: Arc<Counters>,
}

impl Nudges {
    /// Has a broker look at the store, where something of its own was changed; unless too many wait for that.
    pub(super) fn refresh(&self, broker: BrokerAddr) {
        if self.pending.try_send(broker).is_err() {
            self.counters.update(|counters| counters.nudges_dropped += 1);
        }
    }
}

/// Makes the calls.
pub(super) struct Nudger {
    pending: mpsc::Receiver<BrokerAddr>,
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
            .for_each_concurrent(*concurrency, |broker| async move {
                if let Err(error) = call(&**control, &broker, deadline).await {
                    counters.update(|counters| counters.nudges_failed += 1);
                    mark!(NudgeFailed);
                    debug!(%error, "a broker could not be hurried up; it will find out by itself");
                }
            })
            .await;
    }
}

async fn call(control: &dyn BrokerControl, broker: &BrokerAddr, deadline: Duration) -> Result<(), ControlError> {
    let late = |_| Err(ControlError::DeadlineExceeded { addr: broker.clone(), deadline });
    timeout(deadline, control.refresh(broker, deadline)).await.unwrap_or_else(late)
}
