//! Columns as the model's types. What does not fit was damaged or written by a later version.

use std::time::Duration;

use bytes::Bytes;
use rmom_core::{
    model::{BrokerAddr, BrokerId, Epoch, Offset, QueueId, QueueLabel, StoreTime, Topic},
    ports::{BrokerState, Removed, StoreError},
};
use sqlx::{ColumnIndex, Decode, Row, Type};

fn corrupt(column: &str, found: &dyn std::fmt::Debug) -> StoreError {
    StoreError::Corrupt(format!("column {column} holds {found:?}"))
}

/// The value of a column.
pub(super) fn get<'r, R, T>(row: &'r R, column: &'static str) -> Result<T, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    T: Decode<'r, R::Database> + Type<R::Database>,
{
    row.try_get(column).map_err(|error| StoreError::Corrupt(format!("column {column}: {error}")))
}

/// A number that is never negative.
pub(super) fn unsigned<'r, R>(row: &'r R, column: &'static str) -> Result<u64, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let value: i64 = get(row, column)?;
    u64::try_from(value).map_err(|_| corrupt(column, &value))
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident -> $type:ty = $make:path;)*) => {$(
        $(#[$doc])*
        pub(super) fn $name<'r, R>(row: &'r R, column: &'static str) -> Result<$type, StoreError>
        where
            R: Row,
            &'static str: ColumnIndex<R>,
            i64: Decode<'r, R::Database> + Type<R::Database>,
        {
            unsigned(row, column).map($make)
        }
    )*};
}

counters! {
    /// An offset.
    offset -> Offset = Offset::new;
    /// An epoch.
    epoch -> Epoch = Epoch::new;
    /// A queue's id.
    queue_id -> QueueId = QueueId::new;
    /// A broker's id.
    broker_id -> BrokerId = BrokerId::new;
    /// A time.
    time -> StoreTime = StoreTime::from_millis;
    /// A length of time.
    duration -> Duration = Duration::from_millis;
}

/// A time that may be null.
pub(super) fn optional_time<'r, R>(row: &'r R, column: &'static str) -> Result<Option<StoreTime>, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    match get::<R, Option<i64>>(row, column)? {
        Some(_) => time(row, column).map(Some),
        None => Ok(None),
    }
}

/// Bytes, taken over from the driver without a copy.
pub(super) fn bytes<'r, R>(row: &'r R, column: &'static str) -> Result<Bytes, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    get::<R, Vec<u8>>(row, column).map(Bytes::from)
}

/// A queue's label.
pub(super) fn label<'r, R>(row: &'r R, column: &'static str) -> Result<QueueLabel, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let raw: String = get(row, column)?;
    QueueLabel::parse(&raw).map_err(|_| corrupt(column, &raw))
}

/// A channel's topic, stored as it stands on the wire.
pub(super) fn topic<'r, R>(row: &'r R, column: &'static str) -> Result<Topic, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let raw: String = get(row, column)?;
    Topic::parse(&raw).map_err(|_| corrupt(column, &raw))
}

/// The columns `host` and `port`.
pub(super) fn addr<'r, R>(row: &'r R) -> Result<BrokerAddr, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let port = unsigned(row, "port")?;
    Ok(BrokerAddr { host: get(row, "host")?, port: u16::try_from(port).map_err(|_| corrupt("port", &port))? })
}

/// The columns `assignee`, `host` and `port`, of which the first may be null; the others then are not looked at.
pub(super) fn assignee<'r, R>(row: &'r R) -> Result<Option<(BrokerId, BrokerAddr)>, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    Option<i64>: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    match get::<R, Option<i64>>(row, "assignee")? {
        None => Ok(None),
        Some(_) => Ok(Some((broker_id(row, "assignee")?, addr(row)?))),
    }
}

/// A broker's state, from the number that [`state_number`] made of it.
pub(super) fn state<'r, R>(row: &'r R, column: &'static str) -> Result<BrokerState, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    match get::<R, i64>(row, column)? {
        UP => Ok(BrokerState::Up),
        DRAINING => Ok(BrokerState::Draining),
        STOPPED => Ok(BrokerState::Stopped),
        other => Err(corrupt(column, &other)),
    }
}

/// [`BrokerState::Up`] in a column.
pub(super) const UP: i64 = 0;
/// [`BrokerState::Draining`] in a column.
pub(super) const DRAINING: i64 = 1;
/// [`BrokerState::Stopped`] in a column.
pub(super) const STOPPED: i64 = 2;

/// The column `format`.
pub(super) fn format<'r, R>(row: &'r R) -> Result<u16, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let value: i64 = get(row, "format")?;
    u16::try_from(value).map_err(|_| corrupt("format", &value))
}

/// The column `checksum`.
pub(super) fn checksum<'r, R>(row: &'r R) -> Result<u32, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let value: i64 = get(row, "checksum")?;
    u32::try_from(value).map_err(|_| corrupt("checksum", &value))
}

/// What was ever removed of a log.
pub(super) fn removed<'r, R>(row: &'r R) -> Result<Removed, StoreError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Removed { messages: get(row, "trimmed_messages")?, bytes: get(row, "trimmed_bytes")? })
}
