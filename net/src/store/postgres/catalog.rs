//! Brokers, queues, channels and leadership in PostgreSQL.
//!
//! Rows are locked in one order everywhere: queue, log, log_state, channel, brokers by id. The brokers come last, because
//! a broker's row is also what its lease renewals wait for, and are locked by the message that commits ([`bump_and_commit`]):
//! no client that is slow, or was stopped, holds a lease up. Nothing shares such a row: PostgreSQL lets new sharers join
//! those that are there, past a renewal that waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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
use sqlx::{
    Postgres,
    postgres::{PgArguments, PgRow},
    query,
    query::Query,
};
use uuid::Uuid;

use super::{PostgresStore, backend::PostgresBackend, idle};
use crate::store::{column, pool::Session};

/// How often one call tries to create a queue while rivals create and delete it; between two tries one of each has to
/// succeed.
const CREATE_ATTEMPTS: u32 = 64;

type Tx<'a> = Session<'a, PostgresBackend>;

macro_rules! select_queue {
    ($rest:literal) => {
        concat!(
            "SELECT q.id, q.label, b.id AS assignee, q.assignment, b.host, b.port \
             FROM queue q LEFT JOIN broker b ON b.id = q.assignee WHERE NOT q.deleted",
            $rest
        )
    };
}

macro_rules! select_channel {
    ($rest:literal) => {
        concat!(
            "SELECT c.id, c.queue_id, c.topic, c.start_offset, q.label, b.id AS assignee, b.host, b.port \
             FROM channel c JOIN queue q ON q.id = c.queue_id LEFT JOIN broker b ON b.id = q.assignee \
             WHERE NOT q.deleted",
            $rest
        )
    };
}

fn queue_record(row: &PgRow) -> Result<QueueRecord, StoreError> {
    Ok(QueueRecord {
        id: column::queue_id(row, "id")?,
        label: column::label(row, "label")?,
        assignee: column::assignee(row)?,
        assignment: column::unsigned(row, "assignment")?,
    })
}

fn channel_record(row: &PgRow) -> Result<ChannelRecord, StoreError> {
    Ok(ChannelRecord {
        id: ChannelId::new(column::get(row, "id")?),
        queue: column::queue_id(row, "queue_id")?,
        label: column::label(row, "label")?,
        topic: column::topic(row, "topic")?,
        start: column::offset(row, "start_offset")?,
        assignee: column::assignee(row)?,
    })
}

/// A length of time as a parameter.
pub(super) fn millis(lease: Duration) -> i64 {
    i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)
}

/// Bumps the generations of some brokers, in order of id, and commits, all in one message to the server.
pub(super) async fn bump_and_commit(tx: Tx<'_>, brokers: impl IntoIterator<Item = i64>) -> Result<(), StoreError> {
    let brokers: Vec<String> = brokers.into_iter().map(|broker| broker.to_string()).collect();
    if brokers.is_empty() {
        return tx.commit().await;
    }
    let brokers = brokers.join(", ");
    tx.commit_with(&format!(
        "WITH l AS MATERIALIZED (SELECT id FROM broker WHERE id IN ({brokers}) ORDER BY id FOR NO KEY UPDATE) \
         UPDATE broker b SET generation = generation + 1 FROM l WHERE b.id = l.id"
    ))
    .await
}

async fn is_registered(tx: &mut Tx<'_>, broker: BrokerId) -> Result<bool, StoreError> {
    Ok(tx.row(query("SELECT 1 FROM broker WHERE id = $1").bind(broker.as_i64())).await?.is_some())
}

