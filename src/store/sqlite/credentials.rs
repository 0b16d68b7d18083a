//! Credentials in SQLite.

use super::{SqliteStore, StoreError};
use crate::{
    domain::*,
    store::{audit::AuditEntry, credentials::*},
};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl Credentials for SqliteStore {
    async fn find_credential(&self, org: OrgId, provider: Provider, name: &str) -> Result<Option<StoredCredential>, StoreError> {
        unimplemented!()
    }

    async fn list_credentials(&self, org: OrgId) -> Result<Vec<StoredCredential>, StoreError> {
        unimplemented!()
    }

    async fn save_credential(&self, new: NewCredential, audit: AuditEntry) -> Result<StoredCredential, StoreError> {
        unimplemented!()
    }

    async fn erase_credential(&self, org: OrgId, provider: Provider, name: &str, audit: AuditEntry) -> Result<bool, StoreError> {
        unimplemented!()
    }

    async fn record_credential_health(
        &self,
        org: OrgId,
        id: CredentialId,
        version: i64,
        health: CredentialHealth,
        verified_at: Option<Timestamp>,
    ) -> Result<bool, StoreError> {
        unimplemented!()
    }

    async fn touch_credential(&self, org: OrgId, id: CredentialId, used_at: Timestamp) -> Result<(), StoreError> {
        unimplemented!()
    }
}
