//! Group commit: one append for whatever queues have a batch ready.
//!
//! While appends are under way, what arrives waits, and the next append takes it all. Nothing waits on purpose: the
//! busier the store, the larger the groups.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};

use crate::{
    model::limits::{MAX_GROUP_BYTES, MAX_GROUP_QUEUES},
    ports::{AppendBatch, Appended, Log, StoreError},
};

/// Appends under way at once, each of other queues. Two keep the store busy while the answer to one travels, and one
/// that waits for a claim does not stop the rest.
const LANES: usize = 2;

/// Batches waiting for a lane. Each queue has one in flight at most, so this is only reached by more queues than that;
/// they wait their turn.
const WAITING: usize = 1_024;

struct Job {
    batch: AppendBatch,
    reply: oneshot::Sender<Result<Appended, StoreError>>,
}

/// Hands batches to the committer's task.
#[derive(Clone)]
pub(super) struct Committer {
    jobs: mpsc::Sender<Job>,
}

impl Committer {
    /// A committer and its task, which ends when all handles are gone.
    pub(super) fn new(
        log: Arc<dyn Log>,
        timeout: Duration,
    ) -> (Self, impl Future<Output = ()> + Send + 'static + use<>) {
        let (jobs, receiver) = mpsc::channel(WAITING);
        (Self { jobs }, run(receiver, log, timeout))
    }

    /// Appends a batch together with others. Answers within about twice the store's timeout.
    ///
    /// # Errors
    /// As [`crate::ports::Log::append`]; [`StoreError::Unknown`] also when time ran out.
    pub(super) async fn append(&self, batch: AppendBatch) -> Result<Appended, StoreError> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job { batch, reply }).await.is_err() {
            return Err(StoreError::Unavailable("the broker is stopping".into()));
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the broker stopped during the append".into())))
    }
}

async fn run(mut jobs: mpsc::Receiver<Job>, log: Arc<dyn Log>, timeout: Duration) {
    let mut lanes = FuturesUnordered::new();
    let mut held = None;
    loop {
        tokio::select! {
            biased;
            Some(()) = lanes.next(), if !lanes.is_empty() => {}
            job = next(&mut held, &mut jobs), if lanes.len() < LANES => match job {
                Some(job) => {
                    let group = gather(job, &mut held, &mut jobs);
                    lanes.push(append(group, log.clone(), timeout));
                }
                None if lanes.is_empty() => return,
                None => {
                    while lanes.next().await.is_some() {}
                    return;
                }
            },
        }
    }
}

async fn next(held: &mut Option<Job>, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
    match held.take() {
        Some(job) => Some(job),
        None => jobs.recv().await,
    }
}

/// Everything that waits, as far as it fits one append. What does not fit is held for the next.
fn gather(first: Job, held: &mut Option<Job>, jobs: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.batch.frames.len();
    let mut group = vec![first];
    while group.len() < MAX_GROUP_QUEUES {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.batch.frames.len();
        // A queue can be there twice when it was activated again while an old batch of its waited.
        let twice = group.iter().any(|other| other.batch.queue == job.batch.queue);
        if twice || bytes > MAX_GROUP_BYTES {
            *held = Some(job);
            break;
        }
        group.push(job);
    }
    group.sort_by_key(|job| job.batch.queue);
    group
}

async fn append(group: Vec<Job>, log: Arc<dyn Log>, timeout: Duration) {
    let (batches, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.batch, job.reply)).unzip();
    mark!(AppendSeveralQueues if batches.len() > 1);
    let result = tokio::time::timeout(timeout, log.append(&batches)).await.unwrap_or_else(|_| {
        mark!(AppendTimedOut);
        Err(StoreError::Unknown(format!("no answer to an append within {timeout:?}")))
    });
    match result {
        Ok(outcomes) => {
            assert_eq!(outcomes.len(), replies.len(), "the store answers for each batch of a group");
            mark!(AppendDifferentFates if outcomes.windows(2)
                .any(|two| std::mem::discriminant(&two[0]) != std::mem::discriminant(&two[1])));
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                let _ = reply.send(Ok(outcome));
            }
        }
        Err(error) => {
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }
}
