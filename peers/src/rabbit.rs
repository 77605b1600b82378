//! RabbitMQ: AMQP 0-9-1, a quorum queue for each subscriber, publisher confirms once all of them have a message.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::load::{self, Error, Figures, Load, Push, Receive};

/// Hands every message to every queue.
const EXCHANGE: &[u8] = b"side-by-side";
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xce;
/// Before and after a frame's payload.
const FRAME_BYTES: usize = 8;
/// Largest frame that is agreed on.
const MAX_FRAME_BYTES: u32 = 128 << 10;
/// The bit of a declaration.
const DURABLE: u8 = 0b10;
/// Messages that a consumer may have without having acknowledged them.
const PREFETCH: u16 = 2_000;
/// It acknowledges so many at once.
const ACKNOWLEDGED_AT_ONCE: u64 = 500;

/// Class and method.
type Method = (u16, u16);
const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CHANNEL_OPEN: Method = (20, 10);
const CHANNEL_OPEN_OK: Method = (20, 11);
const EXCHANGE_DECLARE: Method = (40, 10);
const EXCHANGE_DECLARE_OK: Method = (40, 11);
const EXCHANGE_DELETE: Method = (40, 20);
const EXCHANGE_DELETE_OK: Method = (40, 21);
const DECLARE: Method = (50, 10);
const DECLARE_OK: Method = (50, 11);
const BIND: Method = (50, 20);
const BIND_OK: Method = (50, 21);
const DELETE: Method = (50, 40);
const DELETE_OK: Method = (50, 41);
const QOS: Method = (60, 10);
const QOS_OK: Method = (60, 11);
const CONSUME: Method = (60, 20);
const CONSUME_OK: Method = (60, 21);
const PUBLISH: Method = (60, 40);
const DELIVER: Method = (60, 60);
const ACK: Method = (60, 80);
const CONFIRM: Method = (85, 10);
const CONFIRM_OK: Method = (85, 11);

pub(crate) fn run(at: &str, load: &Load) -> Result<Figures, Error> {
    let mut admin = Connection::open(at)?;
    // With what a run that broke off has bound to it.
    let delete_exchange = Arguments::new().short(0).name(EXCHANGE).byte(0);
    admin.call(EXCHANGE_DELETE, &delete_exchange, EXCHANGE_DELETE_OK)?;
    let fanout = Arguments::new().short(0).name(EXCHANGE).name(b"fanout").byte(DURABLE).long_text(b"");
    admin.call(EXCHANGE_DECLARE, &fanout, EXCHANGE_DECLARE_OK)?;
    // There is a queue also if nobody reads it.
    let queues: Vec<String> = (0..load.subscribers.max(1)).map(|number| format!("side-by-side-{number}")).collect();
    for queue in &queues {
        admin.delete(queue)?;
        admin.declare(queue)?;
    }
    let mut receivers = Vec::new();
    for queue in queues.iter().take(load.subscribers as usize) {
        let mut receiver = Connection::open(at)?;
        receiver.call(QOS, &Arguments::new().long(0).short(PREFETCH).byte(0), QOS_OK)?;
        let consume = Arguments::new().short(0).name(queue.as_bytes()).name(b"").byte(0).long_text(b"");
        receiver.call(CONSUME, &consume, CONSUME_OK)?;
        receivers.push((receiver.stream, Box::new(Receiver::default()) as Box<dyn Receive>));
    }
    let mut pusher = Connection::open(at)?;
    pusher.call(CONFIRM, &Arguments::new().byte(0), CONFIRM_OK)?;
    let figures = load::run(load, (pusher.stream, Box::new(Pusher::default())), receivers)?;
    for queue in &queues {
        admin.delete(queue)?;
    }
    admin.call(EXCHANGE_DELETE, &delete_exchange, EXCHANGE_DELETE_OK)?;
    Ok(figures)
}

/// The arguments of a method.
struct Arguments(Vec<u8>);

impl Arguments {
    const fn new() -> Self {
        Self(Vec::new())
    }

    fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn short(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn long(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn long_long(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    fn name(mut self, text: &[u8]) -> Self {
        self.0.push(text.len() as u8);
        self.0.extend_from_slice(text);
        self
    }

    /// Also a table, from its entries.
    fn long_text(mut self, text: &[u8]) -> Self {
        self.0.extend_from_slice(&(text.len() as u32).to_be_bytes());
        self.0.extend_from_slice(text);
        self
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(length as u32).to_be_bytes());
    payload.iter().for_each(|part| out.extend_from_slice(part));
    out.push(FRAME_END);
}

fn put_method(out: &mut Vec<u8>, channel: u16, method: Method, arguments: &Arguments) {
    let (class, id) = method;
    put_frame(out, METHOD, channel, &[&class.to_be_bytes(), &id.to_be_bytes(), &arguments.0]);
}

/// A frame, and how many bytes it takes; none if it is not all there.
struct Frame<'a> {
    kind: u8,
    payload: &'a [u8],
    bytes: usize,
}

impl<'a> Frame<'a> {
    fn parse(input: &'a [u8]) -> Result<Option<Self>, Error> {
        let Some(length) = input.get(3..7).and_then(|bytes| bytes.first_chunk()) else { return Ok(None) };
        let bytes = u32::from_be_bytes(*length) as usize + FRAME_BYTES;
        match input.get(bytes - 1) {
            None => Ok(None),
            Some(&FRAME_END) => Ok(Some(Self { kind: input[0], payload: &input[7..bytes - 1], bytes })),
            Some(_) => Err(Error::Protocol("a frame without an end".to_owned())),
        }
    }

    fn method(&self) -> Option<Method> {
        let short = |at: usize| {
            self.payload.get(at..at + 2).and_then(|some| some.first_chunk()).map(|some| u16::from_be_bytes(*some))
        };
        (self.kind == METHOD).then(|| short(0).zip(short(2)))?
    }

    fn unexpected<T>(&self) -> Result<T, Error> {
        Err(Error::Protocol(format!("{:?} {}", self.method(), String::from_utf8_lossy(self.payload))))
    }
}

/// A connection with one channel.
struct Connection {
    stream: TcpStream,
    channel: u16,
}

impl Connection {
    fn open(at: &str) -> Result<Self, Error> {
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        let mut connection = Self { stream, channel: 0 };
        connection.stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        connection.wait_for(START)?;
        let start = Arguments::new().long_text(b"").name(b"PLAIN").long_text(b"\0guest\0guest").name(b"en_US");
        connection.call(START_OK, &start, TUNE)?;
        connection.send(TUNE_OK, &Arguments::new().short(1).long(MAX_FRAME_BYTES).short(0))?;
        connection.call(OPEN, &Arguments::new().name(b"/").name(b"").byte(0), OPEN_OK)?;
        connection.channel = 1;
        connection.call(CHANNEL_OPEN, &Arguments::new().name(b""), CHANNEL_OPEN_OK)?;
        Ok(connection)
    }

    fn send(&mut self, method: Method, arguments: &Arguments) -> Result<(), Error> {
        let mut out = Vec::new();
        put_method(&mut out, self.channel, method, arguments);
        Ok(self.stream.write_all(&out)?)
    }

    /// A quorum queue that gets whatever comes to the exchange.
    fn declare(&mut self, queue: &str) -> Result<(), Error> {
        let quorum = Arguments::new().name(b"x-queue-type").byte(b'S').long_text(b"quorum").0;
        let declare = Arguments::new().short(0).name(queue.as_bytes()).byte(DURABLE).long_text(&quorum);
        self.call(DECLARE, &declare, DECLARE_OK)?;
        let bind = Arguments::new().short(0).name(queue.as_bytes()).name(EXCHANGE).name(b"").byte(0).long_text(b"");
        self.call(BIND, &bind, BIND_OK)
    }

    /// Also one that there is not.
    fn delete(&mut self, queue: &str) -> Result<(), Error> {
        self.call(DELETE, &Arguments::new().short(0).name(queue.as_bytes()).byte(0), DELETE_OK)
    }

    fn call(&mut self, method: Method, arguments: &Arguments, answer: Method) -> Result<(), Error> {
        self.send(method, arguments)?;
        self.wait_for(answer)
    }

    /// Reads exactly the answer, so that what comes after it is left for others.
    fn wait_for(&mut self, answer: Method) -> Result<(), Error> {
        let mut input = vec![0; FRAME_BYTES - 1];
        self.stream.read_exact(&mut input)?;
        let length = u32::from_be_bytes([input[3], input[4], input[5], input[6]]) as usize;
        input.resize(FRAME_BYTES + length, 0);
        self.stream.read_exact(&mut input[FRAME_BYTES - 1..])?;
        match Frame::parse(&input)? {
            Some(frame) if frame.method() == Some(answer) => Ok(()),
            Some(frame) => frame.unexpected(),
            None => Err(Error::Protocol("half a frame".to_owned())),
        }
    }
}

/// Delivery tag and the byte after it, of an acknowledgement.
fn tag(frame: &Frame<'_>) -> Result<(u64, u8), Error> {
    match (frame.payload.get(4..12).and_then(|some| some.first_chunk()), frame.payload.get(12)) {
        (Some(tag), Some(&bits)) => Ok((u64::from_be_bytes(*tag), bits)),
        _ => frame.unexpected(),
    }
}

#[derive(Default)]
struct Pusher {
    /// All up to this tag are confirmed.
    through: u64,
    /// Confirmed beyond it.
    beyond: std::collections::BTreeSet<u64>,
}

impl Push for Pusher {
    /// Persistent.
    fn push(&mut self, out: &mut Vec<u8>, content: &[u8]) {
        put_method(out, 1, PUBLISH, &Arguments::new().short(0).name(EXCHANGE).name(b"").byte(0));
        let header = Arguments::new().short(60).short(0).long_long(content.len() as u64).short(0x1000).byte(2);
        put_frame(out, HEADER, 1, &[&header.0]);
        for part in content.chunks(MAX_FRAME_BYTES as usize - FRAME_BYTES) {
            put_frame(out, BODY, 1, &[part]);
        }
    }

    /// Confirms may come in any order; counted is what has no gap before it.
    fn acknowledged(&mut self, input: &[u8]) -> Result<(usize, u64), Error> {
        let (mut used, before) = (0, self.through);
        while let Some(frame) = Frame::parse(&input[used..])? {
            used += frame.bytes;
            match frame.method() {
                Some(ACK) => match tag(&frame)? {
                    (tag, 0) => drop(self.beyond.insert(tag)),
                    (tag, _) => self.through = self.through.max(tag),
                },
                _ if frame.kind == HEARTBEAT => {}
                _ => return frame.unexpected(),
            }
            while self.beyond.first().is_some_and(|&first| first <= self.through + 1) {
                self.through = self.through.max(self.beyond.pop_first().unwrap_or_default());
            }
        }
        Ok((used, self.through - before))
    }
}

#[derive(Default)]
struct Receiver {
    tag: u64,
    acknowledged: u64,
    /// The message that is coming.
    content: Vec<u8>,
    missing: usize,
}

impl Receive for Receiver {
    fn received(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let mut used = 0;
        while let Some(frame) = Frame::parse(&input[used..])? {
            used += frame.bytes;
            match (frame.kind, frame.method()) {
                (METHOD, Some(DELIVER)) => {
                    let consumer = frame.payload.get(4).map_or(0, |&length| usize::from(length));
                    let at = 5 + consumer;
                    let Some(tag) = frame.payload.get(at..at + 8).and_then(|some| some.first_chunk()) else {
                        return frame.unexpected();
                    };
                    self.tag = u64::from_be_bytes(*tag);
                }
                (HEADER, _) => {
                    let Some(size) = frame.payload.get(4..12).and_then(|some| some.first_chunk()) else {
                        return frame.unexpected();
                    };
                    self.missing = u64::from_be_bytes(*size) as usize;
                    self.content.clear();
                }
                (BODY, _) => {
                    self.content.extend_from_slice(frame.payload);
                    if self.content.len() < self.missing {
                        continue;
                    }
                    seen(&self.content)?;
                    if self.tag - self.acknowledged >= ACKNOWLEDGED_AT_ONCE {
                        put_method(out, 1, ACK, &Arguments::new().long_long(self.tag).byte(1));
                        self.acknowledged = self.tag;
                    }
                }
                (HEARTBEAT, _) => {}
                _ => return frame.unexpected(),
            }
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(tag: u64, multiple: u8) -> Vec<u8> {
        let mut out = Vec::new();
        put_method(&mut out, 1, ACK, &Arguments::new().long_long(tag).byte(multiple));
        out
    }

    #[test]
    fn confirms_count_once_nothing_is_missing_before_them() {
        let mut pusher = Pusher::default();
        let mut confirmed = |tag, multiple| pusher.acknowledged(&confirm(tag, multiple)).unwrap().1;
        assert_eq!([confirmed(2, 0), confirmed(1, 0), confirmed(5, 0), confirmed(4, 1)], [0, 2, 0, 3]);
        assert_eq!(pusher.acknowledged(&confirm(6, 0)[..20]).unwrap(), (0, 0));
    }

    #[test]
    fn what_is_pushed_is_received() {
        let mut frames = Vec::new();
        let deliver = Arguments::new().name(b"consumer").long_long(1).byte(0).name(EXCHANGE).name(b"");
        put_method(&mut frames, 1, DELIVER, &deliver);
        let mut pushed = Vec::new();
        Pusher::default().push(&mut pushed, b"content");
        let publish = Frame::parse(&pushed).unwrap().unwrap();
        assert_eq!(publish.method(), Some(PUBLISH));
        frames.extend_from_slice(&pushed[publish.bytes..]);
        let mut found = Vec::new();
        let mut seen = |content: &[u8]| {
            found.push(content.to_vec());
            Ok(())
        };
        let used = Receiver::default().received(&frames, &mut Vec::new(), &mut seen).unwrap();
        assert_eq!((used, found), (frames.len(), vec![b"content".to_vec()]));
    }
}
