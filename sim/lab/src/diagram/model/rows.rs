//! Places overlapping bands on a lane side by side.

use std::collections::BTreeMap;

/// Something on a lane that lasts for a time.
pub(super) trait Band {
    /// Its lane.
    fn lane(&self) -> usize;
    /// Its beginning and end.
    fn time(&self) -> (u64, u64);
    /// The field for its row within the lane, counted from 0; `None` if it fills the lane.
    fn row(&mut self) -> Option<&mut usize>;
}

/// Gives each band the first free row of its lane. The bands must be in the order of their beginnings.
pub(super) fn pack(bands: &mut [impl Band]) {
    // For each lane, the time until which each row is taken.
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
