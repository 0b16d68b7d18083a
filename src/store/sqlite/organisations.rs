//! Organisations in SQLite.

use super::{SqliteStore, StoreError};
use crate::{
    domain::*,
    store::{audit::AuditEntry, organisations::*},
};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl Organisations for SqliteStore {
    async fn create_organisation(&self, id: OrgId, name: &str, audit: AuditEntry) -> Result<Organisation, StoreError> {
        unimplemented!()
    }

    async fn find_organisation(&self, id: OrgId) -> Result<Option<Organisation>, StoreError> {
        unimplemented!()
    }

    async fn list_organisations(&self, after: Option<OrgId>, count_max: u32) -> Result<Vec<Organisation>, StoreError> {
        unimplemented!()
    }
}
