//! The store as brokers and managers see it.
//!
//! Production's SQL (`net/src/store/postgres`) determines which rows a call locks, and whether it is a statement or a
//! transaction.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rmom_core::{
    marks::reached,
    model::{BrokerId, ChannelId, Incarnation, ManagerId, Offset, QueueId, StoreTime},
    ports::{
        AppendBatch, Appended, Assign, Assigned, BatchHeader, ChannelRecord, Claim, ClaimError, Claimed, CreateChannel,
        CreateChannelError, CreateQueue, CreateQueueError, ForgetError, Leadership, LogError, Page, Purged,
        QueueRecord, Register, RegisterError, Registration, RenewError, Renewal, StoreError, Trim, Trimmed,
    },
    store::memory::{Call as StoreCall, Rows, State, StateStore},
};

use super::{
    Database,
    disk::Disk,
    locks::{
        Mode::{self, Change, Share},
        Row, RowsOf,
    },
    marks::{FULL_HEADERS, FULL_PAGE, FULL_TRIM},
    pool::{LEASE_CONNECTIONS, MAX_CONNECTIONS, Pool},
    rpc::{Call, Kind},
};

/// One process's access to the database. It opens its connections from the host on which it is used.
pub(crate) struct RemoteStore {
    database: Database,
    pool: Pool,
    /// Connections for lease calls only.
    leases: Pool,
    /// The host's name, for the records.
    host: String,
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteStore").field("host", &self.host).finish_non_exhaustive()
    }
}

impl RemoteStore {
    /// Opens no connection yet.
    pub(crate) fn new(database: Database, host: String) -> Self {
        Self { database, pool: Pool::new(MAX_CONNECTIONS), leases: Pool::new(LEASE_CONNECTIONS), host }
    }

    #[cfg(test)]
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// The call writes its answer to a shared slot, which its caller reads only once the database reports the call as done.
    async fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        rows: RowsOf,
        run: impl FnOnce(&mut Disk, StoreTime) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call_over(&self.pool, kind, rows, run, |_| 0).await
    }

    /// `read` returns how many of an answer's rows count as read.
    async fn call_over<T: Send + 'static>(
        &self,
        pool: &Pool,
        kind: Kind,
        rows: RowsOf,
        run: impl FnOnce(&mut Disk, StoreTime) -> T + Send + 'static,
        read: impl Fn(&T) -> usize + Send + 'static,
    ) -> Result<T, StoreError> {
        let answer = Arc::new(Mutex::new(None));
        let place = answer.clone();
        let run = Box::new(move |disk: &mut Disk, now: StoreTime| {
            let answer = run(disk, now);
            let rows = read(&answer);
            *place.lock() = Some(answer);
            rows
        });
        pool.call(&self.database.0.calls, Call { kind, rows, run }).await?;
        let answer = answer.lock().take();
        Ok(answer.expect("the database says that it is done after it is"))
    }

    /// A read statement. It locks nothing.
    async fn read<T: Rows + Send + 'static>(
        &self,
        run: impl FnOnce(&State, StoreTime) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let none = Box::new(|_: &State| Vec::new());
        let read = |answer: &Result<T, StoreError>| answer.as_ref().map_or(0, Rows::rows);
        self.call_over(&self.pool, Kind::Read, none, |disk, now| run(disk.state(), now), read).await?
    }

    /// A write statement.
    async fn statement<T: Send + 'static>(
        &self,
        rows: impl Fn(&State) -> Vec<(Row, Mode)> + Send + Sync + 'static,
        run: impl FnOnce(&mut Disk, StoreTime) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(Kind::Statement, Box::new(rows), run).await
    }

    /// A write of a lease.
    async fn lease<T: Send + 'static>(
        &self,
        kind: Kind,
        rows: impl Fn(&State) -> Vec<(Row, Mode)> + Send + Sync + 'static,
        run: impl FnOnce(&mut Disk, StoreTime) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call_over(&self.leases, kind, Box::new(rows), run, |_| 0).await
    }

    /// A write transaction.
    async fn transaction<T: Send + 'static>(
        &self,
        rows: impl Fn(&State) -> Vec<(Row, Mode)> + Send + Sync + 'static,
        run: impl FnOnce(&mut Disk, StoreTime) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(Kind::Transaction, Box::new(rows), run).await
    }
}

