//! Changes of channels.

use rmom_core::{
    model::{ChannelId, limits::MAX_CHANNELS_PER_QUEUE},
    ports::{ChannelRecord, CreateChannel, CreateChannelError, StoreError},
};
use sqlx::query;

use super::{
    SqliteStore,
    catalog::{channel_in, queue_in},
    log,
    queues::bump,
};
use crate::store::{pool::End, rows, rules};

const INSERT: &str = "
INSERT INTO channel (id, queue_id, topic, start_offset, used_at)
VALUES (?1, ?2, ?3, ?4, ?5)";

/// [`Catalog::create_channel`](rmom_core::ports::Catalog::create_channel).
pub(super) async fn create(store: &SqliteStore, create: &CreateChannel) -> Result<ChannelRecord, CreateChannelError> {
    store
        .transact(async |tx, now| {
            if queue_in(tx, create.queue).await?.is_none() {
                return Err(CreateChannelError::NoSuchQueue);
            }
            if let Some(found) = channel_in(tx, create.id).await? {
                return rules::same_channel(found, create).map(End::Unchanged);
            }
            let of_queue = query("SELECT count(*) AS n FROM channel WHERE queue_id = ?1").bind(create.queue.as_i64());
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
                .bind(create.disposable.then_some(now.as_i64()));
            tx.rows(statement).await?;
            let record = channel_in(tx, create.id).await?;
            let record = record.ok_or_else(|| StoreError::Corrupt("a channel was entered and is not there".into()))?;
            Ok(End::Commit(record))
        })
        .await
}

/// [`Catalog::delete_channel`](rmom_core::ports::Catalog::delete_channel).
pub(super) async fn delete(store: &SqliteStore, channel: ChannelId) -> Result<bool, StoreError> {
    store
        .transact(async |tx, _| {
            let Some(found) = channel_in(tx, channel).await? else { return Ok(End::Unchanged(false)) };
            tx.rows(query("DELETE FROM channel WHERE id = ?1").bind(channel.uuid())).await?;
            bump(tx, found.assignee.map(|(broker, _)| broker)).await?;
            Ok(End::Commit(true))
        })
        .await
}