async fn queue_in(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<QueueRecord>, StoreError> {
    let row = tx.row(query(select_queue!(" AND q.id = $1")).bind(queue.as_i64())).await?;
    row.as_ref().map(queue_record).transpose()
}

/// Keeps others from changing or deleting a live queue until the transaction ends; its assignee and assignment.
async fn lock_queue(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<(Option<i64>, u64)>, StoreError> {
    let row = tx
        .row(
            query("SELECT assignee, assignment FROM queue WHERE id = $1 AND NOT deleted FOR NO KEY UPDATE")
                .bind(queue.as_i64()),
        )
        .await?;
    row.map(|row| Ok((column::get(&row, "assignee")?, column::unsigned(&row, "assignment")?))).transpose()
}

async fn channel_in(tx: &mut Tx<'_>, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
    let row = tx.row(query(select_channel!(" AND c.id = $1")).bind(channel.uuid())).await?;
    row.as_ref().map(channel_record).transpose()
}

async fn count(tx: &mut Tx<'_>, statement: Query<'static, Postgres, PgArguments>) -> Result<u64, StoreError> {
    let row = tx.row(statement).await?;
    row.as_ref().map_or(Ok(0), |row| column::unsigned(row, "n"))
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
        let row = self
            .change_lease(
                query(
                    "WITH t AS MATERIALIZED (SELECT rmom_now() AS now) \
                     INSERT INTO broker (host, port, incarnation, state, lease_until, lease, generation, renewals) \
                     SELECT $1, $2, $3, $4, now + $5, $5, 0, 0 FROM t \
                     ON CONFLICT (host, port) DO UPDATE SET incarnation = excluded.incarnation, \
                     state = CASE broker.incarnation WHEN $3 THEN broker.state ELSE excluded.state END, \
                     renewals = CASE broker.incarnation WHEN $3 THEN broker.renewals ELSE 0 END, \
                     lease_until = excluded.lease_until, lease = excluded.lease \
                     WHERE broker.incarnation IN ($3, $6) RETURNING id, generation, lease_until - $5 AS now",
                )
                .bind(addr.host.as_str())
                .bind(i64::from(addr.port))
                .bind(incarnation.uuid())
                .bind(column::UP)
                .bind(millis(*lease))
                .bind(replaces.map(Incarnation::uuid)),
            )
            .await?;
        let Some(row) = row else {
            let sql = "SELECT incarnation FROM broker WHERE host = $1 AND port = $2";
            let rows = self.select(query(sql).bind(addr.host.as_str()).bind(i64::from(addr.port))).await?;
            let row =
                rows.first().ok_or_else(|| StoreError::Corrupt("a broker was not entered, and is not there".into()))?;
            return Err(RegisterError::Taken { by: Incarnation::new(column::get(row, "incarnation")?) });
        };
        Ok(Registration {
            broker: column::broker_id(&row, "id")?,
            generation: column::unsigned(&row, "generation")?,
            store_time: column::time(&row, "now")?,
        })
    }

    async fn renew_broker(
        &self,
        broker: BrokerId,
        incarnation: Incarnation,
        lease: Duration,
    ) -> Result<Renewal, RenewError> {
        let row = self
            .change_lease(
                query(
                    "UPDATE broker SET lease_until = rmom_now() + $3, lease = $3, renewals = renewals + 1 \
                     WHERE id = $1 AND incarnation = $2 RETURNING generation, renewals, state, lease_until - $3 AS now",
                )
                .bind(broker.as_i64())
                .bind(incarnation.uuid())
                .bind(millis(lease)),
            )
            .await?
            .ok_or(RenewError::Replaced)?;
        Ok(Renewal {
            generation: column::unsigned(&row, "generation")?,
            renewals: column::unsigned(&row, "renewals")?,
            draining: column::state(&row, "state")? == BrokerState::Draining,
            store_time: column::time(&row, "now")?,
        })
    }

    async fn retire_broker(&self, broker: BrokerId, incarnation: Incarnation) -> Result<(), RenewError> {
        let row = self
            .change_lease(
                query(
                    "UPDATE broker SET state = $3, lease_until = rmom_now() WHERE id = $1 AND incarnation = $2 \
                     RETURNING id",
                )
                .bind(broker.as_i64())
                .bind(incarnation.uuid())
                .bind(column::STOPPED),
            )
            .await?;
        row.map(drop).ok_or(RenewError::Replaced)
    }

    async fn set_draining(&self, broker: BrokerId, draining: bool) -> Result<bool, StoreError> {
        let row = self
            .change(
                query(
                    "UPDATE broker SET state = CASE WHEN state = $3 THEN state ELSE $2 END WHERE id = $1 RETURNING id",
                )
                .bind(broker.as_i64())
                .bind(if draining { column::DRAINING } else { column::UP })
                .bind(column::STOPPED),
            )
            .await?;
        Ok(row.is_some())
    }

    async fn forget_broker(&self, broker: BrokerId, gone_for: Duration) -> Result<bool, ForgetError> {
        // A renewal that is quicker changes the row, which is then looked at again. A queue that is assigned in this
        // very moment has an assignee that is not there: it counts as assigned to nobody (`select_queue`).
        let gone = self
            .change(
                query(
                    "WITH t AS MATERIALIZED (SELECT rmom_now() AS now) \
                     DELETE FROM broker b USING t WHERE b.id = $1 AND b.lease_until <= t.now - $2 \
                     AND NOT EXISTS (SELECT FROM queue q WHERE q.assignee = b.id AND NOT q.deleted) RETURNING b.id",
                )
                .bind(broker.as_i64())
                .bind(millis(gone_for)),
            )
            .await?;
        if gone.is_some() {
            return Ok(true);
        }
        let rows = self
            .select(
                query(
                    "SELECT lease_until <= rmom_now() - $2 AS over, \
                     (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND NOT q.deleted) AS queues \
                     FROM broker b WHERE b.id = $1",
                )
                .bind(broker.as_i64())
                .bind(millis(gone_for)),
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(false) };
        Err(if column::get(row, "over")? {
            ForgetError::HasQueues(column::unsigned(row, "queues")?)
        } else {
            ForgetError::Alive
        })
    }

    async fn brokers(&self) -> Result<Vec<BrokerRecord>, StoreError> {
        let rows = self
            .select(query(
                "SELECT b.id, b.host, b.port, b.incarnation, b.state, b.lease_until, b.lease, \
                 (SELECT count(*) FROM queue q WHERE q.assignee = b.id AND NOT q.deleted) AS queues \
                 FROM broker b ORDER BY b.id",
            ))
            .await?;
        let record = |row: &PgRow| {
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
        let statement = "SELECT host, port, state, lease_until, lease, rmom_now() AS now FROM broker WHERE id = $1";
        let rows = self.select(query(statement).bind(broker.as_i64())).await?;
        let life = |row: &PgRow| {
            Ok(BrokerLife {
                addr: column::addr(row)?,
                state: column::state(row, "state")?,
                lease_until: column::time(row, "lease_until")?,
                lease: column::duration(row, "lease")?,
                store_time: column::time(row, "now")?,
            })
        };
        rows.first().map(life).transpose()
    }

    async fn create_queue(&self, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
        let mut tx = self.begin().await?;
        let queues = count(&mut tx, query("SELECT count(*) AS n FROM queue WHERE NOT deleted")).await?;
        let mut attempt = 0;
        let created = loop {
            // Waits for another transaction that is creating or deleting a queue of this label. Two that create others
            // may together pass the limit by one; it guards memory, not arithmetic.
            let created = if queues < MAX_QUEUES as u64 {
                tx.row(
                    query(
                        "INSERT INTO queue (label, assignee, assignment, request) VALUES ($1, $2, $3, $4) \
                         ON CONFLICT (label) WHERE NOT deleted DO NOTHING RETURNING id",
                    )
                    .bind(create.label.as_str())
                    .bind(create.assignee.map(BrokerId::as_i64))
                    .bind(i64::from(create.assignee.is_some()))
                    .bind(create.request),
                )
                .await?
            } else {
                None
            };
            if let Some(created) = created {
                break created;
            }
            let found = tx
                .row(
                    query("SELECT id, request FROM queue WHERE label = $1 AND NOT deleted").bind(create.label.as_str()),
                )
                .await?;
            if let Some(found) = found {
                let own = column::get::<_, Uuid>(&found, "request")? == create.request;
                let record = queue_in(&mut tx, column::queue_id(&found, "id")?).await?;
                tx.rollback().await?;
                return record.filter(|_| own).ok_or(CreateQueueError::Exists);
            }
            if queues >= MAX_QUEUES as u64 {
                tx.rollback().await?;
                return Err(CreateQueueError::TooMany);
            }
            // The queue that was in the way is gone since: each statement sees what was committed before it.
            attempt += 1;
            if attempt == CREATE_ATTEMPTS {
                tx.rollback().await?;
                return Err(StoreError::Unavailable("queues of this label come and go".into()).into());
            }
        };
        // In a statement of its own: the queue whose deletion the insertion waited for may have been this request's.
        let sql = "SELECT 1 FROM deleted_request WHERE request = $1";
        if tx.row(query(sql).bind(create.request)).await?.is_some() {
            tx.rollback().await?;
            return Err(CreateQueueError::DeletedSince);
        }
        let id = column::queue_id(&created, "id")?;
        tx.rows(
            query(
                "WITH l AS (INSERT INTO log (queue_id, epoch) VALUES ($1, 0)) \
                 INSERT INTO log_state (queue_id) VALUES ($1)",
            )
            .bind(id.as_i64()),
        )
        .await?;
        if let Some(broker) = create.assignee
            && !is_registered(&mut tx, broker).await?
        {
            tx.rollback().await?;
            return Err(CreateQueueError::NoSuchBroker(broker));
        }
        let record = queue_in(&mut tx, id).await?;
        bump_and_commit(tx, create.assignee.map(BrokerId::as_i64)).await?;
        Ok(record.ok_or_else(|| StoreError::Corrupt("a queue was entered and is not there".into()))?)
    }

    async fn queue(&self, label: &QueueLabel) -> Result<Option<QueueRecord>, StoreError> {
        let rows = self.select(query(select_queue!(" AND q.label = $1")).bind(label.as_str())).await?;
        rows.first().map(queue_record).transpose()
    }

    async fn queues_by_ids(&self, queues: &[QueueId]) -> Result<Vec<QueueRecord>, StoreError> {
        check_lookup(queues)?;
        let ids: Vec<i64> = queues.iter().map(|queue| queue.as_i64()).collect();
        let rows = self.select(query(select_queue!(" AND q.id = ANY($1) ORDER BY q.id")).bind(ids)).await?;
        rows.iter().map(queue_record).collect()
    }

    async fn queues_after(&self, after: QueueId, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        let statement = query(select_queue!(" AND q.id > $1 ORDER BY q.id LIMIT $2"));
        let rows = self.select(statement.bind(after.as_i64()).bind(i64::from(limit))).await?;
        rows.iter().map(queue_record).collect()
    }

    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        let rows = self.select(query(select_queue!(" ORDER BY q.label"))).await?;
        rows.iter().map(queue_record).collect()
    }

    async fn queue_page(&self, after: Option<QueueLabel>, limit: u32) -> Result<Vec<QueueRecord>, StoreError> {
        // Every label comes after the empty text.
        let after = after.as_ref().map_or("", QueueLabel::as_str);
        let page = query(select_queue!(" AND q.label > $1 ORDER BY q.label LIMIT $2"));
        let rows = self.select(page.bind(after).bind(i64::from(limit))).await?;
        rows.iter().map(queue_record).collect()
    }

    async fn assigned_queues(&self, broker: BrokerId) -> Result<Vec<QueueRecord>, StoreError> {
        let rows =
            self.select(query(select_queue!(" AND q.assignee = $1 ORDER BY q.id")).bind(broker.as_i64())).await?;
        rows.iter().map(queue_record).collect()
    }

    async fn assign_queues(&self, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
        check_assignments(group)?;
        let mut tx = self.begin().await?;
        let ids: Vec<i64> = group.iter().map(|assign| assign.queue.as_i64()).collect();
        // A row that somebody else holds, perhaps for long, is left out: the other queues do not wait for it.
        let sql = "SELECT id, label, assignee, assignment FROM queue WHERE id = ANY($1) AND NOT deleted \
                   ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";
        let rows = tx.rows(query(sql).bind(ids)).await?;
        let queues = rows.iter().map(|row| Ok((column::queue_id(row, "id")?, row)));
        let queues = queues.collect::<Result<BTreeMap<QueueId, &PgRow>, StoreError>>()?;
        let targets: BTreeSet<i64> = group.iter().map(|assign| assign.to.as_i64()).collect();
        let sql = "SELECT id, host, port FROM broker WHERE id = ANY($1)";
        let rows = tx.rows(query(sql).bind(targets.into_iter().collect::<Vec<_>>())).await?;
        let brokers = rows.iter().map(|row| Ok((column::broker_id(row, "id")?, column::addr(row)?)));
        let brokers = brokers.collect::<Result<BTreeMap<_, _>, StoreError>>()?;

        let (mut assigned, mut bumped) = (Vec::new(), BTreeSet::new());
        let (mut moved, mut moved_to) = (Vec::new(), Vec::new());
        for assign in group {
            let Some(row) = queues.get(&assign.queue) else {
                assigned.push(Assigned::Changed);
                continue;
            };
            if column::unsigned(*row, "assignment")? != assign.expected {
                assigned.push(Assigned::Changed);
                continue;
            }
            let Some(addr) = brokers.get(&assign.to) else {
                assigned.push(Assigned::NoSuchBroker);
                continue;
            };
            moved.push(assign.queue.as_i64());
            moved_to.push(assign.to.as_i64());
            bumped.insert(assign.to.as_i64());
            bumped.extend(column::get::<_, Option<i64>>(*row, "assignee")?);
            assigned.push(Assigned::Done(QueueRecord {
                id: assign.queue,
                label: column::label(*row, "label")?,
                assignee: Some((assign.to, addr.clone())),
                assignment: assign.expected + 1,
            }));
        }
        if moved.is_empty() {
            tx.rollback().await?;
            return Ok(assigned);
        }
        tx.rows(
            query(
                "UPDATE queue SET assignee = u.assignee, assignment = assignment + 1 \
                 FROM unnest($1::bigint[], $2::bigint[]) AS u (id, assignee) WHERE queue.id = u.id",
            )
            .bind(moved)
            .bind(moved_to),
        )
        .await?;
        bump_and_commit(tx, bumped).await?;
        Ok(assigned)
    }

    async fn delete_queue(&self, queue: QueueId) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let Some((assignee, _)) = lock_queue(&mut tx, queue).await? else {
            tx.rollback().await?;
            return Ok(false);
        };
        tx.rows(
            query(
                "WITH t AS MATERIALIZED (SELECT rmom_now() AS now), \
                 o AS (DELETE FROM deleted_request USING t WHERE deleted_at < now - $2), \
                 d AS (UPDATE queue SET deleted = true WHERE id = $1 RETURNING request) \
                 INSERT INTO deleted_request (request, deleted_at) SELECT request, now FROM d, t",
            )
            .bind(queue.as_i64())
            .bind(millis(REQUEST_MEMORY)),
        )
        .await?;
        // Waits for appends under way; none lands afterwards.
        tx.rows(query("UPDATE log SET deleted = true WHERE queue_id = $1").bind(queue.as_i64())).await?;
        tx.rows(query("DELETE FROM channel WHERE queue_id = $1").bind(queue.as_i64())).await?;
        bump_and_commit(tx, assignee).await?;
        Ok(true)
    }

    async fn create_channel(&self, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
        let mut tx = self.begin().await?;
        if lock_queue(&mut tx, create.queue).await?.is_none() {
            tx.rollback().await?;
            return Err(CreateChannelError::NoSuchQueue);
        }
        if let Some(found) = channel_in(&mut tx, create.id).await? {
            tx.rollback().await?;
            return same_channel(found, create);
        }
        let channels =
            count(&mut tx, query("SELECT count(*) AS n FROM channel WHERE queue_id = $1").bind(create.queue.as_i64()))
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
        // Waits for another transaction that is entering the same id, for another queue.
        tx.rows(
            query(
                "INSERT INTO channel (id, queue_id, topic, start_offset, used_at) \
                 VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN rmom_now() END) ON CONFLICT (id) DO NOTHING",
            )
            .bind(create.id.uuid())
            .bind(create.queue.as_i64())
            .bind(create.topic.as_wire())
            .bind(start.as_i64())
            .bind(create.disposable),
        )
        .await?;
        let record = channel_in(&mut tx, create.id).await?;
        tx.commit().await?;
        record.map_or(Err(CreateChannelError::IdTaken), |found| same_channel(found, create))
    }

    async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelRecord>, StoreError> {
        let rows = self.select(query(select_channel!(" AND c.id = $1")).bind(channel.uuid())).await?;
        rows.first().map(channel_record).transpose()
    }

    async fn channels(&self, queue: Option<QueueId>) -> Result<Vec<ChannelRecord>, StoreError> {
        let statement = match queue {
            Some(queue) => query(select_channel!(" AND c.queue_id = $1 ORDER BY c.id")).bind(queue.as_i64()),
            None => query(select_channel!(" ORDER BY c.id")),
        };
        let rows = self.select(statement).await?;
        rows.iter().map(channel_record).collect()
    }

    async fn known_channels(&self, channels: &[ChannelId]) -> Result<Vec<ChannelId>, StoreError> {
        check_lookup(channels)?;
        let ids: Vec<Uuid> = channels.iter().map(|channel| channel.uuid()).collect();
        // Channels of deleted queues go with them, in one transaction.
        let rows = self.select(query("SELECT id FROM channel WHERE id = ANY($1) ORDER BY id").bind(ids)).await?;
        rows.iter().map(|row| Ok(ChannelId::new(column::get(row, "id")?))).collect()
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
        self.select(page).await?.iter().map(channel_record).collect()
    }

    async fn delete_channel(&self, channel: ChannelId) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let row = tx
            .row(
                query(
                    "SELECT q.assignee, q.deleted FROM channel c JOIN queue q ON q.id = c.queue_id WHERE c.id = $1 \
                     FOR NO KEY UPDATE OF q",
                )
                .bind(channel.uuid()),
            )
            .await?;
        let gone =
            tx.row(query("DELETE FROM channel WHERE id = $1 RETURNING id").bind(channel.uuid())).await?.is_some();
        let (Some(row), true) = (row, gone) else {
            tx.rollback().await?;
            return Ok(false);
        };
        let assignee: Option<i64> = column::get(&row, "assignee")?;
        bump_and_commit(tx, assignee).await?;
        Ok(true)
    }

    async fn use_channels(&self, channels: &[ChannelId], fresh: Duration) -> Result<Vec<ChannelId>, StoreError> {
        idle::use_channels(self, channels, fresh).await
    }

    async fn delete_idle_channels(
        &self,
        broker: BrokerId,
        queues: &[QueueId],
        idle: Duration,
        limit: u32,
    ) -> Result<Vec<ChannelId>, StoreError> {
        idle::delete_idle_channels(self, broker, queues, idle, limit).await
    }

    async fn lead(&self, manager: ManagerId, lease: Duration) -> Result<Leadership, StoreError> {
        // The row is locked before the clock is read, so that a call that waited does not take over with an old time. One
        // statement: no manager that is slow, or was stopped, holds the row between two. What `leader` shows a call that
        // waited is from before, so all that counts is taken from the locked row.
        let row = self
            .change_lease(
                query(
                    "WITH k AS MATERIALIZED (SELECT id, manager, term, lease_until, lease FROM leader FOR UPDATE), \
                     t AS MATERIALIZED (SELECT id, rmom_now() AS now FROM k), u AS ( \
                     UPDATE leader SET term = CASE WHEN k.manager = $1 THEN k.term ELSE k.term + 1 END, \
                     manager = $1, lease_until = t.now + $2, lease = $2 FROM k JOIN t ON t.id = k.id \
                     WHERE leader.id = k.id AND (k.manager IS NULL OR k.manager = $1 OR k.lease_until <= t.now \
                     OR k.lease_until - k.lease > t.now) RETURNING leader.manager, leader.term) \
                     SELECT coalesce(u.manager, k.manager) AS manager, coalesce(u.term, k.term) AS term, t.now \
                     FROM k JOIN t ON t.id = k.id LEFT JOIN u ON true",
                )
                .bind(manager.uuid())
                .bind(millis(lease)),
            )
            .await?
            .ok_or_else(|| StoreError::Corrupt("table leader is empty".into()))?;
        Ok(Leadership {
            leader: ManagerId::new(column::get(&row, "manager")?),
            term: column::unsigned(&row, "term")?,
            store_time: column::time(&row, "now")?,
        })
    }

    async fn resign(&self, manager: ManagerId) -> Result<(), StoreError> {
        let statement = query("UPDATE leader SET manager = NULL, lease_until = 0 WHERE manager = $1");
        self.change_lease(statement.bind(manager.uuid())).await.map(drop)
    }
}

/// A channel of the same id, queue and topic counts as made by the same request.
fn same_channel(found: ChannelRecord, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
    let same = found.queue == create.queue && found.topic == create.topic;
    if same { Ok(found) } else { Err(CreateChannelError::IdTaken) }
}
