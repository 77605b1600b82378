//! The table of codes in `docs/protocol.md`.

use std::{collections::BTreeMap, fs, path::Path};

use rmom_core::model::Code;

use super::super::error::status_of;
use crate::grpc::grpc_code;

/// A row: gRPC status, HTTP status, meaning, and what a client does about it.
type Row = [String; 4];

fn table() -> BTreeMap<String, Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let (_, page) = page.split_once("### Table of codes").expect("the page has a table of codes");
    let rows = page.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect();
        let [code, row @ ..] = <[String; 5]>::try_from(cells).expect("a row has five cells");
        (code, row)
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
    let mut table = table();
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
