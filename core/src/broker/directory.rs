//! Finding the queues that are hosted here, and channels.

use std::sync::atomic::Ordering::SeqCst;

use super::{api::BrokerError, idle, inner::Inner, lookup_limits::CallerOrigin, queue::Handle};
use crate::{
    model::{ChannelId, QueueId, QueueLabel},
    ports::{ChannelRecord, QueueRecord},
};

impl Inner {
    fn hosted_now(&self, label: &QueueLabel) -> Option<Handle> {
        self.queues.read().get(label).cloned()
    }

    /// The queue, if it is hosted here. Before it refuses, it looks at the store.
    pub(super) async fn hosted(&self, label: &QueueLabel, caller: CallerOrigin<'_>) -> Result<Handle, BrokerError> {
        if let Some(handle) = self.hosted_now(label) {
            return Ok(handle);
        }
        self.lookups.take(caller)?;
        let record = self.read(self.catalog.queue(label)).await?;
        mark!(LookupNotFound if record.is_none());
        let record: QueueRecord = record.ok_or_else(|| BrokerError::QueueNotFound(label.clone()))?;
        let me = self.ready()?.broker;
        match record.assignee {
            Some((broker, _)) if broker == me => {
                mark!(LookupActivated);
                self.refresh().await?;
                self.hosted_now(label).ok_or(BrokerError::NotHosted { assignee: None })
            }
            Some((_, addr)) => {
                mark!(LookupElsewhere);
                Err(BrokerError::NotHosted { assignee: Some(addr) })
            }
            None => Err(BrokerError::NotHosted { assignee: None }),
        }
    }

    /// As [`Inner::hosted`]. If what is hosted here is older than `queue`, it was deleted, and this broker does not know yet.
    pub(super) async fn hosted_since(
        &self,
        label: &QueueLabel,
        queue: QueueId,
        caller: CallerOrigin<'_>,
    ) -> Result<Handle, BrokerError> {
        let handle = self.hosted(label, caller).await?;
        if handle.shared.id >= queue {
            return Ok(handle);
        }
        mark!(HostedPredecessor);
        self.lookups.take(caller)?;
        self.refresh().await?;
        self.hosted(label, caller).await
    }

    /// The queue that a push means, served or not.
    pub(super) async fn queue_named(
        &self,
        label: &QueueLabel,
        queue: Option<QueueId>,
        caller: CallerOrigin<'_>,
    ) -> Result<Handle, BrokerError> {
        self.ready()?;
        let handle = match queue {
            Some(queue) => self.hosted_since(label, queue, caller).await?,
            None => self.hosted(label, caller).await?,
        };
        if let Some(queue) = queue
            && queue != handle.shared.id
        {
            self.lookups.take(caller)?;
            return Err(match self.read(self.catalog.queue_by_id(queue)).await? {
                Some(record) => BrokerError::NotHosted { assignee: record.assignee.map(|(_, addr)| addr) },
                None => {
                    mark!(PushQueueReplaced);
                    BrokerError::QueueReplaced { queue }
                }
            });
        }
        Ok(handle)
    }

    /// A channel, and how many looks had begun before it was read. It is read from the store: managers may create or delete it at
    /// any time.
    pub(super) async fn channel(
        &self,
        channel: ChannelId,
        caller: CallerOrigin<'_>,
    ) -> Result<(ChannelRecord, u64), BrokerError> {
        let turn = self.lookups.channel(caller).await?;
        let looks = self.channel_looks.load(SeqCst);
        let found = match idle::use_channel(self, channel).await? {
            true => self.read(self.catalog.channel(channel)).await?,
            false => None,
        };
        drop(turn);
        if found.is_none() {
            self.lookups.missed(caller);
        }
        mark!(SubscribedToUnknownChannel if found.is_none());
        Ok((found.ok_or(BrokerError::ChannelNotFound(channel))?, looks))
    }
}
