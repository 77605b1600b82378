//! Marks for small limits that only the simulated database can reach.

/// The simulated database read as many headers as it was asked for, and there may be more.
pub(super) const FULL_HEADERS: &str = "simulation: a page of headers was full";
/// The simulated database read as many bytes as it was asked for, and there were more.
pub(super) const FULL_PAGE: &str = "simulation: a page of messages was full";
/// The simulated database removed as many batches as it was asked for, and there may be more.
pub(super) const FULL_TRIM: &str = "simulation: a trim took as much as it may";

/// All marks of the simulated database.
pub const DATABASE_MARKS: [&str; 3] = [FULL_HEADERS, FULL_PAGE, FULL_TRIM];
