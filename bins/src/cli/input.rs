//! Standard input, a message per line.

use std::io::{self, BufRead, Read};

use tokio::sync::mpsc;

/// Limit on the length of a line; a broker's limit is lower, unless it was raised.
const MAX_LINE_BYTES: usize = 256 << 20;
/// Limit on the lines handed over at once.
const MAX_CHUNK_LINES: usize = 1_024;
/// A chunk with this many bytes is handed over.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait to be taken.
const MAX_WAITING_CHUNKS: usize = 4;

/// Some lines without their newlines, or the error that ended the input.
pub(super) type Chunk = io::Result<Vec<Vec<u8>>>;

/// Reads lines in a thread of its own, since reading standard input cannot be cancelled. The thread ends with the input, at
/// the first error, or once the receiver is gone.
pub(super) fn lines(input: impl Read + Send + 'static) -> mpsc::Receiver<Chunk> {
    let (sender, receiver) = mpsc::channel(MAX_WAITING_CHUNKS);
    let mut lines = Lines { input: io::BufReader::with_capacity(CHUNK_BYTES, input) };
    std::thread::spawn(move || {
        loop {
            match lines.next_chunk() {
                Ok(chunk) if chunk.is_empty() => break,
                Ok(chunk) => {
                    if sender.blocking_send(Ok(chunk)).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
                    break;
                }
            }
        }
    });
    receiver
}

struct Lines<R> {
    input: io::BufReader<R>,
}

impl<R: Read> Lines<R> {
    /// The lines that are there already, but at least one; empty at the end of the input.
    fn next_chunk(&mut self) -> Chunk {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while let Some(line) = self.next_line()? {
            bytes += line.len();
            chunk.push(line);
            // Reading the next line may block, so the present lines are handed over first.
            let more_at_hand = self.input.buffer().contains(&b'\n');
            if !more_at_hand || chunk.len() == MAX_CHUNK_LINES || bytes >= CHUNK_BYTES {
                break;
            }
        }
        Ok(chunk)
    }

    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 1;
        if self.input.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MAX_LINE_BYTES {
            let message = format!("a line has more than {MAX_LINE_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &'static [u8]) -> Vec<Vec<Vec<u8>>> {
        let mut receiver = lines(input);
        std::iter::from_fn(|| receiver.blocking_recv()).map(Result::unwrap).collect()
    }

    #[test]
    fn lines_lose_only_their_newline() {
        assert_eq!(read(b"a\n\nb\r\n\xff").concat(), [b"a".to_vec(), b"".to_vec(), b"b\r".to_vec(), b"\xff".to_vec()]);
        assert!(read(b"").is_empty());
        assert_eq!(read(b"\n").concat(), [b""]);
    }

    #[test]
    fn chunks_are_bounded() {
        let input: &'static [u8] = Box::leak("x\n".repeat(3_000).into_bytes().into_boxed_slice());
        let chunks = read(input);
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [1_024, 1_024, 952]);
    }

    /// Yields one line at a time, like a person at a keyboard.
    struct Typist(u8);

    impl Read for Typist {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the terminal is gone"));
            }
            self.0 -= 1;
            buffer[..2].copy_from_slice(b"x\n");
            Ok(2)
        }
    }

    #[test]
    fn a_line_does_not_wait_for_the_next() {
        let mut receiver = lines(Typist(2));
        assert_eq!(receiver.blocking_recv().unwrap().unwrap(), [b"x"]);
        assert_eq!(receiver.blocking_recv().unwrap().unwrap(), [b"x"]);
        assert!(receiver.blocking_recv().unwrap().is_err());
        assert!(receiver.blocking_recv().is_none());
    }
}
