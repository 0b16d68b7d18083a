//! Organisations.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{OrgId, Organisation};
use async_trait::async_trait;

#[async_trait]
pub trait Organisations: Send + Sync + 'static {
    /// `Conflict` when the id is taken.
    async fn create_organisation(&self, id: OrgId, name: &str, audit: AuditEntry) -> Result<Organisation, StoreError>;
    async fn find_organisation(&self, id: OrgId) -> Result<Option<Organisation>, StoreError>;
    /// In order of id, after `after`.
    async fn list_organisations(&self, after: Option<OrgId>, count_max: u32) -> Result<Vec<Organisation>, StoreError>;
}
