//! The Python client types the contract once more, since it cannot import it. These tests read its sources.

use std::{collections::BTreeSet, fs, path::Path};

use rmom_proto::contract::Code;

fn source(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python/src/rmom").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The strings of `NAME = frozenset({…})`.
fn set_of<'a>(source: &'a str, name: &str) -> BTreeSet<&'a str> {
    let start = format!("\n{name} = frozenset(");
    let (_, rest) = source.split_once(&start).unwrap_or_else(|| panic!("there is no {name}"));
    let (set, _) = rest.split_once('}').expect("the set ends");
    set.split('"').skip(1).step_by(2).collect()
}

fn codes(is: fn(Code) -> bool) -> BTreeSet<&'static str> {
    Code::ALL.iter().filter(|&&code| is(code)).map(|code| code.as_str()).collect()
}

#[test]
fn python_does_the_same_about_each_code() {
    let errors = source("errors.py");
    let alike = |name: &str, is| assert_eq!(set_of(&errors, name), codes(is), "{name}");
    alike("RETRYABLE_CODES", Code::is_retryable);
    alike("_OUTCOME_UNKNOWN", Code::outcome_unknown);
    alike("_BLAMES_A_MESSAGE", Code::blames_a_message);
    alike("_ENDS_A_SUBSCRIPTION", Code::ends_a_subscription);
}
