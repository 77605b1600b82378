//! Millions of batches as brokers write them, and of channels.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use rmom_client::Uuid;
use rmom_core::{
    broker::NewMessage,
    frame::{BatchBuilder, Encoded},
    model::{Offset, ProducerEpoch, ProducerId, ProducerKey, QueueId, Sequence, Topic},
};
use rmom_proto::storage::{ProducerLast, ProducerSnapshot};
use sqlx::{Executor as _, PgConnection};

/// Lifetime of messages that should not expire during a test.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Number of batches not yet covered by saved producers, as after a while of single pushes. A broker saves producers after
/// 1,000.
const UNSAVED: u64 = 900;
/// Bytes sent to the database at a time.
const PIECE: usize = 4 << 20;

/// The content of the message at an offset.
pub(crate) fn content(offset: u64) -> String {
    format!("message {offset}")
}

/// The first line of binary `COPY`, and its end.
const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_END: i16 = -1;

/// A producer by its number.
fn key(number: u64) -> ProducerKey {
    ProducerKey { id: ProducerId::new(Uuid::from_u128(0xF111 << 64 | u128::from(number))), epoch: ProducerEpoch::ZERO }
}

/// Stores `batches` batches of one message each in an empty queue, pushed by `producers` in turn, with all the records that
/// a broker would have kept. A broker that hosts the queue does not notice them before it claims the queue again.
pub(crate) async fn batches(session: &mut PgConnection, queue: u64, batches: u64, producers: u64) {
    // The producer of a message, and its sequence there.
    let pushed_by = |offset: u64| ((offset - 1) % producers, (offset - 1) / producers + 1);
    let id = QueueId::parse(queue).unwrap();
    let (epoch, stored_at): (i64, i64) = sqlx::query_as("SELECT epoch, rmom_now() FROM log WHERE queue_id = $1")
        .bind(id.as_i64())
        .fetch_one(&mut *session)
        .await
        .unwrap();
    let expires_at = stored_at + i64::try_from(LIFETIME.as_millis()).unwrap();
    let mut copy = session
        .copy_in_raw(
            "COPY batch (queue_id, first_offset, last_offset, epoch, stored_at, expires_at, bytes, checksum, format, \
             message_index, frames, bytes_through) FROM STDIN (FORMAT binary)",
        )
        .await
        .unwrap();
    let (mut piece, mut bytes_through) = (BytesMut::from(COPY_HEAD), 0);
    for number in 1..=batches {
        let (producer, sequence) = pushed_by(number);
        let (key, sequence) = (key(producer), Sequence::parse(sequence).unwrap());
        let mut batch = BatchBuilder::new(Offset::new(number));
        let message = NewMessage { content: content(number).into(), ttl: Some(LIFETIME), ..NewMessage::default() };
        batch.push(key, sequence, key.message_ids(id).at(sequence), &message);
        let Encoded { index, frames, checksum, first, last, .. } = batch.finish();
        let length = i64::try_from(frames.len()).unwrap();
        bytes_through += length;
        piece.put_i16(12);
        let before = [id.as_i64(), first.as_i64(), last.as_i64(), epoch, stored_at, expires_at, length];
        let format = i64::from(rmom_core::frame::FORMAT);
        for number in before.into_iter().chain([i64::from(checksum), format]) {
            piece.put_i32(8);
            piece.put_i64(number);
        }
        for field in [&index[..], &frames[..]] {
            piece.put_i32(i32::try_from(field.len()).unwrap());
            piece.put_slice(field);
        }
        piece.put_i32(8);
        piece.put_i64(bytes_through);
        if piece.len() >= PIECE {
            copy.send(piece.split().freeze()).await.unwrap();
        }
    }
    piece.put_i16(COPY_END);
    copy.send(piece.freeze()).await.unwrap();
    copy.finish().await.unwrap();

    let through = batches.saturating_sub(UNSAVED);
    // The last message of each producer is one of the last that are covered.
    let saved = (through.saturating_sub(producers) + 1..=through).map(|offset| {
        let (producer, last_sequence) = pushed_by(offset);
        ProducerLast {
            producer_id: Bytes::copy_from_slice(key(producer).id.uuid().as_bytes()),
            producer_epoch: 0,
            last_sequence,
            last_offset: offset,
            stored_at_millis: u64::try_from(stored_at).unwrap(),
        }
    });
    let producers = ProducerSnapshot { through_offset: through, producers: saved.collect() };
    let through = i64::try_from(through).unwrap();
    sqlx::query(
        "UPDATE log_state SET producers = $2, producers_through = $3, next_expiry = $4, next_expiry_through = $3 \
         WHERE queue_id = $1",
    )
    .bind(id.as_i64())
    .bind(producers.encode_to_vec())
    .bind(through)
    .bind(expires_at)
    .execute(&mut *session)
    .await
    .unwrap();
    vacuum(session, "batch").await;
}

/// Adds channels to each of some queues.
pub(crate) async fn channels(session: &mut PgConnection, queues: &[u64], each: u64) {
    let queues = Vec::from_iter(queues.iter().map(|&queue| i64::try_from(queue).unwrap()));
    sqlx::query(
        "INSERT INTO channel (id, queue_id, topic, start_offset) \
         SELECT gen_random_uuid(), queue, $3, 1 FROM unnest($1) queue, generate_series(1, $2)",
    )
    .bind(queues)
    .bind(i64::try_from(each).unwrap())
    .bind(Topic::NONE.as_wire())
    .execute(&mut *session)
    .await
    .unwrap();
    vacuum(session, "channel").await;
}

/// Otherwise autovacuum would do it during a measurement.
async fn vacuum(session: &mut PgConnection, table: &'static str) {
    let sql = match table {
        "batch" => "VACUUM (ANALYZE) batch",
        _ => "VACUUM (ANALYZE) channel",
    };
    session.execute(sql).await.unwrap();
}
