//! Carries out the steps, and reports the results to the model.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rmom_core::{
    access::Call,
    broker::{Broker, BrokerError, OpenedProducer, Subscription},
    model::{ChannelId, Code, Coded as _, Offset, QueueId, QueueLabel, Start, Topic},
    ports::{CreateChannel, CreateQueue, Entropy as _},
};

use super::{
    body::Writer,
    model::{Model, Receipt},
    producers::{self, How, Producer, Run},
    readers::{Channel, Reader},
    steps::{self, CONSUMERS, HOSTS, LABELS, NAMED, NOBODY, Step},
};
use crate::world::{Kind, Process, World};

/// An answer that arrived.
pub(crate) enum News {
    Pushed { attempt: usize, answer: Result<Receipt, BrokerError> },
    Opened { answer: Result<OpenedProducer, BrokerError> },
    Subscribed { reader: u8, asked: usize, answer: Result<Subscription, BrokerError> },
}

/// The list of answers that arrived.
pub(crate) type Inbox = Arc<Mutex<Vec<News>>>;

/// See the module's description.
pub(crate) struct Play {
    pub(crate) world: World,
    pub(crate) model: Model,
    pub(crate) inbox: Inbox,
    /// The newest queue of each label.
    pub(crate) queues: BTreeMap<u8, u64>,
    pub(crate) channels: Vec<Channel>,
    /// By producer and label.
    pub(crate) producers: BTreeMap<(u8, u8), Producer>,
    pub(crate) readers: Vec<Reader>,
    /// The producer and label, writer and run of each attempt.
    attempts: BTreeMap<usize, ((u8, u8), Writer, Run)>,
    unnumbered: u64,
}

pub(crate) fn label(number: u8) -> QueueLabel {
    QueueLabel::parse(["q", "r"][usize::from(number)]).expect("it is one")
}

const NOBODYS: Writer = Writer { queue: None, producer: NOBODY, epoch: 0 };

impl Play {
    /// Two brokers, a queue that the first serves, and a channel.
    pub(crate) async fn new(seed: u8) -> Self {
        let world = World::new(seed, |settings| {
            settings.message_ttl = None;
            settings.queue_buffer_messages = 4;
            settings.max_batch_messages = 3;
        });
        let mut play = Self {
            world,
            model: Model::default(),
            inbox: Inbox::default(),
            queues: BTreeMap::new(),
            channels: Vec::new(),
            producers: BTreeMap::new(),
            readers: (0..CONSUMERS).map(|_| Reader::default()).collect(),
            attempts: BTreeMap::new(),
            unnumbered: 0,
        };
        play.step(Step::Start { host: 0 });
        play.step(Step::Start { host: 1 });
        play.world.pass(Duration::from_millis(1)).await;
        play.step(Step::Create { label: 0, host: 0 });
        play.step(Step::Channel { label: 0, topic: 0, start: 0 });
        play.step(Step::Tell { to: 0 });
        play.world.pass(Duration::from_millis(1)).await;
        play
    }

    /// Processes the commits and answers since the last call.
    pub(crate) fn look(&mut self) {
        for commit in self.world.database.take_commits() {
            self.model.committed(commit);
        }
        let news = std::mem::take(&mut *self.inbox.lock());
        for news in news {
            match news {
                News::Pushed { attempt, answer } => self.pushed(attempt, answer),
                News::Opened { answer: Ok(opened) } => self.opened(opened),
                // The producer may ask again.
                News::Opened { answer: Err(_) } => {}
                News::Subscribed { reader, asked, answer } => {
                    self.readers[usize::from(reader)].subscribed(asked, answer, &self.channels, &self.model);
                }
            }
        }
    }

