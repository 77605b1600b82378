//! Carries out the steps, and reports the results to the model.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rmom_core::{
    access::Call,
    broker::{Broker, BrokerError, NewMessage, OpenPush, ProducerStamp, PushRequest, PushRun, Subscription},
    model::{
        ChannelId, Code, Coded as _, ProducerEpoch, ProducerId, ProducerKey, QueueId, QueueLabel, Sequence, Start,
        Topic,
    },
    ports::{CreateChannel, CreateQueue, Entropy as _},
};
use uuid::Uuid;

use super::{
    clocks::Jumps,
    model::{Body, Model},
    readers::Reader,
    steps::{self, CONSUMERS, HOSTS, JUMPS, LIVES, Step},
};
use crate::world::{Kind, Process, World};

/// An answer that arrived.
pub(crate) enum News {
    /// To the push of `count` messages from number `first`.
    Pushed {
        numbers: (u64, u64),
        answer: Result<(), BrokerError>,
    },
    Subscribed {
        reader: usize,
        asked: usize,
        answer: Result<Subscription, BrokerError>,
    },
}

/// The list of answers that arrived.
pub(crate) type Inbox = Arc<Mutex<Vec<News>>>;

/// See the module's description.
pub(crate) struct Play {
    pub(crate) world: World,
    pub(crate) model: Model,
    pub(crate) jumps: Jumps,
    pub(crate) inbox: Inbox,
    pub(crate) queue: QueueId,
    pub(crate) channel: ChannelId,
    /// The pushed messages; number n is entry n - 1.
    pub(crate) bodies: Vec<Body>,
    pub(crate) readers: Vec<Reader>,
    /// Pushes without an answer.
    pub(crate) pending: usize,
}

pub(crate) fn label() -> QueueLabel {
    QueueLabel::parse("q").expect("it is one")
}

/// The stamp of the only producer, which never declares known outcomes.
fn stamp() -> ProducerStamp {
    let key = ProducerKey { id: ProducerId::new(Uuid::from_u128(0x0F00)), epoch: ProducerEpoch::ZERO };
    ProducerStamp { key, lowest_unacknowledged: Sequence::new(1) }
}

