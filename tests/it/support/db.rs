//! A SQLite file of a test's own, and raw rows in it.

use hookswitch::{
    domain::{Clock, ManualClock, OrgId, Timestamp},
    store::SqliteStore,
};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Gone with the test.
pub struct Database {
    directory: PathBuf,
    pub clock: Arc<ManualClock>,
}

impl Database {
    pub fn new() -> Self {
        Self::at(NOW)
    }

    /// With a clock that begins at this moment.
    pub fn at(moment: Timestamp) -> Self {
        Self {
            directory: std::env::temp_dir().join(format!("hookswitch-it-{}", uuid::Uuid::now_v7())),
            clock: Arc::new(ManualClock::at(moment)),
        }
    }

    pub fn folder(&self) -> &Path {
        &self.directory
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join("store.db")
    }

    pub async fn open(&self) -> Arc<SqliteStore> {
        self.open_by(Arc::clone(&self.clock) as Arc<dyn Clock>).await
    }

    /// The store, with a clock in the place of the database's own.
    pub async fn open_by(&self, clock: Arc<dyn Clock>) -> Arc<SqliteStore> {
        Arc::new(SqliteStore::open(&self.path(), clock).await.expect("the store opens"))
    }

    /// A connection beside the store's. Its changes wake nobody: they are found by polling, as
    /// another instance's would be.
    pub async fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(self.path())
            .busy_timeout(Duration::from_secs(5));
        SqliteConnection::connect_with(&options)
            .await
            .expect("the database opens")
    }

    /// Statements in one transaction, with the configuration version counted up before them:
    /// `(SELECT version FROM config_version)` is theirs.
    pub async fn configure(&self, statements: &[String]) {
        let all = format!(
            "BEGIN IMMEDIATE; UPDATE config_version SET version = version + 1; {}; COMMIT",
            statements.join("; ")
        );
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(all))
            .execute(&mut connection)
            .await
            .expect("statements of a test");
        connection.close().await.expect("closes");
    }

    /// An active organisation of its own.
    pub async fn organisation(&self) -> OrgId {
        let org = OrgId::generate();
        self.configure(&[format!(
            "INSERT INTO organizations (id, name, is_active, created_at, updated_at, changed_version) VALUES ({}, 'a', \
            1, 0, 0, {VERSION})",
            blob(org.as_bytes())
        )])
        .await;
        org
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The version of the transaction that it stands in.
pub const VERSION: &str = "(SELECT version FROM config_version)";

pub fn blob(bytes: &[u8]) -> String {
    format!("x'{}'", hex::encode(bytes))
}
