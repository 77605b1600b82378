//! Changes of queues.

use std::collections::BTreeSet;

use rmom_core::{
    model::{BrokerId, QueueId, limits::MAX_QUEUES},
    ports::{
        Assign, Assigned, CreateQueue, CreateQueueError, QueueRecord, REQUEST_MEMORY, StoreError, check_assignments,
    },
};
use sqlx::query;

use super::{SqliteStore, Tx, catalog::queue_in};
use crate::store::{
    column::{self, StoreRow as _, millis},
    pool::End,
    rows,
};

/// Bumps a broker's generation.
pub(super) async fn bump(tx: &mut Tx<'_>, broker: Option<BrokerId>) -> Result<(), StoreError> {
    if let Some(broker) = broker {
        tx.rows(query("UPDATE broker SET generation = generation + 1 WHERE id = ?1").bind(broker.as_i64())).await?;
    }
    Ok(())
}

async fn is_registered(tx: &mut Tx<'_>, broker: BrokerId) -> Result<bool, StoreError> {
    Ok(tx.row(query("SELECT 1 FROM broker WHERE id = ?1").bind(broker.as_i64())).await?.is_some())
}

/// [`Catalog::create_queue`](rmom_core::ports::Catalog::create_queue).
pub(super) async fn create(store: &SqliteStore, create: &CreateQueue) -> Result<QueueRecord, CreateQueueError> {
    store
        .transact(async |tx, _| {
            let sql = "SELECT id, request FROM queue WHERE label = ?1 AND deleted = 0";
            if let Some(found) = tx.row(query(sql).bind(create.label.as_str())).await? {
                let own = found.uuid("request")? == create.request;
                let record = queue_in(tx, column::queue_id(&found, "id")?).await?;
                return record.filter(|_| own).map(End::Unchanged).ok_or(CreateQueueError::Exists);
            }
            let sql = "SELECT 1 FROM deleted_request WHERE request = ?1";
            if tx.row(query(sql).bind(create.request)).await?.is_some() {
                return Err(CreateQueueError::DeletedSince);
            }
            let queues = tx.row(query("SELECT count(*) AS n FROM queue WHERE deleted = 0")).await?;
            if rows::count(queues.as_ref())? >= MAX_QUEUES as u64 {
                return Err(CreateQueueError::TooMany);
            }
            if let Some(broker) = create.assignee
                && !is_registered(tx, broker).await?
            {
                return Err(CreateQueueError::NoSuchBroker(broker));
            }
            let sql = "INSERT INTO queue (label, assignee, assignment, request) VALUES (?1, ?2, ?3, ?4) RETURNING id";
            let statement = query(sql)
                .bind(create.label.as_str())
                .bind(create.assignee.map(BrokerId::as_i64))
                .bind(i64::from(create.assignee.is_some()))
                .bind(create.request);
            let missing = || StoreError::Corrupt("a queue was entered and is not there".into());
            let row = tx.row(statement).await?.ok_or_else(missing)?;
            let id = column::queue_id(&row, "id")?;
            tx.rows(query("INSERT INTO log (queue_id, epoch) VALUES (?1, 0)").bind(id.as_i64())).await?;
            let state = query("INSERT INTO log_state (queue_id, next_expiry) VALUES (?1, 9223372036854775807)");
            tx.rows(state.bind(id.as_i64())).await?;
            bump(tx, create.assignee).await?;
            Ok(End::Commit(queue_in(tx, id).await?.ok_or_else(missing)?))
        })
        .await
}

/// [`Catalog::assign_queues`](rmom_core::ports::Catalog::assign_queues).
pub(super) async fn assign(store: &SqliteStore, group: &[Assign]) -> Result<Vec<Assigned>, StoreError> {
    check_assignments(group)?;
    store
        .transact(async |tx, _| {
            let (mut assigned, mut bumped) = (Vec::new(), BTreeSet::new());
            for assign in group {
                let found = queue_in(tx, assign.queue).await?.filter(|found| found.assignment == assign.expected);
                let Some(found) = found else {
                    assigned.push(Assigned::Changed);
                    continue;
                };
                if !is_registered(tx, assign.to).await? {
                    assigned.push(Assigned::NoSuchBroker);
                    continue;
                }
                let statement = query("UPDATE queue SET assignee = ?2, assignment = assignment + 1 WHERE id = ?1");
                tx.rows(statement.bind(assign.queue.as_i64()).bind(assign.to.as_i64())).await?;
                bumped.insert(assign.to);
                bumped.extend(found.assignee.map(|(broker, _)| broker));
                let record = queue_in(tx, assign.queue).await?;
                assigned.push(record.map_or(Assigned::Changed, Assigned::Done));
            }
            if bumped.is_empty() {
                return Ok(End::Unchanged(assigned));
            }
            for broker in bumped {
                bump(tx, Some(broker)).await?;
            }
            Ok(End::Commit(assigned))
        })
        .await
}

/// [`Catalog::delete_queue`](rmom_core::ports::Catalog::delete_queue).
pub(super) async fn delete(store: &SqliteStore, queue: QueueId) -> Result<bool, StoreError> {
    store
        .transact(async |tx, now| {
            let Some(found) = queue_in(tx, queue).await? else { return Ok(End::Unchanged(false)) };
            tx.rows(query("UPDATE queue SET deleted = 1 WHERE id = ?1").bind(queue.as_i64())).await?;
            let oldest = now.as_i64() - millis(REQUEST_MEMORY);
            tx.rows(query("DELETE FROM deleted_request WHERE deleted_at < ?1").bind(oldest)).await?;
            let sql = "INSERT INTO deleted_request (request, deleted_at) SELECT request, ?2 FROM queue WHERE id = ?1";
            tx.rows(query(sql).bind(queue.as_i64()).bind(now.as_i64())).await?;
            tx.rows(query("UPDATE log SET deleted = 1 WHERE queue_id = ?1").bind(queue.as_i64())).await?;
            tx.rows(query("DELETE FROM channel WHERE queue_id = ?1").bind(queue.as_i64())).await?;
            bump(tx, found.assignee.map(|(broker, _)| broker)).await?;
            Ok(End::Commit(true))
        })
        .await
}
