//! What crosses the network between a store's clients and the database.
//!
//! A call is a closure over the [`Disk`]: it waits here, under a number, until a frame with that number arrives. It leaves
//! its answer in a place that its caller knows, who looks there when the frame that says so arrives. Whether it is carried
//! out, and whether anybody hears of it, is thus up to the frames, as it is in production.

use std::{collections::BTreeMap, fmt, io};

use parking_lot::Mutex;
use rmom_core::{model::StoreTime, ports::StoreError};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{disk::Disk, locks::RowsOf};

/// How the database carries a call out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing.
    Read,
    /// One statement that commits by itself: it is carried out even if its client has gone.
    Statement,
    /// A statement that stores messages.
    Append,
    /// A transaction: rolled back unless its client says `Commit`.
    Transaction,
}

/// What a call does, at one instant, while it holds its locks; how many rows it has read that count.
pub(super) type Run = Box<dyn FnOnce(&mut Disk, StoreTime) -> usize + Send>;

/// One call.
pub(super) struct Call {
    pub(super) kind: Kind,
    /// The rows that it locks.
    pub(super) rows: RowsOf,
    /// What it does.
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
    /// Puts a call under the next number.
    pub(super) fn put(&self, call: Call) -> u64 {
        let mut waiting = self.0.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.calls.insert(number, call);
        number
    }

    /// Takes a call out. Those whose frame was lost stay to the end of the simulation: it might still have come.
    pub(super) fn take(&self, number: u64) -> Option<Call> {
        self.0.lock().calls.remove(&number)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("waiting", &self.0.lock().calls.len()).finish_non_exhaustive()
    }
}

/// Why the database did certainly not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another transaction held a row for too long.
    LockTimeout,
    /// It took too long and was rolled back.
    StatementTimeout,
    /// There is no room.
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

/// What one side tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Client: are you there? `Done` says so.
    Ping,
    /// Client: carry out the call of this number.
    Run(u64),
    /// Database: the transaction holds its locks; it waits for `Commit`.
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
