//! `rmom push`.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rmom_client::{Delivery, Error, NewMessage, Producer, Receipt};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use super::{
    args::PushArgs,
    error::CliError,
    input::{self, Chunk},
    output::{Out, count, plural, tell},
    session::Session,
};
use crate::service::Signals;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// After an interrupt, how long to wait for the acknowledgements of messages already sent.
const INTERRUPT_GRACE: Duration = Duration::from_secs(5);

pub(super) async fn run(session: &Session, args: PushArgs, json: bool) -> Result<(), CliError> {
    let mut signals = Signals::new()?;
    if args.messages.is_empty() && io::stdin().is_terminal() {
        tell("rmom: every line you type is a message; Ctrl-D ends");
    }
    let mut chunks = if args.messages.is_empty() { input::lines(io::stdin()) } else { arguments(args.messages)? };
    if args.create {
        tokio::select! {
            biased;
            _ = signals.next() => return Err(CliError::interrupted()),
            created = create(session, &args.queue) => created?,
        }
    }
    let mut builder = session.client.producer(&args.queue).delivery_timeout(args.timeout);
    if let Some(name) = &args.producer {
        builder = builder.named(name);
    }
    let producer = tokio::select! {
        biased;
        _ = signals.next() => return Err(CliError::interrupted()),
        producer = builder.open() => producer.map_err(|error| session.explain(&error))?,
    };
    let mut push = Push::new(session, producer, args.topic, args.ttl);
    let fed = tokio::select! {
        biased;
        _ = signals.next() => Err(CliError::interrupted()),
        fed = push.feed(&mut chunks) => fed,
    };
    let settled = if fed.as_ref().is_err_and(|error| !error.is_worth_telling()) {
        timeout(INTERRUPT_GRACE, push.settle()).await.unwrap_or(Ok(()))
    } else {
        tokio::select! {
            biased;
            _ = signals.next() => Err(CliError::interrupted()),
            settled = push.settle() => settled,
        }
    };
    let result = fed.and(settled);
    if result.is_ok() || push.stored > 0 {
        push.report(json)?;
    }
    result
}

/// The messages on the command line, in the form of lines of input.
fn arguments(messages: Vec<String>) -> Result<mpsc::Receiver<Chunk>, CliError> {
    let (sender, receiver) = mpsc::channel(1);
    let messages = messages.into_iter().map(String::into_bytes).collect();
    sender.try_send(Ok(messages)).map_err(CliError::refused)?;
    Ok(receiver)
}

/// Makes sure that the queue exists.
async fn create(session: &Session, label: &str) -> Result<(), CliError> {
    match session.client.admin().create_queue(label).await {
        Ok(_) => Ok(()),
        // It exists, perhaps since a moment ago; the producer waits until it is served.
        Err(Error::Refused { code, .. }) if ["QUEUE_EXISTS", "NOT_HOSTED"].contains(&code.as_str()) => Ok(()),
        Err(error) => Err(session.explain(&error)),
    }
}

/// A run of pushes and their results.
struct Push<'s> {
    session: &'s Session,
    producer: Producer,
    topic: Option<String>,
    ttl: Option<Duration>,
    started: Instant,
    progress: ProgressBar,
    /// Messages of the input that were read.
    seen: u64,
    /// Messages that an earlier run of the same producer had stored.
    skipped: u64,
    /// Deliveries in the order of the input, in which they also resolve.
    waiting: VecDeque<(u64, Delivery)>,
    stored: u64,
    duplicates: u64,
}

impl<'s> Push<'s> {
    fn new(session: &'s Session, producer: Producer, topic: Option<String>, ttl: Option<Duration>) -> Self {
        // Hidden if standard error is not a terminal.
        let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template("{human_pos} stored, {rate} a second, {elapsed}") {
            let rate = |state: &ProgressState, line: &mut dyn fmt::Write| {
                let _ = line.write_str(&count(state.per_sec() as u64));
            };
            progress.set_style(style.with_key("rate", rate));
        }
        if !progress.is_hidden() {
            // Ticks even while nothing is stored, so that a wait does not look like the end.
            progress.enable_steady_tick(PROGRESS_INTERVAL);
        }
        Self {
            session,
            producer,
            topic,
            ttl,
            started: Instant::now(),
            progress,
            seen: 0,
            skipped: 0,
            waiting: VecDeque::new(),
            stored: 0,
            duplicates: 0,
        }
    }

