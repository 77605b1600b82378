//! Brokers, look-ups and leadership in PostgreSQL. Changes of queues and channels are in `queues.rs`, `channels.rs` and
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
use uuid::Uuid;

use super::{PostgresStore, Tx, channels, idle, queues};
use crate::store::{
    column::{self, StoreRow as _, millis},
    rows,
};

/// The live queues, with a condition and an order of the caller.
macro_rules! select_queue {
    ($rest:literal) => {
        concat!(
            "
SELECT q.id, q.label, b.id AS assignee, q.assignment, b.host, b.port
FROM queue q LEFT JOIN broker b ON b.id = q.assignee
WHERE NOT q.deleted",
            $rest
        )
    };
}

/// The channels of live queues, with a condition and an order of the caller.
macro_rules! select_channel {
    ($rest:literal) => {
        concat!(
            "
SELECT c.id, c.queue_id, c.topic, c.start_offset, q.label, b.id AS assignee, b.host, b.port
FROM channel c JOIN queue q ON q.id = c.queue_id LEFT JOIN broker b ON b.id = q.assignee
WHERE NOT q.deleted",
            $rest
        )
    };
}

const REGISTER: &str = "
WITH t AS MATERIALIZED (SELECT rmom_now() AS now)
INSERT INTO broker (host, port, incarnation, state, lease_until, lease, generation, renewals)
SELECT $1, $2, $3, $4, now + $5, $5, 0, 0 FROM t
ON CONFLICT (host, port) DO UPDATE SET incarnation = excluded.incarnation,
    state = CASE broker.incarnation WHEN $3 THEN broker.state ELSE excluded.state END,
    renewals = CASE broker.incarnation WHEN $3 THEN broker.renewals ELSE 0 END,
    lease_until = excluded.lease_until, lease = excluded.lease
WHERE broker.incarnation IN ($3, $6)
RETURNING id, generation, lease_until - $5 AS now";

const RENEW: &str = "
UPDATE broker SET lease_until = rmom_now() + $3, lease = $3, renewals = renewals + 1
WHERE id = $1 AND incarnation = $2
RETURNING generation, renewals, state, lease_until - $3 AS now";

/// A renewal that is quicker changes the row, which is then looked at again. A queue that is assigned in this very moment has
/// an assignee that is not there: it counts as assigned to nobody (`select_queue`).
const FORGET: &str = "
WITH t AS MATERIALIZED (SELECT rmom_now() AS now)
DELETE FROM broker b USING t
WHERE b.id = $1 AND b.lease_until <= t.now - $2
  AND NOT EXISTS (SELECT FROM queue q WHERE q.assignee = b.id AND NOT q.deleted)
RETURNING b.id";

const NOT_FORGOTTEN: &str = "
SELECT lease_until <= rmom_now() - $2 AS over,
    (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND NOT q.deleted) AS queues
FROM broker b WHERE b.id = $1";

const BROKERS: &str = "
SELECT b.id, b.host, b.port, b.incarnation, b.state, b.lease_until, b.lease,
    (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND NOT q.deleted) AS queues
FROM broker b ORDER BY b.id";

/// The row is locked before the clock is read, so that a call that waited does not take over with an old time. One statement:
/// no manager that is slow, or was stopped, holds the row between two. What `leader` shows a call that waited is from before,
/// so all that counts is taken from the locked row.
const LEAD: &str = "
WITH k AS MATERIALIZED (
    SELECT id, manager, term, lease_until, lease FROM leader FOR UPDATE
), t AS MATERIALIZED (
    SELECT id, rmom_now() AS now FROM k
), u AS (
    UPDATE leader SET term = CASE WHEN k.manager = $1 THEN k.term ELSE k.term + 1 END,
        manager = $1, lease_until = t.now + $2, lease = $2
    FROM k JOIN t ON t.id = k.id
    WHERE leader.id = k.id AND (k.manager IS NULL OR k.manager = $1 OR k.lease_until <= t.now
                                OR k.lease_until - k.lease > t.now)
    RETURNING leader.manager, leader.term
)
SELECT coalesce(u.manager, k.manager) AS manager, coalesce(u.term, k.term) AS term, t.now
FROM k JOIN t ON t.id = k.id LEFT JOIN u ON true";

