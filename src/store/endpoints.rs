//! Endpoints and signing secrets.

use super::StoreError;
use crate::domain::{Endpoint, EndpointId, OrgId, SealedBytes, SecretId, Source, Timestamp};
use async_trait::async_trait;

/// A signing secret without its plaintext, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSecret {
    pub id: SecretId,
    pub org: OrgId,
    /// `None`: the organisation's secret for the source.
    pub endpoint: Option<EndpointId>,
    pub source: Source,
    /// JSON of `source::Plan`.
    pub plan: String,
    pub last_four: Option<String>,
    pub not_after: Option<Timestamp>,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug)]
pub struct NewSecret {
    pub id: SecretId,
    pub org: OrgId,
    pub endpoint: Option<EndpointId>,
    pub source: Source,
    pub plan: String,
    pub sealed: SealedBytes,
    pub last_four: Option<String>,
}

#[async_trait]
pub trait Endpoints: Send + Sync + 'static {
    async fn create_endpoint(&self, endpoint: Endpoint, secrets: Vec<NewSecret>) -> Result<(), StoreError>;
    async fn find_endpoint(&self, org: OrgId, id: EndpointId) -> Result<Option<Endpoint>, StoreError>;
    async fn list_endpoints(&self, org: OrgId, after: Option<EndpointId>, count_max: u32) -> Result<Vec<Endpoint>, StoreError>;
    /// Deactivates it and erases its secrets. `false` when there is none.
    async fn delete_endpoint(&self, org: OrgId, id: EndpointId) -> Result<bool, StoreError>;
    /// Adds a secret; those of the same owner (organisation, source, endpoint or none) stop being valid at `others_not_after`, where given.
    async fn add_secret(&self, secret: NewSecret, others_not_after: Option<Timestamp>) -> Result<(), StoreError>;
    /// Replaces all secrets that the organisation itself (no endpoint) has for a source; an empty list erases them.
    async fn replace_org_secrets(&self, org: OrgId, source: Source, secrets: Vec<NewSecret>, others_not_after: Option<Timestamp>) -> Result<(), StoreError>;
    /// Valid ones of an endpoint, or of the organisation for a source, newest first.
    async fn list_secrets(&self, org: OrgId, source: Source, endpoint: Option<EndpointId>) -> Result<Vec<StoredSecret>, StoreError>;
}
