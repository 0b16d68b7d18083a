//! The statements, each written once for both databases: a concern a file.
//!
//! **Invariant:** a statement stands here once. Where the databases need different texts, both
//! stand side by side in one [`Sql`]. The folders of the databases hold connections, transactions
//! and the part of the ledger whose locking differs.

pub(super) mod audit;
mod bulk;
mod callers;
pub(super) mod credentials;
mod dead;
mod dialect;
mod endpoints;
mod grants;
mod held;
mod history;
mod keys;
pub(super) mod ledger;
mod managed;
mod marks;
mod organisations;
mod outcomes;
mod pauses;
mod quarantine;
mod queue_shares;
mod recovery;
mod rejections;
mod retention;
mod rotation;
mod routes;
mod rules;
mod settings;
mod snapshot;
mod statement;
mod statistics;

pub use dialect::{Dialect, Sql, failed};
pub use statement::{Row, Statement};

use super::StoreError;
use crate::{
    domain::{Clock, OrgId, Timestamp},
    telemetry::catalogue,
};
use futures_util::future::BoxFuture;
use sqlx::{Database, pool::PoolConnection};
use std::{future::Future, time::Instant};
use tokio::sync::{Mutex, watch};

/// The statements of each concern, for the tests that prepare every one and look at its plan.
#[cfg(test)]
pub(super) const STATEMENTS: &[(&str, &[Sql])] = &[
    (
        "mod",
        &[Sql::both(READ_VERSION), LOCK_VERSION, Sql::both(WRITE_VERSION)],
    ),
    ("audit", audit::STATEMENTS),
    ("bulk", bulk::STATEMENTS),
    ("callers", callers::STATEMENTS),
    ("credentials", credentials::STATEMENTS),
    ("dead", dead::STATEMENTS),
    ("endpoints", endpoints::STATEMENTS),
    ("grants", grants::STATEMENTS),
    ("held", held::STATEMENTS),
    ("history", history::STATEMENTS),
    ("keys", keys::STATEMENTS),
    ("managed", managed::STATEMENTS),
    ("marks", marks::STATEMENTS),
    ("organisations", organisations::STATEMENTS),
    ("outcomes", outcomes::STATEMENTS),
    ("pauses", pauses::STATEMENTS),
    ("quarantine", quarantine::STATEMENTS),
    ("queue_shares", queue_shares::STATEMENTS),
    ("recovery", recovery::STATEMENTS),
    ("rejections", rejections::STATEMENTS),
    ("retention", retention::STATEMENTS),
    ("rotation", rotation::STATEMENTS),
    ("routes", routes::STATEMENTS),
    ("rules", rules::STATEMENTS),
    ("settings", settings::STATEMENTS),
    ("snapshot", snapshot::STATEMENTS),
    ("statistics", statistics::STATEMENTS),
];

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self::both(text)
    }
}

/// Whose rows a transaction sees, and whether it may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    pub scope: Scope,
    pub lane: Lane,
}

/// Whose rows a transaction sees. On SQLite each statement binds its organisation and nothing else
/// keeps them apart; Postgres holds the scope by row-level security too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Org(OrgId),
    AllOrgs,
}

/// Which commands go first where there is one writer. Claims, replies, records and configuration
/// are urgent; plans and bulk work are not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    Urgent,
    Bulk,
}

impl Lane {
    /// Measures a transaction that has been committed.
    pub fn note_write(self, begun: Instant) {
        let lane = match self {
            Self::Urgent => "urgent",
            Self::Bulk => "bulk",
        };
        catalogue::STORE_WRITE_SECONDS.observe(begun.elapsed().as_secs_f64(), &[lane]);
    }
}

impl Access {
    pub const ALL_ORGS: Self = Self {
        scope: Scope::AllOrgs,
        lane: Lane::Urgent,
    };

    #[must_use]
    pub const fn org(org: OrgId) -> Self {
        Self {
            scope: Scope::Org(org),
            lane: Lane::Urgent,
        }
    }

    #[must_use]
    pub const fn in_bulk(self) -> Self {
        Self {
            lane: Lane::Bulk,
            ..self
        }
    }
}

impl From<OrgId> for Access {
    fn from(org: OrgId) -> Self {
        Self::org(org)
    }
}

/// A connection that a statement can run on.
pub trait Connected: Send {
    type Db: Dialect;
    fn connection(&mut self) -> &mut <Self::Db as Database>::Connection;
}

/// A connection for statements that read.
pub enum Reader<D: Dialect> {
    /// Each statement sees its own moment.
    Connection(PoolConnection<D>),
    /// All statements see one moment.
    Transaction(sqlx::Transaction<'static, D>),
}

impl<D: Dialect> Connected for Reader<D> {
    type Db = D;
    fn connection(&mut self) -> &mut D::Connection {
        match self {
            Self::Connection(connection) => &mut *connection,
            Self::Transaction(transaction) => &mut *transaction,
        }
    }
}

impl<D: Dialect> Reader<D> {
    /// Ends it now. A reader that is dropped ends with the next use of its connection.
    pub async fn end(self, doing: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Transaction(transaction) => transaction.rollback().await.map_err(failed::<D>(doing)),
        }
    }
}

/// A transaction that writes. Its command may be undone alone.
pub struct Transaction<'c, D: Dialect> {
    pub connection: &'c mut D::Connection,
    /// When the command was asked for.
    pub now: Timestamp,
}