/// Records that a small limit was reached.
fn note(mark: &'static str, met: bool) {
    if met {
        reached(mark);
    }
}

/// The broker to which a queue is assigned; every change of the queue raises its generation.
fn assignee(state: &State, queue: QueueId) -> Option<(Row, Mode)> {
    let (broker, _) = state.queue_by_id(queue)?.assignee?;
    Some((Row::Broker(broker), Change))
}

impl StateStore for RemoteStore {
    /// A statement that locks nothing for which others wait. (The lock that production takes on a queue while it opens a
    /// producer excludes only the queue's removal, and a purge skips it.) Writes that lock rows or take several statements
    /// are written out below.
    async fn execute<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        _: StoreCall,
        step: impl FnOnce(&mut State, StoreTime) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        self.statement(|_| Vec::new(), move |disk, now| step(disk.state_mut(), now)).await?
    }

    async fn query<T: Rows + Send + 'static>(
        &self,
        _: StoreCall,
        step: impl FnOnce(&State, StoreTime) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.read(step).await
    }

    async fn register_broker(&self, register: &Register) -> Result<Registration, RegisterError> {
        let (register, host) = (register.clone(), register.addr.clone());
        let rows = move |state: &State| {
            let known = state.brokers().into_iter().find(|broker| broker.addr == host);
            known.map(|broker| (Row::Broker(broker.id), Change)).into_iter().collect()
        };
        self.lease(Kind::Statement, rows, move |disk, now| disk.register_broker(now, &register)).await?
    }

    async fn renew_broker(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError> {
        let rows = move |_: &State| vec![(Row::Broker(broker), Change)];
        self.lease(Kind::Statement, rows, move |disk, now| {
            disk.state_mut().renew_broker(now, broker, incarnation, lease)
        })
        .await?
    }

    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> {
        let rows = move |_: &State| vec![(Row::Broker(broker), Change)];
        self.lease(Kind::Statement, rows, move |disk, now| disk.state_mut().retire_broker(now, broker, incarnation))
            .await?
    }

    async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<bool, StoreError> {
        let rows = move |_: &State| vec![(Row::Broker(broker), Change)];
        self.statement(rows, move |disk, _| disk.state_mut().set_draining(broker, draining)).await
    }

    async fn forget_broker(&self, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> {
        let rows = move |_: &State| vec![(Row::Broker(broker), Change)];
        self.statement(rows, move |disk, now| disk.state_mut().forget_broker(now, broker, gone_for)).await?
    }

    async fn create_queue(&self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        let (create, label, assignee) = (create.clone(), create.label.clone(), create.assignee);
        let rows = move |_: &State| {
            let broker = assignee.map(|broker| (Row::Broker(broker), Change));
            [(Row::Label(label.clone()), Change)].into_iter().chain(broker).collect()
        };
        self.transaction(rows, move |disk, _| disk.create_queue(&create)).await?
    }

    async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        let (group, concerned) = (group.to_vec(), group.to_vec());
        let rows = move |state: &State| {
            let queues = concerned.iter().map(|assign| (Row::Queue(assign.queue), Change));
            let from = concerned.iter().filter_map(|assign| assignee(state, assign.queue));
            let to = concerned.iter().map(|assign| (Row::Broker(assign.to), Change));
            let rows: BTreeSet<_> = queues.chain(from).chain(to).collect();
            rows.into_iter().collect()
        };
        self.transaction(rows, move |disk, _| disk.assign_queues(&group)).await?
    }

    async fn delete_queue(&self, queue: QueueId) -> Result<bool, StoreError> {
        let rows = move |state: &State| {
            // The label becomes free: a creation of the same label waits.
            let label = state.queue_by_id(queue).map(|record| (Row::Label(record.label), Change));
            let rows = [(Row::Queue(queue), Change), (Row::Log(queue), Change)];
            rows.into_iter().chain(label).chain(assignee(state, queue)).collect()
        };
        self.transaction(rows, move |disk, now| disk.delete_queue(now, queue)).await
    }

    async fn create_channel(&self, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
        let (create, queue) = (create.clone(), create.queue);
        let rows = move |_: &State| vec![(Row::Queue(queue), Change)];
        self.transaction(rows, move |disk, now| disk.create_channel(now, &create)).await?
    }

    async fn delete_channel(&self, channel: ChannelId) -> Result<bool, StoreError> {
        let rows = move |state: &State| {
            let Some(record) = state.channel(channel) else { return Vec::new() };
            [(Row::Queue(record.queue), Change)].into_iter().chain(assignee(state, record.queue)).collect()
        };
        self.transaction(rows, move |disk, _| disk.delete_channel(channel)).await
    }

    async fn delete_idle_channels(
        &self,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        seen: StoreTime,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError> {
        let (queues, locked) = (queues.to_vec(), queues.to_vec());
        let rows = move |_: &State| {
            let queues = locked.iter().map(|&queue| (Row::Queue(queue), Share));
            queues.chain([(Row::Broker(broker), Change)]).collect()
        };
        self.transaction(rows, move |disk, now| disk.delete_idle_channels(now, broker, &queues, idle, seen, limit))
            .await?
    }

    async fn lead(&self, manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError> {
        let rows = |_: &State| vec![(Row::Leader, Change)];
        self.lease(Kind::Transaction, rows, move |disk, now| disk.state_mut().lead(now, manager, lease)).await
    }

    async fn resign(&self, manager: ManagerId) -> Result<(), StoreError> {
        let rows = |_: &State| vec![(Row::Leader, Change)];
        self.lease(Kind::Statement, rows, move |disk, _| disk.state_mut().resign(manager)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed, ClaimError> {
        let claim = *claim;
        let rows = move |_: &State| vec![(Row::Queue(claim.queue), Share), (Row::Log(claim.queue), Change)];
        self.transaction(rows, move |disk, now| disk.claim(now, &claim)).await?
    }

    async fn headers(&self, queue: QueueId, after: Offset, limit: u32) -> Result<Vec<BatchHeader>, StoreError> {
        let headers = move |state: &State, _| {
            let headers = state.headers(queue, after, limit);
            note(FULL_HEADERS, headers.len() == usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(headers)
        };
        self.read(headers).await
    }

    async fn read_within(
        &self,
        queue: QueueId,
        after: Offset,
        span: u64,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        let page = move |state: &State, _| {
            let page = state.read_within(queue, after, span, max_bytes);
            let last = page.batches.last().map(|batch| batch.header.last);
            note(FULL_PAGE, last.is_some_and(|last| last < state.tail(queue).end));
            Ok(page)
        };
        self.read(page).await
    }

    async fn append(&self, group: &[AppendBatch]) -> Result<Vec<Appended>, StoreError> {
        let (group, host) = (group.to_vec(), self.host.clone());
        let queues: Vec<QueueId> = group.iter().map(|batch| batch.queue).collect();
        let rows = move |_: &State| queues.iter().map(|&queue| (Row::Log(queue), Share)).collect();
        self.call(Kind::Append, Box::new(rows), move |disk, now| disk.append(now, &group, &host)).await?
    }

    async fn trim(&self, trim: &Trim) -> Result<Trimmed, LogError> {
        let (trim, queue) = (trim.clone(), trim.queue);
        let rows = move |_: &State| vec![(Row::Log(queue), Share), (Row::LogState(queue), Change)];
        let limit = u64::from(trim.limit);
        let trimmed = self.transaction(rows, move |disk, now| disk.trim(now, &trim)).await?;
        note(FULL_TRIM, trimmed.as_ref().is_ok_and(|trimmed| trimmed.batches == limit));
        trimmed
    }

    async fn purge_deleted(&self, limit: u32) -> Result<Purged, StoreError> {
        // A purge skips rows that other writes have locked.
        self.transaction(|_| Vec::new(), move |disk, _| disk.state_mut().purge_deleted(limit)).await
    }
}