/// A live queue.
pub(super) async fn queue_in(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
    let row = tx.row(query(select_queue!(" AND q.id = $1")).bind(queue.as_i64())).await?;
    row.as_ref().map(rows::queue).transpose()
}

/// A channel of a live queue.
pub(super) async fn channel_in(tx: &mut Tx<'_>, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
    let row = tx.row(query(select_channel!(" AND c.id = $1")).bind(channel.uuid())).await?;
    row.as_ref().map(rows::channel).transpose()
}

#[async_trait]
impl Catalog for PostgresStore {
    async fn now(&self) -> Result<StoreTime, StoreError> {
        let rows = self.select(query("SELECT rmom_now() AS now")).await?;
        rows.first()
            .map_or(Err(StoreError::Corrupt("rmom_now() answers nothing".into())), |row| column::time(row, "now"))
    }

    async fn register_broker(&self, register: &Register) -> Result<Registration, RegisterError> {
        let Register { addr, incarnation, replaces, lease } = register;
        let statement = query(REGISTER)
            .bind(addr.host.as_str())
            .bind(i64::from(addr.port))
            .bind(incarnation.uuid())
            .bind(column::UP)
            .bind(millis(*lease))
            .bind(replaces.map(Incarnation::uuid));
        if let Some(row) = self.change_lease(statement).await? {
            return Ok(rows::registration(&row, column::time(&row, "now")?)?);
        }
        let statement = query("SELECT incarnation FROM broker WHERE host = $1 AND port = $2");
        let rows = self.select(statement.bind(addr.host.as_str()).bind(i64::from(addr.port))).await?;
        let row = rows.first();
        let row = row.ok_or_else(|| StoreError::Corrupt("a broker was not entered, and is not there".into()))?;
        Err(RegisterError::Taken { by: Incarnation::new(row.uuid("incarnation")?) })
    }

