//! A small pool of database connections that never reuses one in doubt.
//!
//! sqlx has a pool of its own. It puts a connection back whose future was cancelled, pings after every use, and hides
//! why it could not connect; a broker's appends need the opposite of all three. Here a [`Session`] owns its connection
//! and closes it unless [`Session::done`] says that it is clean.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rmom_core::ports::StoreError;
use sqlx::{AssertSqlSafe, Connection, Database, Executor, IntoArguments, query::Query};
use tokio::{
    sync::{AcquireError, Semaphore, SemaphorePermit},
    time::{Instant, error::Elapsed, timeout_at},
};

use super::warnings::watched;
use crate::metrics::Lane;

/// A connection that rested for longer is tried before it is used, so that a server's restart costs no unknown write.
const TRY_AFTER: Duration = Duration::from_millis(500);

/// What the pool has to know of a database.
pub(super) trait Backend: Send + Sync + fmt::Debug + 'static {
    /// sqlx's driver.
    type Driver: Database;

    /// Begins a transaction that writes.
    const BEGIN: &'static str;

    /// The server reports success, and warns, where a commit stands although not all is done that it was to wait for.
    const WARNS: bool;

    /// A statement that writes, and changes nothing, where commits may wait for other machines.
    const SMALL_WRITE: Option<&'static str>;

    /// Opens a connection and prepares its session.
    fn connect(&self) -> impl Future<Output = Result<<Self::Driver as Database>::Connection, sqlx::Error>> + Send;

    /// What a failure means. `may_commit`: the failed statement could have committed.
    fn classify(&self, error: &sqlx::Error, may_commit: bool) -> Failure;
}

/// What a failure means for the caller and for the other connections.
#[derive(Debug)]
pub(super) struct Failure {
    /// For the caller.
    pub(super) error: StoreError,
    /// The server or the way to it is at fault: resting connections are probably dead as well.
    pub(super) connection_lost: bool,
}

/// How many connections there are, and how long everything may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolLimits {
    /// Resting connections are kept up to this number, however long they rest.
    pub(super) min_connections: usize,
    /// Most connections at once; further callers wait, up to their deadline.
    pub(super) max_connections: usize,
    /// Deadline of opening one.
    pub(super) connect_timeout: Duration,
    /// Connections beyond `min_connections` are closed after they rested for this long.
    pub(super) idle_timeout: Duration,
    /// Deadline of one call of the store, waiting for a connection included.
    pub(super) call_timeout: Duration,
}

type Conn<B> = <<B as Backend>::Driver as Database>::Connection;
type Row<B> = <<B as Backend>::Driver as Database>::Row;
type Statement<B> = Query<'static, <B as Backend>::Driver, <<B as Backend>::Driver as Database>::Arguments>;

struct Resting<B: Backend> {
    conn: Conn<B>,
    since: Instant,
}

/// What is counted of a pool's lanes.
pub(super) struct Lanes {
    /// Its callers wait for each other and for one caller of the second lane at most.
    pub(super) first: Arc<Lane>,
    /// All other callers wait here.
    pub(super) second: Arc<Lane>,
}

/// The connections that are not in use.
struct Rest<B: Backend> {
    /// The one that rested last is used next.
    conns: Vec<Resting<B>>,
    /// How often all were closed. Those that were in use at the time go as well, when they come back.
    cleared: u64,
}

/// The pool.
///
/// A caller that finds all connections busy waits in one of two lanes. The first lane waits for a connection. The second waits at the
/// turnstile, which lets one caller at a time join the first. So a caller of the first lane, which is there for leases, waits
/// for one caller of the second at most, however many there are.
pub(super) struct Pool<B: Backend> {
    backend: Arc<B>,
    limits: PoolLimits,
    permits: Semaphore,
    turnstile: Semaphore,
    lanes: Lanes,
    resting: Mutex<Rest<B>>,
}

