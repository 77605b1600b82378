//! The Python client types the contract once more, since it cannot import it. These tests read its sources.

use std::{collections::BTreeSet, fs, path::Path};

use rmom_proto::contract::{
    Code, EPOCH_HEADER, ERROR_DOMAIN, FRAME_PREFIX_BYTES, MAX_NAME_BYTES, NO_TOPIC, QUEUE_ID_HEADER,
    limits::{
        GRPC_DEFAULT_MAX_MESSAGE_BYTES, MAX_DELIVERY_TIMEOUT, MAX_HEADER_NAME_BYTES, MAX_HEADERS,
        MAX_PRODUCER_NAME_BYTES, MAX_TTL,
    },
};

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

/// What `NAME = …` assigns.
fn assigned<'a>(source: &'a str, name: &str) -> &'a str {
    let start = format!("\n{name} = ");
    let (_, rest) = source.split_once(&start).unwrap_or_else(|| panic!("there is no {name}"));
    rest.lines().next().expect("it assigns something")
}

/// The value of a product of numbers.
fn product(source: &str, name: &str) -> f64 {
    let factors = assigned(source, name).replace('_', "");
    factors.split('*').map(|factor| factor.trim().parse::<f64>().expect("a number")).product()
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

#[test]
fn python_has_the_same_limits() {
    let (check, settings) = (source("_check.py"), source("_settings.py"));
    let limits = [
        (&check, "MAX_NAME_BYTES", MAX_NAME_BYTES as f64),
        (&check, "MAX_PRODUCER_NAME_BYTES", MAX_PRODUCER_NAME_BYTES as f64),
        (&check, "MAX_HEADERS", MAX_HEADERS as f64),
        (&check, "MAX_HEADER_NAME_BYTES", MAX_HEADER_NAME_BYTES as f64),
        (&check, "MAX_TTL_MILLIS", MAX_TTL.as_secs_f64() * 1e3),
        (&settings, "DEFAULT_MAX_MESSAGE_BYTES", GRPC_DEFAULT_MAX_MESSAGE_BYTES as f64),
        (&settings, "MAX_DELIVERY_TIMEOUT", MAX_DELIVERY_TIMEOUT.as_secs_f64()),
    ];
    for (source, name, value) in limits {
        assert_eq!(product(source, name), value, "{name}");
    }
    let overhead = assigned(&check, "DELIVERY_OVERHEAD_BYTES");
    assert!(overhead.ends_with(&format!(" + {FRAME_PREFIX_BYTES}")), "{overhead}");
}

#[test]
fn python_has_the_same_words() {
    let words = [
        ("model.py", "NO_TOPIC", NO_TOPIC),
        ("_consuming.py", "QUEUE_ID_HEADER", QUEUE_ID_HEADER),
        ("_consuming.py", "EPOCH_HEADER", EPOCH_HEADER),
        ("_grpc.py", "DOMAIN", ERROR_DOMAIN),
    ];
    for (file, name, word) in words {
        assert_eq!(assigned(&source(file), name), format!("{word:?}"), "{file}: {name}");
    }
}