    async fn feed(&mut self, chunks: &mut mpsc::Receiver<Chunk>) -> Result<(), CliError> {
        loop {
            // While the input pauses, acknowledgements still arrive.
            let chunk = tokio::select! {
                biased;
                chunk = chunks.recv() => chunk,
                decided = next_decided(&mut self.waiting), if !self.waiting.is_empty() => {
                    self.count(decided)?;
                    continue;
                }
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let lines =
                chunk.map_err(|error| CliError::refused(format_args!("cannot read standard input: {error}")))?;
            for line in lines {
                self.send(line).await?;
            }
            while let Some(decided) = self.waiting.front_mut().and_then(|(_, delivery)| delivery.now_or_never()) {
                let number = self.waiting.pop_front().map_or(0, |(number, _)| number);
                self.count((number, decided))?;
            }
        }
    }

    async fn send(&mut self, line: Vec<u8>) -> Result<(), CliError> {
        self.seen += 1;
        if self.seen <= self.producer.stored_before() {
            self.skipped += 1;
            return Ok(());
        }
        let mut message = NewMessage::new(line);
        if let Some(topic) = &self.topic {
            message = message.topic(topic);
        }
        if let Some(ttl) = self.ttl {
            message = message.ttl(ttl);
        }
        let delivery = self.producer.send(message).await.map_err(|error| self.explain(self.seen, &error))?;
        self.waiting.push_back((self.seen, delivery));
        Ok(())
    }

    /// Waits until all sent messages are stored, or one of them is given up.
    async fn settle(&mut self) -> Result<(), CliError> {
        while !self.waiting.is_empty() {
            let decided = next_decided(&mut self.waiting).await;
            self.count(decided)?;
        }
        Ok(())
    }

    fn count(&mut self, (number, decided): (u64, Result<Receipt, Error>)) -> Result<(), CliError> {
        let receipt = decided.map_err(|error| self.explain(number, &error))?;
        self.stored += 1;
        self.duplicates += u64::from(receipt.duplicate);
        self.progress.set_position(self.stored);
        Ok(())
    }

    fn explain(&self, number: u64, error: &Error) -> CliError {
        self.session.explain(error).at(format_args!("message {number}"))
    }

    fn report(&self, json: bool) -> Result<(), CliError> {
        self.progress.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let (stored, duplicates, skipped) = (self.stored, self.duplicates, self.skipped);
        if json {
            let mut out = Out::new();
            out.line(
                json!({ "pushed": stored, "duplicates": duplicates, "skipped": skipped, "seconds": seconds })
                    .to_string(),
            )?;
            return out.flush();
        }
        let pushed = plural(stored, "message");
        let duplicates = plural(duplicates, "duplicate");
        let skipped = match skipped {
            0 => String::new(),
            skipped => format!("; an earlier run had stored the first {}", count(skipped)),
        };
        tell(format_args!("pushed {pushed} ({duplicates}) in {seconds:.2} s{skipped}"));
        let before = self.producer.stored_before();
        if before > self.seen {
            tell(format_args!(
                "rmom: this producer had stored {}, which is more than there was input: is it the same input?",
                plural(before, "message")
            ));
        }
        Ok(())
    }
}

/// The oldest unresolved delivery, once it resolves. Cancel-safe.
async fn next_decided(waiting: &mut VecDeque<(u64, Delivery)>) -> (u64, Result<Receipt, Error>) {
    let Some((number, delivery)) = waiting.front_mut() else { return std::future::pending().await };
    let decided = (*number, delivery.await);
    waiting.pop_front();
    decided
}
