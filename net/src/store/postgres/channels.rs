//! Changes of channels.

use rmom_core::{
    model::{ChannelId, limits::MAX_CHANNELS_PER_QUEUE},
    ports::{ChannelRecord, CreateChannel, CreateChannelError, StoreError},
};
use sqlx::query;

use super::{
    PostgresStore,
    catalog::channel_in,
    log,
    queues::{commit_and_bump, lock_queue},
};
use crate::store::{column::StoreRow as _, pool::End, rows, rules};

/// Waits for another transaction that is entering the same id, for another queue.
const INSERT: &str = "
INSERT INTO channel (id, queue_id, topic, start_offset, used_at)
VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN rmom_now() END) ON CONFLICT (id) DO NOTHING";

const LOCK_QUEUE_OF: &str = "
SELECT q.assignee, q.deleted FROM channel c JOIN queue q ON q.id = c.queue_id
WHERE c.id = $1 FOR NO KEY UPDATE OF q";

/// [`Catalog::create_channel`](rmom_core::ports::Catalog::create_channel).
pub(super) async fn create(store: &PostgresStore, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
    store
        .transact(async |tx| {
            if lock_queue(tx, create.queue).await?.is_none() {
                return Err(CreateChannelError::NoSuchQueue);
            }
            if let Some(found) = channel_in(tx, create.id).await? {
                return rules::same_channel(found, create).map(End::Confirm);
            }
            let of_queue = query("SELECT count(*) AS n FROM channel WHERE queue_id = $1").bind(create.queue.as_i64());
            if rows::count(tx.row(of_queue).await?.as_ref())? >= MAX_CHANNELS_PER_QUEUE as u64 {
                return Err(CreateChannelError::TooMany);
            }
            let (trimmed_through, end) = log::extent(tx, create.queue).await?;
            let start = rules::start(create.start, trimmed_through, end)?;
            let statement = query(INSERT)
                .bind(create.id.uuid())
                .bind(create.queue.as_i64())
                .bind(create.topic.as_wire())
                .bind(start.as_i64())
                .bind(create.disposable);
            tx.rows(statement).await?;
            match channel_in(tx, create.id).await? {
                Some(found) => rules::same_channel(found, create).map(End::Commit),
                None => Err(CreateChannelError::IdTaken),
            }
        })
        .await
}

/// [`Catalog::delete_channel`](rmom_core::ports::Catalog::delete_channel).
pub(super) async fn delete(store: &PostgresStore, channel: ChannelId) -> Result<bool, StoreError> {
    store
        .transact(async |tx| {
            let of_queue = tx.row(query(LOCK_QUEUE_OF).bind(channel.uuid())).await?;
            let gone = tx.row(query("DELETE FROM channel WHERE id = $1 RETURNING id").bind(channel.uuid())).await?;
            let (Some(queue), Some(_)) = (of_queue, gone) else { return Ok(End::Confirm(false)) };
            Ok(commit_and_bump(true, queue.optional_int("assignee")?))
        })
        .await
}
