//! The contents of messages: they identify writer and sequence, so that each is unique.

use std::fmt;

/// A numbering of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Writer {
    /// The queue for which it pushes; `None` means the present queue of the label.
    pub(crate) queue: Option<u64>,
    pub(crate) producer: u8,
    pub(crate) epoch: u64,
}

/// A message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Body {
    pub(crate) writer: Writer,
    pub(crate) sequence: u64,
}

impl Body {
    /// The topic, which is a function of the other fields.
    pub(crate) fn topic(&self) -> &'static str {
        let number = u64::from(self.writer.producer) * self.sequence.div_ceil(2);
        ["a", "__none__", "b"][usize::try_from(number % 3).expect("it is below 3")]
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let (queue, producer, epoch, sequence) = (next()?, next()?, next()?, next()?);
        let writer = Writer { queue: (queue > 0).then_some(queue), producer: producer.try_into().ok()?, epoch };
        Some(Self { writer, sequence })
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Writer { queue, producer, epoch } = self.writer;
        write!(f, "{}.{producer}.{epoch}.{}", queue.unwrap_or_default(), self.sequence)
    }
}
