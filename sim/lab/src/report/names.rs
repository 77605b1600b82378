//! Names for ids.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use rmom_sim::history::{Event, Record};

/// Names for the ids of a history, so that a report can speak of `orders` and `broker-2`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    labels: BTreeMap<u64, String>,
    /// Labels of several queues, one after the other.
    reused: BTreeSet<String>,
    brokers: BTreeMap<u64, String>,
    channels: BTreeMap<Uuid, String>,
    pushes: BTreeMap<u64, String>,
    faults: BTreeMap<usize, String>,
}

impl Names {
    /// Collects all names in a history.
    #[must_use]
    pub fn of(history: &[Record]) -> Self {
        let mut names = Self::default();
        for record in history {
            names.learn(&record.event);
        }
        names
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::QueueAdded { queue_id, label }
            | Event::QueueCreated { queue_id, label, .. }
            | Event::ChannelCreated { queue_id, label, .. }
            | Event::AuditQueue { queue_id, label, .. } => self.learn_queue(*queue_id, label),
            Event::Registered { broker, broker_id, .. } => {
                self.brokers.insert(*broker_id, broker.clone());
            }
            Event::PushSent { push, body, .. } => {
                self.pushes.insert(*push, body.clone());
            }
            Event::FaultBegan { step, what, .. } => {
                self.faults.insert(*step, what.clone());
            }
            _ => {}
        }
        if let Event::ChannelCreated { channel, queue_id, topic, .. }
        | Event::AuditChannel { channel, queue_id, topic, .. } = event
        {
            let id = channel.simple().to_string();
            let topic = if topic.is_empty() { String::new() } else { format!(", topic {topic}") };
            self.channels.insert(*channel, format!("channel {} ({}{topic})", &id[..8], self.queue(*queue_id)));
        }
    }

    fn learn_queue(&mut self, id: u64, label: &str) {
        let known = self.labels.iter().any(|(&other, known)| other != id && known == label);
        if known {
            self.reused.insert(label.to_owned());
        }
        self.labels.insert(id, label.to_owned());
    }

    /// A queue's label, with its id if several queues had the label.
    #[must_use]
    pub fn queue(&self, id: u64) -> String {
        match self.labels.get(&id) {
            Some(label) if self.reused.contains(label) => format!("{label} (queue {id})"),
            Some(label) => label.clone(),
            None => format!("queue {id}"),
        }
    }

    /// A broker's host.
    #[must_use]
    pub fn broker(&self, id: u64) -> String {
        self.brokers.get(&id).cloned().unwrap_or_else(|| format!("broker id {id}"))
    }

    /// A channel, with its queue and topic.
    #[must_use]
    pub fn channel(&self, id: Uuid) -> String {
        self.channels.get(&id).cloned().unwrap_or_else(|| format!("channel {}", &id.simple().to_string()[..8]))
    }

    /// The content of a push.
    #[must_use]
    pub fn pushed(&self, push: u64) -> &str {
        self.pushes.get(&push).map_or("a message", String::as_str)
    }

    /// A fault, in words.
    #[must_use]
    pub fn fault(&self, step: usize) -> &str {
        self.faults.get(&step).map_or("a fault", String::as_str)
    }

    /// All queues of the history, by id.
    pub fn queues(&self) -> impl Iterator<Item = u64> + '_ {
        self.labels.keys().copied()
    }
}
