//! Brokers, look-ups and leadership in SQLite. Changes of queues and channels are in `queues.rs`, `channels.rs` and
//! `idle.rs`.

use std::time::Duration;

use async_trait::async_trait;
use rmom_core::{
    model::{BrokerId, ChannelId, Incarnation, ManagerId, QueueId, QueueLabel, StoreTime},
    ports::{
        Assign, Assigned, BrokerLife, BrokerRecord, Catalog, ChannelRecord, CreateChannel, CreateChannelError,
        CreateQueue, CreateQueueError, ForgetError, Leadership, QueueRecord, Register, RegisterError, Registration,
        RenewError, Renewal, StoreError, check_lookup,
    },
};
use sqlx::query;

use super::{SqliteStore, Tx, channels, idle, queues};
use crate::store::{
    column::{self, StoreRow as _, millis},
    pool::End,
    rows,
};

/// The live queues, with a condition and an order of the caller.
macro_rules! select_queue {
    ($rest:literal) => {
        concat!(
            "
SELECT q.id, q.label, q.assignee, q.assignment, b.host, b.port
FROM queue q LEFT JOIN broker b ON b.id = q.assignee
WHERE q.deleted = 0",
            $rest
        )
    };
}

/// The channels of live queues, with a condition and an order of the caller.
macro_rules! select_channel {
    ($rest:literal) => {
        concat!(
            "
SELECT c.id, c.queue_id, c.topic, c.start_offset, q.label, q.assignee, b.host, b.port
FROM channel c JOIN queue q ON q.id = c.queue_id LEFT JOIN broker b ON b.id = q.assignee
WHERE q.deleted = 0",
            $rest
        )
    };
}

const REGISTER: &str = "
INSERT INTO broker (host, port, incarnation, state, lease_until, lease, generation, renewals)
VALUES (?1, ?2, ?3, ?4, ?5, ?7, 0, 0)
ON CONFLICT (host, port) DO UPDATE SET incarnation = excluded.incarnation,
    state = CASE broker.incarnation WHEN ?3 THEN broker.state ELSE excluded.state END,
    renewals = CASE broker.incarnation WHEN ?3 THEN broker.renewals ELSE 0 END,
    lease_until = excluded.lease_until, lease = excluded.lease
WHERE broker.incarnation IN (?3, ?6)
RETURNING id, generation";

const RENEW: &str = "
UPDATE broker SET lease_until = ?3, lease = ?4, renewals = renewals + 1
WHERE id = ?1 AND incarnation = ?2
RETURNING generation, renewals, state";

const TO_FORGET: &str = "
SELECT lease_until, (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND q.deleted = 0) AS queues
FROM broker b WHERE b.id = ?1";

const BROKERS: &str = "
SELECT b.id, b.host, b.port, b.incarnation, b.state, b.lease_until, b.lease,
    (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND q.deleted = 0) AS queues
FROM broker b ORDER BY b.id";

const LEAD: &str = "
UPDATE leader SET term = iif(manager = ?1, term, term + 1), manager = ?1, lease_until = ?2, lease = ?4
WHERE manager IS NULL OR manager = ?1 OR lease_until <= ?3 OR lease_until - lease > ?3";

/// A live queue.
pub(super) async fn queue_in(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
    let row = tx.row(query(select_queue!(" AND q.id = ?1")).bind(queue.as_i64())).await?;
    row.as_ref().map(rows::queue).transpose()
}

/// A channel of a live queue.
pub(super) async fn channel_in(tx: &mut Tx<'_>, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
    let row = tx.row(query(select_channel!(" AND c.id = ?1")).bind(channel.uuid())).await?;
    row.as_ref().map(rows::channel).transpose()
}

fn lease_end(now: StoreTime, lease: Duration) -> i64 {
    now.plus_millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)).as_i64()
}

#[async_trait]
impl Catalog for SqliteStore {
    async fn now(&self) -> Result<StoreTime, StoreError> {
        self.select(query("SELECT 1 FROM leader")).await?;
        Ok(self.clock.now())
    }

