//! Changes of queues.
//!
//! Rows are locked in one order everywhere: queue, log, log_state, channel, brokers by id. The brokers come last, because
//! a broker's row is also what its lease renewals wait for, and are locked by the message that commits ([`commit_and_bump`]):
//! no client that is slow, or was stopped, holds a lease up. Nothing shares such a row: PostgreSQL lets new sharers join
//! those that are there, past a renewal that waits.

use std::collections::{BTreeMap, BTreeSet};

use rmom_core::{
    model::{BrokerId, QueueId, limits::MAX_QUEUES},
    ports::{
        Assign, Assigned, CreateQueue, CreateQueueError, QueueRecord, REQUEST_MEMORY, StoreError, check_assignments,
    },
};
use sqlx::{postgres::PgRow, query};

use super::{PostgresStore, Tx, catalog::queue_in};
use crate::store::{
    column::{self, StoreRow as _, millis},
    pool::End,
    rows,
};

/// How often one call tries to create a queue while rivals create and delete it; between two tries one of each has to
/// succeed.
const CREATE_ATTEMPTS: u32 = 64;

/// Waits for another transaction that is creating or deleting a queue of this label.
const INSERT_QUEUE: &str = "
INSERT INTO queue (label, assignee, assignment, request) VALUES ($1, $2, $3, $4)
ON CONFLICT (label) WHERE NOT deleted DO NOTHING RETURNING id";

const INSERT_LOG: &str = "
WITH l AS (INSERT INTO log (queue_id, epoch) VALUES ($1, 0))
INSERT INTO log_state (queue_id) VALUES ($1)";

/// A row that somebody else holds, perhaps for long, is left out: the other queues do not wait for it.
const LOCK_QUEUES: &str = "
SELECT id, label, assignee, assignment FROM queue WHERE id = ANY($1) AND NOT deleted
ORDER BY id FOR NO KEY UPDATE SKIP LOCKED";

const ASSIGN: &str = "
UPDATE queue SET assignee = u.assignee, assignment = assignment + 1
FROM unnest($1::bigint[], $2::bigint[]) AS u (id, assignee) WHERE queue.id = u.id";

const ENTOMB: &str = "
WITH t AS MATERIALIZED (SELECT rmom_now() AS now),
o AS (DELETE FROM deleted_request USING t WHERE deleted_at < now - $2),
d AS (UPDATE queue SET deleted = true WHERE id = $1 RETURNING request)
INSERT INTO deleted_request (request, deleted_at) SELECT request, now FROM d, t";

/// Commits, and with it bumps the generations of some brokers, in order of id.
pub(super) fn commit_and_bump<T>(value: T, brokers: impl IntoIterator<Item = i64>) -> End<T> {
    let brokers: Vec<String> = brokers.into_iter().map(|broker| broker.to_string()).collect();
    if brokers.is_empty() {
        return End::Commit(value);
    }
    let brokers = brokers.join(", ");
    let statement = format!(
        "
WITH l AS MATERIALIZED (SELECT id FROM broker WHERE id IN ({brokers}) ORDER BY id FOR NO KEY UPDATE)
UPDATE broker b SET generation = generation + 1 FROM l WHERE b.id = l.id"
    );
    End::CommitWith(value, statement)
}

/// Keeps others from changing or deleting a live queue until the transaction ends; its assignee.
pub(super) async fn lock_queue(tx: &mut Tx<'_>, queue: QueueId) -> Result<Option<Option<i64>>, StoreError> {
    let sql = "SELECT assignee FROM queue WHERE id = $1 AND NOT deleted FOR NO KEY UPDATE";
    let row = tx.row(query(sql).bind(queue.as_i64())).await?;
    row.map(|row| row.optional_int("assignee")).transpose()
}

async fn is_registered(tx: &mut Tx<'_>, broker: BrokerId) -> Result<bool, StoreError> {
    Ok(tx.row(query("SELECT 1 FROM broker WHERE id = $1").bind(broker.as_i64())).await?.is_some())
}

