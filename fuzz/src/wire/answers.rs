//! The required form of an answer.

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use rmom_core::model::Code;
use rmom_net::grpc::{grpc_code, stable_code};
use serde_json::Value;
use tonic::Status;

use super::{exchange::Answer, values::Wrong};

/// Words that an error may name besides the fields of a request: the request as a whole.
const OF_THE_REST_REQUEST: [&str; 3] = ["path", "body", "content-type"];

/// A call of a method, and its faults.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Fields that must be refused.
    pub(super) wrong: Wrong,
    /// Fields that may be refused, unless another check decides first.
    pub(super) doubtful: Wrong,
    /// The message is not an encoded message of the method, so any answer is acceptable.
    pub(super) garbled: bool,
}

impl Judgement {
    /// Checks an answer of gRPC.
    pub(super) fn check_grpc(&self, what: &str, answer: &Answer, decodes: fn(Bytes) -> bool) {
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        let content_type = answer.headers.get("content-type").map_or(&b""[..], |value| value.as_bytes());
        assert!(content_type.starts_with(b"application/grpc"), "{what}: {answer:?}");
        for message in messages(&answer.body) {
            assert!(decodes(message), "{what}: {answer:?}");
        }
        let Some(trailers) = &answer.trailers else {
            assert!(self.wrong.is_none() || self.garbled, "{what} is being answered, with {:?}", self.wrong);
            return;
        };
        let status = status(&answer.headers).or_else(|| status(trailers));
        let status = status.unwrap_or_else(|| panic!("{what} ends without a status: {answer:?}"));
        if status.code() == tonic::Code::Ok {
            assert!(self.wrong.is_none() || self.garbled, "{what} is accepted, with {:?}", self.wrong);
            return;
        }
        assert!(!status.message().is_empty(), "{what}: {status:?}");
        if self.garbled {
            return;
        }
        let code = stable_code(&status).unwrap_or_else(|| panic!("{what} is refused without a code: {status:?}"));
        assert_eq!(status.code(), grpc_code(code), "{what}: {status:?}");
        self.check_code(what, code, status.message(), &[]);
    }

    /// Checks an answer of REST.
    pub(super) fn check_rest(&self, what: &str, answer: &Answer) {
        assert_ne!(answer.status, 500, "{what}: {answer:?}");
        if answer.status < 400 {
            assert!(self.wrong.is_none(), "{what} is accepted, with {:?}", self.wrong);
            let is_json = serde_json::from_slice::<Value>(&answer.body).is_ok();
            assert!(answer.body.is_empty() || is_json, "{what}: {answer:?}");
            return;
        }
        // The answer to HEAD has no body.
        if answer.body.is_empty() {
            return;
        }
        let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{what}: {answer:?}"));
        assert_eq!(problem["status"], answer.status, "{what}: {answer:?}");
        let (code, detail) = (problem["code"].as_str(), problem["detail"].as_str().unwrap_or_default());
        let code = code.unwrap_or_else(|| panic!("{what} is refused without a code: {answer:?}"));
        assert!(!detail.is_empty(), "{what}: {answer:?}");
        if let Some(code) = Code::from_wire(code) {
            self.check_code(what, code, detail, &OF_THE_REST_REQUEST);
        }
    }

    fn check_code(&self, what: &str, code: Code, message: &str, of_the_whole: &[&str]) {
        let of_the_whole = of_the_whole.iter().any(|part| message.starts_with(part));
        match code {
            Code::InvalidName | Code::InvalidArgument | Code::MessageTooLarge if of_the_whole => {}
            Code::InvalidName | Code::InvalidArgument | Code::MessageTooLarge => {
                let named = self.wrong.is_named_in(message) || self.doubtful.is_named_in(message);
                assert!(named, "{what}: {message:?} names none of {self:?}");
            }
            Code::Internal | Code::StoreCorrupt => panic!("{what}: {code}: {message}"),
            _ => assert!(self.wrong.is_none(), "{what}: {code}: {message:?} says nothing of {:?}", self.wrong),
        }
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// Splits an answer into messages; a stream that was left early may end in the middle of a message.
fn messages(body: &Bytes) -> Vec<Bytes> {
    let mut rest = body.clone();
    let mut messages = Vec::new();
    while rest.len() >= 5 {
        assert_eq!(rest.get_u8(), 0, "no message is compressed");
        let length = rest.get_u32() as usize;
        if length > rest.len() {
            break;
        }
        messages.push(rest.split_to(length));
    }
    messages
}
