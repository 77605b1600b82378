//! The task of a producer: owns the messages without acknowledgement, keeps a stream to the hosting broker, and resends.
//! `docs/protocol.md` has the rules that it follows.
//!
//! Sequences are positions: the message at the front of the window has `front`, the next one `front + 1`, and so on. They
//! stay the same over every reconnection, so that a broker recognizes messages that it has stored already. Sequences are
//! reassigned only together with a new identity (see [`Driver::renew_identity`]), and only while it is certain that the
//! broker will never store the messages of the window under the old one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rmom_proto::{
    contract::{Code, MessageIds},
    messages::{PushAck, PushStreamOpen},
};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{
    ProducerBuilder,
    queue::{Queue, Run},
    stream::{self, MAX_RUNS_IN_FLIGHT, PushStream},
    tickets::{Acknowledged, Offsets},
};
use crate::{Client, Error, backoff::Backoff, new_id, route::Route};

/// The producer's identity, as brokers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A random id, replaced by another one when sequences cannot continue.
    Random { id: Uuid },
    /// An id derived from a name. `epoch` is `None` when a new one has to be taken before the next push.
    Named { id: Uuid, epoch: Option<u64> },
}

impl Identity {
    fn id(self) -> Uuid {
        match self {
            Self::Random { id } | Self::Named { id, .. } => id,
        }
    }
}

/// The state in which a producer starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) identity: Identity,
    /// The last sequence that is stored under this identity.
    pub(crate) stored_before: u64,
    /// The queue's id. 0 means that it is not known yet.
    pub(crate) queue_id: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Driver {
    client: Client,
    label: String,
    delivery_timeout: Duration,
    queue: Arc<Queue>,
    route: Route,
    identity: Identity,
    /// Set by the first broker that opened a stream; a later queue with the same label has another id. 0 means not yet.
    queue_id: u64,
    /// Messages without an outcome yet, oldest first.
    window: VecDeque<Run>,
    /// Sequence of the first message in the window.
    front: u64,
    /// The highest sequence ever put on a stream under this identity: it may be stored.
    sent_through: u64,
    /// Up to this sequence every message is sent alone, to find the one that is refused.
    alone_through: u64,
    /// The last acknowledged sequence and its offset, if that is known.
    last_offset: Option<(u64, u64)>,
}

/// The progress of a stream so far.
#[derive(Debug)]
struct Progress {
    /// The number of runs on the stream, from the front of the window.
    runs_out: usize,
    /// Sequence of the first message put on it.
    first: u64,
    /// The start of the current wait for an acknowledgement: when the last one came, or a run was sent while none was out.
    since: Instant,
    /// There was an acknowledgement.
    any: bool,
    /// Up to this sequence, messages were sent on earlier streams.
    sent_before: u64,
}

impl Driver {
    pub(crate) fn new(builder: ProducerBuilder, queue: Arc<Queue>, route: Route, start: Start) -> Self {
        Self {
            client: builder.client,
            label: builder.label,
            delivery_timeout: builder.delivery_timeout,
            queue,
            route,
            identity: start.identity,
            queue_id: start.queue_id,
            window: VecDeque::new(),
            front: start.stored_before + 1,
            sent_through: 0,
            alone_through: 0,
            last_offset: None,
        }
    }

