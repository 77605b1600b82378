//! The entry point, shared by producers, consumers and administration.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::{
    Admin, ClientBuilder, config::Settings, connect::Dialer, consumer::ConsumerBuilder, producer::ProducerBuilder,
    rest::Managers,
};

/// A client of one rmom cluster. Clones share it. It has no connection of its own: each producer and each consumer has one,
/// to the broker that hosts its queue.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    dialer: Dialer,
    settings: Settings,
    managers: Managers,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("managers", &self.inner.managers).finish_non_exhaustive()
    }
}

impl Client {
    /// A builder with the default settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn new(dialer: Dialer, settings: Settings, managers: Managers) -> Self {
        Self { inner: Arc::new(Inner { dialer, settings, managers }) }
    }

    /// A producer for the queue with this label (case-insensitive).
    pub fn producer(&self, queue_label: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), queue_label.into())
    }

    /// A consumer of this channel. [`Admin::create_channel`] creates channels.
    pub fn subscribe(&self, channel: Uuid) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone(), channel)
    }

    /// Administration: queues, channels, topics, brokers.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.inner.dialer
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn managers(&self) -> &Managers {
        &self.inner.managers
    }
}
