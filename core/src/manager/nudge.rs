//! Nudges: calls that hurry a broker up after a change in the store. Nothing depends on them, since brokers notice changes
//! when they next renew their lease. So the calls are made in the background, and dropped when there are too many.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::timeout};
use tracing::debug;

use super::{ManagerSettings, status::Counters};
use crate::{
    model::BrokerAddr,
    ports::{BrokerControl, ControlError},
};

/// The brokers whose calls wait for their turn; each is in it once, however often it is nudged.
type Waiting = Arc<Mutex<BTreeSet<BrokerAddr>>>;

/// Accepts nudges.
pub(super) struct Nudges {
    pending: mpsc::Sender<BrokerAddr>,
    waiting: Waiting,
    counters: Arc<Counters>,
}

impl Nudges {
    /// Makes a broker read the store after a change that concerns it, unless too many calls are waiting. A call that has not
    /// begun yet will see this change too.
    pub(super) fn refresh(&self, broker: BrokerAddr) {
        let mut waiting = self.waiting.lock();
        if waiting.contains(&broker) {
            return;
        }
        if self.pending.try_send(broker.clone()).is_ok() {
            waiting.insert(broker);
        } else {
            self.counters.update(|counters| counters.nudges_dropped += 1);
        }
    }
}

/// Makes the calls.
pub(super) struct Nudger {
    pending: mpsc::Receiver<BrokerAddr>,
    waiting: Waiting,
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
    let waiting = Waiting::default();
    let nudger = Nudger {
        pending: receiver,
        waiting: Arc::clone(&waiting),
        control,
        counters: Arc::clone(counters),
        deadline: settings.nudge_deadline,
        concurrency: settings.max_concurrent_nudges.max(1),
    };
    (Nudges { pending: sender, waiting, counters: Arc::clone(counters) }, nudger)
}

impl Nudger {
    /// Makes calls until the last [`Nudges`] is dropped.
    pub(super) async fn run(mut self) {
        let Self { pending, waiting, control, counters, deadline, concurrency } = &mut self;
        let (waiting, control, counters, deadline) = (&*waiting, &*control, &*counters, *deadline);
        stream::poll_fn(|context| pending.poll_recv(context))
            .for_each_concurrent(*concurrency, |broker| async move {
                waiting.lock().remove(&broker);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::testing::{Call, FakeBrokers, addr};

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_waits_for_a_call_gets_one() {
        let (brokers, counters) = (FakeBrokers::default(), Arc::new(Counters::default()));
        let settings = ManagerSettings { max_pending_nudges: 2, ..ManagerSettings::default() };
        let (nudges, nudger) = nudges(&settings, Arc::new(brokers.clone()), &counters);
        for n in [1, 1, 2, 1, 2] {
            nudges.refresh(addr(n));
        }
        let task = tokio::spawn(nudger.run());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(brokers.take_calls(), [1, 2].map(|n| Call::Refresh(addr(n))));
        // A change after the call has begun needs another call.
        nudges.refresh(addr(1));
        drop(nudges);
        task.await.unwrap();
        assert_eq!(brokers.take_calls(), [Call::Refresh(addr(1))]);
        assert_eq!(counters.get().nudges_dropped, 0);
    }
}
