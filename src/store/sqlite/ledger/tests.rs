//! Statements: each prepares, and none reads the ledger from end to end.

use super::*;
use crate::{domain::SystemClock, store::SqliteStore};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use std::{path::PathBuf, sync::Arc};

struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hookswitch-ledger-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn connection(directory: &Directory) -> SqliteConnection {
    let path = directory.0.join("store.db");
    let store = SqliteStore::open(&path, Arc::new(SystemClock)).await.expect("opens");
    crate::store::Base::close(&store).await;
    drop(store);
    SqliteConnection::connect(&format!("sqlite:{}", path.display()))
        .await
        .expect("connects")
}

async fn plan_of(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
        .fetch_all(connection)
        .await
        .expect(statement);
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[tokio::test]
async fn every_statement_prepares() {
    let directory = Directory::new();
    let mut connection = connection(&directory).await;
    let shared = crate::store::sql::ledger::statements();
    let shared = shared.iter().map(|sql| sql.sqlite).filter(|text| !text.is_empty());
    for statement in statements().into_iter().chain(shared) {
        plan_of(&mut connection, statement).await;
    }
}

/// The cost of a claim, a record and the end of a lease does not grow with finished rows. No
/// statement reads a table or an index from end to end.
#[tokio::test]
async fn claims_and_records_never_scan_the_ledger() {
    let directory = Directory::new();
    let mut connection = connection(&directory).await;
    let shared = crate::store::sql::ledger::statements();
    let shared = shared.iter().map(|sql| sql.sqlite).filter(|text| !text.is_empty());
    for statement in statements().into_iter().chain(shared) {
        for line in plan_of(&mut connection, statement).await {
            let scans =
                line.starts_with("SCAN") && ["actions", "attempts", " a"].iter().any(|table| line.contains(table));
            let scans_turns = line.starts_with("SCAN turns") && !line.contains("USING");
            assert!(!scans && !scans_turns, "{line}\nin {statement}");
        }
    }
    let rows = plan_of(&mut connection, claim::ROWS).await.join("\n");
    assert!(
        rows.contains("actions_due (org_id=? AND provider=? AND due_at<?)"),
        "{rows}"
    );
    let turns = plan_of(&mut connection, claim::PASS_TURNS).await.join("\n");
    assert!(turns.contains("actions_due (org_id=? AND provider=?)"), "{turns}");
}
