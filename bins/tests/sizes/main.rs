//! Growing data, at sizes that could hurt. Each case compares its measurement with the bound in docs/operations.md, and
//! makes the same measurement at a small size in the same run.
//!
//! By default a case takes seconds; `RMOM_TEST_SIZES=large` (`just sizes`) makes it as large as a real cluster may become
//! one day. It prints a table row for each measurement.

#![allow(clippy::print_stdout, reason = "the figures are printed, a line of a table each")]

mod batches;
mod channels;
mod fill;
mod producers;
mod snapshot;
#[path = "../support/mod.rs"]
mod support;
mod system;

use std::{fmt::Display, time::Duration};

/// One of two sizes: the everyday one, or `large` if `RMOM_TEST_SIZES` says so.
fn size<T>(small: T, large: T) -> T {
    match std::env::var("RMOM_TEST_SIZES").is_ok_and(|sizes| sizes == "large") {
        true => large,
        false => small,
    }
}

/// Prints a row of the table: case, size, measurement, documented bound, and value for comparison.
fn row(case: &str, size: impl Display, measured: impl Display, bound: impl Display, beside: impl Display) {
    println!("\n| {case} | {size} | {measured} | {bound} | {beside} |");
}

/// A time as shown in the table.
fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A latency as shown in the table.
fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A count as shown in the table: 20,000,000.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn counts_have_commas() {
    assert_eq!([count(7), count(1_000), count(20_000_000)], ["7", "1,000", "20,000,000"]);
}
