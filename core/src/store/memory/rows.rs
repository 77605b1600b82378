//! How much a read has read.

use crate::{
    model::StoreTime,
    ports::{LogTail, Page},
};

/// A row, or so many bytes of one. The largest batch, which holds a run of 4 MiB, has to be read within a deadline: a subscriber
/// could not get by it.
const ROW_BYTES: usize = 65_536;

/// How much a statement has read, by its answer. Simulations charge for it.
pub trait Rows {
    /// In rows. What is longer than one counts for as many as it fills.
    fn rows(&self) -> usize;
}

impl Rows for StoreTime {
    fn rows(&self) -> usize {
        0
    }
}

impl<T> Rows for Option<T> {
    fn rows(&self) -> usize {
        1
    }
}

impl<T> Rows for Vec<T> {
    fn rows(&self) -> usize {
        self.len()
    }
}

impl Rows for Page {
    fn rows(&self) -> usize {
        self.batches.iter().map(|batch| 1 + batch.frames.len() / ROW_BYTES).sum()
    }
}

impl Rows for LogTail {
    /// The end, the snapshot of the producers, and each named one.
    fn rows(&self) -> usize {
        let snapshot = self.producers.as_ref().map_or(0, |(_, snapshot)| 1 + snapshot.len() / ROW_BYTES);
        1 + snapshot + self.producer_epochs.len()
    }
}