impl<D: Dialect> Connected for Transaction<'_, D> {
    type Db = D;
    fn connection(&mut self) -> &mut D::Connection {
        self.connection
    }
}

/// A store that speaks SQL. The statements that both databases share call these methods.
pub trait SqlStore: Send + Sync + 'static {
    type Db: Dialect;

    /// A connection for one statement that reads.
    fn read(
        &self,
        access: impl Into<Access> + Send,
    ) -> impl Future<Output = Result<Reader<Self::Db>, StoreError>> + Send;

    /// A connection for statements that read one moment.
    fn read_moment(
        &self,
        access: impl Into<Access> + Send,
    ) -> impl Future<Output = Result<Reader<Self::Db>, StoreError>> + Send;

    /// Runs a command in a transaction; `committed` runs after its commit, also when the caller
    /// went away meanwhile. An error undoes this command alone.
    fn run<T, F, C>(
        &self,
        access: Access,
        doing: &'static str,
        command: F,
        committed: C,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: for<'c> FnOnce(Transaction<'c, Self::Db>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        C: FnOnce(&T) + Send + 'static;

    fn clock(&self) -> &dyn Clock;

    /// The newest version of the configuration that this process knows of.
    fn known_version(&self) -> &watch::Sender<i64>;

    /// Held during a change of configuration, where several connections write. Changes wait for
    /// each other here, so that they take no connection meanwhile.
    fn configuring(&self) -> Option<&Mutex<()>>;

    /// Runs a command in a transaction and returns after its commit. An error undoes it alone.
    fn write<T, F>(
        &self,
        access: impl Into<Access> + Send,
        doing: &'static str,
        command: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: for<'c> FnOnce(Transaction<'c, Self::Db>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.run(access.into(), doing, command, |_| ())
    }

    /// Like [`SqlStore::write`], for a change of configuration. It counts the version up and hands
    /// it to the command, which stamps its rows. Then it wakes the rooms that refresh.
    fn configure<T, F>(
        &self,
        access: impl Into<Access> + Send,
        doing: &'static str,
        command: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: for<'c> FnOnce(Transaction<'c, Self::Db>, i64) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        self.configure_if(access, doing, move |tx, version| {
            Box::pin(async move { Ok((command(tx, version).await?, true)) })
        })
    }

    /// Like [`SqlStore::configure`], for a command that finds out whether there is a change. The
    /// version counts up only where it returns `true`.
    fn configure_if<T, F>(
        &self,
        access: impl Into<Access> + Send,
        doing: &'static str,
        command: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: for<'c> FnOnce(Transaction<'c, Self::Db>, i64) -> BoxFuture<'c, Result<(T, bool), StoreError>>
            + Send
            + 'static,
    {
        let access = access.into();
        async move {
            let _turn = match self.configuring() {
                Some(mutex) => Some(mutex.lock().await),
                None => None,
            };
            let known = self.known_version().clone();
            let (value, _) = self
                .run(
                    access,
                    doing,
                    move |tx| configured(tx, command),
                    move |(_, version)| raise(&known, *version),
                )
                .await?;
            Ok(value)
        }
    }
}

pub(super) const READ_VERSION: &str = "SELECT version FROM config_version WHERE id = 1";
/// Changes of configuration go one after the other, so that versions become visible in their order.
/// A refresh that has seen a version has then seen all below it. SQLite has one writer and needs no
/// lock.
const LOCK_VERSION: Sql = Sql {
    sqlite: READ_VERSION,
    postgres: "SELECT version FROM config_version WHERE id = 1 FOR UPDATE",
};
const WRITE_VERSION: &str = "UPDATE config_version SET version = $1 WHERE id = 1";

/// The version of the configuration as it stands.
pub async fn read_version<S: SqlStore>(store: &S) -> Result<i64, StoreError> {
    let mut reader = store.read(Access::ALL_ORGS).await?;
    Statement::new("read the configuration version", READ_VERSION)
        .one(&mut reader, |row| row.table("config_version").number("version"))
        .await
}

fn configured<'c, D, T, F>(
    mut tx: Transaction<'c, D>,
    command: F,
) -> BoxFuture<'c, Result<(T, Option<i64>), StoreError>>
where
    D: Dialect,
    T: Send + 'static,
    F: for<'d> FnOnce(Transaction<'d, D>, i64) -> BoxFuture<'d, Result<(T, bool), StoreError>> + Send + 'static,
{
    Box::pin(async move {
        let stands: i64 = Statement::new("read the configuration version", LOCK_VERSION)
            .one(&mut tx, |row| row.table("config_version").number("version"))
            .await?;
        let version = stands + 1;
        let inner = Transaction {
            connection: &mut *tx.connection,
            now: tx.now,
        };
        let (value, is_change) = command(inner, version).await?;
        if is_change {
            Statement::new("count the configuration version up", WRITE_VERSION)
                .number(version)
                .execute(&mut tx)
                .await?;
        }
        Ok((value, is_change.then_some(version)))
    })
}

/// Announces a version to the rooms that refresh, never an older one.
pub fn raise(known: &watch::Sender<i64>, version: Option<i64>) {
    known.send_if_modified(|known| {
        let is_newer = version.is_some_and(|version| version > *known);
        *known = version.unwrap_or(*known).max(*known);
        is_newer
    });
}

/// Postgres stores no NUL in a text. So no row has such a name, and a look-up finds none.
pub fn can_be_stored(name: &str) -> bool {
    !name.contains('\0')
}
