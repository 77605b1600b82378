//! Connections to the database, with the rules and timeouts of production's pool (`net/src/store/pool.rs`): one call at a
//! time on each, and no connection in doubt is used again.

use std::{io, time::Duration};

use parking_lot::Mutex;
use rmom_core::ports::{BoxIo, StoreError, Transport as _};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{
    DATABASE_HOST, PORT,
    rpc::{Call, Calls, Frame, Kind, receive, send},
};
use crate::SimNet;

// As in `PostgresOptions::new`.
pub(super) const MAX_CONNECTIONS: usize = 8;
/// Connections for leases only, as in production's PostgreSQL store.
pub(super) const LEASE_CONNECTIONS: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was idle for longer is tested before it is used, so that a restart does not cause an unknown outcome.
const TRY_AFTER: Duration = Duration::from_millis(500);

/// An idle connection.
struct Resting {
    io: BoxIo,
    since: Instant,
}

/// The connections of one process.
pub(super) struct Pool {
    connections: usize,
    permits: Semaphore,
    /// The connection that became idle last is used next.
    resting: Mutex<Vec<Resting>>,
}

impl Pool {
    /// A pool of at most `connections`, none of them open yet.
    pub(super) fn new(connections: usize) -> Self {
        Self { connections, permits: Semaphore::new(connections), resting: Mutex::default() }
    }

    /// Has the database carry out a call.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if it may have been done, or may yet be.
    pub(super) async fn call(&self, calls: &Calls, call: Call) -> Result<(), StoreError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut session = self.session(deadline).await?;
        // The call is registered only now: one that cannot be sent must not stay registered.
        let kind = call.kind;
        session.exchange(kind, calls.put(call)).await?;
        session.done();
        Ok(())
    }

    async fn session(&self, deadline: Instant) -> Result<Session<'_>, StoreError> {
        let busy = || StoreError::Unavailable(format!("all {} connections were busy", self.connections));
        let permit = timeout_at(deadline, self.permits.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        let io = self.connection(deadline).await?;
        Ok(Session { pool: self, io: Some(io), _permit: permit, deadline })
    }

    async fn connection(&self, deadline: Instant) -> Result<BoxIo, StoreError> {
        loop {
            let Some(mut resting) = self.resting.lock().pop() else { break };
            if resting.since.elapsed() < TRY_AFTER {
                return Ok(resting.io);
            }
            match timeout_at(deadline, ping(&mut resting.io)).await {
                Ok(Ok(())) => return Ok(resting.io),
                Ok(Err(_)) => self.clear(),
                Err(_) => {
                    self.clear();
                    return Err(StoreError::Unavailable(format!("no answer within {CALL_TIMEOUT:?}")));
                }
            }
        }
        let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        match timeout_at(until, connect()).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            Err(_) => Err(StoreError::Unavailable(format!("no connection within {CONNECT_TIMEOUT:?}"))),
        }
    }

    /// Closes the idle connections, which are probably dead as well.
    fn clear(&self) {
        let dropped = std::mem::take(&mut *self.resting.lock());
        drop(dropped);
    }
}

/// Opens a connection. As with PostgreSQL, it counts only once the database has answered.
async fn connect() -> io::Result<BoxIo> {
    let mut io = SimNet.connect(&format!("{DATABASE_HOST}:{PORT}")).await?;
    ping(&mut io).await?;
    Ok(io)
}

async fn ping(io: &mut BoxIo) -> io::Result<()> {
    send(io, Frame::Ping).await?;
    receive(io).await.map(drop)
}

/// One call's use of a connection. If it is dropped without [`Session::done`], by an error or because its caller was
/// cancelled, it closes the connection.
struct Session<'a> {
    pool: &'a Pool,
    io: Option<BoxIo>,
    _permit: SemaphorePermit<'a>,
    deadline: Instant,
}

impl Session<'_> {
    async fn exchange(&mut self, kind: Kind, number: u64) -> Result<(), StoreError> {
        let Some(io) = &mut self.io else { return Err(StoreError::Unavailable("the connection is closed".into())) };
        // A statement commits by itself; a transaction commits only when told to.
        let mut may_commit = matches!(kind, Kind::Statement | Kind::Append);
        let conversation = async {
            send(io, Frame::Run(number)).await?;
            loop {
                match receive(io).await? {
                    Frame::Ready => {
                        may_commit = true;
                        send(io, Frame::Commit).await?;
                    }
                    Frame::Done => return Ok(Ok(())),
                    Frame::Failed(failure) => return Ok(Err(StoreError::from(failure))),
                    Frame::Ping | Frame::Run(_) | Frame::Commit => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        };
        let reason = match timeout_at(self.deadline, conversation).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) => {
                self.pool.clear();
                io::Error::to_string(&error)
            }
            Err(_) => format!("no answer within {CALL_TIMEOUT:?}"),
        };
        Err(if may_commit { StoreError::Unknown(reason) } else { StoreError::Unavailable(reason) })
    }

    /// Returns the connection to the pool.
    fn done(mut self) {
        if let Some(io) = self.io.take() {
            self.pool.resting.lock().push(Resting { io, since: Instant::now() });
        }
    }
}
