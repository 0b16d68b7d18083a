//! SQLite: one writer that owns its connection, a small pool of readers.
//!
//! **Invariant:** every change goes through [`SqliteStore::write`]; a command is a savepoint,
//! answered after the commit that made it durable.

mod ledger;
#[cfg(test)]
mod tests;
mod writer;

use super::{
    Base, ConnectError, DatabaseLook, LEASE_NOTICED_WITHIN, MigrationStatus, StoreError,
    migrate::{self, Step},
    sql::{self, Access, Lane, READ_VERSION, Reader, SqlStore, Transaction, failed as failed_on},
};
use crate::domain::{Clock, Timestamp, create_private_directory, keep_private, private_file};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, Connection, Row, Sqlite, SqliteConnection, SqlitePool,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, watch};
use tracing::warn;
use writer::Writer;

/// Readers. SQLite reads from memory-mapped pages of its own cache; more connections than cores
/// gain nothing.
const READERS_MAX: u32 = 4;

pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
    changes: watch::Sender<i64>,
    clock: Arc<dyn Clock>,
}

const STEPS: &[Step] = &[
    (1, "init", include_str!("../../../migrations/sqlite/0001_init.sql")),
    (
        2,
        "grants and assistants",
        include_str!("../../../migrations/sqlite/0002_grants_and_assistants.sql"),
    ),
    (
        3,
        "account of an action",
        include_str!("../../../migrations/sqlite/0003_account_of_an_action.sql"),
    ),
    (
        4,
        "parts that wait for a rule",
        include_str!("../../../migrations/sqlite/0004_parts_that_wait_for_a_rule.sql"),
    ),
    (
        5,
        "delivery of an action",
        include_str!("../../../migrations/sqlite/0005_delivery_of_an_action.sql"),
    ),
    (
        6,
        "rows changed by hand",
        include_str!("../../../migrations/sqlite/0006_rows_changed_by_hand.sql"),
    ),
    (
        7,
        "sessions and request keys",
        include_str!("../../../migrations/sqlite/0007_sessions_and_request_keys.sql"),
    ),
    (
        8,
        "events that wait",
        include_str!("../../../migrations/sqlite/0008_events_that_wait.sql"),
    ),
    (
        9,
        "retention",
        include_str!("../../../migrations/sqlite/0009_retention.sql"),
    ),
    (
        10,
        "signed urls",
        include_str!("../../../migrations/sqlite/0010_signed_urls.sql"),
    ),
    (
        11,
        "key rotation",
        include_str!("../../../migrations/sqlite/0011_key_rotation.sql"),
    ),
    (
        12,
        "replays",
        include_str!("../../../migrations/sqlite/0012_replays.sql"),
    ),
    (13, "pauses", include_str!("../../../migrations/sqlite/0013_pauses.sql")),
    (
        14,
        "bulk jobs",
        include_str!("../../../migrations/sqlite/0014_bulk_jobs.sql"),
    ),
    (
        15,
        "audit values",
        include_str!("../../../migrations/sqlite/0015_audit_values.sql"),
    ),
    (
        16,
        "rotation of credentials",
        include_str!("../../../migrations/sqlite/0016_rotation_of_credentials.sql"),
    ),
    (
        17,
        "uses of secrets",
        include_str!("../../../migrations/sqlite/0017_uses_of_secrets.sql"),
    ),
    (
        18,
        "platform routes",
        include_str!("../../../migrations/sqlite/0018_platform_routes.sql"),
    ),
    (
        19,
        "recoveries",
        include_str!("../../../migrations/sqlite/0019_recoveries.sql"),
    ),
    (
        20,
        "organization settings",
        include_str!("../../../migrations/sqlite/0020_organization_settings.sql"),
    ),
    (
        21,
        "jobs that outlive a process",
        include_str!("../../../migrations/sqlite/0021_jobs_that_outlive_a_process.sql"),
    ),
    (
        22,
        "texts at vapi",
        include_str!("../../../migrations/sqlite/0022_texts_at_vapi.sql"),
    ),
];

fn migrator() -> Migrator {
    migrate::migrator(STEPS)
}

