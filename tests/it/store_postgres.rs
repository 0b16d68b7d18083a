//! The store's and the ledger's contracts over Postgres, each test in a database of its own.

use crate::{
    ledger::suite::{self, Bench},
    support::postgres::PostgresDatabase,
};
use hookswitch::{
    domain::{ManualClock, Timestamp},
    store::{PostgresStore, Store},
};
use std::sync::Arc;

async fn open() -> Option<(PostgresDatabase, Arc<dyn Store>, Arc<ManualClock>)> {
    let database = PostgresDatabase::new().await?;
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000_000)));
    let store = PostgresStore::open(&database.url(), clock.clone())
        .await
        .expect("the store opens");
    Some((database, Arc::new(store), clock))
}

mod contract {
    crate::store_suite!(super::open);
}

mod ledger {
    use super::*;

    macro_rules! cases {
        ($($case:ident),+ $(,)?) => {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(database) = PostgresDatabase::new().await else { return };
                let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000)));
                let store = PostgresStore::open(&database.url(), clock.clone()).await.expect("the store opens");
                let store: Arc<dyn Store> = Arc::new(store);
                suite::$case(&Bench { store: store.clone(), clock }).await;
                store.close().await;
            }
        )+};
    }

    crate::ledger_cases!(cases);
}
