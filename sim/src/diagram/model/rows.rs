//! Bands that overlap on a lane go side by side.

use std::collections::BTreeMap;

/// What lasts, on a lane.
pub(super) trait Band {
    /// Its lane.
    fn lane(&self) -> usize;
    /// From when to when.
    fn time(&self) -> (u64, u64);
    /// Puts it in a row of its lane, counted from 0; none if it fills the lane.
    fn row(&mut self) -> Option<&mut usize>;
}

/// Gives each band the first row of its lane that is free. They have to come in the order in which they begin.
pub(super) fn pack(bands: &mut [impl Band]) {
    // Per lane: until when each row is taken.
    let mut taken: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for band in bands {
        let (from, to) = band.time();
        let rows = taken.entry(band.lane()).or_default();
        let Some(row) = band.row() else { continue };
        *row = rows.iter().position(|&until| until <= from).unwrap_or(rows.len());
        match rows.get_mut(*row) {
            Some(until) => *until = to,
            None => rows.push(to),
        }
    }
}
