//! Keeps organisations, credentials, routes, rules, the ledger, audit. One trait a concern,
//! one file each; SQL stands below, a folder a dialect.
//!
//! `vault`, `routing`, `attempt`, `worker`, `receiver` (rejections) and `admin` enter.
//! **Invariant:** every statement on tenant data binds the organisation, and "not there"
//! (`Ok(None)`) is never the same value as "could not look" (`Err`).

pub mod audit;
pub mod bulk;
pub mod callers;
pub mod credentials;
pub mod dead;
pub mod endpoints;
pub mod flights;
pub mod grants;
mod health;
pub mod held;
pub mod history;
pub mod keys;
pub mod ledger;
#[cfg(feature = "postgres")]
pub mod legacy;
pub mod managed;
pub mod marks;
mod migrate;
pub mod organisations;
pub mod outcomes;
pub mod pauses;
#[cfg(feature = "postgres")]
mod postgres;
pub mod quarantine;
pub mod queue_shares;
pub mod recovery;
pub mod rejections;
pub mod retention;
pub mod rotation;
pub mod routes;
pub mod rules;
pub mod settings;
pub mod snapshot;
mod sql;
mod sqlite;
pub mod statistics;

#[cfg(feature = "postgres")]
pub use health::{Gauges, check};
pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

use async_trait::async_trait;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::watch;

/// A whole store. Each concern's trait is the contract that `tests/it/conformance/store.rs` tests
/// over every dialect.
pub trait Store:
    Base
    + audit::AuditLog
    + bulk::BulkJobs
    + callers::Callers
    + credentials::Credentials
    + dead::DeadEvents
    + endpoints::Endpoints
    + grants::Grants
    + held::HeldEvents
    + history::History
    + keys::DataKeys
    + rotation::KeyRotation
    + ledger::Ledger
    + managed::ManagedAssistants
    + marks::Marks
    + organisations::Organisations
    + outcomes::Outcomes
    + pauses::Pauses
    + quarantine::Quarantine
    + queue_shares::QueueShares
    + recovery::Recoveries
    + rejections::Rejections
    + retention::Retention
    + routes::Routes
    + rules::Rules
    + settings::Settings
    + snapshot::Snapshots
    + statistics::Statistics
{
}

// Rust has no name for a list of traits: the implementation lists them again.
impl<S> Store for S where
    S: Base
        + audit::AuditLog
        + bulk::BulkJobs
        + callers::Callers
        + credentials::Credentials
        + dead::DeadEvents
        + endpoints::Endpoints
        + grants::Grants
        + held::HeldEvents
        + history::History
        + keys::DataKeys
        + rotation::KeyRotation
        + ledger::Ledger
        + managed::ManagedAssistants
        + marks::Marks
        + organisations::Organisations
        + outcomes::Outcomes
        + pauses::Pauses
        + quarantine::Quarantine
        + queue_shares::QueueShares
        + recovery::Recoveries
        + rejections::Rejections
        + retention::Retention
        + routes::Routes
        + rules::Rules
        + settings::Settings
        + snapshot::Snapshots
        + statistics::Statistics
{
}

#[async_trait]
pub trait Base: Send + Sync + 'static {
    /// The version of all configuration (routes, secrets, rules, credentials): counts up with every
    /// change. One cheap read; from memory where no other process writes.
    async fn config_version(&self) -> Result<i64, StoreError>;

    /// A hint that the version has moved, for changes made through this store; polling
    /// [`Base::config_version`] is the truth.
    fn config_changes(&self) -> watch::Receiver<i64>;

    /// Whether the database answers and takes writes, for `/readyz`.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Bytes that the rows and their indexes take.
    async fn size_bytes(&self) -> Result<u64, StoreError>;

    /// Whether other processes may work on the same rows. One that is not shared belongs to this
    /// process while it is open.
    fn is_shared(&self) -> bool;

    /// Finishes what was begun and closes. Idempotent.
    async fn close(&self);
}

