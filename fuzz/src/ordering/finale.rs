//! The end of a run: faults stop, all clients complete their work, and everything is read back.

use std::time::Duration;

use rmom_core::{
    access::Call,
    broker::Broker,
    model::{Offset, QueueId},
    store::memory::State,
};

use super::{
    play::{Play, label},
    producers::How,
    readers::Reader,
    steps::{HOSTS, NOBODY},
};
use crate::world::{Process, decode};

/// The host of the broker that serves all queues at the end.
const LAST: u8 = HOSTS;

/// How long a push may go without an answer once faults have stopped: the timeouts of recovery and activation, plus some
/// calls of the store.
const PATIENCE: Duration = Duration::from_secs(30);

/// The interval of checks meanwhile.
const GLANCE: Duration = Duration::from_millis(500);

impl Play {
    /// Compares everything with the model; returns the final state of the store.
    pub(crate) async fn end(mut self) -> State {
        self.world.repair();
        self.answers().await;
        let process = self.world.start(LAST);
        let broker = process.broker.clone();
        for _ in 0..3 {
            self.world.pass(Duration::from_millis(1)).await;
        }
        promise!(10, broker.heartbeat().is_ok(), "a broker registers at once");
        for (number, _) in self.living() {
            self.world.assign(&label(number), LAST);
            let served = broker.rebuild_queue(&label(number)).await;
            promise!(10, served.is_ok(), "{} is served by its new owner: {served:?}", label(number));
        }
        self.sent_away().await;
        self.complete(&broker).await;
        self.consume(&process).await;
        self.read_back();
        self.model.settle();
        // A reader holds its process, which would prevent the check of the process's tasks.
        self.readers.clear();
        self.world.end().await
    }

    /// Waits until every push has an answer.
    async fn answers(&mut self) {
        let mut waited = Duration::ZERO;
        self.look();
        while self.model.pending > 0 {
            promise!(10, waited < PATIENCE, "{} pushes have no answer", self.model.pending);
            self.world.pass(GLANCE).await;
            waited += GLANCE;
            self.look();
        }
    }

    /// A broker that served a queue before notices the change, although no producer pushes there, and its subscribers are
    /// told; at the latest when its lease ends.
    async fn sent_away(&mut self) {
        let mut waited = Duration::ZERO;
        loop {
            for reader in &mut self.readers {
                while reader.take(&self.channels, &mut self.model) {}
                reader.leave_the_dead();
            }
            if !self.readers.iter().any(Reader::is_open) {
                return;
            }
            promise!(6, waited <= self.world.settings().lease + GLANCE, "a replaced broker keeps its subscribers");
            self.world.pass(GLANCE).await;
            waited += GLANCE;
            self.look();
        }
    }

    /// Producers push their messages again, whether or not they know them to be stored.
    async fn complete(&mut self, broker: &Broker<Call>) {
        for (number, _) in self.living() {
            self.open(number, broker.clone());
        }
        self.world.pass(GLANCE).await;
        self.look();
        let all: Vec<_> = self.producers.keys().copied().collect();
        for (producer, number) in all {
            let found = &self.producers[&(producer, number)];
            let lives = found.writer.queue.is_some_and(|queue| !self.model.queues[&queue].deleted);
            let bodies: Vec<_> = found.bodies().collect();
            let how = How { back: bodies.len() as u64, ahead: 0, count: bodies.len() as u64, lowest: 1, way: 2 };
            if how.count > 0 {
                self.push(producer, number, broker, &how);
            }
            self.answers().await;
            for body in bodies.into_iter().filter(|_| lives) {
                promise!(10, self.model.is_stored(body), "{body} is pushed again, without faults, and not stored");
            }
        }
    }

    /// Consumers wait for the messages that they lack, until a last message of each topic is pushed.
    async fn consume(&mut self, process: &Process) {
        let kept: Vec<Option<usize>> = self.readers.iter().map(|reader| reader.channel).collect();
        for channel in 0..self.channels.len() {
            self.readers.push(Reader::default());
            self.attach(self.readers.len() - 1, channel, process);
        }
        for (reader, channel) in kept.into_iter().enumerate() {
            if let Some(channel) = channel {
                self.attach(reader, channel, process);
            }
        }
        self.world.pass(Duration::from_millis(1)).await;
        self.look();
        // Readers that have everything wait from here on, and have to be woken.
        for reader in &mut self.readers {
            while reader.take(&self.channels, &mut self.model) {}
        }
        for (number, _) in self.living() {
            let how = How { back: 0, ahead: 0, count: 6, lowest: 1, way: 1 };
            self.push(NOBODY, number, &process.broker, &how);
        }
        self.answers().await;
        for reader in &mut self.readers {
            let Some(channel) = reader.channel else { continue };
            let channel = &self.channels[channel];
            if channel.is_gone(&self.model) {
                promise!(9, !reader.is_open(), "{channel:?} is gone, and can be subscribed to");
                continue;
            }
            let last = Reader::last_for(channel, &self.model);
            while reader.have() < last {
                let waited = tokio::time::timeout(GLANCE, reader.wait(&self.channels, &mut self.model)).await;
                promise!(10, waited == Ok(true), "{channel:?}, given {}, waits for {last}: {waited:?}", reader.have());
            }
        }
    }

    fn attach(&mut self, reader: usize, channel: usize, process: &Process) {
        let number = u8::try_from(reader).expect("there are few");
        let of = (channel, &self.channels[channel]);
        self.readers[reader].subscribe(number, of, 0, process, &self.inbox, &self.model);
    }

    /// The store contains exactly the committed messages.
    fn read_back(&self) {
        for (number, id) in self.living() {
            let queue = QueueId::new(id);
            let stored = self.world.database.transact(|state, _| state.read(queue, Offset::ZERO, usize::MAX));
            let stored: Vec<_> = stored.batches.into_iter().flat_map(|batch| decode(batch.frames)).collect();
            let contents: Vec<_> = stored.iter().map(|message| message.content.clone()).collect();
            let expected: Vec<_> = self.model.queues[&id].log.iter().map(|message| message.body.to_string()).collect();
            promise!(1, contents == expected, "{} holds {contents:?} instead of {expected:?}", label(number));
        }
    }
}
