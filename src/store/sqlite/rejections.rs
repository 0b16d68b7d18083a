//! Rejections in SQLite.

use super::{SqliteStore, StoreError};
use crate::{domain::*, store::rejections::*};
use async_trait::async_trait;
use uuid::Uuid;

#[async_trait]
#[allow(unused_variables)]
impl Rejections for SqliteStore {
    async fn record_rejections(&self, batch: Vec<Rejection>, kept_max: u32) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn list_rejections(&self, org: Option<OrgId>, before: Option<Uuid>, count_max: u32) -> Result<Vec<Rejection>, StoreError> {
        unimplemented!()
    }
}
