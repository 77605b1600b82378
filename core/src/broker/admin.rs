//! Administration by the original's routes: queues and channels are created and deleted at a broker.

use super::{api::BrokerError, handle::Broker, inner::Inner};
use crate::{
    access::{Call, Permit, Right},
    model::{ChannelId, QueueId, QueueLabel, Start, Topic},
    ports::{CreateChannel, CreateChannelError, CreateQueue, CreateQueueError},
};

impl Broker<Call> {
    /// Creates a queue here.
    ///
    /// # Errors
    /// [`BrokerError::QueueExists`], and what the store says.
    pub async fn create_queue(&self, label: &QueueLabel) -> Result<QueueId, BrokerError> {
        let (inner, permit) = self.admit(Right::Create.on_queue(label))?;
        let broker = inner.ready()?.broker;
        let create = CreateQueue { label: label.clone(), assignee: Some(broker), request: inner.entropy.uuid() };
        let record = inner.write(inner.catalog.create_queue(&create)).await?.map_err(|error| match error {
            CreateQueueError::Exists => BrokerError::QueueExists(label.clone()),
            CreateQueueError::DeletedSince => BrokerError::QueueNotFound(label.clone()),
            CreateQueueError::TooMany => BrokerError::LimitReached(error.to_string()),
            CreateQueueError::NoSuchBroker(_) => BrokerError::Fenced,
            CreateQueueError::Store(error) => error.into(),
        })?;
        inner.rebuild(label, &permit).await?;
        Ok(record.id)
    }

    /// Deletes a queue, wherever it is hosted.
    ///
    /// # Errors
    /// [`BrokerError::QueueNotFound`], and what the store says.
    pub async fn delete_queue(&self, label: &QueueLabel) -> Result<(), BrokerError> {
        let (inner, _permit) = self.admit(Right::Delete.on_queue(label))?;
        inner.ready()?;
        let not_found = || BrokerError::QueueNotFound(label.clone());
        let record = inner.read(inner.catalog.queue(label)).await?.ok_or_else(not_found)?;
        if !inner.write(inner.catalog.delete_queue(record.id)).await?? {
            return Err(not_found());
        }
        inner.hurry().await
    }

    /// Serves a queue that is assigned to this broker; answers once it does.
    ///
    /// # Errors
    /// [`BrokerError::NotHosted`] if it is assigned elsewhere, [`BrokerError::QueueNotFound`], and what the store says.
    pub async fn rebuild_queue(&self, label: &QueueLabel) -> Result<(), BrokerError> {
        let (inner, permit) = self.admit(Right::Inspect.on_queue(label))?;
        inner.rebuild(label, &permit).await
    }

    /// Creates a channel on a queue hosted here, starting at the earliest message.
    ///
    /// # Errors
    /// [`BrokerError::QueueNotFound`], [`BrokerError::NotHosted`], [`BrokerError::LimitReached`], and what the store says.
    pub async fn create_channel(&self, label: &QueueLabel, topic: Topic) -> Result<ChannelId, BrokerError> {
        let (inner, permit) = self.admit(Right::Consume.on_queue(label))?;
        inner.ready()?;
        let handle = inner.hosted(label, permit.caller().origin()).await?;
        let id = ChannelId::new(inner.entropy.uuid());
        let queue = handle.shared.id;
        let create = CreateChannel { id, queue, topic, start: Start::Earliest, disposable: true };
        inner.write(inner.catalog.create_channel(&create)).await?.map_err(|error| match error {
            CreateChannelError::NoSuchQueue => BrokerError::QueueNotFound(label.clone()),
            CreateChannelError::Store(error) => error.into(),
            error => BrokerError::LimitReached(error.to_string()),
        })?;
        Ok(id)
    }

    /// Deletes a channel; its subscriptions end.
    ///
    /// # Errors
    /// [`BrokerError::ChannelNotFound`], and what the store says.
    pub async fn delete_channel(&self, channel: ChannelId) -> Result<(), BrokerError> {
        let (inner, _permit) = self.admit(Right::Delete.on_channel(channel))?;
        inner.ready()?;
        if !inner.write(inner.catalog.delete_channel(channel)).await?? {
            return Err(BrokerError::ChannelNotFound(channel));
        }
        inner.hurry().await
    }
}

impl Inner {
    async fn rebuild(&self, label: &QueueLabel, permit: &Permit) -> Result<(), BrokerError> {
        self.refresh().await?;
        self.hosted(label, permit.caller().origin()).await?.served(self.settings.activation_timeout).await?;
        Ok(())
    }

    /// Looks at the store, which this broker has changed. A failed look is ignored: the change is committed, and the next look
    /// will see it.
    async fn hurry(&self) -> Result<(), BrokerError> {
        match self.refresh().await {
            Err(BrokerError::Store(_)) => Ok(()),
            refreshed => refreshed,
        }
    }
}
