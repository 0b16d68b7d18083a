//! Snapshots in SQLite.

use super::{SqliteStore, StoreError};
use crate::{domain::*, store::snapshot::*};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl Snapshots for SqliteStore {
    async fn load_changes(&self, version: i64) -> Result<SnapshotChanges, StoreError> {
        unimplemented!()
    }
}