impl SqliteStore {
    /// Opens or creates the database file, checks SQLite's version and the durability settings, and
    /// applies migrations.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, ConnectError> {
        let shown = path.display().to_string();
        let io_failed = |source| ConnectError::Open {
            path: shown.clone(),
            source: sqlx::Error::Io(source),
        };
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            create_private_directory(directory).map_err(io_failed)?;
        }
        let lock = match lock_beside(path) {
            FileLock::Taken(lock) => lock,
            FileLock::HeldElsewhere => return Err(ConnectError::InUse { path: shown }),
            FileLock::Failed(error) => return Err(io_failed(error)),
        };
        make_private(path).map_err(io_failed)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true)
            .statement_cache_capacity(256)
            .pragma("journal_size_limit", "67108864")
            .pragma("cache_size", "-16384")
            .pragma("temp_store", "memory");
        let open_failed = |source| ConnectError::Open {
            path: shown.clone(),
            source,
        };
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(open_failed)?;
        if let LinkedSqlite::TooOld { version } = linked_sqlite(&mut connection).await.map_err(open_failed)? {
            return Err(ConnectError::TooOld { version });
        }
        for (pragma, expected) in [("journal_mode", "wal"), ("synchronous", "2")] {
            let row = sqlx::query(AssertSqlSafe(format!("PRAGMA {pragma}")))
                .fetch_one(&mut connection)
                .await
                .map_err(open_failed)?;
            let found = row
                .try_get::<String, _>(0)
                .or_else(|_| row.try_get::<i64, _>(0).map(|n| n.to_string()))
                .map_err(open_failed)?;
            if found != expected {
                return Err(ConnectError::Pragma {
                    path: shown,
                    pragma,
                    found,
                    expected,
                });
            }
        }
        migrator()
            .run(&mut connection)
            .await
            .map_err(|source| ConnectError::Migrate {
                path: shown.clone(),
                source,
            })?;
        let version = read_version(&mut connection).await.map_err(open_failed)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            // All of them at the start: later there may be no descriptor to open one with.
            .min_connections(READERS_MAX)
            .acquire_timeout(Duration::from_secs(5))
            // A local file does not lose connections: no probe before each read, no reconnect by
            // age.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.read_only(true))
            .await
            .map_err(open_failed)?;
        let (changes, _) = watch::channel(version);
        let writer = Writer::start(connection, lock).map_err(|source| ConnectError::Open {
            path: shown.clone(),
            source: sqlx::Error::Io(source),
        })?;
        Ok(Self {
            writer,
            readers,
            changes,
            clock,
        })
    }
}

/// Which migrations a file has. A missing file waits for all of them. Reads only, also while a
/// process has the file open.
pub(super) async fn migration_status(path: &Path) -> Result<MigrationStatus, ConnectError> {
    let open_failed = |source| ConnectError::Open {
        path: path.display().to_string(),
        source,
    };
    let mut applied: Vec<i64> = Vec::new();
    if path.exists() {
        let mut connection =
            SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path).read_only(true))
                .await
                .map_err(open_failed)?;
        let has_any: i64 = sqlx::query_scalar(HAS_MIGRATIONS)
            .fetch_one(&mut connection)
            .await
            .map_err(open_failed)?;
        if has_any > 0 {
            applied = sqlx::query_scalar(APPLIED_MIGRATIONS)
                .fetch_all(&mut connection)
                .await
                .map_err(open_failed)?;
        }
        // The connection has only read, so an error on closing changes nothing.
        let _ = connection.close().await;
    }
    Ok(MigrationStatus::of(&migrator(), &applied))
}

/// See [`super::look`].
pub(super) async fn look(path: &Path, now: Timestamp) -> Result<DatabaseLook, ConnectError> {
    let open_failed = |source| ConnectError::Open {
        path: path.display().to_string(),
        source,
    };
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(open_failed)?;
    let ended: i64 = sqlx::query_scalar(ENDED_LEASES)
        .bind((now - LEASE_NOTICED_WITHIN).as_micros())
        .fetch_one(&mut connection)
        .await
        .map_err(open_failed)?;
    let _ = connection.close().await;
    Ok(DatabaseLook {
        clock_offset_micros: None,
        ended_leases: ended.unsigned_abs(),
    })
}

const SIZE: &str = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
const ENDED_LEASES: &str = "SELECT count(*) FROM actions WHERE state = 'running' AND lease_until < ?1";
const HAS_MIGRATIONS: &str = "SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
const APPLIED_MIGRATIONS: &str = "SELECT version FROM _sqlx_migrations WHERE success";

/// Maps a database error, with the statement's purpose. For `map_err`.
pub(super) fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    failed_on::<Sqlite>(doing)
}

