//! Values of fields: from small sets, so that requests refer to the same objects, and from the limits of valid ranges.

use arbitrary::{Result, Unstructured};
use rmom_core::model::{ChannelId, ProducerId, QueueLabel, Topic};
use rmom_proto::messages as wire;

use super::cluster::{Cluster, QUEUE};

const TEXTS: [&str; 12] =
    [QUEUE, "Q", "new", "", "__none__", "a/b %", " q", "a\nb", "İ", "\u{feff}", "news", "..\\..\u{0}"];
const NUMBERS: [u64; 6] = [1 << 32, (1 << 63) - 2, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
/// Selects a length around the limit of names.
const LONG: u8 = 250;

/// Text for labels and topics.
pub(super) fn text(input: &mut Unstructured<'_>) -> Result<String> {
    let number = input.arbitrary::<u8>()?;
    if let Some(known) = TEXTS.get(usize::from(number)) {
        return Ok((*known).to_owned());
    }
    if number >= LONG {
        return Ok("x".repeat(usize::from(number)));
    }
    Ok(String::from_utf8_lossy(input.bytes(usize::from(number % 16).min(input.len()))?).into_owned())
}

/// A number: small, or at a limit.
pub(super) fn number(input: &mut Unstructured<'_>) -> Result<u64> {
    let number = input.arbitrary::<u8>()?;
    let from_the_end = usize::from(u8::MAX - number);
    Ok(NUMBERS.get(from_the_end).copied().unwrap_or(u64::from(number)))
}

/// A few bytes.
pub(super) fn bytes(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let length = usize::from(input.arbitrary::<u8>()?);
    Ok(input.bytes(length.min(input.len()))?.to_vec())
}

/// A channel's id: the existing one, another, or an invalid one.
pub(super) fn channel_id(cluster: &Cluster, input: &mut Unstructured<'_>) -> Result<String> {
    Ok(match input.arbitrary::<u8>()? {
        0..=127 => cluster.channel.to_string(),
        number @ 128..=191 => uuid::Uuid::from_u128(u128::from(number)).to_string(),
        _ => text(input)?,
    })
}

/// A producer's id, or other bytes.
pub(super) fn producer_id(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let number = input.arbitrary::<u8>()?;
    Ok(vec![number % 4; if number < 192 { 16 } else { usize::from(number) % 32 }])
}

pub(super) fn producer(input: &mut Unstructured<'_>) -> Result<Option<wire::ProducerStamp>> {
    if input.arbitrary::<u8>()? % 4 == 0 {
        return Ok(None);
    }
    let (id, epoch) = (producer_id(input)?.into(), u64::from(input.arbitrary::<u8>()? / 64));
    Ok(Some(wire::ProducerStamp { id, epoch, lowest_unacknowledged: number(input)? }))
}

pub(super) fn headers(input: &mut Unstructured<'_>) -> Result<Vec<wire::Header>> {
    let number = input.arbitrary::<u8>()?;
    if number == u8::MAX {
        return Ok(vec![wire::Header { name: "h".into(), value: bytes::Bytes::new() }; 65]);
    }
    (0..number % 3).map(|_| Ok(wire::Header { name: text(input)?, value: bytes(input)?.into() })).collect()
}

/// The content of a message; the largest ones exceed the limit.
pub(super) fn content(input: &mut Unstructured<'_>) -> Result<bytes::Bytes> {
    let number = input.arbitrary::<u8>()?;
    Ok(bytes::Bytes::from(vec![number; usize::from(number) * 5]))
}

// Checks of values, by the name of their field.

/// Fields with wrong values.
#[derive(Debug, Default)]
pub(super) struct Wrong(Vec<&'static str>);

impl Wrong {
    pub(super) fn note(&mut self, field: &'static str, wrong: bool) {
        if wrong {
            self.0.push(field);
        }
    }

    pub(super) fn label(&mut self, label: &str) {
        self.note("queue_label", QueueLabel::parse(label).is_err());
    }

    pub(super) fn topic(&mut self, topic: &str) {
        self.note("topic", Topic::parse(topic).is_err());
    }

    pub(super) fn channel(&mut self, id: &str) {
        self.note("channel_id", ChannelId::parse(id).is_err());
    }

    pub(super) fn producer_id(&mut self, id: &[u8]) {
        self.note("producer_id", ProducerId::from_slice(id).is_err());
    }

    /// Checks a counter, which must fit a signed column.
    pub(super) fn counter(&mut self, field: &'static str, value: u64) {
        self.note(field, value > i64::MAX as u64);
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// True if a text names one of them.
    pub(super) fn is_named_in(&self, text: &str) -> bool {
        self.0.iter().any(|field| text.starts_with(field))
    }
}