    fn pushed(&mut self, attempt: usize, answer: Result<Receipt, BrokerError>) {
        let error = match answer {
            Ok(receipt) => {
                self.model.acknowledged(attempt, &receipt);
                if let Some(&(place, writer, run)) = self.attempts.get(&attempt)
                    && let Some(producer) = self.producers.get_mut(&place)
                    && producer.writer == writer
                {
                    producer.acknowledged(run);
                }
                return;
            }
            Err(error) => error,
        };
        self.model.failed(attempt, error.code());
        let replaced = error.code() == Code::QueueReplaced;
        if let Some(&(place, writer, _)) = self.attempts.get(&attempt) {
            let deleted = writer.queue.is_none_or(|queue| self.model.queues[&queue].deleted);
            promise!(9, deleted || !replaced, "{writer:?} is told: {error}");
            // The producer continues with the queue that has the label now.
            if replaced && self.producers.get(&place).is_some_and(|found| found.writer == writer) {
                self.producers.remove(&place);
            }
        }
        let lost = matches!(error.code(), Code::StoreRolledBack | Code::StoreCorrupt);
        promise!(2, !lost, "nothing was lost, but a push was told: {error}");
    }

    fn opened(&mut self, opened: OpenedProducer) {
        let OpenedProducer { queue, epoch, last_sequence } = opened;
        let (queue, epoch, last) = (queue.get(), epoch.get(), last_sequence.get());
        self.model.opened(queue, NAMED, epoch, last);
        let Some((&label, _)) = self.queues.iter().find(|&(_, &newest)| newest == queue) else { return };
        let writer = Writer { queue: Some(queue), producer: NAMED, epoch };
        let known = self.producers.get(&(NAMED, label)).map(|known| known.writer);
        if known.is_none_or(|known| (known.queue, known.epoch) < (writer.queue, epoch)) {
            self.producers.insert((NAMED, label), Producer::new(writer, last));
        }
    }

    fn process(&self, to: u8) -> Option<Process> {
        if to < HOSTS { self.world.on(to) } else { self.world.replaced.as_ref() }.cloned()
    }

