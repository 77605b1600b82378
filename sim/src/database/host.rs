//! The process on the database's host.
//!
//! A write goes through five steps: it begins, locks its rows, does its work, commits, and is answered. Simulated time
//! passes between any two of them, and there any of the faults can fall, besides cuts and crashes.
//!
//! Work and commit are one step on the data, at the instant of the commit, while the locks are held. Under READ COMMITTED
//! that is one of the courses that things can take: a statement sees what was committed before it and the rows that it
//! locks as they are once it has them, nobody sees work before its commit, and here all statements of a transaction come
//! just before it. What other courses add is that a statement reads, somebody else commits, and only then it commits. That
//! changes nothing by which our writes decide: it lies in rows that they lock (`client.rs` names them, after production's
//! SQL), or, for appends and trims, in batches that only the owner of the epoch changes, one write at a time. A claim reads
//! the broker's run without a lock: one that registers after that, and before the claim commits, fences it with its own claim. It
//! can shift two answers that promise nothing more exact: where a channel with the start "latest" begins while somebody pushes, and
//! the limits on how many queues and channels there are.

use std::{io, time::Duration};

use rmom_core::{
    model::StoreTime,
    ports::{BoxIo, Clock as _, Entropy as _, Transport as _},
};
use tokio::{
    io::AsyncReadExt as _,
    time::{sleep, timeout},
};

use super::{
    Database, PORT,
    locks::{Locked, Locks, RowsOf},
    rpc::{Call, Failure, Frame, Kind, receive, send},
};
use crate::SimNet;

/// How long a statement may take before its commit; as production's PostgreSQL sessions have it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a transaction may wait for its client; as production's PostgreSQL sessions have it.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long each step of a write takes: up to so many milliseconds, often none.
const STEP_MILLIS: u64 = 3;

/// The database, from its start until its host crashes.
pub(crate) async fn run_database(database: Database) -> turmoil::Result {
    let mut listener = SimNet.bind(&format!("0.0.0.0:{PORT}")).await?;
    let locks = Locks::default();
    loop {
        let (io, _) = listener.accept().await?;
        let session = Session { database: database.clone(), locks: locks.clone() };
        tokio::spawn(async move {
            let faults = &session.database.0.faults;
            tokio::select! {
                biased;
                () = faults.refused() => {}
                // It ends when its client is gone.
                _ = session.serve(io) => {}
            }
        });
    }
}

/// What becomes of a session after a call.
enum Next {
    /// It goes on, after this answer.
    Answer(Frame),
    /// Its connection ends.
    Close,
    /// It never answers again.
    Silence,
}

/// One connection.
struct Session {
    database: Database,
    locks: Locks,
}

impl Session {
    async fn serve(&self, mut io: BoxIo) -> io::Result<()> {
        loop {
            let number = match receive(&mut io).await? {
                Frame::Run(number) => number,
                Frame::Ping => {
                    send(&mut io, Frame::Done).await?;
                    continue;
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            let call = self.database.0.calls.take(number).ok_or(io::ErrorKind::InvalidData)?;
            let next = match call.kind {
                Kind::Read => self.read(call).await,
                Kind::Statement | Kind::Append | Kind::Transaction => self.write(call, &mut io).await?,
            };
            match next {
                Next::Answer(frame) => send(&mut io, frame).await?,
                Next::Close => return Ok(()),
                Next::Silence => {
                    // Its client gives up in the end.
                    io.read_to_end(&mut Vec::new()).await?;
                    return Ok(());
                }
            }
        }
    }

    async fn read(&self, call: Call) -> Next {
        sleep(self.database.0.faults.slowness()).await;
        let rows = self.run(call, self.database.0.clock.now());
        // What it read is as it was when it began.
        sleep(self.database.cost(rows)).await;
        Next::Answer(Frame::Done)
    }

    async fn write(&self, call: Call, io: &mut BoxIo) -> io::Result<Next> {
        let faults = &self.database.0.faults;
        let aborted = faults.aborts_write() || (call.kind == Kind::Append && faults.aborts_appends());
        // Slowness is in the statement, which a timeout can end, or in the commit, which nothing can.
        let (slow_statement, slow_commit) = self.split(faults.slowness());
        let (locked, now) = match timeout(STATEMENT_TIMEOUT, self.lock(&call.rows, slow_statement)).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(failure)) => return Ok(Next::Answer(Frame::Failed(failure))),
            Err(_) => return Ok(Next::Answer(Frame::Failed(Failure::StatementTimeout))),
        };
        if aborted && (call.kind != Kind::Transaction || self.toss()) {
            return Ok(Next::Close);
        }
        if call.kind == Kind::Transaction {
            send(io, Frame::Ready).await?;
            match timeout(IDLE_IN_TRANSACTION_TIMEOUT, receive(io)).await {
                Ok(Ok(Frame::Commit)) => {}
                // Rolled back: its client is gone, or silent for too long.
                _ => return Ok(Next::Close),
            }
            if aborted {
                return Ok(Next::Close);
            }
        }
        self.step().await;
        sleep(slow_commit).await;
        self.run(call, now);
        drop(locked);
        self.step().await;
        Ok(match faults.loses_replies() {
            false => Next::Answer(Frame::Done),
            true if self.toss() => Next::Close,
            true => Next::Silence,
        })
    }

    /// Everything before the commit. The clock is read when the locks are held: whoever waited for them comes later.
    async fn lock(&self, rows: &RowsOf, slowness: Duration) -> Result<(Locked, StoreTime), Failure> {
        let inner = &self.database.0;
        self.step().await;
        sleep(slowness).await;
        if inner.faults.full() {
            return Err(Failure::Full);
        }
        let locked = self.locks.lock(|| rows(inner.disk.lock().state())).await?;
        let now = inner.clock.now();
        self.step().await;
        inner.faults.stalled().await;
        Ok((locked, now))
    }

    fn run(&self, call: Call, now: StoreTime) -> usize {
        (call.run)(&mut self.database.0.disk.lock(), now)
    }

    /// Some time passes.
    async fn step(&self) {
        let millis = self.database.0.chance.below(2 * STEP_MILLIS).saturating_sub(STEP_MILLIS);
        sleep(Duration::from_millis(millis)).await;
    }

    fn toss(&self) -> bool {
        self.database.0.chance.below(2) == 0
    }

    fn split(&self, time: Duration) -> (Duration, Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let first = Duration::from_millis(self.database.0.chance.below(millis.saturating_add(1)));
        (first, time - first)
    }
}
