//! The oracle: compares pushes, commits, answers and deliveries with the promises. It knows only the brokers' answers and
//! the commits, not how brokers work.

use std::collections::{BTreeMap, BTreeSet};

use rmom_core::model::Code;

use super::body::{Body, Writer};
use crate::world::{Commit, decode};

/// The outcome of a run of pushes, as its producer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Stored,
    /// Its last message was not stored, unless it had been before. Messages before that one may be, in an earlier batch.
    Refused,
    Unknown,
}

/// One attempt to push a run.
struct Attempt {
    writer: Writer,
    first: u64,
    count: u64,
    outcome: Option<Outcome>,
}

impl Attempt {
    fn bodies(&self) -> impl Iterator<Item = Body> + use<> {
        let writer = self.writer;
        (self.first..self.first + self.count).map(move |sequence| Body { writer, sequence })
    }

    fn has(&self, body: Body) -> bool {
        self.writer == body.writer && (self.first..self.first + self.count).contains(&body.sequence)
    }
}

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) body: Body,
    pub(crate) id: String,
    pub(crate) topic: String,
}

/// A queue, living or deleted.
#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) deleted: bool,
    epoch: u64,
    /// The message at offset n + 1 is entry n: nothing here expires.
    pub(crate) log: Vec<Stored>,
    /// The newest offset that any client was told of.
    pub(crate) known: u64,
    /// Each producer's newest stored sequence.
    last: BTreeMap<u8, u64>,
    /// Each producer's newest epoch that any client was told of.
    opened: BTreeMap<u8, u64>,
}

/// A broker's receipt for a stored run.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    /// The offset of the last message.
    pub(crate) offset: Option<u64>,
    pub(crate) duplicates: u64,
    /// The id of the last message, if the answer has it.
    pub(crate) id: Option<String>,
}

/// See the module's description.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) queues: BTreeMap<u64, Queue>,
    attempts: Vec<Attempt>,
    /// The queue and offset of each message.
    places: BTreeMap<Body, (u64, u64)>,
    /// A writer pushes no sequence below this again.
    settled: BTreeMap<Writer, u64>,
    /// Bodies below this were given up by their writer, whatever their outcome.
    given_up: BTreeMap<Writer, u64>,
    /// Attempts without an outcome.
    pub(crate) pending: usize,
}

impl Model {
    /// Adds a run that is about to be sent, with the lowest sequence that its writer declares.
    pub(crate) fn sent(&mut self, writer: Writer, first: u64, count: u64, lowest: u64) -> usize {
        let settled = self.settled.entry(writer).or_default();
        *settled = lowest.max(*settled);
        self.attempts.push(Attempt { writer, first, count, outcome: None });
        self.pending += 1;
        self.attempts.len() - 1
    }

    /// Notes that a writer will not retry any sequence below this.
    pub(crate) fn gave_up(&mut self, writer: Writer, below: u64) {
        self.given_up.insert(writer, below);
    }

    /// Checks a commit.
    pub(crate) fn committed(&mut self, commit: Commit) {
        match commit {
            Commit::Claimed { queue, epoch } => {
                let queue = self.queues.entry(queue.get()).or_default();
                promise!(6, epoch.get() == queue.epoch + 1, "epoch {epoch} was claimed after {}", queue.epoch);
                queue.epoch = epoch.get();
            }
            Commit::Deleted { queue } => self.queues.entry(queue.get()).or_default().deleted = true,
            Commit::Trimmed { queue, left, .. } => {
                let stored = self.queues.entry(queue.get()).or_default().log.len();
                promise!(2, left.is_empty() == (stored == 0), "queue {queue} was trimmed, and nothing in it expires");
            }
            Commit::Appended { queue: id, epoch, first, frames, .. } => {
                let queue = self.queues.entry(id.get()).or_default();
                promise!(6, epoch.get() == queue.epoch, "{epoch} stored after {} was claimed", queue.epoch);
                promise!(9, !queue.deleted, "queue {id} was appended to after it was deleted");
                promise!(3, first.get() == queue.log.len() as u64 + 1, "{first} follows {}", queue.log.len());
                for message in decode(frames) {
                    self.stored(id.get(), message.offset, message.id, &message.content, message.topic);
                }
            }
        }
    }