/// Whether the statement failed on its data, so that it fails again. All other errors (full disk,
/// I/O, busy, a damaged or read-only file) are the database's own. A caller that took one for bad
/// data would store good events as dead.
pub(super) fn is_about_data(extended_code: Option<&str>) -> bool {
    const ERROR: i32 = 1; // also what SQL functions raise over their arguments
    const TOOBIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const RANGE: i32 = 25;
    let primary = extended_code
        .and_then(|code| code.parse::<i32>().ok())
        .map(|code| code & 0xff);
    matches!(primary, Some(ERROR | TOOBIG | CONSTRAINT | MISMATCH | RANGE))
}

/// The result of locking a database file.
enum FileLock {
    Taken(std::fs::File),
    /// Another process has the database open.
    HeldElsewhere,
    Failed(std::io::Error),
}

/// The database and its companions are its owner's only. SQLite gives its log and its index the
/// rights of the database.
fn make_private(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = beside(path, suffix);
        if let Err(error) = keep_private(&file) {
            warn!(%error, "The rights of others to read {} cannot be taken away", file.display());
        }
    }
    private_file().write(true).create(true).truncate(false).open(path)?;
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

fn lock_beside(path: &Path) -> FileLock {
    let opened = private_file()
        .create(true)
        .truncate(false)
        .write(true)
        .open(beside(path, ".lock"));
    let file = match opened {
        Ok(file) => file,
        Err(e) => return FileLock::Failed(e),
    };
    match file.try_lock() {
        Ok(()) => FileLock::Taken(file),
        Err(std::fs::TryLockError::WouldBlock) => FileLock::HeldElsewhere,
        Err(std::fs::TryLockError::Error(e)) => FileLock::Failed(e),
    }
}

/// Whether the linked SQLite keeps committed writes. SQLite 3.51.3 fixed a bug in the reset of its
/// write-ahead log.
enum LinkedSqlite {
    Usable,
    TooOld { version: String },
}

async fn linked_sqlite(connection: &mut SqliteConnection) -> Result<LinkedSqlite, sqlx::Error> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await?;
    Ok(if is_too_old(&version) {
        LinkedSqlite::TooOld { version }
    } else {
        LinkedSqlite::Usable
    })
}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (
        parts.next().unwrap_or(0),
        parts.next().unwrap_or(0),
        parts.next().unwrap_or(0),
    );
    found < (3, 51, 3)
}

async fn read_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(READ_VERSION).fetch_one(connection).await
}

impl SqlStore for SqliteStore {
    type Db = Sqlite;

    async fn read(&self, _: impl Into<Access> + Send) -> Result<Reader<Sqlite>, StoreError> {
        let acquired = self.readers.acquire().await.map_err(failed("begin reading"))?;
        Ok(Reader::Connection(acquired))
    }

    async fn read_moment(&self, _: impl Into<Access> + Send) -> Result<Reader<Sqlite>, StoreError> {
        let begun = self.readers.begin().await.map_err(failed("begin reading"))?;
        Ok(Reader::Transaction(begun))
    }

    async fn run<T, F, C>(&self, access: Access, doing: &'static str, command: F, committed: C) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(Transaction<'c, Sqlite>) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        C: FnOnce(&T) + Send + 'static,
    {
        let (now, begun) = (self.clock.now(), Instant::now());
        self.writer
            .run(
                access.lane,
                doing,
                move |connection| command(Transaction { connection, now }),
                move |value: &T| {
                    access.lane.note_write(begun);
                    committed(value);
                },
            )
            .await
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn known_version(&self) -> &watch::Sender<i64> {
        &self.changes
    }

    /// There is one writer already.
    fn configuring(&self) -> Option<&Mutex<()>> {
        None
    }
}

#[async_trait]
impl Base for SqliteStore {
    /// From memory: this process makes every change, and each is known before its caller is
    /// answered. A row that a person changes by hand is known with the next look at the routes.
    async fn config_version(&self) -> Result<i64, StoreError> {
        Ok(*self.changes.borrow())
    }

    fn config_changes(&self) -> watch::Receiver<i64> {
        self.changes.subscribe()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sql::read_version(self).await.map(drop)
    }

    async fn size_bytes(&self) -> Result<u64, StoreError> {
        let bytes: i64 = sqlx::query_scalar(SIZE)
            .fetch_one(&self.readers)
            .await
            .map_err(failed("tell its size"))?;
        Ok(bytes.unsigned_abs())
    }

    fn is_shared(&self) -> bool {
        false
    }

    async fn close(&self) {
        // Close readers first. The last connection to close folds the write-ahead log into the
        // file, and a reader may not do that.
        self.readers.close().await;
        self.writer.close().await;
    }
}
