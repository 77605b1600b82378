//! The end of a run: faults stop, and a fresh broker has to find all live messages, and no others.

use std::time::Duration;

use rmom_core::{model::Offset, store::memory::State};

use super::{
    model::Body,
    play::{Play, label},
    readers::Reader,
    steps::{CONSUMERS, HOSTS},
};

/// The host of the broker that serves the queue at the end.
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
        self.world.crash_all();
        let process = self.world.start(LAST);
        for _ in 0..3 {
            self.world.pass(Duration::from_millis(1)).await;
        }
        promise!(10, process.broker.heartbeat().is_ok(), "a broker registers at once");
        self.world.assign(&label(), LAST);
        let served = process.broker.rebuild_queue(&label()).await;
        promise!(10, served.is_ok(), "the queue is served by its new owner: {served:?}");
        self.look();
        self.recovered(&process).await;
        self.goes_on(&process).await;
        self.leaves().await;
        // A reader holds its process, which would prevent the check of the process's tasks.
        self.readers.clear();
        self.world.end().await
    }

    /// Waits until every push has an answer.
    async fn answers(&mut self) {
        let mut waited = Duration::ZERO;
        self.look();
        while self.pending > 0 {
            promise!(10, waited < PATIENCE, "{} pushes have no answer", self.pending);
            self.world.pass(GLANCE).await;
            waited += GLANCE;
            self.look();
        }
    }

    /// A new subscriber receives the messages that are alive in this very millisecond.
    async fn recovered(&mut self, process: &crate::world::Process) {
        let mut reader = Reader::new(CONSUMERS.into());
        reader.subscribe(1, (self.queue, self.channel), process.clone(), 0, &self.inbox);
        self.readers.push(reader);
        while !self.readers.last().is_some_and(Reader::is_open) {
            tokio::task::yield_now().await;
            self.look();
        }
        let now = self.world.database.now();
        let reader = self.readers.last_mut().expect("it was just added");
        let given = reader.take(&mut self.model, &self.jumps, &self.world.database);
        let given: Vec<u64> = given.into_keys().collect();
        let alive = self.model.log.iter().filter(|(_, stored)| !stored.trimmed && stored.expires_at > now);
        let alive: Vec<u64> = alive.map(|(&offset, _)| offset).collect();
        promise!(7, given == alive, "{given:?} were recovered at {now}, alive are {alive:?} of {:?}", self.model.log);
    }

    /// Offsets continue after all earlier ones, and a retry is recognized, even of an expired message.
    async fn goes_on(&mut self, process: &crate::world::Process) {
        let number = self.bodies.len() as u64 + 1;
        self.bodies.push(Body { number, lives: 10 });
        self.push(1, number, 1, &process.broker);
        self.answers().await;
        promise!(10, self.model.newest() == number, "{number} is pushed, without faults, and not stored");
    }

    /// Expired messages leave the store.
    async fn leaves(&mut self) {
        // The broker has read the clock since it was last set.
        let bound = 2 * self.world.settings().trim_interval;
        self.world.pass(bound + Duration::from_millis(10)).await;
        self.look();
        let now = self.world.database.now();
        let stored = self.world.database.transact(|state, _| state.headers(self.queue, Offset::ZERO, u32::MAX));
        let long_ago = now.millis() - u64::try_from(bound.as_millis()).expect("it is short");
        for (nth, header) in stored.iter().enumerate() {
            // The last batch keeps the end of the log until all earlier ones are gone.
            let holds = nth > 0 && nth + 1 == stored.len();
            promise!(7, holds || header.expires_at.millis() > long_ago, "{header:?} is still stored at {now}");
            let first = header.first.get();
            promise!(1, self.model.log.get(&first).is_some_and(|stored| !stored.trimmed), "{first} came back");
        }
    }
}
