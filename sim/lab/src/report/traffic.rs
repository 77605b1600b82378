//! Many records of one kind, summarized in one line.

use std::collections::BTreeMap;

use rmom_sim::history::{Event, Record};

use super::{At, Emphasis, Line, Names, sentence::count, sentence::shown};

/// The traffic of each host since the last summary.
#[derive(Debug, Default)]
pub(super) struct Traffic(BTreeMap<Key, Run>);

/// The records that share a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Pushes { host: String },
    Deliveries { host: String, consumer: String },
    Stream { host: String, stream: u64 },
    Stored { host: String, queue_id: u64, epoch: u64, by: String },
    Refused { host: String, queue_id: u64, epoch: u64, by: String, why: String },
    Failed { host: String, code: String },
    Trimmed { host: String, queue_id: u64 },
}

/// Records of one key.
#[derive(Debug)]
struct Run {
    from: u64,
    to: u64,
    queue: String,
    pushed: u64,
    bodies: Option<(String, String)>,
    acknowledged: u64,
    duplicates: u64,
    failed: BTreeMap<String, u64>,
    unknown: u64,
    messages: u64,
    records: u64,
    offsets: Option<(u64, u64)>,
}

impl Traffic {
    /// Counts a record if it is traffic; otherwise returns false.
    pub(super) fn takes(&mut self, record: &Record, names: &Names) -> bool {
        let host = record.host.clone();
        match &record.event {
            Event::PushSent { body, label, .. } => {
                let run = self.run(Key::Pushes { host }, record);
                run.pushed += 1;
                run.queue.clone_from(label);
                run.bodies = Some((run.bodies.take().map_or_else(|| body.clone(), |(first, _)| first), body.clone()));
            }
            Event::PushAcked { duplicate, .. } => {
                let run = self.run(Key::Pushes { host }, record);
                run.acknowledged += 1;
                run.duplicates += u64::from(*duplicate);
            }
            Event::PushFailed { code, unknown, .. } => {
                let run = self.run(Key::Pushes { host }, record);
                *run.failed.entry(code.clone()).or_default() += 1;
                run.unknown += u64::from(*unknown);
            }
            Event::Delivered { consumer, offset, .. } => {
                self.run(Key::Deliveries { host, consumer: consumer.clone() }, record).message(*offset);
            }
            Event::StreamMessage { stream, offset, .. } => {
                self.run(Key::Stream { host, stream: *stream }, record).message(*offset);
            }
            Event::Stored { queue_id, epoch, messages, by, .. } => {
                let key = Key::Stored { host, queue_id: *queue_id, epoch: *epoch, by: by.clone() };
                let run = self.run(key, record);
                run.queue = names.queue(*queue_id);
                messages.iter().for_each(|message| run.message(message.offset));
            }
            Event::AppendRefused { queue_id, epoch, why, by } => {
                let (by, why) = (by.clone(), why.clone());
                let run = self.run(Key::Refused { host, queue_id: *queue_id, epoch: *epoch, by, why }, record);
                run.queue = names.queue(*queue_id);
            }
            Event::AdminFailed { code, unknown, .. } => {
                self.run(Key::Failed { host, code: code.clone() }, record).unknown += u64::from(*unknown);
            }
            Event::Trimmed { queue_id, through, .. } => {
                let run = self.run(Key::Trimmed { host, queue_id: *queue_id }, record);
                run.queue = names.queue(*queue_id);
                run.message(*through);
            }
            _ => return false,
        }
        true
    }

    fn run(&mut self, key: Key, record: &Record) -> &mut Run {
        let run = self.0.entry(key).or_insert_with(|| Run::starting(record.at_micros));
        run.to = record.at_micros;
        run.records += 1;
        run
    }

    /// Returns a line for each run, and resets the counts.
    pub(super) fn summarised(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.0).into_iter().map(|(key, run)| run.line(key)).collect()
    }
}

impl Run {
    fn starting(at: u64) -> Self {
        Self {
            from: at,
            to: at,
            queue: String::new(),
            pushed: 0,
            bodies: None,
            acknowledged: 0,
            duplicates: 0,
            failed: BTreeMap::new(),
            unknown: 0,
            messages: 0,
            records: 0,
            offsets: None,
        }
    }

    fn message(&mut self, offset: u64) {
        self.messages += 1;
        let (low, high) = self.offsets.unwrap_or((offset, offset));
        self.offsets = Some((low.min(offset), high.max(offset)));
    }

    fn line(self, key: Key) -> Line {
        let messages = count(self.messages, "message");
        let queue = &self.queue;
        let times = if self.records == 1 { String::new() } else { format!(", {} times", self.records) };
        let (host, text, emphasis) = match key {
            Key::Pushes { host } => (host, self.pushes(), Emphasis::Traffic),
            Key::Deliveries { host, consumer } => {
                let who = if consumer == host { String::new() } else { format!("{consumer} ") };
                (host, format!("{who}received {messages}{}", self.range()), Emphasis::Traffic)
            }
            Key::Stream { host, stream } => {
                (host, format!("received {messages}{} on stream {stream}", self.range()), Emphasis::Traffic)
            }
            Key::Stored { host, epoch, by, .. } => {
                let batches =
                    if self.records == 1 { "1 batch".to_owned() } else { format!("{} batches", self.records) };
                let range = self.range();
                (
                    host,
                    format!("stored {messages} of {queue}{range} in {batches} for {by}, epoch {epoch}"),
                    Emphasis::Traffic,
                )
            }
            Key::Refused { host, epoch, by, why, .. } => {
                (host, format!("refused an append to {queue} by {by}, epoch {epoch}: {why}{times}"), Emphasis::Plain)
            }
            Key::Failed { host, code } => {
                let unknown = if self.unknown == 0 { "" } else { ", with an unknown outcome" };
                (host, format!("a call failed: {code}{unknown}{times}"), Emphasis::Plain)
            }
            Key::Trimmed { host, .. } => {
                let through = self.offsets.map_or(0, |(_, high)| high);
                (host, format!("removed expired messages of {queue} through offset {through}"), Emphasis::Traffic)
            }
        };
        Line { at: At(self.from), until: (self.to > self.from).then_some(At(self.to)), host, text, emphasis }
    }

    fn pushes(&self) -> String {
        let mut parts = Vec::new();
        if let Some((first, last)) = &self.bodies {
            let which = if self.pushed == 1 { shown(first) } else { format!("{} … {}", shown(first), shown(last)) };
            parts.push(format!("pushed {} to {} ({which})", count(self.pushed, "message"), self.queue));
        }
        if self.acknowledged > 0 {
            let duplicates = match self.duplicates {
                0 => String::new(),
                some => format!(" ({} as {})", some, if some == 1 { "a duplicate" } else { "duplicates" }),
            };
            parts.push(format!("{} acknowledged{duplicates}", self.acknowledged));
        }
        for (code, times) in &self.failed {
            parts.push(format!("{times} failed ({code})"));
        }
        if self.unknown > 0 {
            parts.push(format!("{} may have been stored nevertheless", self.unknown));
        }
        parts.join(", ")
    }

    fn range(&self) -> String {
        match self.offsets {
            None => String::new(),
            Some((low, high)) if low == high => format!(" (offset {low})"),
            Some((low, high)) => format!(" (offsets {low} … {high})"),
        }
    }
}
