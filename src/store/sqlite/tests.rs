//! Tests of this dialect only: its statements, settings, writer and damaged rows. The contracts are
//! tested from outside.

use super::*;
use crate::{
    domain::{ManualClock, Timestamp},
    store::{credentials::Credentials, history::History, organisations::Organisations, rules::Rules},
};
use std::path::PathBuf;

mod rooms;
mod writes;

/// A database file of its own, gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("hookswitch-sqlite-{}", uuid::Uuid::now_v7())))
    }

    fn path(&self) -> PathBuf {
        self.0.join("store.db")
    }

    async fn open(&self) -> SqliteStore {
        SqliteStore::open(
            &self.path(),
            Arc::new(ManualClock::at(Timestamp::from_seconds(1_000_000))),
        )
        .await
        .expect("the store opens")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs one statement as a command of the writer.
async fn execute(store: &SqliteStore, statement: &'static str) -> Result<u64, StoreError> {
    store
        .write(Access::ALL_ORGS, "test", move |tx| {
            Box::pin(async move {
                Ok(sqlx::query(statement)
                    .execute(tx.connection)
                    .await
                    .map_err(failed("test"))?
                    .rows_affected())
            })
        })
        .await
}

async fn count(store: &SqliteStore, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement)
        .fetch_one(&store.readers)
        .await
        .expect("a count")
}
