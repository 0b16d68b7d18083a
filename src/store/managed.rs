//! Assistants that are kept at Vapi for an organisation: the wanted configuration, the assistant's
//! id, and its last known state.

use super::{StoreError, audit::AuditEntry, grants::Lease, routes::AssistantClaim};
use crate::domain::{AssistantRole, EndpointId, ManagedAssistantState, OrgId, SealedBytes, Timestamp};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedAssistant {
    pub org: OrgId,
    pub role: AssistantRole,
    /// Stands in the assistant's metadata at Vapi.
    pub marker: String,
    /// `None` until Vapi has answered.
    pub assistant_id: Option<String>,
    pub endpoint: EndpointId,
    /// The wanted configuration, with the webhooks' secret.
    pub sealed: SealedBytes,
    pub state: ManagedAssistantState,
    /// Names of the fields that differ at Vapi.
    pub drift: Vec<String>,
    pub error: Option<String>,
    pub checked_at: Option<Timestamp>,
    /// Counts up with each write; 0 before the first.
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[async_trait]
pub trait ManagedAssistants: Send + Sync + 'static {
    async fn find_managed_assistant(
        &self,
        org: OrgId,
        role: AssistantRole,
    ) -> Result<Option<ManagedAssistant>, StoreError>;

    /// Of one organisation, in order of role.
    async fn list_managed_assistants(&self, org: OrgId) -> Result<Vec<ManagedAssistant>, StoreError>;

    /// Over all organisations: assistants without a look since `before`, the longest first.
    async fn list_assistants_to_check(
        &self,
        before: Timestamp,
        count_max: u32,
    ) -> Result<Vec<(OrgId, AssistantRole)>, StoreError>;

    /// Writes the row by compare-and-swap on its version and the fence of the lease. The claim that
    /// routes it (`Proof::MadeByUs`), where given, is written too, and a former claim of the same
    /// role on another id is released. `None` when a newer version stands or another process holds
    /// the lease.
    async fn save_managed_assistant(
        &self,
        row: ManagedAssistant,
        claim: Option<AssistantClaim>,
        lease: &Lease,
        audit: Option<AuditEntry>,
    ) -> Result<Option<ManagedAssistant>, StoreError>;

    /// Deletes the row and releases its claim. The caller deletes the assistant at Vapi. Returns
    /// `false` when there is no row.
    async fn delete_managed_assistant(
        &self,
        org: OrgId,
        role: AssistantRole,
        lease: &Lease,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;
}
