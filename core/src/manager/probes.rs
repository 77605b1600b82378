//! Life probes: find out which brokers answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{ManagerSettings, status::Counters};
use crate::{
    model::BrokerAddr,
    ports::{BrokerControl, ControlError},
};

/// The results of this manager's probes of a broker.
#[derive(Clone, Debug, Default)]
pub(super) struct ProbeRecord {
    /// The time of the last answer.
    pub(super) last_success: Option<Instant>,
    /// The time at which the last probe ended, whatever its result.
    pub(super) last_result: Option<Instant>,
    /// Probes that failed since the last answer.
    pub(super) failures_in_a_row: u32,
    /// The reason why the last probe failed, if it did.
    pub(super) last_error: Option<String>,
}

/// Probes brokers and remembers the results.
pub(super) struct Probes {
    control: Arc<dyn BrokerControl>,
    counters: Arc<Counters>,
    deadline: Duration,
    retry_delay: Duration,
    attempts: u32,
    concurrency: usize,
    records: Mutex<BTreeMap<BrokerAddr, ProbeRecord>>,
}

impl Probes {
    pub(super) fn new(settings: &ManagerSettings, control: Arc<dyn BrokerControl>, counters: Arc<Counters>) -> Self {
        Self {
            control,
            counters,
            deadline: settings.probe_deadline,
            retry_delay: settings.life_probe_retry_delay,
            attempts: settings.probe_attempts(),
            concurrency: settings.max_concurrent_probes.max(1),
            records: Mutex::default(),
        }
    }

    /// Probes a broker as often as it takes to call it dead. True at the first answer.
    pub(super) async fn is_alive(&self, addr: &BrokerAddr) -> bool {
        self.probe(addr, self.attempts).await
    }

    /// Probes a broker until it answers, `attempts` times at most.
    pub(super) async fn probe(&self, addr: &BrokerAddr, attempts: u32) -> bool {
        for attempt in 1..=attempts {
            // The port promises to keep the deadline; this timeout keeps the manager from hanging if it does not.
            let answer = timeout(self.deadline, self.control.heartbeat(addr, self.deadline)).await;
            let result = answer.unwrap_or_else(|_| {
                Err(ControlError::DeadlineExceeded { addr: addr.clone(), deadline: self.deadline })
            });
            let alive = result.is_ok();
            self.record(addr, result);
            if alive {
                return true;
            }
            if attempt < attempts {
                sleep(self.retry_delay).await;
            }
        }
        false
    }

    /// Probes many brokers at once, each up to the number of times given with it; returns those that answered.
    pub(super) async fn probe_all<K: Ord>(&self, targets: Vec<(K, BrokerAddr, u32)>) -> Vec<K> {
        let mut alive: Vec<K> = stream::iter(targets)
            .map(|(key, addr, attempts)| async move { self.probe(&addr, attempts).await.then_some(key) })
            .buffer_unordered(self.concurrency)
            .filter_map(|answered| async { answered })
            .collect()
            .await;
        alive.sort();
        alive
    }

    /// Forgets the results of brokers that are no longer known.
    pub(super) fn keep(&self, known: &BTreeSet<&BrokerAddr>) {
        self.records.lock().retain(|addr, _| known.contains(addr));
    }

    /// The results of a broker's probes, if there were any.
    pub(super) fn of(&self, addr: &BrokerAddr) -> Option<ProbeRecord> {
        self.records.lock().get(addr).cloned()
    }

    /// True if the broker answered within the last `age`, and has not failed since.
    pub(super) fn answered_within(&self, addr: &BrokerAddr, age: Duration) -> bool {
        let now = Instant::now();
        self.of(addr).is_some_and(|record| {
            record.failures_in_a_row == 0 && record.last_success.is_some_and(|at| now.duration_since(at) <= age)
        })
    }

    /// The verdict of probes made within `age`, or `None` if they are inconclusive.
    pub(super) fn verdict(&self, addr: &BrokerAddr, age: Duration) -> Option<bool> {
        let record = self.of(addr)?;
        if Instant::now().duration_since(record.last_result?) > age {
            return None;
        }
        match record.failures_in_a_row {
            0 => Some(true),
            failures if failures >= self.attempts => Some(false),
            _ => None,
        }
    }

    fn record(&self, addr: &BrokerAddr, result: Result<(), ControlError>) {
        let now = Instant::now();
        self.counters.update(|counters| {
            counters.probes += 1;
            counters.probes_failed += u64::from(result.is_err());
        });
        let mut records = self.records.lock();
        let record = records.entry(addr.clone()).or_default();
        record.last_result = Some(now);
        match result {
            Ok(()) => {
                mark!(ProbeSucceededLate if (1..self.attempts).contains(&record.failures_in_a_row));
                if record.failures_in_a_row >= self.attempts {
                    mark!(BrokerBack);
                    info!(broker = %addr, "broker answers again");
                }
                record.last_success = Some(now);
                record.failures_in_a_row = 0;
                record.last_error = None;
            }
            Err(error) => {
                record.failures_in_a_row = record.failures_in_a_row.saturating_add(1);
                if record.failures_in_a_row == self.attempts {
                    mark!(BrokerDead);
                    warn!(broker = %addr, %error, probes = self.attempts, "broker counts as dead: all life probes failed");
                }
                record.last_error = Some(error.to_string());
            }
        }
    }
}