/// Enters a queue, and returns its id; or finds the one that this request entered before.
async fn insert(tx: &mut Tx<'_>, create: &CreateQueue) -> Result<Result<QueueId, QueueRecord>, CreateQueueError> {
    let queues = tx.row(query("SELECT count(*) AS n FROM queue WHERE NOT deleted")).await?;
    // Two that create others may together pass the limit by one; it guards memory, not arithmetic.
    let has_room = rows::count(queues.as_ref())? < MAX_QUEUES as u64;
    for _ in 0..CREATE_ATTEMPTS {
        if has_room {
            let statement = query(INSERT_QUEUE)
                .bind(create.label.as_str())
                .bind(create.assignee.map(BrokerId::as_i64))
                .bind(i64::from(create.assignee.is_some()))
                .bind(create.request);
            if let Some(created) = tx.row(statement).await? {
                return Ok(Ok(column::queue_id(&created, "id")?));
            }
        }
        let sql = "SELECT id, request FROM queue WHERE label = $1 AND NOT deleted";
        if let Some(found) = tx.row(query(sql).bind(create.label.as_str())).await? {
            let own = found.uuid("request")? == create.request;
            let record = queue_in(tx, column::queue_id(&found, "id")?).await?;
            return record.filter(|_| own).map(Err).ok_or(CreateQueueError::Exists);
        }
        if !has_room {
            return Err(CreateQueueError::TooMany);
        }
        // The queue that was in the way is gone since: each statement sees what was committed before it.
    }
    Err(StoreError::Unavailable("queues of this label come and go".into()).into())
}

/// [`Catalog::create_queue`](rmom_core::ports::Catalog::create_queue).
pub(super) async fn create(store: &PostgresStore, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
    store
        .transact(async |tx| {
            let id = match insert(tx, create).await? {
                Ok(id) => id,
                Err(own) => return Ok(End::Confirm(own)),
            };
            // In a statement of its own: the queue whose deletion the insertion waited for may have been this request's.
            let sql = "SELECT 1 FROM deleted_request WHERE request = $1";
            if tx.row(query(sql).bind(create.request)).await?.is_some() {
                return Err(CreateQueueError::DeletedSince);
            }
            tx.rows(query(INSERT_LOG).bind(id.as_i64())).await?;
            if let Some(broker) = create.assignee
                && !is_registered(tx, broker).await?
            {
                return Err(CreateQueueError::NoSuchBroker(broker));
            }
            let record = queue_in(tx, id).await?;
            let record = record.ok_or_else(|| StoreError::Corrupt("a queue was entered and is not there".into()))?;
            Ok(commit_and_bump(record, create.assignee.map(BrokerId::as_i64)))
        })
        .await
}

/// [`Catalog::assign_queues`](rmom_core::ports::Catalog::assign_queues).
pub(super) async fn assign(store: &PostgresStore, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
    check_assignments(group)?;
    store
        .transact(async |tx| {
            let ids: Vec<i64> = group.iter().map(|assign| assign.queue.as_i64()).collect();
            let rows = tx.rows(query(LOCK_QUEUES).bind(ids)).await?;
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
                if column::assignment(*row, "assignment")? != assign.expected {
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
                bumped.extend(row.optional_int("assignee")?);
                assigned.push(Assigned::Done(QueueRecord {
                    id: assign.queue,
                    label: column::label(*row, "label")?,
                    assignee: Some((assign.to, addr.clone())),
                    assignment: assign.expected.next(),
                }));
            }
            if moved.is_empty() {
                return Ok(End::Unchanged(assigned));
            }
            tx.rows(query(ASSIGN).bind(moved).bind(moved_to)).await?;
            Ok(commit_and_bump(assigned, bumped))
        })
        .await
}

/// [`Catalog::delete_queue`](rmom_core::ports::Catalog::delete_queue).
pub(super) async fn delete(store: &PostgresStore, queue: QueueId) -> Result<bool, StoreError> {
    store
        .transact(async |tx| {
            let Some(assignee) = lock_queue(tx, queue).await? else { return Ok(End::Confirm(false)) };
            tx.rows(query(ENTOMB).bind(queue.as_i64()).bind(millis(REQUEST_MEMORY))).await?;
            // Waits for appends under way; none lands afterwards.
            tx.rows(query("UPDATE log SET deleted = true WHERE queue_id = $1").bind(queue.as_i64())).await?;
            tx.rows(query("DELETE FROM channel WHERE queue_id = $1").bind(queue.as_i64())).await?;
            Ok(commit_and_bump(true, assignee))
        })
        .await
}
