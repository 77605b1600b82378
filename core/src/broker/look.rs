//! A look at the store: what is assigned to this broker, and which of its subscribers' channels there still are. It runs
//! beside the host's loop, which does what follows from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use tokio::time::Instant;

use super::{
    BrokerError, Inner,
    host::RefreshReply,
    queue::{Context, Handle, Subscriber},
};
use crate::{
    model::{ChannelId, QueueId, limits::MAX_LOOKED_UP},
    ports::{QueueRecord, StoreError},
};

type Reading<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// What a look found out about queues.
#[derive(Default)]
pub(super) struct Found {
    /// Those that are assigned to this broker.
    pub(super) assigned: Vec<QueueRecord>,
    /// Those that were asked for besides, and are not.
    pub(super) asked: BTreeSet<QueueId>,
    /// Of these, the ones that live.
    pub(super) elsewhere: BTreeMap<QueueId, QueueRecord>,
}

enum Step {
    Queues(Reading<Found>),
    Channels(Reading<()>),
}

/// What has been read.
pub(super) enum Seen {
    Queues(Found),
    Channels,
}

/// One look.
pub(super) struct Look {
    inner: Arc<Inner>,
    context: Arc<Context>,
    step: Step,
    pub(super) began: Instant,
    /// Who asked for it.
    pub(super) replies: Vec<RefreshReply>,
}

impl Look {
    /// Begins with the queues; `remembered` are some that this broker does not host, and would forget if they are deleted.
    pub(super) fn begin(
        inner: &Arc<Inner>,
        context: &Arc<Context>,
        remembered: BTreeSet<QueueId>,
        replies: Vec<RefreshReply>,
    ) -> Self {
        let step = Step::Queues(Box::pin(read_queues(inner.clone(), context.clone(), remembered)));
        Self { inner: inner.clone(), context: context.clone(), step, began: Instant::now(), replies }
    }

    /// What it reads next. Cancel-safe: the reading goes on.
    pub(super) async fn seen(&mut self) -> Result<Seen, StoreError> {
        match &mut self.step {
            Step::Queues(reading) => reading.as_mut().await.map(Seen::Queues),
            Step::Channels(reading) => reading.as_mut().await.map(|()| Seen::Channels),
        }
    }

    /// Goes on with the channels. What the broker took by now has no subscribers whose channel is older than this.
    pub(super) fn go_on(&mut self) {
        self.step = Step::Channels(Box::pin(end_orphans(self.inner.clone(), self.context.clone())));
    }
}

async fn read_queues(
    inner: Arc<Inner>,
    context: Arc<Context>,
    mut asked: BTreeSet<QueueId>,
) -> Result<Found, StoreError> {
    let assigned = context.within(context.store.assigned_queues(context.broker)).await?;
    asked.extend(inner.queues.read().values().map(|handle| handle.shared.id));
    for record in &assigned {
        asked.remove(&record.id);
    }
    let mut elsewhere = BTreeMap::new();
    let ids: Vec<QueueId> = asked.iter().copied().collect();
    for ids in ids.chunks(MAX_LOOKED_UP) {
        let found = context.within(context.store.queues_by_ids(ids)).await?;
        elsewhere.extend(found.into_iter().map(|record| (record.id, record)));
    }
    Ok(Found { assigned, asked, elsewhere })
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
        for known in context.within(context.store.known_channels(channels)).await? {
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
