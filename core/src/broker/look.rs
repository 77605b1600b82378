//! A look at the store: what is assigned to this broker, and which of its subscribers' channels there still are. It runs
//! beside the supervisor's loop, which does what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use tokio::time::Instant;

use super::{
    api::BrokerError,
    inner::{Inner, RefreshReply},
    queue::{Context, Handle, Subscriber},
};
use crate::{
    model::{ChannelId, QueueId, limits::MAX_LOOKED_UP},
    ports::{QueueRecord, StoreError},
};

type Reading<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// What a look found out about queues that are not assigned to this broker.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// Those that were asked for.
    pub(super) asked: BTreeSet<QueueId>,
    /// Of these, the ones that live.
    pub(super) live: BTreeMap<QueueId, QueueRecord>,
}

enum Step {
    Assigned(Reading<Vec<QueueRecord>>),
    Lost(Reading<Elsewhere>),
    Rest(Reading<Elsewhere>),
}

/// What a step of a look has read.
pub(super) enum Seen {
    /// The queues that are assigned to this broker.
    Assigned(Vec<QueueRecord>),
    /// What became of the queues that this broker hosts and that are not assigned to it.
    Lost(Elsewhere),
    /// What became of those that it remembers. It was the last step.
    Rest(Elsewhere),
}

/// One look.
pub(super) struct Look {
    inner: Arc<Inner>,
    context: Arc<Context>,
    step: Step,
    remembered: BTreeSet<QueueId>,
    pub(super) began: Instant,
    /// Callers that asked for this look.
    pub(super) replies: Vec<RefreshReply>,
}

impl Look {
    /// Begins with the queues that are assigned; others wait for these. `remembered` are some that this broker does not host,
    /// and would forget if they are deleted: nobody waits for that, so they come last.
    pub(super) fn begin(
        inner: &Arc<Inner>,
        context: &Arc<Context>,
        remembered: BTreeSet<QueueId>,
        replies: Vec<RefreshReply>,
    ) -> Self {
        let step = Step::Assigned(Box::pin(read_assigned(context.clone())));
        Self { inner: inner.clone(), context: context.clone(), step, remembered, began: Instant::now(), replies }
    }

    /// What it reads next. Cancel-safe: the reading goes on.
    pub(super) async fn seen(&mut self) -> Result<Seen, StoreError> {
        match &mut self.step {
            Step::Assigned(reading) => reading.as_mut().await.map(Seen::Assigned),
            Step::Lost(reading) => reading.as_mut().await.map(Seen::Lost),
            Step::Rest(reading) => reading.as_mut().await.map(Seen::Rest),
        }
    }

    /// Goes on with queues that are hosted here and were not among the assigned ones.
    pub(super) fn go_on_with_lost(&mut self, lost: BTreeSet<QueueId>) {
        self.step = Step::Lost(Box::pin(ask(self.context.clone(), lost)));
    }

    /// Goes on with the channels and, at the end, the queues that are remembered. What the broker took by now has no
    /// subscribers whose channel is older than this.
    pub(super) fn go_on_with_rest(&mut self) {
        let remembered = std::mem::take(&mut self.remembered);
        let (inner, context) = (self.inner.clone(), self.context.clone());
        self.step = Step::Rest(Box::pin(async move {
            end_orphans(inner, context.clone()).await?;
            ask(context, remembered).await
        }));
    }
}

async fn read_assigned(context: Arc<Context>) -> Result<Vec<QueueRecord>, StoreError> {
    context.within(context.catalog.assigned_queues(context.broker)).await
}

/// Asks for queues by id.
async fn ask(context: Arc<Context>, asked: BTreeSet<QueueId>) -> Result<Elsewhere, StoreError> {
    let mut live = BTreeMap::new();
    let ids: Vec<QueueId> = asked.iter().copied().collect();
    for ids in ids.chunks(MAX_LOOKED_UP) {
        let found = context.within(context.catalog.queues_by_ids(ids)).await?;
        live.extend(found.into_iter().map(|record| (record.id, record)));
    }
    Ok(Elsewhere { asked, live })
}

/// Ends subscriptions whose channel was deleted. Asks for the channels that have subscribers here, and no others.
async fn end_orphans(inner: Arc<Inner>, context: Arc<Context>) -> Result<(), StoreError> {
    inner.channel_looks.fetch_add(1, SeqCst);
    // Before the channels are read: of one that is created meanwhile what is read knows nothing.
    let mut subscribed: BTreeMap<ChannelId, Vec<Arc<Subscriber>>> = BTreeMap::new();
    let hosted: Vec<Handle> = inner.queues.read().values().cloned().collect();
    for subscriber in
        hosted.iter().flat_map(|handle| handle.shared.subscribers.lock().values().cloned().collect::<Vec<_>>())
    {
        subscribed.entry(subscriber.channel).or_default().push(subscriber);
    }
    let channels: Vec<ChannelId> = subscribed.keys().copied().collect();
    for channels in channels.chunks(MAX_LOOKED_UP) {
        for known in context.within(context.catalog.known_channels(channels)).await? {
            subscribed.remove(&known);
        }
        for &channel in channels {
            for subscriber in subscribed.remove(&channel).into_iter().flatten() {
                subscriber.ended.send_replace(Some(BrokerError::ChannelNotFound(channel)));
            }
        }
    }
    Ok(())
}