    /// Carries out a step. Time passes only in [`Step::Pass`], which the caller carries out.
    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Pass { .. } => {}
            Step::Push { producer, label, to, back, ahead, count, lowest, way } => {
                let how = How { back: back.into(), ahead: ahead.into(), count: u64::from(count) + 1, lowest, way };
                if let Some(Process { broker, .. }) = self.process(to) {
                    self.push(producer, label, &broker, &how);
                }
            }
            Step::Open { label, to } => {
                if let Some(Process { broker, .. }) = self.process(to) {
                    self.open(label, broker);
                }
            }
            Step::Subscribe { consumer, channel, to, from } => {
                let Some(process) = self.process(to) else { return };
                let channel = usize::from(channel) % self.channels.len();
                let reader = &mut self.readers[usize::from(consumer)];
                let of = (channel, &self.channels[channel]);
                reader.subscribe(consumer, of, from, &process, &self.inbox, &self.model);
            }
            Step::Take { consumer, chunks } => {
                let reader = &mut self.readers[usize::from(consumer)];
                let _ = (0..=chunks).all(|_| reader.take(&self.channels, &mut self.model));
            }
            Step::Break { consumer } => self.readers[usize::from(consumer)].leave(),
            Step::Channel { label, topic, start } => self.create_channel(label, topic, start),
            Step::DeleteChannel { channel } => {
                let number = usize::from(channel) % self.channels.len();
                let channel = &mut self.channels[number];
                channel.deleted = true;
                let id = channel.id;
                self.world.database.transact(|state, _| state.delete_channel(id));
            }
            Step::Create { label, host } => self.create_queue(label, host),
            Step::Delete { label } => {
                if let Some(&queue) = self.queues.get(&label) {
                    self.world.database.delete_queue(QueueId::new(queue));
                }
            }
            Step::Move { label: number, host, told } => {
                self.world.assign(&label(number), host);
                if told > 0 {
                    self.step(Step::Tell { to: host });
                }
            }
            Step::Tell { to } => {
                if let Some(Process { broker, .. }) = self.process(to) {
                    tokio::spawn(async move { broker.refresh().await });
                }
            }
            Step::Crash { host } => self.world.crash(host),
            Step::Start { host } => drop(self.world.start(host)),
            Step::Stop { host } => {
                if let Some(Process { broker, .. }) = self.process(host) {
                    tokio::spawn(async move { broker.shutdown(Duration::from_secs(6)).await });
                }
            }
            Step::Befall { to, call, fault, time } => {
                if let Some(Process { line, .. }) = self.process(to) {
                    line.befall(Kind::ALL[usize::from(call)], steps::fault(fault, steps::time(time)));
                }
            }
            Step::Cut { to, cut } => {
                if let Some(Process { line, .. }) = self.process(to) {
                    line.cut(cut > 0);
                }
            }
        }
    }

    /// Gives the named producer its next epoch.
    pub(crate) fn open(&self, number: u8, to: Broker<Call>) {
        let inbox = Arc::clone(&self.inbox);
        tokio::spawn(async move {
            let answer = to.open_producer(&label(number), producers::id(NAMED)).await;
            inbox.lock().push(News::Opened { answer });
        });
    }

    /// Pushes to the queue of a label.
    pub(crate) fn push(&mut self, number: u8, label_number: u8, to: &Broker<Call>, how: &How) {
        let label = label(label_number);
        if number == NOBODY {
            let first = self.unnumbered + 1;
            self.unnumbered += how.count;
            let each = if how.way == 1 { how.count } else { 1 };
            let runs = (first..first + how.count).step_by(usize::try_from(each).expect("it is small"));
            let run = |first| Run { first, count: each, attempt: self.model.sent(NOBODYS, first, each, 1) };
            let runs: Vec<Run> = runs.map(run).collect();
            producers::send(NOBODYS, &runs, how.way, None, &label, to, &self.inbox);
            return;
        }
        let Some(&queue) = self.queues.get(&label_number) else { return };
        let place = (number, label_number);
        let producer = match self.producers.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            // A named producer must be opened first.
            Entry::Vacant(_) if number == NAMED => return,
            Entry::Vacant(new) => {
                let writer = Writer { queue: Some(queue), producer: number, epoch: 0 };
                new.insert(Producer::new(writer, 0))
            }
        };
        for run in producer.push(how, &label, to, &self.inbox, &mut self.model) {
            self.attempts.insert(run.attempt, (place, producer.writer, run));
        }
    }

    /// Creates a channel like a manager, but without notifying any broker.
    pub(crate) fn create_channel(&mut self, number: u8, topic: u8, start: u8) {
        let Some(&queue) = self.queues.get(&number) else { return };
        let id = ChannelId::new(self.world.chance.uuid());
        let topic = ["__none__", "a", "b"][usize::from(topic)];
        let end = self.model.queues.get(&queue).map_or(0, |queue| queue.log.len() as u64);
        let (asked, start) = match start {
            0 | 1 => (Start::Earliest, 1),
            2 => (Start::Latest, end + 1),
            far => {
                let start = 1 + end * (u64::from(far) - 3) / 2;
                (Start::At(Offset::new(start)), start)
            }
        };
        let parsed = Topic::parse(topic).expect("it is one");
        let create = CreateChannel { id, queue: QueueId::new(queue), topic: parsed, start: asked, disposable: false };
        let created = self.world.database.transact(|state, now| state.create_channel(now, &create));
        if let Ok(record) = created {
            promise!(
                8,
                record.start.get() == start,
                "a channel that starts at {asked:?} of {end} starts at {}",
                record.start
            );
            let channel = Channel { id, queue, topic, start, deleted: false };
            self.channels.push(channel);
        }
    }

    fn create_queue(&mut self, number: u8, host: u8) {
        let (assignee, request) = (self.world.id_of(host), self.world.chance.uuid());
        let create = CreateQueue { label: label(number), assignee, request };
        let created = self.world.database.transact(|state, _| state.create_queue(&create));
        if let Ok(record) = created {
            let fresh = !self.model.queues.contains_key(&record.id.get());
            promise!(9, fresh, "queue id {} was used before", record.id);
            self.model.queues.insert(record.id.get(), Default::default());
            self.queues.insert(number, record.id.get());
        }
    }

    /// Labels of live queues.
    pub(crate) fn living(&self) -> Vec<(u8, u64)> {
        let all = (0..LABELS).filter_map(|number| Some((number, *self.queues.get(&number)?)));
        all.filter(|(_, queue)| !self.model.queues[queue].deleted).collect()
    }
}
