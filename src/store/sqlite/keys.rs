//! DataKeys in SQLite.

use super::{SqliteStore, StoreError};
use crate::{domain::*, store::keys::*};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl DataKeys for SqliteStore {
    async fn load_data_keys(&self, org: OrgId) -> Result<Vec<DataKeyRow>, StoreError> {
        unimplemented!()
    }

    async fn insert_data_key(&self, key: DataKeyRow) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn reserve_seals(&self, org: OrgId, version: u32, block: u64) -> Result<u64, StoreError> {
        unimplemented!()
    }
}
