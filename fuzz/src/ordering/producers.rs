//! Producers, as clients see them: their pushes and the answers.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use rmom_core::{
    access::Call,
    broker::{Broker, NewMessage, OpenPush, ProducerStamp, PushRequest, PushRun},
    model::{Offset, ProducerEpoch, ProducerId, ProducerKey, QueueId, QueueLabel, Sequence, Topic},
};
use uuid::Uuid;

use super::{
    body::{Body, Writer},
    model::{Model, Receipt},
    play::{Inbox, News},
};

/// A producer in one queue.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) writer: Writer,
    /// The sequence of its next new message.
    next: u64,
    acknowledged: BTreeSet<u64>,
    /// It pushes no sequence below this again.
    given_up: u64,
}

/// A producer's id on the wire.
pub(crate) fn id(producer: u8) -> ProducerId {
    ProducerId::new(Uuid::from_u128(0x0F00 + u128::from(producer)))
}

/// The manner of a push.
pub(crate) struct How {
    pub(crate) back: u64,
    pub(crate) ahead: u64,
    pub(crate) count: u64,
    /// As in `Step::Push`.
    pub(crate) lowest: u8,
    /// As in `Step::Push`.
    pub(crate) way: u8,
}

impl Producer {
    /// A producer that begins after `last`.
    pub(crate) fn new(writer: Writer, last: u64) -> Self {
        Self { writer, next: last + 1, acknowledged: BTreeSet::new(), given_up: last + 1 }
    }

    /// The lowest sequence whose outcome it does not know.
    fn lowest(&self) -> u64 {
        (self.given_up..).find(|sequence| !self.acknowledged.contains(sequence)).expect("there is always a next")
    }

    /// Notes that a run is stored.
    pub(crate) fn acknowledged(&mut self, run: Run) {
        self.acknowledged.extend(run.first..run.first + run.count);
    }

    /// Pushes in the background; returns the runs that it sends.
    pub(crate) fn push(
        &mut self,
        how: &How,
        label: &QueueLabel,
        to: &Broker<Call>,
        inbox: &Inbox,
        model: &mut Model,
    ) -> Vec<Run> {
        let first = (self.next + how.ahead).saturating_sub(how.back).max(self.given_up);
        let count = how.count;
        self.next = self.next.max(first + count);
        let lowest = match how.lowest {
            0 => 1,
            1 => self.lowest().min(first),
            _ => {
                self.given_up = first;
                model.gave_up(self.writer, first);
                first
            }
        };
        let stamp = ProducerStamp {
            key: ProducerKey { id: id(self.writer.producer), epoch: ProducerEpoch::new(self.writer.epoch) },
            lowest_unacknowledged: Sequence::new(lowest),
        };
        let each = if how.way == 1 { count } else { 1 };
        let runs: Vec<Run> = (first..first + count)
            .step_by(usize::try_from(each).expect("it is small"))
            .map(|first| Run { first, count: each, attempt: model.sent(self.writer, first, each, lowest) })
            .collect();
        send(self.writer, &runs, how.way, Some(stamp), label, to, inbox);
        runs
    }

    /// Messages that it pushed and did not give up.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = Body> + use<> {
        let writer = self.writer;
        (self.given_up..self.next).map(move |sequence| Body { writer, sequence })
    }
}

/// A run that is being sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) attempt: usize,
}

fn message(body: Body) -> NewMessage {
    let topic = Topic::parse(body.topic()).expect("it is one");
    NewMessage { content: Bytes::from(body.to_string()), topic, ..NewMessage::default() }
}

/// Pushes runs; `way` as in `Step::Push`.
pub(crate) fn send(
    writer: Writer,
    runs: &[Run],
    way: u8,
    stamp: Option<ProducerStamp>,
    label: &QueueLabel,
    to: &Broker<Call>,
    inbox: &Inbox,
) {
    let queue = writer.queue.map(QueueId::new);
    let label = label.clone();
    if way > 0 {
        let open = OpenPush { label, queue, producer: stamp };
        tokio::spawn(stream(writer, runs.to_vec(), open, to.clone(), Arc::clone(inbox)));
        return;
    }
    for run in runs {
        let producer = stamp.map(|stamp| (stamp, Sequence::new(run.first)));
        let message = message(Body { writer, sequence: run.first });
        let request = PushRequest { label: label.clone(), queue, producer, message };
        tokio::spawn(one(run.attempt, request, to.clone(), Arc::clone(inbox)));
    }
}

/// Pushes a single message.
async fn one(attempt: usize, request: PushRequest, to: Broker<Call>, inbox: Inbox) {
    let answer = to.push(request).await.map(|receipt| Receipt {
        offset: receipt.offset.map(Offset::get),
        duplicates: u64::from(receipt.duplicate),
        id: Some(receipt.id.to_string()),
    });
    inbox.lock().push(News::Pushed { attempt, answer });
}

/// Pushes runs on a stream, without waiting between them.
async fn stream(writer: Writer, runs: Vec<Run>, open: OpenPush, to: Broker<Call>, inbox: Inbox) {
    let answered = |attempt, answer| inbox.lock().push(News::Pushed { attempt, answer });
    let mut session = to.open_push(open).await;
    let mut answers = Vec::new();
    for Run { first, count, attempt } in runs {
        let messages = (first..first + count).map(|sequence| message(Body { writer, sequence })).collect();
        let run = PushRun { first: Sequence::new(first), messages, lowest_unacknowledged: None };
        let submitted = match &mut session {
            Ok(session) => session.submit(run).await,
            Err(error) => Err(error.clone()),
        };
        match submitted {
            Ok(answer) => answers.push((attempt, answer)),
            Err(error) => {
                // A stream stops at its first error.
                session = Err(error.clone());
                answered(attempt, Err(error));
            }
        }
    }
    for (attempt, answer) in answers {
        let answer = answer.await.map(|receipt| Receipt {
            offset: receipt.offset.map(Offset::get),
            duplicates: receipt.duplicates,
            id: None,
        });
        answered(attempt, answer);
    }
}
