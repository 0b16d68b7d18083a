//! Postgres: a pool for each of the two roles, a transaction for each statement that touches a
//! tenant's rows, a listener for changes of configuration.
//!
//! **Invariant:** every statement runs in a transaction that begins with `ROLLBACK` and, as the
//! tenant's role, names its organisation. So no caller gets into a transaction that a cancelled
//! caller left open. Writes run in tasks of the store's own, so that a caller that goes away
//! interrupts none.

mod connect;
mod ledger;
mod listen;
#[cfg(test)]
mod tests;

pub(super) use connect::{look, migrate, migration_status, shown_url};

use super::{
    Base, StoreError,
    sql::{self, Access, READ_VERSION, Reader, Scope, SqlStore, failed as failed_on, raise},
};
use crate::domain::Clock;
use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};
use tokio::sync::{Mutex, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub struct PostgresStore {
    /// Sees the organisation that its transaction names.
    tenant: PgPool,
    /// Sees all organisations, but no credential's ciphertext and no event's body.
    worker: PgPool,
    changes: watch::Sender<i64>,
    /// Changes of configuration wait for each other here. If each waited on a connection, readers
    /// would find none.
    configuring: Mutex<()>,
    clock: Arc<dyn Clock>,
    /// Writes under way, and the listener.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Most dead connections that one transaction passes over. After a restart of the database all idle
/// ones are dead.
const BEGIN_TRIES_MAX: u32 = 20;

/// Of the tables, with what belongs to them. The size of the whole database takes a right that the
/// role may lack.
const SIZE: &str = "
    SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint
    FROM pg_class
    WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace";

/// A standby after a failover, or a database that a person has set to read only.
const IS_READ_ONLY: &str = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean";

/// A transaction in a scope. `ROLLBACK` comes first, because sqlx up to 0.9.0 returns a connection
/// to its pool whose `begin()` was cancelled after it was sent (sqlx#4385). All of it is one
/// message, so it costs no round trip.
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

/// Whether the server ended the connection while it was idle. No statement of ours was lost with
/// it.
fn is_dead_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(e) => matches!(e.code().as_deref(), Some("57P01")),
        _ => false,
    }
}

/// COMMIT has no statement time-out. A slow synchronous standby could otherwise cut off a COMMIT,
/// which then reports success and holds on this server alone. Both statements are one message, so
/// the setting costs no round trip. `SET LOCAL` fails in a transaction that has failed, so such a
/// COMMIT is no silent rollback.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// A snapshot of one moment. Dropping it costs no round trip: its end goes out with the next
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
        let begun = Instant::now();
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
            // The pool sends the end of this transaction along with the connection's next
            // statement.
            drop(transaction);
            access.lane.note_write(begun);
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

/// Whether the statement failed on its data, so that it fails again. All other errors (locks,
/// deadlocks, time-outs, a full disk, a restart, a missing schema) are the database's own. A caller
/// that took one for bad data would store good events as dead.
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

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        const DOING: &str = "tell its size";
        let mut reading = begin(&self.tenant, &self.worker, Scope::AllOrgs, READING, DOING).await?;
        let bytes: i64 = sqlx::query_scalar(SIZE)
            .fetch_one(&mut *reading)
            .await
            .map_err(failed(DOING))?;
        Ok(bytes.unsigned_abs())
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