    /// Runs until the application has finished and all messages have an outcome, or until the producer cannot go on.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::new(self.client.settings());
        let mut last_failure = None;
        while self.wait_for_work().await {
            let connected = Instant::now();
            let mut progress = Progress {
                runs_out: 0,
                first: self.front,
                since: connected,
                any: false,
                sent_before: self.sent_through,
            };
            let deadline = self.deadline().expect("there is work");
            let error = match timeout_at(deadline, self.open()).await {
                Err(_) => None,
                // An attempt that is refused at once ends before the timer finds that the time is up.
                Ok(Err(error)) if error.is_retryable() && self.is_overdue() => {
                    last_failure = Some(Arc::new(error));
                    None
                }
                Ok(Err(error)) => Some(error),
                Ok(Ok(mut stream)) => match self.pump(&mut stream, &mut progress).await {
                    Ok(()) => return stream.finish().await,
                    Err(error) => error,
                },
            };
            if progress.any {
                last_failure = None;
            }
            if progress.any || connected.elapsed() >= self.client.settings().backoff_max {
                backoff.reset();
            }
            let Some(error) = error else {
                // The deadline of the oldest message has passed.
                if !self.give_up(last_failure.take()) {
                    return;
                }
                continue;
            };
            if error.blames_a_message() && progress.runs_out > 0 {
                self.find_the_culprit(error, &progress);
                continue;
            }
            if !error.is_retryable() {
                if error.admits_no_producer() {
                    // The broker stores nothing from this stream, so messages that only this stream carried are not stored.
                    self.sent_through = self.sent_through.min(progress.sent_before);
                }
                self.stop(&error);
                return;
            }
            let at_once = self.route.failed(&error);
            let wait = if at_once { Duration::ZERO } else { backoff.next(self.client.settings()) };
            if self.window.is_empty() {
                debug!(queue = self.label, %error, "an idle producer lost its broker");
            } else {
                warn!(queue = self.label, %error, ?wait, unacknowledged = self.unacknowledged(), "a producer goes on elsewhere");
            }
            last_failure = Some(Arc::new(error));
            let until = Instant::now() + wait;
            sleep_until(self.deadline().map_or(until, |deadline| until.min(deadline))).await;
        }
    }

    /// Waits until there is something to push. False means that there never will be.
    async fn wait_for_work(&mut self) -> bool {
        loop {
            if !self.window.is_empty() || self.queue.waiting_since().is_some() {
                return true;
            }
            if self.queue.is_ended() {
                return false;
            }
            self.queue.wake.notified().await;
        }
    }

    /// When the oldest message is given up.
    fn deadline(&self) -> Option<Instant> {
        self.age().map(|age| Instant::now() + self.delivery_timeout.saturating_sub(age))
    }

    /// How long ago the oldest message was accepted, the machine's sleep included.
    fn age(&self) -> Option<Duration> {
        let since = self.window.front().and_then(Run::since).or_else(|| self.queue.waiting_since());
        since.map(|since| self.client.settings().moments.since(since))
    }

    /// The oldest message's time is up. A broker may have forgotten it, and would store it a second time.
    fn is_overdue(&self) -> bool {
        self.age().is_some_and(|age| age >= self.delivery_timeout)
    }

    fn unacknowledged(&self) -> u64 {
        self.window.iter().map(|run| run.len() as u64).sum()
    }

    /// Finds the hosting broker and opens a stream there.
    async fn open(&mut self) -> Result<PushStream, Error> {
        let authority = self.route.find(&self.client).await?;
        let channel = self.client.dialer().channel(&authority)?;
        let timeout = self.client.settings().open_timeout;
        let epoch = match self.identity {
            Identity::Random { .. } => 0,
            Identity::Named { epoch: Some(epoch), .. } => epoch,
            Identity::Named { id, epoch: None } => {
                let label = self.label.clone();
                let opened = stream::open_producer(channel.clone(), &authority, label, id, timeout).await?;
                self.check_queue(opened.queue_id, &authority)?;
                if opened.last_sequence + 1 != self.front {
                    // Another producer has pushed under this name in the meantime.
                    return Err(Error::Poisoned { sequence: self.front });
                }
                self.identity = Identity::Named { id, epoch: Some(opened.producer_epoch) };
                opened.producer_epoch
            }
        };
        let open = PushStreamOpen {
            queue_label: self.label.clone(),
            producer: Some(stream::stamp(self.identity.id(), epoch, self.front)),
            queue_id: self.queue_id,
        };
        let stream = PushStream::open(channel, &authority, open, timeout).await?;
        self.check_queue(stream.queue_id, &authority)?;
        self.route.arrived();
        info!(queue = self.label, broker = authority, sequence = self.front, "a producer is connected");
        Ok(stream)
    }

    fn check_queue(&mut self, queue_id: u64, authority: &str) -> Result<(), Error> {
        if self.queue_id != 0 && self.queue_id != queue_id {
            return Err(Error::Refused {
                by: authority.to_owned(),
                code: Code::QueueReplaced.to_string(),
                message: format!("the queue with id {} was deleted; its label names {queue_id} now", self.queue_id),
                details: [("queue_id".to_owned(), queue_id.to_string())].into(),
            });
        }
        self.queue_id = queue_id;
        Ok(())
    }

    /// Pushes over a stream. Returns `Ok` if the application has finished, `None` as the error if the oldest message's time
    /// is up, and otherwise the error that broke the stream.
    async fn pump(&mut self, stream: &mut PushStream, progress: &mut Progress) -> Result<(), Option<Error>> {
        let ack_timeout = self.client.settings().ack_timeout;
        loop {
            let idle = self.fill(stream, progress);
            if self.window.is_empty() && self.queue.is_ended() && self.queue.waiting_since().is_none() {
                return Ok(());
            }
            let time_is_up = self.deadline();
            let silence = (progress.runs_out > 0).then(|| progress.since + ack_timeout);
            let wake_at = time_is_up.into_iter().chain(silence).min();
            tokio::select! {
                biased;
                ack = stream.next_ack() => self.acknowledge(ack?, &stream.authority, progress)?,
                () = self.queue.wake.notified(), if idle => {}
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                    if time_is_up.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Err(None);
                    }
                    let what = format!("an acknowledgement from {}", stream.authority);
                    return Err(Some(Error::DeadlineExceeded { what, after: ack_timeout, sent: true }));
                }
            }
        }
    }

    /// Puts as many runs on the stream as allowed. True if there was nothing more to put.
    fn fill(&mut self, stream: &PushStream, progress: &mut Progress) -> bool {
        let mut next = self.front + self.window.iter().take(progress.runs_out).map(|run| run.len() as u64).sum::<u64>();
        loop {
            let limit = if self.front <= self.alone_through { 1 } else { MAX_RUNS_IN_FLIGHT };
            if progress.runs_out >= limit {
                return false;
            }
            if progress.runs_out == self.window.len() {
                let Some(run) = self.queue.take() else { return true };
                self.window.push_back(run);
            }
            if self.is_overdue() {
                return false;
            }
            let run = &self.window[progress.runs_out];
            if !stream.send(run.clone(), next, self.front) {
                // The acknowledgements will tell why the stream is over.
                return false;
            }
            if progress.runs_out == 0 {
                progress.since = Instant::now();
            }
            progress.runs_out += 1;
            next += run.len() as u64;
            self.sent_through = self.sent_through.max(next - 1);
        }
    }

    fn acknowledge(&mut self, ack: PushAck, authority: &str, progress: &mut Progress) -> Result<(), Option<Error>> {
        self.check_queue(ack.queue_id, authority)?;
        let out: u64 = self.window.iter().take(progress.runs_out).map(|run| run.len() as u64).sum();
        if ack.through_sequence >= self.front + out {
            let reason = format!("it acknowledged sequence {}, which it was not sent", ack.through_sequence);
            return Err(Some(Error::Protocol { authority: authority.to_owned(), reason }));
        }
        if ack.through_sequence < self.front {
            return Ok(());
        }
        progress.since = Instant::now();
        progress.any = true;
        let mut left = ack.through_sequence + 1 - self.front;
        let acknowledged = Acknowledged {
            ids: MessageIds::new(self.identity.id(), self.queue_id),
            first_sequence: self.front,
            // Messages that had been stored before came first on this stream.
            duplicates_through: (progress.first + ack.duplicates).saturating_sub(1),
            offsets: self.offsets(&ack, left),
        };
        self.last_offset = (ack.offset > 0).then_some((ack.through_sequence, ack.offset));
        while left > 0 {
            let run = self.window.front_mut().expect("what is acknowledged was checked to be in the window");
            let count = run.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            run.tickets.stored(count, Acknowledged { first_sequence: self.front, ..acknowledged });
            self.queue.release(run, count, None);
            if run.len() == 0 {
                self.window.pop_front();
                progress.runs_out -= 1;
            }
            self.front += count as u64;
            left -= count as u64;
        }
        Ok(())
    }

    /// The offsets that follow from an acknowledgement of `count` messages. Offsets grow with the sequences, so if they grew
    /// by as much as the sequences since the last known one, no other producer's message lies between.
    fn offsets(&self, ack: &PushAck, count: u64) -> Offsets {
        if ack.offset == 0 {
            return Offsets::Unknown;
        }
        let gapless = self.last_offset.is_some_and(|(sequence, offset)| {
            sequence + 1 == self.front && ack.offset.checked_sub(offset) == Some(count)
        });
        if gapless {
            Offsets::All { offset_at_zero: i128::from(ack.offset) - i128::from(ack.through_sequence) }
        } else {
            Offsets::One { sequence: ack.through_sequence, offset: ack.offset }
        }
    }

    /// A broker refused a message on the stream because of its contents. It acknowledges in order and stops at the first
    /// error, so the message is in the first run that is out. If that run was out alone and has one message, only that
    /// message fails; otherwise the run is sent again message by message.
    fn find_the_culprit(&mut self, error: Error, progress: &Progress) {
        let Some(run) = self.window.pop_front() else { return };
        if run.len() == 1 && progress.runs_out == 1 {
            warn!(queue = self.label, %error, sequence = self.front, "a broker refused a message");
            // Deduplication comes before validation, so the refused message had not been stored by an earlier attempt.
            let error = Error::NotDelivered { reason: Arc::new(error), outcome_unknown: false };
            self.fail(run, &error);
            self.renew_identity();
        } else {
            debug!(queue = self.label, %error, "a broker refused one of many messages; sending them one by one");
            self.alone_through = self.front + run.len() as u64 - 1;
            for single in run.split().rev() {
                self.window.push_front(single);
            }
        }
    }

    /// Gives up all messages, since the oldest one's time is up and the others must not overtake it. False if this ends the
    /// producer.
    fn give_up(&mut self, last: Option<Arc<Error>>) -> bool {
        let reason = Arc::new(Error::DeliveryTimeout { after: self.delivery_timeout, last });
        let unknown = self.sent_through >= self.front;
        warn!(queue = self.label, %reason, unknown, "a producer gives up what it has not delivered");
        if let (Identity::Named { .. }, true) = (self.identity, unknown) {
            // Set before the messages fail, so that a caller that sees them fail sees this as well.
            self.queue.end(Error::Poisoned { sequence: self.front });
            self.fail_all(&reason);
            return false;
        }
        self.fail_all(&reason);
        if unknown {
            self.renew_identity();
        }
        true
    }

    /// The producer cannot go on.
    fn stop(&mut self, error: &Error) {
        warn!(queue = self.label, %error, hint = error.hint(), "a producer stops");
        self.queue.end(error.clone());
        self.fail_all(&Arc::new(error.clone()));
    }

    /// Fails all accepted messages; those that may be stored fail with an unknown outcome. Does not use up sequences.
    fn fail_all(&mut self, reason: &Arc<Error>) {
        // All messages are taken before places become free: messages pushed from then on are not meant.
        self.window.extend(std::iter::from_fn(|| self.queue.take()));
        let mut sequence = self.front;
        while let Some(mut run) = self.window.pop_front() {
            let known_from = (self.sent_through + 1).max(sequence);
            let len = run.len() as u64;
            let unknown = usize::try_from((known_from - sequence).min(len)).unwrap_or(usize::MAX);
            sequence += len;
            let parts = [(unknown, true), (run.len() - unknown, false)];
            for (count, outcome_unknown) in parts {
                if count > 0 {
                    let error = Error::NotDelivered { reason: reason.clone(), outcome_unknown };
                    run.tickets.failed(count, error.clone());
                    self.queue.release(&mut run, count, Some(&error));
                }
            }
        }
    }

    fn fail(&self, mut run: Run, error: &Error) {
        let count = run.len();
        run.tickets.failed(count, error.clone());
        self.queue.release(&mut run, count, Some(error));
    }

    /// Sequences cannot continue from where they stopped: the message at the front was given up or refused, and its number
    /// must never stand for another message. A random id is replaced by a fresh one, under which nothing was ever sent. A
    /// named producer keeps its id and takes its next epoch, which shuts out messages of the old one that are still on
    /// their way; the next broker confirms that the sequence at the front is free.
    fn renew_identity(&mut self) {
        self.identity = match self.identity {
            Identity::Random { .. } => {
                self.front = 1;
                Identity::Random { id: new_id(self.client.settings()) }
            }
            Identity::Named { id, .. } => Identity::Named { id, epoch: None },
        };
        self.sent_through = 0;
        self.alone_through = 0;
        self.last_offset = None;
    }
}

impl Drop for Driver {
    /// The task ended, or the runtime drops it: all waiters get an answer.
    fn drop(&mut self) {
        self.queue.end(Error::Closed);
        self.fail_all(&Arc::new(Error::Closed));
    }
}
