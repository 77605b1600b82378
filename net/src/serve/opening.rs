//! A deadline for the first bytes of a connection, for which hyper has none.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rmom_core::ports::BoxIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// The first bytes of every HTTP/2 connection.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail if the first bytes do not show within a deadline which HTTP it speaks. After that it is a plain
/// stream.
pub(super) struct Opening {
    io: BoxIo,
    undecided: Option<Undecided>,
}

struct Undecided {
    /// Number of bytes read so far, all of which match the preface.
    matched: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Opening {
    pub(super) fn new(io: BoxIo, deadline: Duration) -> Self {
        Self { io, undecided: Some(Undecided { matched: 0, deadline: Box::pin(sleep(deadline)) }) }
    }
}

impl Undecided {
    /// Looks at bytes that were read. True once it is clear whether they are the preface.
    fn decide(&mut self, read: &[u8]) -> bool {
        let wanted = &HTTP2_PREFACE[self.matched..];
        self.matched += read.len();
        read.is_empty() || read.len() >= wanted.len() || !wanted.starts_with(read)
    }
}

impl AsyncRead for Opening {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(undecided) = &mut this.undecided
            && undecided.deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request came")));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if this.undecided.as_mut().is_some_and(|undecided| undecided.decide(&buf.filled()[before..])) {
            this.undecided = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opening {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided_after(pieces: &[&[u8]]) -> Option<usize> {
        let mut undecided = Undecided { matched: 0, deadline: Box::pin(sleep(Duration::ZERO)) };
        pieces.iter().position(|piece| undecided.decide(piece))
    }

    #[tokio::test]
    async fn the_first_bytes_decide() {
        assert_eq!(decided_after(&[HTTP2_PREFACE]), Some(0));
        assert_eq!(decided_after(&[b"PRI * ", b"HTTP/2.0\r\n", b"\r\nSM\r\n\r\n\0\0"]), Some(2));
        assert_eq!(decided_after(&[b"P", b"UT / HTTP/1.1"]), Some(1));
        assert_eq!(decided_after(&[b"GET"]), Some(0));
        assert_eq!(decided_after(&[b""]), Some(0));
        assert_eq!(decided_after(&[b"PRI", b" * HTTP"]), None);
    }
}
