//! Brokers, queues, channels and leadership in SQLite.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use rmom_core::{
    model::{
        BrokerId, ChannelId, Incarnation, ManagerId, QueueId, QueueLabel, Start, StoreTime,
        limits::{MAX_CHANNELS_PER_QUEUE, MAX_QUEUES},
    },
    ports::{
        Assign, Assigned, BrokerLife, BrokerRecord, BrokerState, Catalog, ChannelRecord, CreateChannel,
        CreateChannelError, CreateQueue, CreateQueueError, ForgetError, Leadership, QueueRecord, REQUEST_MEMORY,
        Register, RegisterError, Registration, RenewError, Renewal, StoreError, check_assignments, check_lookup,
    },
};
use sqlx::{query, sqlite::SqliteRow};
use uuid::Uuid;

use super::{SqliteStore, backend::SqliteBackend};
use crate::store::{column, pool::Session};

type Tx<'a> = Session<'a, SqliteBackend>;

macro_rules! select_queue {
    ($rest:literal) => {
        concat!(
            "SELECT q.id, q.label, q.assignee, q.assignment, b.host, b.port \
             FROM queue q LEFT JOIN broker b ON b.id = q.assignee WHERE q.deleted = 0",
            $rest
        )
    };
}

macro_rules! select_channel {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.queue_id, c.topic, c.start_offset, q.label, q.assignee, b.host, b.port \
             FROM channel c JOIN queue q ON q.id = c.queue_id LEFT JOIN broker b ON b.id = q.assignee \
             WHERE q.deleted = 0",
            $rest
        )
    };
}

fn queue_record(row: &SqliteRow) -> Result<QueueRecord, StoreError> {
    Ok(QueueRecord {
        id: column::queue_id(row, "id")?,
        label: column::label(row, "label")?,
        assignee: column::assignee(row)?,
        assignment: column::unsigned(row, "assignment")?,
    })
}

fn channel_record(row: &SqliteRow) -> Result<ChannelRecord, StoreError> {
    Ok(ChannelRecord {
        id: ChannelId::new(column::get(row, "id")?),
        queue: column::queue_id(row, "queue_id")?,
        label: column::label(row, "label")?,
        topic: column::topic(row, "topic")?,
        start: column::offset(row, "start_offset")?,
        assignee: column::assignee(row)?,
    })
}

async fn bump(tx: &mut Tx<'_>, broker: Option<BrokerId>) -> Result<(), StoreError> {
    if let Some(broker) = broker {
        tx.rows(query("UPDATE broker SET generation = generation + 1 WHERE id = ?1").bind(broker.as_i64())).await?;
    }
    Ok(())
}

async fn is_registered(tx: &mut Tx<'_>, broker: BrokerId) -> Result<bool, StoreError> {
    Ok(tx.row(query("SELECT 1 FROM broker WHERE id = ?1").bind(broker.as_i64())).await?.is_some())
}

async fn queue_in(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
    let row = tx.row(query(select_queue!(" AND q.id = ?1")).bind(queue.as_i64())).await?;
    row.as_ref().map(queue_record).transpose()
}

async fn channel_in(tx: &mut Tx<'_>, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
    let row = tx.row(query(select_channel!(" AND c.id = ?1")).bind(channel.uuid())).await?;
    row.as_ref().map(channel_record).transpose()
}

async fn count(
    tx: &mut Tx<'_>,
    statement: sqlx::query::Query<'static, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
) -> Result<u64, StoreError> {
    let row = tx.row(statement).await?;
    row.as_ref().map_or(Ok(0), |row| column::unsigned(row, "n"))
}

fn lease_end(now: StoreTime, lease: Duration) -> i64 {
    now.plus_millis(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)).as_i64()
}

