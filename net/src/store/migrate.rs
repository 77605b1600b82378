//! Brings a database's schema up to the version that this program knows.

use futures_util::future::BoxFuture;
use sqlx::{
    SqlSafeStr,
    error::DatabaseError,
    migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use super::OpenError;

/// sqlx's own name for it, so that its command line works on our databases.
pub(super) const TABLE: &str = "_sqlx_migrations";

/// The migrations of one kind of database.
pub(super) struct Schema {
    migrator: Migrator,
    /// The folder below `migrations/`.
    folder: &'static str,
}

impl Schema {
    /// The migrations in a folder below `migrations/`.
    pub(super) fn new(folder: &'static str, migrations: &[rmom_migrations::Migration]) -> Self {
        let migrations = migrations
            .iter()
            .map(|&rmom_migrations::Migration { version, name, sql }| {
                Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
            })
            .collect();
        let mut migrator = Migrator::with_migrations(migrations);
        migrator.set_locking(false); // done here, around the check
        Self { migrator, folder }
    }

    fn known(&self) -> i64 {
        self.migrator.iter().map(|m| m.version).max().unwrap_or(0)
    }

    /// Checks the version, and applies what is missing if `apply` is set; under a lock, so that of several processes one
    /// does it. `exists`: whether the table of applied migrations is there. `hurry` has what is
    /// applied give up soon where others use the tables; the lock is waited for with patience.
    pub(super) async fn bring_up<C, H>(
        &self,
        conn: &mut C,
        at: &str,
        exists: bool,
        apply: bool,
        hurry: H,
    ) -> Result<(), OpenError>
    where
        C: Migrate,
        H: for<'c> FnOnce(&'c mut C) -> BoxFuture<'c, Result<(), sqlx::Error>>,
    {
        let failed = |error: MigrateError| {
            let (at, reason) = (at.to_owned(), error.to_string());
            if is_busy(&error) {
                OpenError::MigrationBusy { at, reason }
            } else {
                OpenError::MigrationFailed { at, reason }
            }
        };
        if !apply {
            let applied = if exists { conn.list_applied_migrations(TABLE).await.map_err(failed)? } else { Vec::new() };
            return if self.check(&applied, at)? {
                Ok(())
            } else {
                let found = version(&applied);
                Err(OpenError::OlderSchema { at: at.to_owned(), found, known: self.known(), folder: self.folder })
            };
        }
        conn.lock().await.map_err(failed)?;
        // Also when the table was not there a moment ago: another process may have been faster.
        conn.ensure_migrations_table(TABLE).await.map_err(failed)?;
        let applied = conn.list_applied_migrations(TABLE).await.map_err(failed)?;
        if !self.check(&applied, at)? {
            tracing::info!(database = at, from = version(&applied), to = self.known(), "migrating the schema");
            hurry(conn).await.map_err(|error| failed(MigrateError::Execute(error)))?;
            self.migrator.run_direct(None, conn, false).await.map_err(failed)?;
        }
        conn.unlock().await.map_err(failed)
    }

    /// True if nothing is missing.
    fn check(&self, applied: &[AppliedMigration], at: &str) -> Result<bool, OpenError> {
        let (found, known) = (version(applied), self.known());
        if found > known {
            return Err(OpenError::NewerSchema { at: at.to_owned(), found, known });
        }
        for ours in self.migrator.iter() {
            match applied.iter().find(|theirs| theirs.version == ours.version) {
                None => return Ok(false),
                Some(theirs) if theirs.checksum != ours.checksum => {
                    return Err(OpenError::ChangedSchema { at: at.to_owned(), version: ours.version });
                }
                Some(_) => {}
            }
        }
        Ok(true)
    }
}

/// A lock was not to be had in time (`lock_not_available`).
fn is_busy(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "55P03")
}

fn version(applied: &[AppliedMigration]) -> i64 {
    applied.iter().map(|m| m.version).max().unwrap_or(0)
}
