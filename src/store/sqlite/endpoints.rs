//! Endpoints in SQLite.

use super::{SqliteStore, StoreError};
use crate::{
    domain::*,
    store::{audit::AuditEntry, endpoints::*},
};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl Endpoints for SqliteStore {
    async fn create_endpoint(&self, endpoint: Endpoint, secrets: Vec<NewSecret>, audit: AuditEntry) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn find_endpoint(&self, org: OrgId, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        unimplemented!()
    }

    async fn list_endpoints(&self, org: OrgId, after: Option<EndpointId>, count_max: u32) -> Result<Vec<Endpoint>, StoreError> {
        unimplemented!()
    }

    async fn delete_endpoint(&self, org: OrgId, id: EndpointId, audit: AuditEntry) -> Result<bool, StoreError> {
        unimplemented!()
    }

    async fn add_secret(&self, secret: NewSecret, others_not_after: Option<Timestamp>, audit: AuditEntry) -> Result<bool, StoreError> {
        unimplemented!()
    }

    async fn replace_org_secrets(
        &self,
        org: OrgId,
        source: Source,
        secrets: Vec<NewSecret>,
        others_not_after: Option<Timestamp>,
        audit: AuditEntry,
    ) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn list_secrets(&self, org: OrgId, source: Source, endpoint: Option<EndpointId>) -> Result<Vec<StoredSecret>, StoreError> {
        unimplemented!()
    }
}