    async fn register_broker(&self, register: &Register) -> Result<Registration, RegisterError> {
        let Register { addr, incarnation, replaces, lease } = register;
        self.transact_lease(async |tx, now| {
            let statement = query(REGISTER)
                .bind(addr.host.as_str())
                .bind(i64::from(addr.port))
                .bind(incarnation.uuid())
                .bind(column::UP)
                .bind(lease_end(now, *lease))
                .bind(replaces.map(Incarnation::uuid))
                .bind(millis(*lease));
            if let Some(row) = tx.row(statement).await? {
                return Ok(End::Commit(rows::registration(&row, now)?));
            }
            let statement = query("SELECT incarnation FROM broker WHERE host = ?1 AND port = ?2");
            let row = tx.row(statement.bind(addr.host.as_str()).bind(i64::from(addr.port))).await?;
            let row = row.ok_or_else(|| StoreError::Corrupt("a broker was not entered, and is not there".into()))?;
            Err(RegisterError::Taken { by: Incarnation::new(row.uuid("incarnation")?) })
        })
        .await
    }

    async fn renew_broker(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError> {
        self.transact_lease(async |tx, now| {
            let statement = query(RENEW).bind(broker.as_i64()).bind(incarnation.uuid());
            let row = tx.row(statement.bind(lease_end(now, lease)).bind(millis(lease))).await?;
            Ok(End::Commit(rows::renewal(&row.ok_or(RenewError::Replaced)?, now)?))
        })
        .await
    }

    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> {
        self.transact_lease(async |tx, now| {
            let statement = query(
                "
UPDATE broker SET state = ?3, lease_until = ?4
WHERE id = ?1 AND incarnation = ?2
RETURNING id",
            );
            let statement = statement.bind(broker.as_i64()).bind(incarnation.uuid()).bind(column::STOPPED);
            tx.row(statement.bind(now.as_i64())).await?.ok_or(RenewError::Replaced)?;
            Ok(End::Commit(()))
        })
        .await
    }

    async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<bool, StoreError> {
        self.transact(async |tx, _| {
            let statement = query(
                "
UPDATE broker SET state = iif(state = ?3, state, ?2)
WHERE id = ?1
RETURNING id",
            );
            let state = if draining { column::DRAINING } else { column::UP };
            let row = tx.row(statement.bind(broker.as_i64()).bind(state).bind(column::STOPPED)).await?;
            Ok(End::Commit(row.is_some()))
        })
        .await
    }

    async fn forget_broker(&self, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> {
        self.transact(async |tx, now| {
            let Some(row) = tx.row(query(TO_FORGET).bind(broker.as_i64())).await? else {
                return Ok(End::Unchanged(false));
            };
            if lease_end(column::time(&row, "lease_until")?, gone_for) > now.as_i64() {
                return Err(ForgetError::Alive);
            }
            match column::unsigned(&row, "queues")? {
                0 => {}
                queues => return Err(ForgetError::HasQueues(queues)),
            }
            tx.rows(query("DELETE FROM broker WHERE id = ?1").bind(broker.as_i64())).await?;
            Ok(End::Commit(true))
        })
        .await
    }

    async fn brokers(&self) -> Result<Vec<BrokerRecord>, StoreError> {
        self.select(query(BROKERS)).await?.iter().map(rows::broker).collect()
    }

    async fn broker_life(&self, broker: BrokerId) -> Result<Option<BrokerLife>, StoreError> {
        let statement = query("SELECT host, port, state, lease_until, lease FROM broker WHERE id = ?1");
        let rows = self.select(statement.bind(broker.as_i64())).await?;
        rows.first().map(|row| rows::broker_life(row, self.clock.now())).transpose()
    }

    async fn create_queue(&self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        queues::create(self, create).await
    }

    async fn queue(&self, label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> {
        let rows = self.select(query(select_queue!(" AND q.label = ?1")).bind(label.as_str())).await?;
        rows.first().map(rows::queue).transpose()
    }

    async fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> {
        check_lookup(queues)?;
        let mut session = self.readers.read().await?;
        let mut found = Vec::new();
        for &queue in queues {
            found.extend(queue_in(&mut session, queue).await?);
        }
        session.done();
        Ok(found)
    }

    async fn queues_after(&self, after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        let statement = query(select_queue!(" AND q.id > ?1 ORDER BY q.id LIMIT ?2"));
        let rows = self.select(statement.bind(after.as_i64()).bind(i64::from(limit))).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let rows = self.select(query(select_queue!(" ORDER BY q.label"))).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        // Every label comes after the empty text.
        let after = after.as_ref().map_or("", QueueLabel::as_str).to_owned();
        let page = query(select_queue!(" AND q.label > ?1 ORDER BY q.label LIMIT ?2"));
        let rows = self.select(page.bind(after).bind(i64::from(limit))).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn assigned_queues(&self, broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError> {
        let statement = query(select_queue!(" AND q.assignee = ?1 ORDER BY q.id"));
        let rows = self.select(statement.bind(broker.as_i64())).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        queues::assign(self, group).await
    }

    async fn delete_queue(&self, queue: QueueId) -> Result<bool, StoreError> {
        queues::delete(self, queue).await
    }

    async fn create_channel(&self, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
        channels::create(self, create).await
    }

    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
        let rows = self.select(query(select_channel!(" AND c.id = ?1")).bind(channel.uuid())).await?;
        rows.first().map(rows::channel).transpose()
    }

    async fn channels(&self, queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError> {
        let statement = match queue {
            Some(queue) => query(select_channel!(" AND c.queue_id = ?1 ORDER BY c.id")).bind(queue.as_i64()),
            None => query(select_channel!(" ORDER BY c.id")),
        };
        self.select(statement).await?.iter().map(rows::channel).collect()
    }

    async fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(channels)?;
        let mut session = self.readers.read().await?;
        let mut known = Vec::new();
        for &channel in channels {
            let row = session.row(query("SELECT 1 FROM channel WHERE id = ?1").bind(channel.uuid())).await?;
            known.extend(row.map(|_| channel));
        }
        session.done();
        Ok(known)
    }

    async fn channel_page(
        &self,
        queue: Option<QueueId>,
        after: Option<ChannelId>,
        limit: u32,
    ) -> Result<Vec<ChannelRecord>, StoreError> {
        // Every id comes after the empty blob.
        let after = after.map_or_else(Vec::new, |after| after.uuid().as_bytes().to_vec());
        let page = match queue {
            Some(queue) => query(select_channel!(" AND c.id > ?1 AND c.queue_id = ?3 ORDER BY c.id LIMIT ?2"))
                .bind(after)
                .bind(i64::from(limit))
                .bind(queue.as_i64()),
            None => query(select_channel!(" AND c.id > ?1 ORDER BY c.id LIMIT ?2")).bind(after).bind(i64::from(limit)),
        };
        self.select(page).await?.iter().map(rows::channel).collect()
    }

    async fn delete_channel(&self, channel: ChannelId) -> Result<bool, StoreError> {
        channels::delete(self, channel).await
    }

    async fn use_channels(&self, channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError> {
        idle::use_channels(self, channels, fresh).await
    }

    async fn delete_idle_channels(
        &self,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        seen: StoreTime,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError> {
        idle::delete_idle_channels(self, broker, queues, idle, seen, limit).await
    }

    async fn lead(&self, manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError> {
        self.transact_lease(async |tx, now| {
            let statement =
                query(LEAD).bind(manager.uuid()).bind(lease_end(now, lease)).bind(now.as_i64()).bind(millis(lease));
            tx.rows(statement).await?;
            let row = tx.row(query("SELECT manager, term FROM leader")).await?;
            let row = row.ok_or_else(|| StoreError::Corrupt("table leader is empty".into()))?;
            Ok(End::Commit(rows::leadership(&row, now)?))
        })
        .await
    }

    async fn resign(&self, manager: ManagerId) -> Result<(), StoreError> {
        self.transact_lease(async |tx, _| {
            let statement = query("UPDATE leader SET manager = NULL, lease_until = 0 WHERE manager = ?1");
            tx.rows(statement.bind(manager.uuid())).await?;
            Ok(End::Commit(()))
        })
        .await
    }
}
