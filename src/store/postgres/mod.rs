//! Postgres: a pool for each of the two roles, a transaction for each statement that touches a
//! tenant's rows, a listener for changes of configuration.
//!
//! **Invariant:** nothing runs outside a transaction that begins with `ROLLBACK` and, as the
//! tenant's role, names its organisation: a connection that a cancelled caller left behind brings
//! nobody into its transaction. Writes run in tasks of the store's own, so that a caller who goes
//! away cuts none in two.

mod connect;
mod ledger;
mod listen;
#[cfg(test)]
mod tests;

pub(super) use connect::{migrate, migration_status, shown_url};

use super::{
    Base, StoreError,
    sql::{self, Access, READ_VERSION, Reader, Scope, SqlStore, failed as failed_on, raise},
};
use crate::domain::Clock;
use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct PostgresStore {
    /// Sees the organisation that its transaction names.
    tenant: PgPool,
    /// Sees all organisations, but no credential's ciphertext and no event's body.
    worker: PgPool,
    changes: watch::Sender<i64>,
    /// Changes of configuration wait for each other here, not each on a connection of its own:
    /// readers need those.
    configuring: Mutex<()>,
    clock: Arc<dyn Clock>,
    /// Writes under way, and the listener.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Dead connections that one transaction passes over at most: after a restart of the database all
/// idle ones are.
const BEGIN_TRIES_MAX: u32 = 20;

/// A standby after a failover, or a database that a person has set to read only.
const IS_READ_ONLY: &str = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean";

/// A transaction in a scope. `ROLLBACK` first: sqlx up to 0.9.0 puts a connection back whose
/// `begin()` was cancelled after it was sent (sqlx#4385). All in one message, so it costs no round
/// trip.
async fn begin(
    tenant: &PgPool,
    worker: &PgPool,
    scope: Scope,
    mode: &str,
    doing: &'static str,
) -> Result<Transaction<'static, Postgres>, StoreError> {
    let (pool, statement) = match scope {
        Scope::Org(org) => (
            tenant,
            format!(
                "ROLLBACK; BEGIN {mode}; SELECT set_config('hookswitch.org_id', '{}', true)",
                org.as_uuid()
            ),
        ),
        Scope::AllOrgs => (worker, format!("ROLLBACK; BEGIN {mode}")),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        match pool.begin_with(AssertSqlSafe(statement.clone())).await {
            Ok(transaction) => return Ok(transaction),
            Err(error) if tries < BEGIN_TRIES_MAX && is_dead_connection(&error) => {}
            Err(error) => return Err(failed(doing)(error)),
        }
    }
}

/// The server ended the connection while it was idle; nothing of ours was in it.
fn is_dead_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(e) => matches!(e.code().as_deref(), Some("57P01")),
        _ => false,
    }
}

/// Without the time-out of statements: a synchronous standby that is slow would have a COMMIT cut
/// off, which then reports success and holds on this server alone. In one message, so the setting
/// costs no round trip; a transaction that has failed is refused by it, not ended in silence.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// A snapshot of one moment. Dropped, it costs no round trip: its end goes out with the next
/// statement of the connection.
const READING: &str = "ISOLATION LEVEL REPEATABLE READ READ ONLY";

impl SqlStore for PostgresStore {
    type Db = Postgres;

    async fn read(&self, access: impl Into<Access> + Send) -> Result<Reader<Postgres>, StoreError> {
        let begun = begin(
            &self.tenant,
            &self.worker,
            access.into().scope,
            READING,
            "begin reading",
        )
        .await?;
        Ok(Reader::Transaction(begun))
    }

    async fn read_moment(&self, access: impl Into<Access> + Send) -> Result<Reader<Postgres>, StoreError> {
        self.read(access).await
    }

    async fn run<T, F, C>(&self, access: Access, doing: &'static str, command: F, committed: C) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(sql::Transaction<'c, Postgres>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (tenant, worker, now) = (self.tenant.clone(), self.worker.clone(), self.clock.now());
        if self.stop.is_cancelled() {
            return Err(StoreError::Unavailable { doing });
        }
        let task = self.tasks.spawn(async move {
            let mut transaction = begin(&tenant, &worker, access.scope, "", doing).await?;
            let connection = &mut *transaction;
            let command = command(sql::Transaction { connection, now });
            let value = AssertUnwindSafe(command).catch_unwind().await.unwrap_or_else(|_| {
                Err(StoreError::Data {
                    doing,
                    reason: "the command panicked".into(),
                })
            })?;
            sqlx::raw_sql(COMMIT)
                .execute(&mut *transaction)
                .await
                .map_err(failed(doing))?;
            // The pool ends what has ended already along with the connection's next statement.
            drop(transaction);
            committed(&value);
            Ok(value)
        });
        task.await.map_err(|_| StoreError::Unavailable { doing })?
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn known_version(&self) -> &watch::Sender<i64> {
        &self.changes
    }

    /// Changes of configuration lock one row: readers need the connections that would wait for it.
    fn configuring(&self) -> Option<&Mutex<()>> {
        Some(&self.configuring)
    }
}

/// Maps a database error, with the statement's purpose. For `map_err`.
pub(super) fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    failed_on::<Postgres>(doing)
}

/// Whether the statement failed on what it was given, so that it fails again. All else (locks,
/// deadlocks, timeouts, a full disk, a restart, a schema that is not there) is the database's own
/// trouble: whoever took that for bad data would set good events aside.
pub(super) fn is_about_data(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    // Class 22 data, 23 constraints, 54 limits; 42501: a row that its policy refuses.
    matches!(code.get(..2), Some("22" | "23" | "54")) || code == "42501"
}

#[async_trait]
impl Base for PostgresStore {
    async fn config_version(&self) -> Result<i64, StoreError> {
        sql::read_version(self).await
    }

    fn config_changes(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let mut reading = begin(&self.tenant, &self.worker, Scope::AllOrgs, READING, "begin reading").await?;
        let is_read_only: bool = sqlx::query_scalar(IS_READ_ONLY)
            .fetch_one(&mut *reading)
            .await
            .map_err(failed("answer"))?;
        if is_read_only {
            return Err(StoreError::Unavailable {
                doing: "write, because the database is read-only",
            });
        }
        Ok(())
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.tenant.close().await;
        self.worker.close().await;
    }
}

impl Drop for PostgresStore {
    /// Without [`Base::close`] writes under way still end; the listener stops.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