    fn stored(&mut self, id: u64, offset: u64, message: String, content: &str, topic: String) {
        let Some(body) = Body::parse(content) else { panic!("promise 2 is broken: nobody pushed {content:?}") };
        let writer = body.writer;
        let queue = self.queues.get_mut(&id).expect("the caller entered it");
        promise!(3, offset == queue.log.len() as u64 + 1, "{body} is stored at {offset}, after {}", queue.log.len());
        promise!(9, writer.queue.is_none_or(|meant| meant == id), "{body} is stored in queue {id}");
        promise!(2, self.attempts.iter().any(|sent| sent.has(body)), "nobody pushed {body}");
        promise!(2, topic == body.topic(), "{body} is stored under the topic {topic}");
        if let Some((queue, earlier)) = self.places.insert(body, (id, offset)) {
            panic!("promise 4 is broken: {body} is stored at {earlier} of queue {queue} and at {offset} of queue {id}");
        }
        if writer.queue.is_some() {
            let last = queue.last.entry(writer.producer).or_default();
            promise!(3, body.sequence > *last, "{body} is stored after number {last}");
            let settled = self.settled.get(&writer).copied().unwrap_or_default();
            promise!(3, body.sequence == *last + 1 || body.sequence <= settled, "{body} is stored after number {last}");
            *last = body.sequence;
            let opened = queue.opened.get(&writer.producer).copied().unwrap_or_default();
            promise!(4, writer.epoch >= opened, "{body} is stored, and producer epoch {opened} was opened before");
        }
        queue.log.push(Stored { body, id: message, topic });
    }

    /// Checks the acknowledgement of a run.
    pub(crate) fn acknowledged(&mut self, attempt: usize, receipt: &Receipt) {
        self.answered(attempt, Outcome::Stored);
        let Attempt { writer, first, count, .. } = self.attempts[attempt];
        let given_up = self.given_up.get(&writer).copied().unwrap_or_default();
        for body in self.attempts[attempt].bodies() {
            if body.sequence < given_up {
                continue;
            }
            let place = self.places.get(&body);
            let Some(&(queue, offset)) = place else {
                panic!("promise 1 is broken: {body} is acknowledged, not stored")
            };
            let known = &mut self.queues.get_mut(&queue).expect("it is stored there").known;
            *known = offset.max(*known);
            if body.sequence == first + count - 1 {
                promise!(3, receipt.offset.is_none_or(|said| said == offset), "{body} is at {offset}: {receipt:?}");
                let id = &self.queues[&queue].log[usize::try_from(offset).expect("logs are short") - 1].id;
                promise!(4, receipt.id.as_ref().is_none_or(|said| said == id), "{body} has the id {id}: {receipt:?}");
            }
        }
        let settled = self.settled.get(&writer).copied().unwrap_or_default();
        for body in self.attempts[attempt].bodies().take(usize::try_from(receipt.duplicates).expect("runs are short")) {
            let sent = self.attempts.iter().filter(|sent| sent.has(body)).count();
            promise!(4, sent > 1 || body.sequence < settled, "{body}, pushed once, is a duplicate: {receipt:?}");
        }
    }

    pub(crate) fn is_stored(&self, body: Body) -> bool {
        self.places.contains_key(&body)
    }

    /// Checks the failure of a run.
    pub(crate) fn failed(&mut self, attempt: usize, code: Code) {
        self.answered(attempt, if code == Code::OutcomeUnknown { Outcome::Unknown } else { Outcome::Refused });
    }

    fn answered(&mut self, attempt: usize, outcome: Outcome) {
        let before = self.attempts[attempt].outcome.replace(outcome);
        assert_eq!(before, None, "an attempt is answered once");
        self.pending -= 1;
    }

    /// Checks a new epoch of a producer, and the last sequence that it was told.
    pub(crate) fn opened(&mut self, id: u64, producer: u8, epoch: u64, last: u64) {
        let later = |sent: &Attempt| {
            let Writer { queue, producer: of, epoch: by } = sent.writer;
            queue == Some(id) && of == producer && by >= epoch
        };
        let overtaken = self.attempts.iter().any(later);
        let queue = self.queues.entry(id).or_default();
        let stored = queue.last.get(&producer).copied().unwrap_or_default();
        promise!(4, overtaken || stored == last, "producer epoch {epoch} is told {last}, and {stored} is stored");
        let opened = queue.opened.entry(producer).or_default();
        *opened = epoch.max(*opened);
    }

    /// Compares the answers about each message with whether it is stored.
    pub(crate) fn settle(&self) {
        let told: BTreeSet<Body> = self.attempts.iter().flat_map(Attempt::bodies).collect();
        for body in told {
            let is_last = |sent: &Attempt| body.sequence == sent.first + sent.count - 1;
            let mut sent = self.attempts.iter().filter(|sent| sent.has(body));
            let refused = sent.all(|sent| sent.outcome == Some(Outcome::Refused) && is_last(sent));
            promise!(11, !refused || !self.places.contains_key(&body), "{body} was refused, and is stored");
        }
    }
}