impl<B: Backend> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("backend", &self.backend).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<B: Backend> Pool<B> {
    /// An empty pool.
    pub(super) fn new(backend: Arc<B>, limits: PoolLimits, lanes: Lanes) -> Self {
        let permits = Semaphore::new(limits.max_connections.max(1));
        Self {
            backend,
            limits,
            permits,
            turnstile: Semaphore::new(1),
            lanes,
            resting: Mutex::new(Rest { conns: Vec::new(), cleared: 0 }),
        }
    }

    /// Takes a connection for reads outside a transaction.
    pub(super) async fn read(&self) -> Result<Session<'_, B>, StoreError> {
        self.session(false, false).await
    }

    /// Takes a connection for one write outside a transaction.
    pub(super) async fn write(&self) -> Result<Session<'_, B>, StoreError> {
        self.session(true, false).await
    }

    /// As [`Pool::write`], in the first lane.
    pub(super) async fn write_first(&self) -> Result<Session<'_, B>, StoreError> {
        self.session(true, true).await
    }

    /// Closes all connections: those that rest at once, those in use after it.
    pub(super) fn clear(&self) {
        let mut resting = self.resting.lock();
        resting.cleared += 1;
        let dropped = std::mem::take(&mut resting.conns);
        drop(resting);
        drop(dropped);
    }

    async fn session(&self, may_commit: bool, first: bool) -> Result<Session<'_, B>, StoreError> {
        let deadline = Instant::now() + self.limits.call_timeout;
        let permit = timeout_at(deadline, self.permit(first))
            .await
            .map_err(|_| {
                StoreError::Unavailable(format!(
                    "all {} connections were busy for {:?}",
                    self.limits.max_connections, self.limits.call_timeout
                ))
            })?
            .map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        let (conn, cleared) = self.connection(deadline).await?;
        Ok(Session { pool: self, conn: Some(conn), cleared, _permit: permit, deadline, may_commit })
    }

    async fn permit(&self, first: bool) -> Result<SemaphorePermit<'_>, AcquireError> {
        let lane = if first { &self.lanes.first } else { &self.lanes.second };
        if let Ok(permit) = self.permits.try_acquire() {
            lane.at_once();
            return Ok(permit);
        }
        let wait = lane.wait();
        let _turn = if first { None } else { Some(self.turnstile.acquire().await?) };
        let permit = self.permits.acquire().await?;
        wait.ended();
        Ok(permit)
    }

    /// A connection, and how often all had been closed when it was had.
    async fn connection(&self, deadline: Instant) -> Result<(Conn<B>, u64), StoreError> {
        let cleared = loop {
            let (resting, cleared) = {
                let mut rest = self.resting.lock();
                (rest.conns.pop(), rest.cleared)
            };
            let Some(mut resting) = resting else { break cleared };
            if resting.since.elapsed() < TRY_AFTER {
                return Ok((resting.conn, cleared));
            }
            match timeout_at(deadline, resting.conn.ping()).await {
                Ok(Ok(())) => return Ok((resting.conn, cleared)),
                Ok(Err(_)) => self.clear(),
                Err(_) => {
                    self.clear();
                    return Err(StoreError::Unavailable(format!("no answer within {:?}", self.limits.call_timeout)));
                }
            }
        };
        let until = deadline.min(Instant::now() + self.limits.connect_timeout);
        match timeout_at(until, self.backend.connect()).await {
            Ok(Ok(conn)) => Ok((conn, cleared)),
            Ok(Err(error)) => {
                // It answers, and is not the server that it should be: those that are open may lead to the same one.
                if matches!(error, sqlx::Error::Configuration(_)) {
                    self.clear();
                }
                Err(self.backend.classify(&error, false).error)
            }
            Err(_) => Err(StoreError::Unavailable(format!(
                "no connection within {:?}",
                self.limits.connect_timeout.min(self.limits.call_timeout)
            ))),
        }
    }

    fn rest(&self, conn: Conn<B>, cleared: u64) {
        let now = Instant::now();
        let mut rest = self.resting.lock();
        if rest.cleared != cleared {
            drop(rest);
            drop(conn);
            return;
        }
        let resting = &mut rest.conns;
        resting.push(Resting { conn, since: now });
        // The oldest are in front.
        let spare = resting.len().saturating_sub(self.limits.min_connections);
        let expired = resting.iter().take(spare).take_while(|r| now - r.since > self.limits.idle_timeout).count();
        let expired: Vec<_> = resting.drain(..expired).collect();
        drop(rest);
        drop(expired);
    }
}

