//! NATS JetStream, and the words that it has in common with core NATS.

pub(crate) mod core;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::load::{self, Error, Figures, Load, Push, Receive};

const STREAM: &str = "SIDEBYSIDE";
const SUBJECT: &str = "side.by.side";
/// Where acknowledgements come, and where messages do.
const INBOX: &str = "_INBOX.pushed";
const DELIVERY: &str = "_INBOX.delivered";
const READ_BYTES: usize = 16 << 10;

pub(crate) fn run(at: &str, load: &Load) -> Result<Figures, Error> {
    let mut admin = Connection::open(at, "_INBOX.admin")?;
    // It is none, the first time.
    admin.ask(&format!("$JS.API.STREAM.DELETE.{STREAM}"), &json!({}))?;
    let stream = json!({
        "name": STREAM, "subjects": [SUBJECT], "storage": "file", "retention": "limits", "discard": "old", "num_replicas": 1,
        "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_consumers": -1, "max_msg_size": -1,
    });
    admin.done(&format!("$JS.API.STREAM.CREATE.{STREAM}"), &stream)?;
    let mut receivers = Vec::new();
    for number in 0..load.subscribers {
        let inbox = format!("{DELIVERY}.{number}");
        let receiver = Connection::open(at, &inbox)?;
        let consumer = json!({ "stream_name": STREAM, "config": {
            "deliver_subject": inbox, "deliver_policy": "all", "ack_policy": "none", "replay_policy": "instant",
            "mem_storage": true, "num_replicas": 1,
        } });
        admin.done(&format!("$JS.API.CONSUMER.CREATE.{STREAM}"), &consumer)?;
        receivers.push((receiver.stream, Box::new(Receiver) as Box<dyn Receive>));
    }
    let pusher = Connection::open(at, INBOX)?;
    let figures = load::run(load, (pusher.stream, Box::new(Pusher)), receivers)?;
    admin.done(&format!("$JS.API.STREAM.DELETE.{STREAM}"), &json!({}))?;
    Ok(figures)
}

/// A connection that listens to one subject.
struct Connection {
    stream: TcpStream,
    inbox: String,
}

impl Connection {
    fn open(at: &str, inbox: &str) -> Result<Self, Error> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        let connect = json!({ "verbose": false, "pedantic": false, "lang": "by hand", "version": "0", "protocol": 1, "headers": true });
        stream.write_all(format!("CONNECT {connect}\r\nSUB {inbox} 1\r\nPING\r\n").as_bytes())?;
        let mut input = Vec::new();
        while !input.windows(6).any(|some| some == b"PONG\r\n") {
            fill(&mut stream, &mut input)?;
        }
        Ok(Self { stream, inbox: inbox.to_owned() })
    }

    /// What the server answers to a request.
    fn ask(&mut self, subject: &str, request: &Value) -> Result<Value, Error> {
        let request = request.to_string();
        let line = format!("PUB {subject} {} {}\r\n{request}\r\n", self.inbox, request.len());
        self.stream.write_all(line.as_bytes())?;
        let mut input = Vec::new();
        let mut answer = None;
        while answer.is_none() {
            fill(&mut self.stream, &mut input)?;
            let mut found = |payload: &[u8]| {
                answer = serde_json::from_slice(payload).ok();
                Ok(())
            };
            messages(&input, &mut Vec::new(), &mut found)?;
        }
        answer.ok_or_else(|| Error::Protocol("an answer that is no JSON".to_owned()))
    }

    /// As [`Connection::ask`], if an error is one.
    fn done(&mut self, subject: &str, request: &Value) -> Result<(), Error> {
        let answer = self.ask(subject, request)?;
        if answer["error"].is_null() { Ok(()) } else { Err(Error::Protocol(answer.to_string())) }
    }
}

fn fill(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<(), Error> {
    let mut chunk = [0; READ_BYTES];
    match stream.read(&mut chunk)? {
        0 => Err(Error::Protocol(String::from_utf8_lossy(input).into_owned())),
        count => {
            input.extend_from_slice(&chunk[..count]);
            Ok(())
        }
    }
}

/// Takes all messages that are complete; returns how many bytes that were. Answers pings.
fn messages(input: &[u8], out: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<usize, Error> {
    let mut used = 0;
    loop {
        let rest = &input[used..];
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return Ok(used) };
        let line = std::str::from_utf8(&rest[..end]).unwrap_or_default().trim_end();
        let body = &rest[end + 1..];
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok());
        let mut words = line.split(' ');
        // MSG subject sid [reply] bytes; HMSG subject sid [reply] bytes-of-headers bytes
        let (headers, bytes) = match words.next() {
            Some("MSG") => (Some(0), number(words.next_back())),
            Some("HMSG") => {
                let bytes = number(words.next_back());
                (number(words.next_back()), bytes)
            }
            Some("PING") => {
                out.extend_from_slice(b"PONG\r\n");
                used += end + 1;
                continue;
            }
            Some("PONG" | "INFO" | "+OK") => {
                used += end + 1;
                continue;
            }
            _ => return Err(Error::Protocol(line.to_owned())),
        };
        let (Some(headers), Some(bytes)) = (headers, bytes) else { return Err(Error::Protocol(line.to_owned())) };
        if body.len() < bytes + 2 {
            return Ok(used);
        }
        seen(&body[headers..bytes])?;
        used += end + 1 + bytes + 2;
    }
}

/// Writes a message; `reply` is where its acknowledgement goes, if it has one.
fn publish(out: &mut Vec<u8>, reply: &str, content: &[u8]) {
    let _ = write!(out, "PUB {SUBJECT} {reply} {}\r\n", content.len());
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

struct Pusher;

impl Push for Pusher {
    fn push(&mut self, out: &mut Vec<u8>, content: &[u8]) {
        publish(out, INBOX, content);
    }

    /// `{"stream":"…","seq":…}`
    fn acknowledged(&mut self, input: &[u8]) -> Result<(usize, u64), Error> {
        let mut count = 0;
        let mut seen = |payload: &[u8]| {
            if !payload.starts_with(b"{\"stream\"") {
                return Err(Error::Protocol(String::from_utf8_lossy(payload).into_owned()));
            }
            count += 1;
            Ok(())
        };
        let used = messages(input, &mut Vec::new(), &mut seen)?;
        Ok((used, count))
    }
}

struct Receiver;

impl Receive for Receiver {
    fn received(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        messages(input, out, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_once_they_are_complete() {
        let whole = b"INFO {}\r\nPING\r\nMSG a 1 3\r\nx\r\n\r\nHMSG a 1 reply 4 6\r\nhhhhab\r\n";
        let mut found = Vec::new();
        for end in 0..=whole.len() {
            found.clear();
            let mut seen = |payload: &[u8]| {
                found.push(payload.to_vec());
                Ok(())
            };
            let used = messages(&whole[..end], &mut Vec::new(), &mut seen).unwrap();
            assert!(used <= end);
        }
        assert_eq!(found, [b"x\r\n".to_vec(), b"ab".to_vec()]);
        assert!(messages(b"-ERR 'no'\r\n", &mut Vec::new(), &mut |_| Ok(())).is_err());
    }

    #[test]
    fn only_what_is_stored_is_acknowledged() {
        let input = b"MSG _INBOX.pushed 1 20\r\n{\"stream\":\"S\",\"seq\"}\r\nMSG";
        assert_eq!(Pusher.acknowledged(input).unwrap(), (46, 1));
        let input = b"MSG _INBOX.pushed 1 12\r\n{\"error\":{}}\r\n";
        assert!(Pusher.acknowledged(input).is_err());
    }
}
