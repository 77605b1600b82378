//! The messages between a store's clients and the database.
//!
//! A call is a closure over the [`Disk`]: it waits here, under a number, until a frame with that number arrives. It leaves
//! its answer in a slot that its caller reads when the frame that reports success arrives. Thus the frames decide whether
//! the call is carried out and whether its caller learns of it, as they do in production.

use std::{collections::BTreeMap, fmt, io};

use parking_lot::Mutex;
use rmom_core::{model::StoreTime, ports::StoreError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{disk::Disk, locks::RowsOf};

/// How the database carries out a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing.
    Read,
    /// One statement that commits by itself: it is carried out even if its client has gone.
    Statement,
    /// A statement that stores messages.
    Append,
    /// A transaction: rolled back unless its client sends `Commit`.
    Transaction,
}

/// The work of a call, done at one instant while it holds its locks. Returns how many rows count as read.
pub(super) type Run = Box<dyn FnOnce(&mut Disk, StoreTime) -> usize + Send>;

pub(super) struct Call {
    pub(super) kind: Kind,
    /// Returns the rows that the call locks.
    pub(super) rows: RowsOf,
    /// The work of the call.
    pub(super) run: Run,
}

/// The calls that have not been carried out.
#[derive(Default)]
pub(super) struct Calls(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    last: u64,
    calls: BTreeMap<u64, Call>,
}

impl Calls {
    /// Stores a call and returns its number.
    pub(super) fn put(&self, call: Call) -> u64 {
        let mut waiting = self.0.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.calls.insert(number, call);
        number
    }

    /// Takes a call out. A call whose frame was lost stays until the end of the simulation, since the frame might still have
    /// come.
    pub(super) fn take(&self, number: u64) -> Option<Call> {
        self.0.lock().calls.remove(&number)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("waiting", &self.0.lock().calls.len()).finish_non_exhaustive()
    }
}

/// The reason for a definite failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another transaction held a row for too long.
    LockTimeout,
    /// It took too long and was rolled back.
    StatementTimeout,
    /// The disk is full.
    Full,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::LockTimeout => Self::Unavailable("canceling statement due to lock timeout".into()),
            Failure::StatementTimeout => Self::Unavailable("canceling statement due to statement timeout".into()),
            Failure::Full => Self::Refused("could not extend file: No space left on device".into()),
        }
    }
}

/// A message from one side to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Client: asks whether the connection works; the database answers `Done`.
    Ping,
    /// Client: carry out the call with this number.
    Run(u64),
    /// Database: the transaction holds its locks and waits for `Commit`.
    Ready,
    /// Client: commit.
    Commit,
    /// Database: done, and committed if there was something to commit.
    Done,
    /// Database: not done.
    Failed(Failure),
}

/// The length of every frame.
const FRAME_BYTES: usize = 9;

impl Frame {
    fn encode(self) -> [u8; FRAME_BYTES] {
        let (tag, number) = match self {
            Self::Ping => (b'P', 0),
            Self::Run(number) => (b'R', number),
            Self::Ready => (b'Y', 0),
            Self::Commit => (b'C', 0),
            Self::Done => (b'D', 0),
            Self::Failed(Failure::LockTimeout) => (b'F', 1),
            Self::Failed(Failure::StatementTimeout) => (b'F', 2),
            Self::Failed(Failure::Full) => (b'F', 3),
        };
        let mut bytes = [tag; FRAME_BYTES];
        bytes[1..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn decode(bytes: [u8; FRAME_BYTES]) -> Option<Self> {
        let [tag, number @ ..] = bytes;
        Some(match (tag, u64::from_be_bytes(number)) {
            (b'P', 0) => Self::Ping,
            (b'R', number) => Self::Run(number),
            (b'Y', 0) => Self::Ready,
            (b'C', 0) => Self::Commit,
            (b'D', 0) => Self::Done,
            (b'F', 1) => Self::Failed(Failure::LockTimeout),
            (b'F', 2) => Self::Failed(Failure::StatementTimeout),
            (b'F', 3) => Self::Failed(Failure::Full),
            _ => return None,
        })
    }
}

/// Sends a frame.
pub(super) async fn send(io: &mut (impl AsyncWrite + Unpin), frame: Frame) -> io::Result<()> {
    io.write_all(&frame.encode()).await
}

/// The next frame.
pub(super) async fn receive(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut bytes = [0; FRAME_BYTES];
    io.read_exact(&mut bytes).await?;
    Frame::decode(bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no frame of the database's"))
}
