//! Claims to external ids: assistants and phone numbers (invariant 18).

use super::{StoreError, audit::AuditEntry};
pub use crate::domain::Proof;
use crate::domain::{AssistantRole, OrgId, Provider, RouteState, SmsAtVapi, Timestamp};
use async_trait::async_trait;

/// `managed_by` of a route for which the platform's own account signs.
pub const PLATFORM: &str = "platform";

/// The holder whose live claim a proof may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Displaces {
    /// Only this holder: its credential was checked and no longer reads the id. A proof that meets
    /// another holder is a `Conflict`, because that claim was proven after the check.
    Checked(Option<OrgId>),
    /// Any holder, because we made the id or an operator approved the claim.
    Anyone,
}

impl Displaces {
    /// # Errors
    /// `Conflict` where `holder` is not the holder that was checked.
    pub fn allow(self, holder: OrgId, what: &'static str) -> Result<(), StoreError> {
        match self {
            Self::Checked(checked) if checked != Some(holder) => Err(StoreError::Conflict { what }),
            Self::Checked(_) | Self::Anyone => Ok(()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssistantClaim {
    pub org: OrgId,
    pub assistant_id: String,
    pub role: Option<AssistantRole>,
    pub name: Option<String>,
    pub state: RouteState,
    pub proof: Option<Proof>,
    pub proven_at: Option<Timestamp>,
    /// The platform's own account signs for it (invariant 19); only an operator sets it.
    pub is_platform_managed: bool,
    pub version: i64,
    pub created_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberClaim {
    pub org: OrgId,
    /// E.164.
    pub number: String,
    /// `twilio` or `vapi`.
    pub provider: Provider,
    pub account_id: Option<String>,
    pub provider_number_id: Option<String>,
    pub state: RouteState,
    pub proof: Option<Proof>,
    pub proven_at: Option<Timestamp>,
    /// The platform's own account signs for it (invariant 19); only an operator sets it.
    pub is_platform_managed: bool,
    /// Where its texts go as Vapi last said it, and when. A proof that did not ask keeps it.
    pub sms_at_vapi: Option<(SmsAtVapi, Timestamp)>,
    pub version: i64,
    pub created_at: Timestamp,
}

#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// Writes a proven claim as live. A live claim of another organisation is released in the same
    /// transaction, and its owner is returned. Both sides get an audit entry; the former owner's
    /// names no actor of the other organisation. `state` and `version` of the claim are not read.
    async fn prove_assistant(
        &self,
        claim: AssistantClaim,
        displaces: Displaces,
        audit: AuditEntry,
    ) -> Result<Option<OrgId>, StoreError>;
    /// Live ones and pending ones, in order of assistant id, after `after`.
    async fn list_assistants(
        &self,
        org: OrgId,
        after: Option<&str>,
        count_max: u32,
    ) -> Result<Vec<AssistantClaim>, StoreError>;
    /// Live or pending.
    async fn find_assistant(&self, org: OrgId, assistant_id: &str) -> Result<Option<AssistantClaim>, StoreError>;
    /// The organisation with a live claim to an assistant, for the proof that the claim is stale.
    /// Never shown to another organisation.
    async fn find_assistant_holder(&self, assistant_id: &str) -> Result<Option<OrgId>, StoreError>;
    /// `false` when this organisation holds no such claim, `Stale` when it is not of the `version`
    /// that the caller names.
    async fn release_assistant(
        &self,
        org: OrgId,
        assistant_id: &str,
        version: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;

    /// As [`Routes::prove_assistant`]. A Twilio number routes together with its account, so it
    /// displaces live claims of the same account only. A Vapi number routes by itself and by its id
    /// at Vapi.
    async fn prove_number(
        &self,
        claim: NumberClaim,
        displaces: Displaces,
        audit: AuditEntry,
    ) -> Result<Option<OrgId>, StoreError>;
    /// Live ones and pending ones, in order of number.
    async fn list_numbers(
        &self,
        org: OrgId,
        after: Option<&str>,
        count_max: u32,
    ) -> Result<Vec<NumberClaim>, StoreError>;
    /// Live or pending, at one provider. Without a provider a live one first where Twilio and Vapi
    /// both have it.
    async fn find_number(
        &self,
        org: OrgId,
        number: &str,
        provider: Option<Provider>,
    ) -> Result<Option<NumberClaim>, StoreError>;
    /// The organisation with a live claim to the number's route, in the sense of
    /// [`Routes::prove_number`]. Never shown to another organisation.
    async fn find_number_holder(
        &self,
        provider: Provider,
        number: &str,
        account_id: Option<&str>,
        provider_number_id: Option<&str>,
    ) -> Result<Option<OrgId>, StoreError>;
    /// At one provider, or at every one. `false` and `Stale` as for [`Routes::release_assistant`];
    /// the version is that of [`Routes::find_number`].
    async fn release_number(
        &self,
        org: OrgId,
        number: (&str, Option<Provider>),
        version: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;
}
