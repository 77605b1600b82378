//! The tables in `docs/protocol.md`.

use std::{collections::BTreeMap, fs, path::Path};

use rmom_core::model::{
    Code,
    limits::{
        MAX_BATCH_MESSAGES, MAX_CHANNELS_PER_QUEUE, MAX_HEADER_NAME_BYTES, MAX_HEADERS, MAX_NAME_BYTES, MAX_QUEUES,
    },
};
use rmom_proto::contract::limits::MAX_PRODUCER_NAME_BYTES;

use super::super::error::status_of;
use crate::grpc::grpc_code;

/// A row: gRPC status, HTTP status, meaning, and what a client does about it.
type Row = [String; 4];

/// The cells of the first table below a heading, by the first cell.
fn table<const CELLS: usize>(heading: &str) -> BTreeMap<String, [String; CELLS]> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let (_, page) = page.split_once(&format!("\n{heading}\n")).expect("the page has this heading");
    let rows = page.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells = row.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', ""));
            let mut cells = cells.collect::<Vec<_>>().into_iter();
            let key = cells.next().expect("a row has a first cell");
            let row = cells.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{key}: the number of cells"));
            (key, row)
        })
        .collect()
}

/// `INVALID_ARGUMENT` of `InvalidArgument`.
fn in_capitals(code: tonic::Code) -> String {
    let name = format!("{code:?}");
    let words = name.char_indices().map(|(at, letter)| if at > 0 && letter.is_uppercase() { "_" } else { "" });
    words.zip(name.chars()).flat_map(|(gap, letter)| gap.chars().chain(letter.to_uppercase())).collect()
}

#[test]
fn the_page_says_of_each_code_what_servers_and_clients_do() {
    let mut table: BTreeMap<String, Row> = table("### Table of codes");
    for &code in Code::ALL {
        let [grpc, http, meaning, action] = table.remove(code.as_str()).unwrap_or_else(|| panic!("no row for {code}"));
        assert_eq!((grpc, http), (in_capitals(grpc_code(code)), status_of(code).as_u16().to_string()), "{code}");
        let retries = action.starts_with("Retry") || action.contains("retry.");
        assert_eq!(retries, code.is_retryable(), "{code}: {action}");
        // A defect is not an outcome that a push can have, and clients do not retry it.
        let unknown = meaning.contains("**Outcome unknown.**");
        assert_eq!(unknown, code.outcome_unknown(), "{code}: {meaning}");
        if code.blames_a_message() {
            assert!(action.starts_with("Fail"), "{code}: {action}");
        }
        let ends = action.starts_with("Give up") || action.contains("a consumer gives up");
        // Some end producers, and no subscription is refused with them.
        let only_producers = [Code::TooManyProducers, Code::ProducerFenced].contains(&code);
        assert_eq!(ends && !only_producers, code.ends_a_subscription(), "{code}: {action}");
    }
    assert_eq!(table, BTreeMap::new(), "codes that do not exist");
}

/// `8,192` of 8192.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).expect("digits"));
    groups.collect::<Vec<_>>().join(",")
}

#[test]
fn the_page_has_the_limits_of_the_contract() {
    let table = table::<1>("## Limits");
    let limit = |what: &str| table.get(what).unwrap_or_else(|| panic!("no row for {what}"))[0].as_str();
    assert_eq!([MAX_NAME_BYTES; 2], [MAX_PRODUCER_NAME_BYTES, MAX_HEADER_NAME_BYTES], "they share a row");
    let names = limit("label, topic, name of a producer, name of a header");
    assert!(names.starts_with(&format!("{MAX_NAME_BYTES} bytes")), "{names}");
    assert_eq!(limit("headers of a message"), MAX_HEADERS.to_string());
    let runs = limit("messages of a run; runs without an acknowledgement");
    assert!(runs.starts_with(&format!("{}; ", with_commas(MAX_BATCH_MESSAGES))), "{runs}");
    let queues = [MAX_QUEUES, MAX_CHANNELS_PER_QUEUE].map(with_commas).join("; ");
    assert_eq!(limit("queues of a cluster; channels of a queue"), queues);
}
