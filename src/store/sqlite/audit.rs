//! AuditLog in SQLite.

use super::{SqliteStore, StoreError};
use crate::{domain::*, store::audit::*};
use async_trait::async_trait;
use uuid::Uuid;

#[async_trait]
#[allow(unused_variables)]
impl AuditLog for SqliteStore {
    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn list_audit(&self, org: OrgId, before: Option<Uuid>, count_max: u32) -> Result<Vec<StoredAuditEntry>, StoreError> {
        unimplemented!()
    }
}