    async fn renew_broker(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError> {
        let statement = query(RENEW).bind(broker.as_i64()).bind(incarnation.uuid()).bind(millis(lease));
        let row = self.change_lease(statement).await?.ok_or(RenewError::Replaced)?;
        Ok(rows::renewal(&row, column::time(&row, "now")?)?)
    }

    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> {
        let statement = query(
            "
UPDATE broker SET state = $3, lease_until = rmom_now()
WHERE id = $1 AND incarnation = $2
RETURNING id",
        );
        let statement = statement.bind(broker.as_i64()).bind(incarnation.uuid()).bind(column::STOPPED);
        self.change_lease(statement).await?.map(drop).ok_or(RenewError::Replaced)
    }

    async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<bool, StoreError> {
        let statement = query(
            "
UPDATE broker SET state = CASE WHEN state = $3 THEN state ELSE $2 END
WHERE id = $1
RETURNING id",
        );
        let state = if draining { column::DRAINING } else { column::UP };
        let statement = statement.bind(broker.as_i64()).bind(state).bind(column::STOPPED);
        Ok(self.change(statement).await?.is_some())
    }

    async fn forget_broker(&self, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> {
        let of_broker = |sql| query(sql).bind(broker.as_i64()).bind(millis(gone_for));
        if self.change(of_broker(FORGET)).await?.is_some() {
            return Ok(true);
        }
        let rows = self.select(of_broker(NOT_FORGOTTEN)).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        Err(if column::get(row, "over")? {
            ForgetError::HasQueues(column::unsigned(row, "queues")?)
        } else {
            ForgetError::Alive
        })
    }

    async fn brokers(&self) -> Result<Vec<BrokerRecord>, StoreError> {
        self.select(query(BROKERS)).await?.iter().map(rows::broker).collect()
    }

    async fn broker_life(&self, broker: BrokerId) -> Result<Option<BrokerLife>, StoreError> {
        let sql = "SELECT host, port, state, lease_until, lease, rmom_now() AS now FROM broker WHERE id = $1";
        let rows = self.select(query(sql).bind(broker.as_i64())).await?;
        rows.first().map(|row| rows::broker_life(row, column::time(row, "now")?)).transpose()
    }

    async fn create_queue(&self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        queues::create(self, create).await
    }

    async fn queue(&self, label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> {
        let rows = self.select(query(select_queue!(" AND q.label = $1")).bind(label.as_str())).await?;
        rows.first().map(rows::queue).transpose()
    }

    async fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> {
        check_lookup(queues)?;
        let ids: Vec<i64> = queues.iter().map(|queue| queue.as_i64()).collect();
        let rows = self.select(query(select_queue!(" AND q.id = ANY($1) ORDER BY q.id")).bind(ids)).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn queues_after(&self, after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        let statement = query(select_queue!(" AND q.id > $1 ORDER BY q.id LIMIT $2"));
        let rows = self.select(statement.bind(after.as_i64()).bind(i64::from(limit))).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let rows = self.select(query(select_queue!(" ORDER BY q.label"))).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        // Every label comes after the empty text.
        let after = after.as_ref().map_or("", QueueLabel::as_str);
        let page = query(select_queue!(" AND q.label > $1 ORDER BY q.label LIMIT $2"));
        let rows = self.select(page.bind(after).bind(i64::from(limit))).await?;
        rows.iter().map(rows::queue).collect()
    }

    async fn assigned_queues(&self, broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError> {
        let statement = query(select_queue!(" AND q.assignee = $1 ORDER BY q.id"));
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
        let rows = self.select(query(select_channel!(" AND c.id = $1")).bind(channel.uuid())).await?;
        rows.first().map(rows::channel).transpose()
    }

    async fn channels(&self, queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError> {
        let statement = match queue {
            Some(queue) => query(select_channel!(" AND c.queue_id = $1 ORDER BY c.id")).bind(queue.as_i64()),
            None => query(select_channel!(" ORDER BY c.id")),
        };
        self.select(statement).await?.iter().map(rows::channel).collect()
    }

    async fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(channels)?;
        let ids: Vec<Uuid> = channels.iter().map(|channel| channel.uuid()).collect();
        // Channels of deleted queues go with them, in one transaction.
        let rows = self.select(query("SELECT id FROM channel WHERE id = ANY($1) ORDER BY id").bind(ids)).await?;
        rows.iter().map(rows::channel_id).collect()
    }

    async fn channel_page(
        &self,
        queue: Option<QueueId>,
        after: Option<ChannelId>,
        limit: u32,
    ) -> Result<Vec<ChannelRecord>, StoreError> {
        let page = match (queue, after) {
            (Some(queue), Some(after)) => {
                query(select_channel!(" AND c.queue_id = $2 AND c.id > $3 ORDER BY c.id LIMIT $1"))
                    .bind(i64::from(limit))
                    .bind(queue.as_i64())
                    .bind(after.uuid())
            }
            (Some(queue), None) => query(select_channel!(" AND c.queue_id = $2 ORDER BY c.id LIMIT $1"))
                .bind(i64::from(limit))
                .bind(queue.as_i64()),
            (None, Some(after)) => query(select_channel!(" AND c.id > $2 ORDER BY c.id LIMIT $1"))
                .bind(i64::from(limit))
                .bind(after.uuid()),
            (None, None) => query(select_channel!(" ORDER BY c.id LIMIT $1")).bind(i64::from(limit)),
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
        let row = self.change_lease(query(LEAD).bind(manager.uuid()).bind(millis(lease))).await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("table leader is empty".into()))?;
        rows::leadership(&row, column::time(&row, "now")?)
    }

    async fn resign(&self, manager: ManagerId) -> Result<(), StoreError> {
        let statement = query("UPDATE leader SET manager = NULL, lease_until = 0 WHERE manager = $1");
        self.change_lease(statement.bind(manager.uuid())).await.map(drop)
    }
}
