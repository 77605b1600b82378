//! A PostgreSQL database for one run.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Row as _,
    postgres::PgConnectOptions,
};

use crate::cli::error::CliError;

/// Settings of the server that determine the meaning of a commit and the server's capacity.
const SETTINGS: [&str; 4] = ["server_version", "fsync", "synchronous_commit", "shared_buffers"];

/// Created for the run, and dropped at its end.
pub(super) struct Database {
    server: PgConnectOptions,
    name: String,
    /// The server's settings, for the report.
    pub(super) settings: Vec<(&'static str, String)>,
}

impl Database {
    /// Creates a database. `url` names any database on the server; its user has to be allowed to create others.
    pub(super) async fn create(url: &str) -> Result<Self, CliError> {
        let server: PgConnectOptions =
            url.parse().map_err(|error| CliError::usage(format_args!("--postgres: {error}")))?;
        let mut connection = connect(&server).await?;
        let mut settings = Vec::new();
        for name in SETTINGS {
            let row = connection.fetch_one(AssertSqlSafe(format!("SHOW {name}"))).await.map_err(failed)?;
            settings.push((name, row.try_get::<String, _>(0).map_err(failed)?));
        }
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
        let name = format!("rmom_bench_{}_{nanos}", std::process::id());
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        connection.execute(AssertSqlSafe(create)).await.map_err(failed)?;
        let _ = connection.close().await;
        Ok(Self { server, name, settings })
    }

    /// The database's own URL.
    pub(super) fn url(&self) -> String {
        self.server.clone().database(&self.name).to_url_lossy().to_string()
    }

    pub(super) async fn drop_it(self) -> Result<(), CliError> {
        let mut connection = connect(&self.server).await?;
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        connection.execute(AssertSqlSafe(drop)).await.map_err(failed)?;
        let _ = connection.close().await;
        Ok(())
    }
}

async fn connect(server: &PgConnectOptions) -> Result<PgConnection, CliError> {
    server.connect().await.map_err(failed)
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err hands over")]
fn failed(error: sqlx::Error) -> CliError {
    CliError::unavailable(format_args!("the server that --postgres names: {error}"))
}