/// Why the store could not do it. Absent is not broken: `Ok(None)` looked and found nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or is shutting down; later may work. Admin: 503. Worker: keep
    /// the delivery and wait.
    #[error("the database is not available: {doing}")]
    Unavailable { doing: &'static str },
    /// A version, a state or a unique key stood in the way; nothing was changed. Admin: 409 or 412.
    #[error("{what} was changed by someone else, or exists already")]
    Conflict { what: &'static str },
    /// The row is not the one that the change was made from; nothing was changed. Admin: 412.
    #[error("{what} was changed since it was read")]
    Stale { what: &'static str },
    /// A row cannot be what it claims to be.
    #[error("table {table}, column {column}: a stored value is not valid")]
    Corrupt { table: &'static str, column: &'static str },
    /// The statement failed on its data; doing it again fails again (invariant 15).
    #[error("the database refused to {doing}: {reason}")]
    Data { doing: &'static str, reason: Arc<str> },
}

/// Opens the store that a URL names: `sqlite:PATH` or `postgres://…`. [`migrate`] creates it and
/// brings it up to date: a path that is not there is a fault, not a fresh database.
///
/// # Errors
/// Says which setting is wrong, what stands in the way, or which migrations are pending.
pub async fn connect(url: &str, clock: Arc<dyn crate::domain::Clock>) -> Result<Arc<dyn Store>, ConnectError> {
    match Backend::of(url)? {
        Backend::Sqlite(path) => {
            let status = sqlite::migration_status(path.as_ref()).await?;
            let path = absolute(path);
            if !path.exists() {
                return Err(ConnectError::Missing { path });
            }
            if !status.pending.is_empty() {
                return Err(ConnectError::Pending {
                    path: path.display().to_string(),
                    pending: status.pending,
                });
            }
            Ok(Arc::new(SqliteStore::open(&path, clock).await?))
        }
        #[cfg(feature = "postgres")]
        Backend::Postgres => Ok(Arc::new(PostgresStore::open(url, clock).await?)),
    }
}

/// [`migrate`], then [`connect`]: for tests and benchmarks, which make databases of their own.
///
/// # Errors
/// See [`ConnectError`].
pub async fn create(url: &str, clock: Arc<dyn crate::domain::Clock>) -> Result<Arc<dyn Store>, ConnectError> {
    migrate(url, clock.clone()).await?;
    connect(url, clock).await
}

/// The database that a URL names, as people look for it: an absolute path, or host and database.
/// Never a user or a password.
///
/// # Errors
/// The URL is not understood.
pub fn shown(url: &str) -> Result<String, ConnectError> {
    match Backend::of(url)? {
        Backend::Sqlite(path) => Ok(absolute(path).display().to_string()),
        #[cfg(feature = "postgres")]
        Backend::Postgres => postgres::shown_url(url),
    }
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// Brings the schema up to date, and creates a SQLite file that is not there.
///
/// # Errors
/// See [`ConnectError`].
pub async fn migrate(url: &str, clock: Arc<dyn crate::domain::Clock>) -> Result<(), ConnectError> {
    match Backend::of(url)? {
        Backend::Sqlite(path) => {
            SqliteStore::open(path.as_ref(), clock).await?.close().await;
            Ok(())
        }
        #[cfg(feature = "postgres")]
        Backend::Postgres => postgres::migrate(url).await,
    }
}

/// The migrations of this binary that a database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// `NNNN description`, in order.
    pub applied: Vec<String>,
    pub pending: Vec<String>,
    /// Numbers of a newer release. This binary does not know them, and runs beside them.
    pub newer: Vec<String>,
}

impl MigrationStatus {
    fn of(migrator: &sqlx::migrate::Migrator, applied: &[i64]) -> Self {
        let (mut there, mut pending) = (Vec::new(), Vec::new());
        for migration in migrator.iter() {
            let list = if applied.contains(&migration.version) {
                &mut there
            } else {
                &mut pending
            };
            list.push(format!("{:04} {}", migration.version, migration.description));
        }
        let newer = applied
            .iter()
            .filter(|version| !migrator.version_exists(**version))
            .map(|version| format!("{version:04}"))
            .collect();
        Self {
            applied: there,
            pending,
            newer,
        }
    }
}

/// Which migrations the database has, and which it waits for; changes nothing.
///
/// # Errors
/// See [`ConnectError`].
pub async fn migration_status(url: &str) -> Result<MigrationStatus, ConnectError> {
    match Backend::of(url)? {
        Backend::Sqlite(path) => sqlite::migration_status(path.as_ref()).await,
        #[cfg(feature = "postgres")]
        Backend::Postgres => postgres::migration_status(url).await,
    }
}

/// How a database stands, for `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseLook {
    /// The database's clock less ours, in microseconds. `None` for a file, which has no clock.
    pub clock_offset_micros: Option<i64>,
    /// Actions whose lease ended more than a minute ago, and nobody has noticed.
    pub ended_leases: u64,
}

/// Looks at a database whose schema is up to date; changes nothing, and opens no file for itself.
///
/// # Errors
/// See [`ConnectError`].
pub async fn look(url: &str, clock: &dyn crate::domain::Clock) -> Result<DatabaseLook, ConnectError> {
    match Backend::of(url)? {
        Backend::Sqlite(path) => sqlite::look(path.as_ref(), clock.now()).await,
        #[cfg(feature = "postgres")]
        Backend::Postgres => postgres::look(url, clock).await,
    }
}

/// The time after its end in which a worker notices a lease.
const LEASE_NOTICED_WITHIN: std::time::Duration = std::time::Duration::from_mins(1);

/// The one place where a backend is picked.
enum Backend<'u> {
    Sqlite(&'u str),
    #[cfg(feature = "postgres")]
    Postgres,
}

impl<'u> Backend<'u> {
    fn of(url: &'u str) -> Result<Self, ConnectError> {
        // `sqlite://PATH` is the same as `sqlite:PATH`: taken literally, its two slashes would make
        // a relative path an absolute one.
        match url
            .split_once(':')
            .map(|(scheme, path)| (scheme, path.strip_prefix("//").unwrap_or(path)))
        {
            Some(("sqlite", path)) if !path.is_empty() && !path.contains(":memory:") => Ok(Self::Sqlite(path)),
            #[cfg(feature = "postgres")]
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => Ok(Self::Postgres),
            _ => Err(ConnectError::UnknownUrl),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "HOOKSWITCH_DATABASE_URL is not understood: expected sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE"
    )]
    UnknownUrl,
    #[error("cannot open the database {path}")]
    Open {
        path: String,
        #[source]
        source: sqlx::Error,
    },
    /// Later may work: the server does not answer, or takes nobody on for now.
    #[error("the database {path} does not answer")]
    Away {
        path: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("there is no database at {}; to begin a new one there, run: hookswitch migrate", path.display())]
    Missing { path: PathBuf },
    #[error("SQLite {version} is older than 3.51.3, which can lose committed writes; build with the bundled one")]
    TooOld { version: String },
    #[error("{path} is in use by another hookswitch process; stop it, or give this one its own database")]
    InUse { path: String },
    #[error("cannot bring the schema of {path} up to date")]
    Migrate {
        path: String,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    #[error(
        "the schema of {path} is not up to date: {} pending ({}); run: hookswitch migrate",
        pending.len(),
        pending.join(", ")
    )]
    Pending { path: String, pending: Vec<String> },
    #[error(
        "the user of {path} may not make the two roles that row-level security binds, or is no member of them: run \
        deploy/postgres/roles.sh as a superuser, or ALTER ROLE … CREATEROLE"
    )]
    MayNotMakeRoles {
        path: String,
        #[source]
        source: sqlx::migrate::MigrateError,
    },
    #[error(
        "the role {role} passes row-level security by, which keeps organisations apart: take SUPERUSER and BYPASSRLS \
        from it"
    )]
    FreeRole { role: String },
    #[error("{pragma} of {path} is {found}, expected {expected}")]
    Pragma {
        path: String,
        pragma: &'static str,
        found: String,
        expected: &'static str,
    },
}
