//! Columns as the model's types. What does not fit was damaged or written by a later version.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;
use rmom_core::{
    model::{
        Assignment, BrokerAddr, BrokerId, Epoch, Generation, Offset, ProducerEpoch, QueueId, QueueLabel, Renewals,
        StoreTime, Term, Topic,
    },
    ports::{BrokerState, Removed, StoreError},
};
use sqlx::{ColumnIndex, Decode, Row, Type};
use uuid::Uuid;

fn corrupt(column: &str, found: &dyn Debug) -> StoreError {
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

/// A row of either database: values of the types that both have.
pub(super) trait StoreRow {
    fn int(&self, column: &'static str) -> Result<i64, StoreError>;
    fn optional_int(&self, column: &'static str) -> Result<Option<i64>, StoreError>;
    fn text(&self, column: &'static str) -> Result<String, StoreError>;
    fn blob(&self, column: &'static str) -> Result<Vec<u8>, StoreError>;
    fn optional_blob(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError>;
    fn uuid(&self, column: &'static str) -> Result<Uuid, StoreError>;
}

macro_rules! store_row {
    ($row:ty) => {
        impl StoreRow for $row {
            fn int(&self, column: &'static str) -> Result<i64, StoreError> {
                get(self, column)
            }

            fn optional_int(&self, column: &'static str) -> Result<Option<i64>, StoreError> {
                get(self, column)
            }

            fn text(&self, column: &'static str) -> Result<String, StoreError> {
                get(self, column)
            }

            fn blob(&self, column: &'static str) -> Result<Vec<u8>, StoreError> {
                get(self, column)
            }

            fn optional_blob(&self, column: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
                get(self, column)
            }

            fn uuid(&self, column: &'static str) -> Result<Uuid, StoreError> {
                get(self, column)
            }
        }
    };
}

#[cfg(feature = "postgres")]
store_row! { sqlx::postgres::PgRow }
#[cfg(feature = "sqlite")]
store_row! { sqlx::sqlite::SqliteRow }

/// A number that is never negative.
pub(super) fn unsigned(row: &impl StoreRow, column: &'static str) -> Result<u64, StoreError> {
    let value = row.int(column)?;
    u64::try_from(value).map_err(|_| corrupt(column, &value))
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident -> $type:ty = $make:path;)*) => {$(
        $(#[$doc])*
        pub(super) fn $name(row: &impl StoreRow, column: &'static str) -> Result<$type, StoreError> {
            unsigned(row, column).map($make)
        }
    )*};
}

counters! {
    /// An offset.
    offset -> Offset = Offset::new;
    /// An epoch.
    epoch -> Epoch = Epoch::new;
    /// The number of an assignment.
    assignment -> Assignment = Assignment::new;
    /// A broker's generation.
    generation -> Generation = Generation::new;
    /// The number of a renewal.
    renewals -> Renewals = Renewals::new;
    /// The number of a leadership.
    term -> Term = Term::new;
    /// A producer's epoch.
    producer_epoch -> ProducerEpoch = ProducerEpoch::new;
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
pub(super) fn optional_time(row: &impl StoreRow, column: &'static str) -> Result<Option<StoreTime>, StoreError> {
    match row.optional_int(column)? {
        Some(_) => time(row, column).map(Some),
        None => Ok(None),
    }
}

/// Bytes, taken over from the driver without a copy.
pub(super) fn bytes(row: &impl StoreRow, column: &'static str) -> Result<Bytes, StoreError> {
    row.blob(column).map(Bytes::from)
}

/// A queue's label.
pub(super) fn label(row: &impl StoreRow, column: &'static str) -> Result<QueueLabel, StoreError> {
    let raw = row.text(column)?;
    QueueLabel::parse(&raw).map_err(|_| corrupt(column, &raw))
}

/// A channel's topic, stored as it stands on the wire.
pub(super) fn topic(row: &impl StoreRow, column: &'static str) -> Result<Topic, StoreError> {
    let raw = row.text(column)?;
    Topic::parse(&raw).map_err(|_| corrupt(column, &raw))
}

/// The columns `host` and `port`.
pub(super) fn addr(row: &impl StoreRow) -> Result<BrokerAddr, StoreError> {
    let port = unsigned(row, "port")?;
    Ok(BrokerAddr { host: row.text("host")?, port: u16::try_from(port).map_err(|_| corrupt("port", &port))? })
}

/// The columns `assignee`, `host` and `port`, of which the first may be null; the others then are not looked at.
pub(super) fn assignee(row: &impl StoreRow) -> Result<Option<(BrokerId, BrokerAddr)>, StoreError> {
    match row.optional_int("assignee")? {
        None => Ok(None),
        Some(_) => Ok(Some((broker_id(row, "assignee")?, addr(row)?))),
    }
}

/// A broker's state, from one of the numbers [`UP`], [`DRAINING`] and [`STOPPED`].
pub(super) fn state(row: &impl StoreRow, column: &'static str) -> Result<BrokerState, StoreError> {
    match row.int(column)? {
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
pub(super) fn format(row: &impl StoreRow) -> Result<u16, StoreError> {
    let value = row.int("format")?;
    u16::try_from(value).map_err(|_| corrupt("format", &value))
}

/// The column `checksum`.
pub(super) fn checksum(row: &impl StoreRow) -> Result<u32, StoreError> {
    let value = row.int("checksum")?;
    u32::try_from(value).map_err(|_| corrupt("checksum", &value))
}

/// What was ever removed of a log.
pub(super) fn removed(row: &impl StoreRow) -> Result<Removed, StoreError> {
    Ok(Removed { messages: row.int("trimmed_messages")?, bytes: row.int("trimmed_bytes")? })
}

/// A length of time as a parameter.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
