//! Routes in SQLite.

use super::{SqliteStore, StoreError};
use crate::{
    domain::*,
    store::{audit::AuditEntry, routes::*},
};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl Routes for SqliteStore {
    async fn prove_assistant(&self, claim: AssistantClaim, audit: AuditEntry) -> Result<Option<OrgId>, StoreError> {
        unimplemented!()
    }

    async fn list_assistants(&self, org: OrgId, after: Option<&str>, count_max: u32) -> Result<Vec<AssistantClaim>, StoreError> {
        unimplemented!()
    }

    async fn find_assistant(&self, org: OrgId, assistant_id: &str) -> Result<Option<AssistantClaim>, StoreError> {
        unimplemented!()
    }

    async fn find_assistant_holder(&self, assistant_id: &str) -> Result<Option<OrgId>, StoreError> {
        unimplemented!()
    }

    async fn release_assistant(&self, org: OrgId, assistant_id: &str, audit: AuditEntry) -> Result<bool, StoreError> {
        unimplemented!()
    }

    async fn prove_number(&self, claim: NumberClaim, audit: AuditEntry) -> Result<Option<OrgId>, StoreError> {
        unimplemented!()
    }

    async fn list_numbers(&self, org: OrgId, after: Option<&str>, count_max: u32) -> Result<Vec<NumberClaim>, StoreError> {
        unimplemented!()
    }

    async fn find_number(&self, org: OrgId, number: &str) -> Result<Option<NumberClaim>, StoreError> {
        unimplemented!()
    }

    async fn release_number(&self, org: OrgId, number: &str, audit: AuditEntry) -> Result<bool, StoreError> {
        unimplemented!()
    }
}
