//! Redis streams.

use std::{io::Write as _, net::TcpStream};

use crate::load::{self, Error, Figures, Load, Push, Receive};

const STREAM: &str = "side-by-side";
/// Messages that XREAD may return at once.
const READ_AT_ONCE: usize = 1_000;

pub(crate) fn run(at: &str, load: &Load) -> Result<Figures, Error> {
    let mut stream = connect(at)?;
    stream.write_all(&command(&[b"DEL", STREAM.as_bytes()]))?;
    let mut reply = [0; 64];
    let count = std::io::Read::read(&mut stream, &mut reply)?;
    if reply[..count].first() != Some(&b':') {
        return Err(Error::Protocol(String::from_utf8_lossy(&reply[..count]).into_owned()));
    }
    let mut receivers = Vec::new();
    for _ in 0..load.subscribers {
        let mut stream = connect(at)?;
        stream.write_all(&read_after(b"0"))?;
        receivers.push((stream, Box::new(Receiver) as Box<dyn Receive>));
    }
    load::run(load, (stream, Box::new(Pusher)), receivers)
}

fn connect(at: &str) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn put(out: &mut Vec<u8>, args: &[&[u8]]) {
    let _ = write!(out, "*{}\r\n", args.len());
    for arg in args {
        let _ = write!(out, "${}\r\n", arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, args);
    out
}

fn read_after(id: &[u8]) -> Vec<u8> {
    let count = READ_AT_ONCE.to_string();
    command(&[b"XREAD", b"COUNT", count.as_bytes(), b"BLOCK", b"0", b"STREAMS", STREAM.as_bytes(), id])
}

struct Pusher;

impl Push for Pusher {
    fn push(&mut self, out: &mut Vec<u8>, content: &[u8]) {
        put(out, &[b"XADD", STREAM.as_bytes(), b"*", b"m", content]);
    }

    /// The id of each message, as a bulk string.
    fn acknowledged(&mut self, input: &[u8]) -> Result<(usize, u64), Error> {
        let (mut rest, mut count) = (input, 0);
        while let Some((value, after)) = Value::parse(rest)? {
            value.bulk()?;
            (rest, count) = (after, count + 1);
        }
        Ok((input.len() - rest.len(), count))
    }
}

struct Receiver;

impl Receive for Receiver {
    /// `[[stream, [[id, [name, content]], …]]]`
    fn received(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        let Some((reply, rest)) = Value::parse(input)? else { return Ok(0) };
        let mut last = None;
        for stream in reply.array()? {
            for entry in stream.at(1)?.array()? {
                seen(entry.at(1)?.at(1)?.bulk()?)?;
                last = Some(entry.at(0)?.bulk()?);
            }
        }
        out.extend(read_after(last.ok_or_else(|| Error::Protocol("an empty reply".to_owned()))?));
        Ok(input.len() - rest.len())
    }
}

/// A reply.
#[derive(Debug, PartialEq)]
enum Value<'a> {
    Bulk(&'a [u8]),
    Array(Vec<Self>),
}

impl<'a> Value<'a> {
    /// The first value, and what comes after it; none if it is not all there.
    fn parse(input: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Error> {
        let Some(end) = input.iter().position(|&byte| byte == b'\r').filter(|end| end + 1 < input.len()) else {
            return Ok(None);
        };
        let (line, mut rest) = (&input[..end], &input[end + 2..]);
        let bad = || Error::Protocol(String::from_utf8_lossy(line).into_owned());
        let number =
            || std::str::from_utf8(&line[1..]).ok().and_then(|text| text.parse::<usize>().ok()).ok_or_else(bad);
        match line.first() {
            Some(b'$') => {
                let length = number()?;
                Ok((rest.len() >= length + 2).then(|| (Self::Bulk(&rest[..length]), &rest[length + 2..])))
            }
            Some(b'*') => {
                let mut values = Vec::new();
                for _ in 0..number()? {
                    let Some((value, after)) = Self::parse(rest)? else { return Ok(None) };
                    values.push(value);
                    rest = after;
                }
                Ok(Some((Self::Array(values), rest)))
            }
            _ => Err(bad()),
        }
    }

    fn bulk(&self) -> Result<&'a [u8], Error> {
        match self {
            Self::Bulk(bytes) => Ok(bytes),
            Self::Array(_) => Err(Error::Protocol("an array, wanted a string".to_owned())),
        }
    }

    fn array(&self) -> Result<&[Self], Error> {
        match self {
            Self::Array(values) => Ok(values),
            Self::Bulk(_) => Err(Error::Protocol("a string, wanted an array".to_owned())),
        }
    }

    fn at(&self, index: usize) -> Result<&Self, Error> {
        self.array()?.get(index).ok_or_else(|| Error::Protocol("a short array".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_parsed_once_they_are_complete() {
        let whole = b"*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nm\r\n$4\r\na\r\nb\r\n";
        for end in 0..whole.len() {
            assert_eq!(Value::parse(&whole[..end]).unwrap(), None, "{end}");
        }
        let (value, rest) = Value::parse(whole).unwrap().unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            value.at(0).unwrap().at(1).unwrap().at(0).unwrap().at(1).unwrap().at(1).unwrap().bulk().unwrap(),
            b"a\r\nb"
        );
        assert!(Value::parse(b"-ERR no\r\n").is_err());
    }

    #[test]
    fn acknowledgements_are_counted() {
        let input = b"$3\r\n1-0\r\n$3\r\n1-1\r\n$3\r\n1-";
        assert_eq!(Pusher.acknowledged(input).unwrap(), (18, 2));
    }
}