impl Play {
    /// Two brokers, a queue that the first serves, and a channel. With an odd seed, messages without a lifetime live for 20
    /// ms; otherwise they never expire.
    pub(crate) async fn new(seed: u8) -> Self {
        let mut world = World::new(seed, |settings| {
            settings.message_ttl = (seed % 2 == 1).then_some(Duration::from_millis(20));
            settings.queue_buffer_messages = 6;
            settings.max_batch_messages = 4;
            // Clocks are read rarely, and a minute costs little.
            settings.lease = Duration::from_secs(9);
        });
        world.start(0);
        world.start(1);
        world.pass(Duration::from_millis(1)).await;
        let create = CreateQueue { label: label(), assignee: world.id_of(0), request: world.chance.uuid() };
        let queue = world.database.transact(|state, _| state.create_queue(&create)).expect("there is none yet").id;
        let channel = ChannelId::new(world.chance.uuid());
        let create =
            CreateChannel { id: channel, queue, topic: Topic::NONE, start: Start::Earliest, disposable: false };
        world.database.transact(|state, now| state.create_channel(now, &create)).expect("the queue is there");
        let mut play = Self {
            world,
            model: Model::default(),
            jumps: Jumps::new(),
            inbox: Inbox::default(),
            queue,
            channel,
            bodies: Vec::new(),
            readers: (0..CONSUMERS.into()).map(Reader::new).collect(),
            pending: 0,
        };
        play.step(Step::Move { host: 0, told: 1 });
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
                News::Pushed { numbers: (first, count), answer } => {
                    self.pending -= 1;
                    let lost = answer.as_ref().err().map(BrokerError::code);
                    let lost = matches!(lost, Some(Code::StoreRolledBack | Code::StoreCorrupt));
                    promise!(2, !lost, "nothing was lost, but a push was told: {answer:?}");
                    if answer.is_ok() {
                        (first..first + count).for_each(|number| self.model.acknowledged(number));
                    }
                }
                News::Subscribed { reader, asked, answer } => self.readers[reader].subscribed(asked, answer),
            }
        }
    }

    fn process(&self, to: u8) -> Option<Process> {
        if to < HOSTS { self.world.on(to) } else { self.world.replaced.as_ref() }.cloned()
    }

    /// Carries out a step. Time passes only in [`Step::Pass`], which the caller carries out.
    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Pass { .. } => {}
            Step::Push { to, count, lives, others, way } => {
                let Some(Process { broker, .. }) = self.process(to) else { return };
                let first = self.bodies.len() as u64 + 1;
                let count = u64::from(count) + 1;
                for number in first..first + count {
                    let lives = LIVES[usize::from(if number % 2 == 0 { lives } else { others })];
                    self.bodies.push(Body { number, lives });
                }
                self.push(first, count, way, &broker);
            }
            Step::Retry { to, count } => {
                let Some(Process { broker, .. }) = self.process(to) else { return };
                let count = (u64::from(count) + 1).min(self.bodies.len() as u64);
                if count > 0 {
                    self.push(self.bodies.len() as u64 + 1 - count, count, 1, &broker);
                }
            }
            Step::Subscribe { consumer, to, from } => {
                let Some(process) = self.process(to) else { return };
                let of = (self.queue, self.channel);
                self.readers[usize::from(consumer)].subscribe(from, of, process, self.model.known(), &self.inbox);
            }
            Step::Take { consumer } => {
                self.readers[usize::from(consumer)].take(&mut self.model, &self.jumps, &self.world.database);
            }
            Step::Clock { jump } => {
                self.world.database.set_clock(JUMPS[usize::from(jump)]);
                self.jumps.set(self.world.database.ahead());
            }
            Step::Move { host, told } => {
                self.world.assign(&label(), host);
                if let Some(Process { broker, .. }) = self.process(host)
                    && told > 0
                {
                    tokio::spawn(async move { broker.refresh().await });
                }
            }
            Step::Crash { host } => self.world.crash(host),
            Step::Start { host } => drop(self.world.start(host)),
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

    /// Pushes old or new messages in the background. `way`: as in `Step::Push`.
    pub(crate) fn push(&mut self, first: u64, count: u64, way: u8, to: &Broker<Call>) {
        let each = if way == 0 { 1 } else { count };
        for first in (first..first + count).step_by(usize::try_from(each).expect("it is small")) {
            let messages = (first..first + each).map(|number| self.message(number)).collect();
            self.pending += 1;
            let (to, inbox) = (to.clone(), Arc::clone(&self.inbox));
            tokio::spawn(async move {
                let answer = if way == 0 { one(first, messages, &to).await } else { run(first, messages, &to).await };
                inbox.lock().push(News::Pushed { numbers: (first, each), answer });
            });
        }
    }

    fn message(&self, number: u64) -> NewMessage {
        let mut body = self.bodies[usize::try_from(number).expect("there are few") - 1];
        let ttl = (body.lives > 0).then(|| Duration::from_millis(body.lives));
        if ttl.is_none() {
            let default = self.world.settings().message_ttl.unwrap_or_default();
            body.lives = u64::try_from(default.as_millis()).expect("it is short");
        }
        NewMessage { content: Bytes::from(body.to_string()), ttl, ..NewMessage::default() }
    }
}

async fn one(number: u64, mut messages: Vec<NewMessage>, to: &Broker<Call>) -> Result<(), BrokerError> {
    let message = messages.pop().expect("there is one");
    let producer = Some((stamp(), Sequence::new(number)));
    to.push(PushRequest { label: label(), queue: None, producer, message }).await.map(drop)
}

async fn run(first: u64, messages: Vec<NewMessage>, to: &Broker<Call>) -> Result<(), BrokerError> {
    let mut session = to.open_push(OpenPush { label: label(), queue: None, producer: Some(stamp()) }).await?;
    let run = PushRun { first: Sequence::new(first), messages, lowest_unacknowledged: None };
    session.submit(run).await?.await.map(drop)
}
