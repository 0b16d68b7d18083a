//! Postgres: a pool for each of the two roles, a transaction for each statement that touches a
//! tenant's rows, a listener for changes of configuration.
//!
//! **Invariant:** nothing runs outside a transaction that begins with `ROLLBACK` and, as the
//! tenant's role, names its organisation: a connection that a cancelled caller left behind brings
//! nobody into its transaction. Writes run in tasks of the store's own, so that a caller who goes
//! away cuts none in two.

mod audit;
mod connect;
mod credentials;
mod endpoints;
mod grants;
mod history;
mod keys;
mod ledger;
mod listen;
mod managed;
mod organisations;
mod rejections;
mod routes;
mod rows;
mod rules;
mod snapshot;
#[cfg(test)]
mod tests;

pub(super) use connect::{migrate, migration_status};

use super::{Base, StoreError};
use crate::domain::{Clock, OrgId};
use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Postgres, Transaction};
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

/// Whose rows a transaction sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Org(OrgId),
    Worker,
}

impl From<OrgId> for Scope {
    fn from(org: OrgId) -> Self {
        Self::Org(org)
    }
}

/// Dead connections that one transaction passes over at most: after a restart of the database all
/// idle ones are.
const BEGIN_TRIES_MAX: u32 = 20;

const READ_VERSION: &str = "SELECT version FROM config_version WHERE id = 1";
/// Changes of configuration go one after the other, so that versions become visible in their order:
/// a refresh that has seen one has seen all below it.
const LOCK_VERSION: &str = "SELECT version FROM config_version WHERE id = 1 FOR UPDATE";
const WRITE_VERSION: &str = "UPDATE config_version SET version = $1 WHERE id = 1";

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
        Scope::Worker => (worker, format!("ROLLBACK; BEGIN {mode}")),
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

impl PostgresStore {
    /// A snapshot of one moment, read only. Dropped, it costs no round trip: its end goes out with
    /// whatever the connection does next.
    pub(super) async fn reader(
        &self,
        scope: impl Into<Scope> + Send,
    ) -> Result<Transaction<'static, Postgres>, StoreError> {
        begin(
            &self.tenant,
            &self.worker,
            scope.into(),
            "ISOLATION LEVEL REPEATABLE READ READ ONLY",
            "begin reading",
        )
        .await
    }

    /// Runs a command in a transaction of its own and returns after its commit. An error undoes it.
    pub(super) async fn write<T, F>(
        &self,
        scope: impl Into<Scope> + Send,
        doing: &'static str,
        command: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.run(scope.into(), doing, command, |_| ()).await
    }

    /// Like [`PostgresStore::write`] for a change of configuration: counts the version up, hands it
    /// to the command (which stamps its rows with it), and wakes whoever refreshes.
    pub(super) async fn configure<T, F>(
        &self,
        scope: impl Into<Scope> + Send,
        doing: &'static str,
        command: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection, i64) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.configure_if(scope, doing, move |connection, version| {
            Box::pin(async move { Ok((command(connection, version).await?, true)) })
        })
        .await
    }

    /// Like [`PostgresStore::configure`] for a command that finds out by itself whether there is a
    /// change: the version counts up only where it says `true`.
    pub(super) async fn configure_if<T, F>(
        &self,
        scope: impl Into<Scope> + Send,
        doing: &'static str,
        command: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection, i64) -> BoxFuture<'c, Result<(T, bool), StoreError>> + Send + 'static,
    {
        let changes = self.changes.clone();
        let _turn = self.configuring.lock().await;
        let (value, _) = self
            .run(
                scope.into(),
                doing,
                move |connection| configured(connection, command),
                move |(_, version)| tell(&changes, *version),
            )
            .await?;
        Ok(value)
    }

    async fn run<T, F, C>(&self, scope: Scope, doing: &'static str, command: F, committed: C) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (tenant, worker) = (self.tenant.clone(), self.worker.clone());
        if self.stop.is_cancelled() {
            return Err(StoreError::Unavailable { doing });
        }
        let task = self.tasks.spawn(async move {
            let mut transaction = begin(&tenant, &worker, scope, "", doing).await?;
            let value = AssertUnwindSafe(command(&mut transaction)).catch_unwind().await;
            let value = value.unwrap_or_else(|_| {
                Err(StoreError::Data {
                    doing,
                    reason: "the command panicked".into(),
                })
            })?;
            transaction.commit().await.map_err(failed(doing))?;
            committed(&value);
            Ok(value)
        });
        task.await.map_err(|_| StoreError::Unavailable { doing })?
    }

    pub(super) fn now(&self) -> crate::domain::Timestamp {
        self.clock.now()
    }
}