fn millis(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Catalog for SqliteStore {
    async fn now(&self) -> Result<StoreTime, StoreError> {
        let mut session = self.readers.read().await?;
        session.rows(query("SELECT 1 FROM leader")).await?;
        session.done();
        Ok(self.clock.now())
    }

    async fn register_broker(&self, register: &Register) -> Result<Registration, RegisterError> {
        let Register { addr, incarnation, replaces, lease } = register;
        let (mut tx, now) = self.begin_lease().await?;
        let row = tx
            .row(
                query(
                    "INSERT INTO broker (host, port, incarnation, state, lease_until, lease, generation, renewals) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?7, 0, 0) \
                     ON CONFLICT (host, port) DO UPDATE SET incarnation = excluded.incarnation, \
                     state = CASE broker.incarnation WHEN ?3 THEN broker.state ELSE excluded.state END, \
                     renewals = CASE broker.incarnation WHEN ?3 THEN broker.renewals ELSE 0 END, \
                     lease_until = excluded.lease_until, lease = excluded.lease \
                     WHERE broker.incarnation IN (?3, ?6) RETURNING id, generation",
                )
                .bind(addr.host.as_str())
                .bind(i64::from(addr.port))
                .bind(incarnation.uuid())
                .bind(column::UP)
                .bind(lease_end(now, *lease))
                .bind(replaces.map(Incarnation::uuid))
                .bind(millis(*lease)),
            )
            .await?;
        let Some(row) = row else {
            let sql = "SELECT incarnation FROM broker WHERE host = ?1 AND port = ?2";
            let row = tx.row(query(sql).bind(addr.host.as_str()).bind(i64::from(addr.port))).await?;
            let row = row.ok_or_else(|| StoreError::Corrupt("a broker was not entered, and is not there".into()))?;
            return Err(RegisterError::Taken { by: Incarnation::new(column::get(&row, "incarnation")?) });
        };
        tx.commit().await?;
        Ok(Registration {
            broker: column::broker_id(&row, "id")?,
            generation: column::unsigned(&row, "generation")?,
            store_time: now,
        })
    }

    async fn renew_broker(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError> {
        let (mut tx, now) = self.begin_lease().await?;
        let row = tx
            .row(
                query(
                    "UPDATE broker SET lease_until = ?3, lease = ?4, renewals = renewals + 1 \
                     WHERE id = ?1 AND incarnation = ?2 RETURNING generation, renewals, state",
                )
                .bind(broker.as_i64())
                .bind(incarnation.uuid())
                .bind(lease_end(now, lease))
                .bind(millis(lease)),
            )
            .await?;
        tx.commit().await?;
        let row = row.ok_or(RenewError::Replaced)?;
        Ok(Renewal {
            generation: column::unsigned(&row, "generation")?,
            renewals: column::unsigned(&row, "renewals")?,
            draining: column::state(&row, "state")? == BrokerState::Draining,
            store_time: now,
        })
    }

    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> {
        let (mut tx, now) = self.begin_lease().await?;
        let row = tx
            .row(
                query("UPDATE broker SET state = ?3, lease_until = ?4 WHERE id = ?1 AND incarnation = ?2 RETURNING id")
                    .bind(broker.as_i64())
                    .bind(incarnation.uuid())
                    .bind(column::STOPPED)
                    .bind(now.as_i64()),
            )
            .await?;
        tx.commit().await?;
        row.map(drop).ok_or(RenewError::Replaced)
    }

    async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<bool, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let row = tx
            .row(
                query("UPDATE broker SET state = iif(state = ?3, state, ?2) WHERE id = ?1 RETURNING id")
                    .bind(broker.as_i64())
                    .bind(if draining { column::DRAINING } else { column::UP })
                    .bind(column::STOPPED),
            )
            .await?;
        tx.commit().await?;
        Ok(row.is_some())
    }

    async fn forget_broker(&self, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> {
        let (mut tx, now) = self.begin().await?;
        let found = tx
            .row(
                query(
                    "SELECT lease_until, (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND q.deleted = 0) AS queues \
                     FROM broker b WHERE b.id = ?1",
                )
                .bind(broker.as_i64()),
            )
            .await?;
        let Some(row) = found else {
            tx.rollback().await?;
            return Ok(false);
        };
        let refused = match column::unsigned(&row, "queues")? {
            _ if lease_end(column::time(&row, "lease_until")?, gone_for) > now.as_i64() => Some(ForgetError::Alive),
            0 => None,
            queues => Some(ForgetError::HasQueues(queues)),
        };
        if let Some(refused) = refused {
            tx.rollback().await?;
            return Err(refused);
        }
        tx.rows(query("DELETE FROM broker WHERE id = ?1").bind(broker.as_i64())).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn brokers(&self) -> Result<Vec<BrokerRecord>, StoreError> {
        let mut session = self.readers.read().await?;
        let rows = session
            .rows(query(
                "SELECT b.id, b.host, b.port, b.incarnation, b.state, b.lease_until, b.lease, \
                 (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND q.deleted = 0) AS queues \
                 FROM broker b ORDER BY b.id",
            ))
            .await?;
        session.done();
        let record = |row: &SqliteRow| {
            Ok(BrokerRecord {
                id: column::broker_id(row, "id")?,
                addr: column::addr(row)?,
                incarnation: Incarnation::new(column::get(row, "incarnation")?),
                state: column::state(row, "state")?,
                lease_until: column::time(row, "lease_until")?,
                lease: column::duration(row, "lease")?,
                queues: column::unsigned(row, "queues")?,
            })
        };
        rows.iter().map(record).collect()
    }

    async fn broker_life(&self, broker: BrokerId) -> Result<Option<BrokerLife>, StoreError> {
        let mut session = self.readers.read().await?;
        let statement = query("SELECT host, port, state, lease_until, lease FROM broker WHERE id = ?1");
        let row = session.row(statement.bind(broker.as_i64())).await?;
        session.done();
        let life = |row: &SqliteRow| {
            Ok(BrokerLife {
                addr: column::addr(row)?,
                state: column::state(row, "state")?,
                lease_until: column::time(row, "lease_until")?,
                lease: column::duration(row, "lease")?,
                store_time: self.clock.now(),
            })
        };
        row.as_ref().map(life).transpose()
    }

    async fn create_queue(&self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        let (mut tx, _) = self.begin().await?;
        let found = tx
            .row(query("SELECT id, request FROM queue WHERE label = ?1 AND deleted = 0").bind(create.label.as_str()))
            .await?;
        if let Some(found) = found {
            let own = column::get::<_, Uuid>(&found, "request")? == create.request;
            let record = queue_in(&mut tx, column::queue_id(&found, "id")?).await?;
            tx.rollback().await?;
            return record.filter(|_| own).ok_or(CreateQueueError::Exists);
        }
        let sql = "SELECT 1 FROM deleted_request WHERE request = ?1";
        if tx.row(query(sql).bind(create.request)).await?.is_some() {
            tx.rollback().await?;
            return Err(CreateQueueError::DeletedSince);
        }
        let queues = count(&mut tx, query("SELECT count(*) AS n FROM queue WHERE deleted = 0")).await?;
        if queues >= MAX_QUEUES as u64 {
            tx.rollback().await?;
            return Err(CreateQueueError::TooMany);
        }
        if let Some(broker) = create.assignee
            && !is_registered(&mut tx, broker).await?
        {
            tx.rollback().await?;
            return Err(CreateQueueError::NoSuchBroker(broker));
        }
        let row = tx
            .row(
                query("INSERT INTO queue (label, assignee, assignment, request) VALUES (?1, ?2, ?3, ?4) RETURNING id")
                    .bind(create.label.as_str())
                    .bind(create.assignee.map(BrokerId::as_i64))
                    .bind(i64::from(create.assignee.is_some()))
                    .bind(create.request),
            )
            .await?
            .ok_or_else(|| StoreError::Corrupt("a queue was entered and is not there".into()))?;
        let id = column::queue_id(&row, "id")?;
        tx.rows(query("INSERT INTO log (queue_id, epoch) VALUES (?1, 0)").bind(id.as_i64())).await?;
        let state = query("INSERT INTO log_state (queue_id, next_expiry) VALUES (?1, 9223372036854775807)");
        tx.rows(state.bind(id.as_i64())).await?;
        bump(&mut tx, create.assignee).await?;
        let record = queue_in(&mut tx, id).await?;
        tx.commit().await?;
        Ok(record.ok_or_else(|| StoreError::Corrupt("a queue was entered and is not there".into()))?)
    }

    async fn queue(&self, label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> {
        let mut session = self.readers.read().await?;
        let row = session.row(query(select_queue!(" AND q.label = ?1")).bind(label.as_str())).await?;
        session.done();
        row.as_ref().map(queue_record).transpose()
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
        let mut session = self.readers.read().await?;
        let statement = query(select_queue!(" AND q.id > ?1 ORDER BY q.id LIMIT ?2"));
        let rows = session.rows(statement.bind(after.as_i64()).bind(i64::from(limit))).await?;
        session.done();
        rows.iter().map(queue_record).collect()
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let mut session = self.readers.read().await?;
        let rows = session.rows(query(select_queue!(" ORDER BY q.label"))).await?;
        session.done();
        rows.iter().map(queue_record).collect()
    }

    async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        let mut session = self.readers.read().await?;
        // Every label comes after the empty text.
        let after = after.as_ref().map_or("", QueueLabel::as_str);
        let page = query(select_queue!(" AND q.label > ?1 ORDER BY q.label LIMIT ?2"));
        let rows = session.rows(page.bind(after).bind(i64::from(limit))).await?;
        session.done();
        rows.iter().map(queue_record).collect()
    }

    async fn assigned_queues(&self, broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError> {
        let mut session = self.readers.read().await?;
        let rows =
            session.rows(query(select_queue!(" AND q.assignee = ?1 ORDER BY q.id")).bind(broker.as_i64())).await?;
        session.done();
        rows.iter().map(queue_record).collect()
    }

    async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        check_assignments(group)?;
        let (mut tx, _) = self.begin().await?;
        let (mut assigned, mut bumped) = (Vec::new(), BTreeSet::new());
        for assign in group {
            let found = queue_in(&mut tx, assign.queue).await?.filter(|found| found.assignment == assign.expected);
            let Some(found) = found else {
                assigned.push(Assigned::Changed);
                continue;
            };
            if !is_registered(&mut tx, assign.to).await? {
                assigned.push(Assigned::NoSuchBroker);
                continue;
            }
            tx.rows(
                query("UPDATE queue SET assignee = ?2, assignment = assignment + 1 WHERE id = ?1")
                    .bind(assign.queue.as_i64())
                    .bind(assign.to.as_i64()),
            )
            .await?;
            bumped.insert(assign.to);
            bumped.extend(found.assignee.map(|(broker, _)| broker));
            let record = queue_in(&mut tx, assign.queue).await?;
            assigned.push(record.map_or(Assigned::Changed, Assigned::Done));
        }
        if bumped.is_empty() {
            tx.rollback().await?;
            return Ok(assigned);
        }
        for broker in bumped {
            bump(&mut tx, Some(broker)).await?;
        }
        tx.commit().await?;
        Ok(assigned)
    }

    async fn delete_queue(&self, queue: QueueId) -> Result<bool, StoreError> {
        let (mut tx, now) = self.begin().await?;
        let Some(found) = queue_in(&mut tx, queue).await? else {
            tx.rollback().await?;
            return Ok(false);
        };
        tx.rows(query("UPDATE queue SET deleted = 1 WHERE id = ?1").bind(queue.as_i64())).await?;
        let oldest = now.as_i64() - i64::try_from(REQUEST_MEMORY.as_millis()).unwrap_or(i64::MAX);
        tx.rows(query("DELETE FROM deleted_request WHERE deleted_at < ?1").bind(oldest)).await?;
        let sql = "INSERT INTO deleted_request (request, deleted_at) SELECT request, ?2 FROM queue WHERE id = ?1";
        tx.rows(query(sql).bind(queue.as_i64()).bind(now.as_i64())).await?;
        tx.rows(query("UPDATE log SET deleted = 1 WHERE queue_id = ?1").bind(queue.as_i64())).await?;
        tx.rows(query("DELETE FROM channel WHERE queue_id = ?1").bind(queue.as_i64())).await?;
        bump(&mut tx, found.assignee.map(|(broker, _)| broker)).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn create_channel(&self, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
        let (mut tx, now) = self.begin().await?;
        if queue_in(&mut tx, create.queue).await?.is_none() {
            tx.rollback().await?;
            return Err(CreateChannelError::NoSuchQueue);
        }
        if let Some(found) = channel_in(&mut tx, create.id).await? {
            tx.rollback().await?;
            let same = found.queue == create.queue && found.topic == create.topic;
            return if same { Ok(found) } else { Err(CreateChannelError::IdTaken) };
        }
        let channels =
            count(&mut tx, query("SELECT count(*) AS n FROM channel WHERE queue_id = ?1").bind(create.queue.as_i64()))
                .await?;
        if channels >= MAX_CHANNELS_PER_QUEUE as u64 {
            tx.rollback().await?;
            return Err(CreateChannelError::TooMany);
        }
        let (trimmed_through, end) = super::log::extent(&mut tx, create.queue).await?;
        let start = match create.start {
            Start::Earliest => trimmed_through.next(),
            Start::Latest => end.next(),
            Start::At(start) if start > end.next() => {
                tx.rollback().await?;
                return Err(CreateChannelError::BeyondEnd { start, end });
            }
            Start::At(start) => start,
        };
        tx.rows(
            query("INSERT INTO channel (id, queue_id, topic, start_offset, used_at) VALUES (?1, ?2, ?3, ?4, ?5)")
                .bind(create.id.uuid())
                .bind(create.queue.as_i64())
                .bind(create.topic.as_wire())
                .bind(start.as_i64())
                .bind(create.disposable.then_some(now.as_i64())),
        )
        .await?;
        let record = channel_in(&mut tx, create.id).await?;
        tx.commit().await?;
        Ok(record.ok_or_else(|| StoreError::Corrupt("a channel was entered and is not there".into()))?)
    }

    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
        let mut session = self.readers.read().await?;
        let record = channel_in(&mut session, channel).await?;
        session.done();
        Ok(record)
    }

    async fn channels(&self, queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError> {
        let mut session = self.readers.read().await?;
        let statement = match queue {
            Some(queue) => query(select_channel!(" AND c.queue_id = ?1 ORDER BY c.id")).bind(queue.as_i64()),
            None => query(select_channel!(" ORDER BY c.id")),
        };
        let rows = session.rows(statement).await?;
        session.done();
        rows.iter().map(channel_record).collect()
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
        let mut session = self.readers.read().await?;
        // Every id comes after the empty blob.
        let after = after.map_or_else(Vec::new, |after| after.uuid().as_bytes().to_vec());
        let page = match queue {
            Some(queue) => query(select_channel!(" AND c.id > ?1 AND c.queue_id = ?3 ORDER BY c.id LIMIT ?2"))
                .bind(after)
                .bind(i64::from(limit))
                .bind(queue.as_i64()),
            None => query(select_channel!(" AND c.id > ?1 ORDER BY c.id LIMIT ?2")).bind(after).bind(i64::from(limit)),
        };
        let rows = session.rows(page).await?;
        session.done();
        rows.iter().map(channel_record).collect()
    }

    async fn delete_channel(&self, channel: ChannelId) -> Result<bool, StoreError> {
        let (mut tx, _) = self.begin().await?;
        let Some(found) = channel_in(&mut tx, channel).await? else {
            tx.rollback().await?;
            return Ok(false);
        };
        tx.rows(query("DELETE FROM channel WHERE id = ?1").bind(channel.uuid())).await?;
        bump(&mut tx, found.assignee.map(|(broker, _)| broker)).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn use_channels(&self, channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(channels)?;
        // Most were entered lately, and a reader does not wait for the one writer.
        let before = |now: StoreTime| now.as_i64().saturating_sub(millis(fresh));
        let (mut known, mut stale) = (Vec::new(), Vec::new());
        let mut session = self.readers.read().await?;
        for &channel in channels {
            let found = session.row(query("SELECT used_at FROM channel WHERE id = ?1").bind(channel.uuid())).await?;
            let Some(row) = found else { continue };
            match column::get::<_, Option<i64>>(&row, "used_at")? {
                Some(used_at) if used_at <= before(self.clock.now()) => stale.push(channel),
                _ => known.push(channel),
            }
        }
        session.done();
        if stale.is_empty() {
            return Ok(known);
        }
        let (mut tx, now) = self.begin().await?;
        for channel in stale {
            let sql = "UPDATE channel SET used_at = iif(used_at <= ?2, ?3, used_at) WHERE id = ?1 RETURNING 1";
            let row = tx.row(query(sql).bind(channel.uuid()).bind(before(now)).bind(now.as_i64())).await?;
            known.extend(row.map(|_| channel));
        }
        tx.commit().await?;
        known.sort_unstable();
        Ok(known)
    }

    async fn delete_idle_channels(
        &self,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(queues)?;
        let (mut tx, now) = self.begin().await?;
        let before = now.as_i64().saturating_sub(millis(idle));
        let mut gone = Vec::new();
        for queue in queues {
            let left = i64::from(limit) - i64::try_from(gone.len()).unwrap_or(i64::MAX);
            if left <= 0 {
                break;
            }
            let statement = query(
                "DELETE FROM channel WHERE id IN (SELECT id FROM channel WHERE queue_id = ?1 AND used_at <= ?2 \
                 AND EXISTS (SELECT 1 FROM queue WHERE id = ?1 AND assignee = ?3 AND deleted = 0) \
                 ORDER BY used_at, id LIMIT ?4) RETURNING id",
            );
            let statement = statement.bind(queue.as_i64()).bind(before).bind(broker.as_i64()).bind(left);
            for row in &tx.rows(statement).await? {
                gone.push(ChannelId::new(column::get(row, "id")?));
            }
        }
        if gone.is_empty() {
            tx.rollback().await?;
            return Ok(gone);
        }
        bump(&mut tx, Some(broker)).await?;
        tx.commit().await?;
        gone.sort_unstable();
        Ok(gone)
    }

    async fn lead(&self, manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError> {
        let (mut tx, now) = self.begin_lease().await?;
        tx.rows(
            query(
                "UPDATE leader SET term = iif(manager = ?1, term, term + 1), manager = ?1, lease_until = ?2, lease = ?4 \
                 WHERE manager IS NULL OR manager = ?1 OR lease_until <= ?3 OR lease_until - lease > ?3",
            )
            .bind(manager.uuid())
            .bind(lease_end(now, lease))
            .bind(now.as_i64())
            .bind(millis(lease)),
        )
        .await?;
        let row = tx.row(query("SELECT manager, term FROM leader")).await?;
        tx.commit().await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("table leader is empty".into()))?;
        Ok(Leadership {
            leader: ManagerId::new(column::get(&row, "manager")?),
            term: column::unsigned(&row, "term")?,
            store_time: now,
        })
    }

    async fn resign(&self, manager: ManagerId) -> Result<(), StoreError> {
        let (mut tx, _) = self.begin_lease().await?;
        tx.rows(query("UPDATE leader SET manager = NULL, lease_until = 0 WHERE manager = ?1").bind(manager.uuid()))
            .await?;
        tx.commit().await
    }
}
