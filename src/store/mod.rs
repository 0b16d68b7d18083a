//! What is kept: organisations, credentials, routes, rules, the ledger, audit. One trait a concern, one file each; SQL stands below, a folder a dialect.
//!
//! `vault`, `routing`, `attempt`, `worker`, `receiver` (rejections) and `admin` enter. **Invariant:** every statement on tenant data binds the
//! organisation, and "not there" (`Ok(None)`) is never the same value as "could not look" (`Err`).

pub mod audit;
pub mod credentials;
pub mod endpoints;
pub mod grants;
pub mod history;
pub mod keys;
pub mod ledger;
pub mod managed;
pub mod organisations;
pub mod rejections;
pub mod routes;
pub mod rules;
pub mod snapshot;
mod sqlite;

pub use sqlite::SqliteStore;

use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::watch;

/// A whole store. Each concern's trait is the contract that `tests/it/conformance/store.rs` tests over every dialect.
pub trait Store:
    Base
    + audit::AuditLog
    + credentials::Credentials
    + endpoints::Endpoints
    + grants::Grants
    + history::History
    + keys::DataKeys
    + ledger::Ledger
    + managed::ManagedAssistants
    + organisations::Organisations
    + rejections::Rejections
    + routes::Routes
    + rules::Rules
    + snapshot::Snapshots
{
}

impl<S> Store for S where
    S: Base
        + audit::AuditLog
        + credentials::Credentials
        + endpoints::Endpoints
        + grants::Grants
        + history::History
        + keys::DataKeys
        + ledger::Ledger
        + managed::ManagedAssistants
        + organisations::Organisations
        + rejections::Rejections
        + routes::Routes
        + rules::Rules
        + snapshot::Snapshots
{
}

#[async_trait]
pub trait Base: Send + Sync + 'static {
    /// The version of all configuration (routes, secrets, rules, credentials): counts up with every change. One cheap read.
    async fn config_version(&self) -> Result<i64, StoreError>;

    /// A hint that the version has moved, for changes made through this store; polling [`Base::config_version`] is the truth.
    fn config_changes(&self) -> watch::Receiver<i64>;

    /// Whether the database answers, for `/readyz`.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Finishes what was begun and closes. Idempotent.
    async fn close(&self);
}

/// Why the store could not do it. Absent is not broken: `Ok(None)` looked and found nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached or is shutting down; later may work. Admin: 503. Worker: keep the delivery and wait.
    #[error("the database is not available: {doing}")]
    Unavailable { doing: &'static str },
    /// A version, a state or a unique key stood in the way; nothing was changed. Admin: 409 or 412.
    #[error("{what} was changed by someone else, or exists already")]
    Conflict { what: &'static str },
    /// A row cannot be what it claims to be.
    #[error("table {table}, column {column}: a stored value is not valid")]
    Corrupt { table: &'static str, column: &'static str },
    /// The statement failed on its data; doing it again fails again (rule 15).
    #[error("the database refused to {doing}: {reason}")]
    Data { doing: &'static str, reason: Arc<str> },
}

/// Opens the store that a URL names: `sqlite:PATH`. Creates it and brings its schema up to date.
///
/// # Errors
/// Says which setting is wrong, what stands in the way, or which migration failed.
pub async fn connect(url: &str, clock: Arc<dyn crate::domain::Clock>) -> Result<Arc<dyn Store>, ConnectError> {
    // `sqlite://PATH` is the same as `sqlite:PATH`: taken literally, its two slashes would make a relative path an absolute one.
    match url.split_once(':').map(|(scheme, path)| (scheme, path.strip_prefix("//").unwrap_or(path))) {
        Some(("sqlite", path)) if !path.is_empty() && !path.contains(":memory:") => Ok(Arc::new(SqliteStore::open(path.as_ref(), clock).await?)),
        _ => Err(ConnectError::UnknownUrl),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("HOOKSWITCH_DATABASE_URL is not understood: expected sqlite:PATH")]
    UnknownUrl,
    #[error("cannot open the database {path}")]
    Open {
        path: String,
        #[source]
        source: sqlx::Error,
    },
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
    #[error("{pragma} of {path} is {found}, expected {expected}")]
    Pragma { path: String, pragma: &'static str, found: String, expected: &'static str },
}