fn configured<'c, T, F>(
    connection: &'c mut PgConnection,
    command: F,
) -> BoxFuture<'c, Result<(T, Option<i64>), StoreError>>
where
    T: Send + 'static,
    F: for<'d> FnOnce(&'d mut PgConnection, i64) -> BoxFuture<'d, Result<(T, bool), StoreError>> + Send + 'static,
{
    Box::pin(async move {
        let version: i64 = sqlx::query_scalar(LOCK_VERSION)
            .fetch_one(&mut *connection)
            .await
            .map_err(failed("read the configuration version"))?;
        let version = version + 1;
        let (value, is_change) = command(connection, version).await?;
        if is_change {
            sqlx::query(WRITE_VERSION)
                .bind(version)
                .execute(connection)
                .await
                .map_err(failed("count the configuration version up"))?;
        }
        Ok((value, is_change.then_some(version)))
    })
}

/// Wakes whoever refreshes, never with an older version.
fn tell(changes: &watch::Sender<i64>, version: Option<i64>) {
    changes.send_if_modified(|known| {
        let newer = version.is_some_and(|version| version > *known);
        *known = version.unwrap_or(*known).max(*known);
        newer
    });
}

/// Runs a part of a transaction that may fail and be undone alone.
pub(super) async fn in_savepoint<T>(
    connection: &mut PgConnection,
    doing: &'static str,
    part: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut savepoint = connection.begin().await.map_err(failed(doing))?;
    let done = part(&mut savepoint).await;
    match done {
        Ok(value) => savepoint.commit().await.map_err(failed(doing)).map(|()| value),
        Err(error) => {
            savepoint.rollback().await.map_err(failed(doing))?;
            Err(error)
        }
    }
}

/// Postgres has no NUL in a text: nothing is stored under such a name, so nothing is found.
pub(super) fn can_be_stored(name: &str) -> bool {
    !name.contains('\0')
}

/// Maps a database error, with what was being done. For `map_err`.
pub(super) fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |error| match error {
        sqlx::Error::Database(e) if e.is_unique_violation() => StoreError::Conflict { what: doing },
        // The message alone: a detail would show the row.
        sqlx::Error::Database(e) if is_about_data(e.code().as_deref()) => StoreError::Data {
            doing,
            reason: e.message().into(),
        },
        sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnNotFound(_) => StoreError::Data {
            doing,
            reason: "a column does not have the expected type".into(),
        },
        _ => StoreError::Unavailable { doing },
    }
}

/// Whether the statement failed on what it was given, so that it fails again. All else (locks,
/// deadlocks, timeouts, a full disk, a restart, a schema that is not there) is the database's own
/// trouble: whoever took that for bad data would set good events aside.
fn is_about_data(code: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    // Class 22 data, 23 constraints, 54 limits; 42501: a row that its policy refuses.
    matches!(code.get(..2), Some("22" | "23" | "54")) || code == "42501"
}

#[async_trait]
impl Base for PostgresStore {
    async fn config_version(&self) -> Result<i64, StoreError> {
        let mut reader = self.reader(Scope::Worker).await?;
        sqlx::query_scalar(READ_VERSION)
            .fetch_one(&mut *reader)
            .await
            .map_err(failed("read the configuration version"))
    }

    fn config_changes(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.config_version().await.map(drop)
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
