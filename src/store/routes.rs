//! Claims to external ids: assistants and phone numbers (rule 18).

use super::StoreError;
use crate::domain::{OrgId, RouteState, Timestamp};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssistantClaim {
    pub org: OrgId,
    pub assistant_id: String,
    /// `inbound`, `outbound` or none.
    pub role: Option<String>,
    pub name: Option<String>,
    pub state: RouteState,
    pub proven_at: Option<Timestamp>,
    pub version: i64,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberClaim {
    pub org: OrgId,
    /// E.164.
    pub number: String,
    /// `twilio` or `vapi`.
    pub provider: crate::domain::Provider,
    pub account_id: Option<String>,
    pub provider_number_id: Option<String>,
    pub state: RouteState,
    pub proven_at: Option<Timestamp>,
    pub version: i64,
    pub created_at: Timestamp,
}

#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// Writes a proven claim as live. A live claim of another organisation is released in the same transaction, audited on both sides, and its owner returned.
    async fn prove_assistant(&self, claim: AssistantClaim, actor: &str) -> Result<Option<OrgId>, StoreError>;
    /// Live ones and pending ones, in order of id.
    async fn list_assistants(&self, org: OrgId, after: Option<&str>, count_max: u32) -> Result<Vec<AssistantClaim>, StoreError>;
    async fn find_assistant(&self, org: OrgId, assistant_id: &str) -> Result<Option<AssistantClaim>, StoreError>;
    /// Who holds an assistant live, for the proof that a claim is stale. Never shown to another organisation.
    async fn find_assistant_holder(&self, assistant_id: &str) -> Result<Option<OrgId>, StoreError>;
    async fn release_assistant(&self, org: OrgId, assistant_id: &str) -> Result<bool, StoreError>;

    async fn prove_number(&self, claim: NumberClaim, actor: &str) -> Result<Option<OrgId>, StoreError>;
    async fn list_numbers(&self, org: OrgId, after: Option<&str>, count_max: u32) -> Result<Vec<NumberClaim>, StoreError>;
    async fn find_number(&self, org: OrgId, number: &str) -> Result<Option<NumberClaim>, StoreError>;
    async fn release_number(&self, org: OrgId, number: &str) -> Result<bool, StoreError>;
}
