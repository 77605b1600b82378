//! The process on the database's host.
//!
//! A write goes through five steps: it begins, locks its rows, does its work, commits, and is answered. Simulated time
//! passes between any two steps, and there any of the faults can strike, besides cuts and crashes.
//!
//! Work and commit are one change of the data, at the instant of the commit, while the locks are held. Under READ COMMITTED
//! that is one of the possible courses: a statement sees earlier commits, and the rows that it locks as they are once it has
//! them; no other session sees work before its commit; and here all statements of a transaction run just before the commit.
//! In the other possible courses a statement reads, another session commits, and only then the transaction commits. That
//! changes nothing on which our writes base a decision: this data is in rows that they lock (`client.rs` names them, after
//! production's SQL) or, for appends and trims, in batches that only the owner of the epoch changes, one write at a time. A
//! claim reads the broker's run without a lock: a run that registers after that, and before the claim commits, fences it
//! with its own claim. The other courses can shift two results, neither of which is promised more exactly: where a channel
//! with the start "latest" begins during pushes, and the limits on the numbers of queues and channels.

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

/// How long a statement may take before its commit, as in production's PostgreSQL sessions.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a transaction may wait for its client, as in production's PostgreSQL sessions.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Each step of a write takes less than this many milliseconds, and most steps take none.
const STEP_MILLIS: u64 = 3;

/// Runs the database from its start until its host crashes.
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
                // The session ends when its client is gone.
                _ = session.serve(io) => {}
            }
        });
    }
}

/// What a session does after a call.
enum Next {
    /// It sends this answer and goes on.
    Answer(Frame),
    /// It closes its connection.
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
                    // The client gives up in the end.
                    io.read_to_end(&mut Vec::new()).await?;
                    return Ok(());
                }
            }
        }
    }

    async fn read(&self, call: Call) -> Next {
        sleep(self.database.0.faults.slowness()).await;
        let rows = self.run(call, self.database.0.clock.now());
        // The answer shows the data as it was when the read began.
        sleep(self.database.cost(rows)).await;
        Next::Answer(Frame::Done)
    }

    async fn write(&self, call: Call, io: &mut BoxIo) -> io::Result<Next> {
        let faults = &self.database.0.faults;
        let aborted = faults.aborts_write() || (call.kind == Kind::Append && faults.aborts_appends());
        // Slowness is split between the statement, which a timeout can end, and the commit, which nothing can end.
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
                // Rolled back: the client is gone, or was silent for too long.
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

    /// Everything before the commit. The clock is read once the locks are held, so a write that waited for a lock gets a
    /// later time than the write that held it.
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

    /// Lets a random time pass.
    async fn step(&self) {
        let millis = self.database.0.entropy.below(2 * STEP_MILLIS).saturating_sub(STEP_MILLIS);
        sleep(Duration::from_millis(millis)).await;
    }

    fn toss(&self) -> bool {
        self.database.0.entropy.below(2) == 0
    }

    fn split(&self, time: Duration) -> (Duration, Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let first = Duration::from_millis(self.database.0.entropy.below(millis.saturating_add(1)));
        (first, time - first)
    }
}
