//! Endpoints and signing secrets.

use super::{StoreError, audit::AuditEntry};
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
    /// When it verified last, to the minute; `None`: not since this was counted.
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

/// A use of a secret: it verified a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretUse {
    pub org: OrgId,
    pub secret: SecretId,
    pub at: Timestamp,
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

/// Valid secrets of one owner at most.
pub const SECRETS_PER_OWNER_MAX: u32 = 10;

#[async_trait]
pub trait Endpoints: Send + Sync + 'static {
    /// `Conflict` when the id is taken. The secrets have to be its own (organisation, source,
    /// endpoint).
    async fn create_endpoint(
        &self,
        endpoint: Endpoint,
        secrets: Vec<NewSecret>,
        audit: AuditEntry,
    ) -> Result<(), StoreError>;
    /// Active ones only: a deleted endpoint is not there.
    async fn find_endpoint(&self, org: OrgId, id: EndpointId) -> Result<Option<Endpoint>, StoreError>;
    /// Active ones in order of id, after `after`.
    async fn list_endpoints(
        &self,
        org: OrgId,
        after: Option<EndpointId>,
        count_max: u32,
    ) -> Result<Vec<Endpoint>, StoreError>;
    /// Changes the name and the ignored types if `version` still stands (compare-and-swap). `false`
    /// when another version stands, or there is none.
    async fn update_endpoint(&self, endpoint: Endpoint, audit: AuditEntry) -> Result<bool, StoreError>;
    /// Deactivates it and erases its secrets. `false` when there is none, or where another version
    /// than `version` stands.
    async fn delete_endpoint(
        &self,
        org: OrgId,
        id: EndpointId,
        version: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;
    /// Adds the secrets of one owner (organisation, source, endpoint or none) in one change. The
    /// former secrets end at `others_not_after`, if it is given and they do not end earlier. An
    /// endpoint's version counts up. Returns `false` when this organisation has no such endpoint
    /// for this source, or another version than `version` stands. Above [`SECRETS_PER_OWNER_MAX`]
    /// valid secrets the oldest former one is erased early; without a former one it is a
    /// `Conflict`.
    async fn add_secrets(
        &self,
        secrets: Vec<NewSecret>,
        version: Option<i64>,
        others_not_after: Option<Timestamp>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;
    /// Replaces all secrets that the organisation itself (no endpoint) has for a source. The former
    /// secrets stay valid until `others_not_after`. They are erased at once without that time, or
    /// when the new list is empty.
    async fn replace_org_secrets(
        &self,
        org: OrgId,
        source: Source,
        secrets: Vec<NewSecret>,
        others_not_after: Option<Timestamp>,
        audit: AuditEntry,
    ) -> Result<(), StoreError>;
    /// Valid ones of an endpoint, or of the organisation for a source, newest first.
    async fn list_secrets(
        &self,
        org: OrgId,
        source: Source,
        endpoint: Option<EndpointId>,
    ) -> Result<Vec<StoredSecret>, StoreError>;
    /// Valid ones of all endpoints of the organisation, newest first.
    async fn list_endpoint_secrets(&self, org: OrgId) -> Result<Vec<StoredSecret>, StoreError>;
    /// Notes the last uses of secrets, of any organisation. Never moves one to an earlier time.
    async fn record_secret_uses(&self, uses: Vec<SecretUse>) -> Result<(), StoreError>;
}