/// How a transaction ends whose work succeeded.
pub(super) enum End<T> {
    /// It commits.
    Commit(T),
    /// It carries out these statements and commits, as [`Session::commit_with`] does.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "SQLite has no clients to wait for"))]
    CommitWith(T, String),
    /// It changed nothing, and its answer rests on what an earlier call may have stored: it commits a write of its own,
    /// where that waits for other machines. What it read is there by then, too.
    Confirm(T),
    /// It changed nothing, and rolls back.
    Unchanged(T),
}

/// One call's use of a connection, under the call's deadline. Dropped without [`Session::done`], by an error or because
/// the caller was cancelled, it closes the connection, and with it whatever the server had not committed.
pub(super) struct Session<'a, B: Backend> {
    pool: &'a Pool<B>,
    conn: Option<Conn<B>>,
    /// As in [`Rest::cleared`], when the connection was had.
    cleared: u64,
    _permit: SemaphorePermit<'a>,
    deadline: Instant,
    may_commit: bool,
}

impl<'a, B: Backend> Session<'a, B>
where
    for<'c> &'c mut Conn<B>: Executor<'c, Database = B::Driver>,
    <B::Driver as Database>::Arguments: IntoArguments<B::Driver>,
{
    /// Runs a statement to its end, commit included if it commits by itself.
    pub(super) async fn rows(&mut self, statement: Statement<B>) -> Result<Vec<Row<B>>, StoreError> {
        // Never fetch_one or fetch_optional: they return at the first row, which is before the commit.
        let (deadline, warns) = (self.deadline, self.warns());
        let rows = statement.fetch_all(connection::<B>(&mut self.conn));
        let answer = timeout_at(deadline, watched_if(warns, rows)).await;
        self.settle(answer).await
    }

    /// What the server warns of counts.
    fn warns(&self) -> bool {
        B::WARNS && self.may_commit
    }

    /// Runs BEGIN, COMMIT or ROLLBACK: in one round trip, without preparing it.
    async fn command(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let (deadline, warns) = (self.deadline, self.warns());
        let done = sqlx::raw_sql(sql).execute(connection::<B>(&mut self.conn));
        let answer = timeout_at(deadline, watched_if(warns, done)).await;
        self.settle(answer).await.map(drop)
    }

    /// As [`Session::rows`], for statements that answer with at most one row.
    pub(super) async fn row(&mut self, statement: Statement<B>) -> Result<Option<Row<B>>, StoreError> {
        Ok(self.rows(statement).await?.pop())
    }

    /// Begins a transaction that writes. Until its commit nothing that fails leaves anything behind.
    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.may_commit = false;
        self.command(B::BEGIN).await
    }

    /// Commits, and gives the connection back.
    async fn commit(mut self) -> Result<(), StoreError> {
        self.may_commit = true;
        self.command("COMMIT").await?;
        self.done();
        Ok(())
    }

    /// Carries out statements without parameters and commits, in one message: whatever they lock is locked while the server
    /// works, and never while it waits for a client. Gives the connection back.
    async fn commit_with(mut self, statements: &str) -> Result<(), StoreError> {
        self.may_commit = true;
        // Our own text; what varies in it are numbers.
        let sql = AssertSqlSafe(format!("{statements}; COMMIT"));
        let (deadline, warns) = (self.deadline, self.warns());
        let done = sqlx::raw_sql(sql).execute(connection::<B>(&mut self.conn));
        let answer = timeout_at(deadline, watched_if(warns, done)).await;
        self.settle(answer).await?;
        self.done();
        Ok(())
    }

    /// Ends a transaction as its work asks for. One that failed is rolled back; if a statement of it failed, its connection
    /// is gone, and the transaction with it.
    pub(super) async fn end<T, E: From<StoreError>>(self, done: Result<End<T>, E>) -> Result<T, E> {
        match done {
            Ok(End::Commit(value)) => self.commit().await.map(|()| value),
            Ok(End::CommitWith(value, statements)) => self.commit_with(&statements).await.map(|()| value),
            Ok(End::Confirm(value)) => match B::SMALL_WRITE {
                Some(write) => self.commit_with(write).await.map(|()| value),
                None => self.rollback().await.map(|()| value),
            },
            Ok(End::Unchanged(value)) => self.rollback().await.map(|()| value),
            Err(error) => {
                if self.conn.is_some() {
                    // If this fails, the connection is closed, which rolls back as well.
                    let _ = self.rollback().await;
                }
                return Err(error);
            }
        }
        .map_err(E::from)
    }

    /// Rolls back, and gives the connection back.
    async fn rollback(mut self) -> Result<(), StoreError> {
        self.command("ROLLBACK").await?;
        self.done();
        Ok(())
    }

    /// Gives the connection back: its last statement succeeded, and no transaction is open.
    pub(super) fn done(mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.rest(conn, self.cleared);
        }
    }

    /// As [`Session::judge`]. A commit that the server warned of is followed by another one.
    async fn settle<T>(&mut self, answer: Result<Answer<T>, Elapsed>) -> Result<T, StoreError> {
        let (answer, warning) = match answer {
            Ok((answer, warning)) => (Ok(answer), warning),
            Err(late) => (Err(late), None),
        };
        let value = self.judge(answer)?;
        match warning {
            Some(warning) => self.commit_after(&warning).await.map(|()| value),
            None => Ok(value),
        }
    }

    /// The server warned while it may have committed: perhaps of something else, perhaps that the commit did not wait for all
    /// machines that it was to wait for. It looks stored to everybody then, and may still be lost with its machine. A commit
    /// after it waits for the same machines, and what comes before it is there by then. A transaction gets its number at its
    /// first write, and the server may warn of the numbers that are left: so only the commit counts.
    async fn commit_after(&mut self, warning: &str) -> Result<(), StoreError> {
        if let Some(write) = B::SMALL_WRITE {
            let conn = connection::<B>(&mut self.conn);
            let commit = async {
                // Our own text.
                sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {write}"))).execute(&mut *conn).await?;
                let (done, warning) = watched(sqlx::raw_sql("COMMIT").execute(&mut *conn)).await;
                done.map(|_| warning.is_none())
            };
            if matches!(timeout_at(self.deadline, commit).await, Ok(Ok(true))) {
                return Ok(());
            }
        }
        self.conn = None;
        Err(StoreError::Unknown(format!("the server warned: {warning}")))
    }

    /// What an answer means. After anything but success the connection is gone.
    fn judge<T>(&mut self, answer: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, StoreError> {
        let error = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let failure = self.pool.backend.classify(&error, self.may_commit);
                if failure.connection_lost {
                    self.pool.clear();
                }
                failure.error
            }
            Err(_) => {
                let reason = format!("no answer within {:?}", self.pool.limits.call_timeout);
                if self.may_commit { StoreError::Unknown(reason) } else { StoreError::Unavailable(reason) }
            }
        };
        self.conn = None;
        Err(error)
    }
}

/// What a statement came to, and what the server warned of.
type Answer<T> = (Result<T, sqlx::Error>, Option<String>);

async fn watched_if<T>(warns: bool, statement: impl Future<Output = Result<T, sqlx::Error>>) -> Answer<T> {
    if warns { watched(statement).await } else { (statement.await, None) }
}

fn connection<B: Backend>(conn: &mut Option<Conn<B>>) -> &mut Conn<B> {
    conn.as_mut().expect("a session is not used after an error")
}
