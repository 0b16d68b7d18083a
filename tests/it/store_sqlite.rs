//! The store's contract over SQLite, and what only a file can do: be opened twice, be opened again,
//! be somewhere else.

use hookswitch::{
    domain::{ManualClock, Provider, SystemClock, Timestamp},
    store::{self, ConnectError, SqliteStore, Store, StoreError},
};
use sqlx::Connection;
use std::{path::PathBuf, sync::Arc};

use crate::conformance::store::{credential, entry, org, rule};

/// A directory of its own, gone with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("hookswitch-store-{}", uuid::Uuid::now_v7())))
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.0.join("deep/store.db").display())
    }

    async fn open(&self) -> Result<Arc<dyn Store>, ConnectError> {
        store::create(&self.url(), Arc::new(SystemClock)).await
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn open() -> Option<(Scratch, Arc<dyn Store>, Arc<ManualClock>)> {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000_000)));
    let store = SqliteStore::open(&scratch.0.join("store.db"), clock.clone())
        .await
        .expect("the store opens");
    Some((scratch, Arc::new(store), clock))
}

crate::store_suite!(open);

#[tokio::test]
async fn a_store_opened_again_has_everything() {
    let scratch = Scratch::new();
    let store = scratch.open().await.expect("opens");
    let org = org(&store).await;
    let kept = rule(org, "kept");
    store
        .create_rule(kept.clone(), entry(org, "create"))
        .await
        .expect("created");
    let saved = store
        .save_credential(credential(org, Provider::Twilio, "", "s"), entry(org, "connect"))
        .await
        .expect("saved");
    let version = store.config_version().await.expect("a version");
    store.close().await;
    store.close().await;
    assert!(matches!(
        store.create_rule(rule(org, "late"), entry(org, "create")).await,
        Err(StoreError::Unavailable { .. })
    ));
    assert!(
        matches!(store.find_rule(org, kept.id).await, Err(StoreError::Unavailable { .. })),
        "closed is not the same as not there"
    );
    assert!(store.ping().await.is_err());

    let again = scratch
        .open()
        .await
        .expect("close lets the file go, though the store is still held");
    assert_eq!(again.find_rule(org, kept.id).await.expect("a look"), Some(kept));
    assert_eq!(
        again.find_credential(org, Provider::Twilio, "").await.expect("a look"),
        Some(saved)
    );
    assert_eq!(again.config_version().await.expect("a version"), version);
    assert_eq!(*again.config_changes().borrow(), version);
    again.close().await;
}

#[tokio::test]
async fn a_second_opening_is_refused_and_says_so() {
    let scratch = Scratch::new();
    let first = scratch.open().await.expect("opens");
    let refused = scratch.open().await.err().expect("refused");
    assert!(matches!(refused, ConnectError::InUse { .. }), "{refused}");
    let org = org(&first).await;
    first
        .create_rule(rule(org, "one"), entry(org, "create"))
        .await
        .expect("the first one goes on");
    let other_spelling = scratch.url().replacen(':', "://", 1);
    let refused = store::connect(&other_spelling, Arc::new(SystemClock)).await.err();
    assert!(
        matches!(refused, Some(ConnectError::InUse { .. })),
        "{other_spelling} is the same file"
    );
    first.close().await;
    scratch.open().await.expect("free again").close().await;
}

#[tokio::test]
async fn urls_that_name_no_file_are_refused() {
    for url in [
        "",
        "sqlite",
        "sqlite:",
        "sqlite://",
        "sqlite::memory:",
        "postgres://",
        "postgres:",
        "mysql:x",
    ] {
        let refused = store::connect(url, Arc::new(SystemClock)).await.err();
        assert!(matches!(refused, Some(ConnectError::UnknownUrl)), "{url}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_names_its_path() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(&scratch.0).expect("a directory");
    let file = scratch.0.join("plain");
    std::fs::write(&file, "not a directory").expect("a file");
    let refused = SqliteStore::open(&file.join("store.db"), Arc::new(SystemClock))
        .await
        .err()
        .expect("refused");
    assert!(
        matches!(&refused, ConnectError::Open { path, .. } if path.ends_with("plain/store.db")),
        "{refused}"
    );
    let junk = scratch.0.join("junk.db");
    std::fs::write(&junk, "this is no database, and longer than a header is: ".repeat(100)).expect("a file");
    let refused = SqliteStore::open(&junk, Arc::new(SystemClock))
        .await
        .err()
        .expect("refused");
    assert!(
        matches!(&refused, ConnectError::Open { path, .. } if path.ends_with("junk.db")),
        "{refused}"
    );
}

/// As on Postgres: a row that a person changes by hand is stamped, so that each poll finds it.
#[tokio::test]
async fn a_row_changed_by_hand_is_stamped_once_and_found_by_the_next_poll() {
    let (scratch, store, _) = open().await.expect("a store");
    let org = org(&store).await;
    let rule = rule(org, "by hand");
    store
        .create_rule(rule.clone(), entry(org, "create"))
        .await
        .expect("created");
    let before = store.config_version().await.expect("a version");
    let by_hand = async |statement: String| {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(scratch.0.join("store.db"))
            .busy_timeout(std::time::Duration::from_secs(5));
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("opens");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .expect("changed");
        connection.close().await.expect("closes");
    };
    let id = hex::encode(rule.id.as_uuid());
    by_hand(format!("UPDATE rules SET is_deleted = 1 WHERE id = x'{id}'")).await;
    let poll = async || store.load_changes(before).await.expect("routes").version;
    assert_eq!(poll().await, before + 1);
    assert_eq!(
        store.config_version().await.expect("a version"),
        before + 1,
        "known since the poll"
    );
    let changes = store.load_rule_changes(before).await.expect("loaded");
    assert!(
        changes
            .rules
            .iter()
            .any(|(changed, is_deleted)| changed.id == rule.id && *is_deleted),
        "{changes:?}"
    );
    // The same value again, and a column that nothing in memory is made of, are no news.
    by_hand(format!(
        "UPDATE rules SET is_deleted = 1 WHERE id = x'{id}'; UPDATE rules SET updated_at = 5 WHERE id = x'{id}'"
    ))
    .await;
    assert_eq!(poll().await, before + 1);
    by_hand(format!(
        "INSERT INTO assistant_org_mapping (id, org_id, assistant_id, state, created_at, updated_at, changed_version) \
        VALUES (zeroblob(16), x'{}', 'asst-by-hand', 'live', 1, 1, 0)",
        hex::encode(org.as_uuid())
    ))
    .await;
    assert_eq!(poll().await, before + 2);
    store.close().await;
}
