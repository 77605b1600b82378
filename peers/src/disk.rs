//! The disk alone.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use crate::load::{Clock, Error, Figures, Load, content};

/// As large as a file of PostgreSQL's log, and, as that, full of zeros before it is used: a sync then has only data to write.
const FILE_BYTES: usize = 16 << 20;

/// One write and one sync after the other, through the file and over again.
pub(crate) fn run(folder: &Path, load: &Load) -> Result<Figures, Error> {
    let path = folder.join("side-by-side.sync");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    let slots = (FILE_BYTES / load.size) as u64;
    let clock = Clock::start(*load);
    let mut figures = Figures::new(load);
    for number in 0.. {
        if clock.is_over() {
            break;
        }
        let sent = clock.now();
        file.seek(SeekFrom::Start(number % slots * load.size as u64))?;
        file.write_all(&content(number, sent, load.size))?;
        file.sync_data()?;
        let now = clock.now();
        if clock.is_measured(now) {
            figures.stored += 1;
            figures.acknowledged_after.saturating_record(now - sent);
        }
    }
    std::fs::remove_file(path)?;
    Ok(figures)
}
