//! PostgreSQL without a broker.

pub(crate) mod batches;
pub(crate) mod queue;

use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::load::Error;

async fn prepared(url: &str, schema: &'static str) -> Result<PgConnection, Error> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(schema).await?;
    connection.execute("CHECKPOINT").await?;
    Ok(connection)
}
