//! The audit log: the actor and the changed fields, never their values.
//!
//! **Invariant:** a change and its entry are one transaction. Every mutation of the other concerns
//! takes its entry as an argument. It refuses an entry that names another organisation, and writes
//! none where it changed nothing.

use super::StoreError;
use crate::domain::{OrgId, Period, Timestamp};
use async_trait::async_trait;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub org: OrgId,
    pub at: Timestamp,
    /// The token's subject, or `operator:` and the operator's.
    pub actor: String,
    /// `connect`, `erase`, `create`, `update`, `delete`, `rotate`, `prove`, `release`, `retry`,
    /// `cancel`, `replay`, `promote`, `pause`, `resume`, `recover`.
    pub verb: &'static str,
    /// `credential`, `endpoint`, `secret`, `assistant`, `phone_number`, `rule`, `action`, `event`,
    /// `organisation`, `key`, `provider`, `installation`.
    pub target_kind: &'static str,
    pub target_id: String,
    pub fields: Vec<&'static str>,
}

/// Whose entries an operator's acts are that concern no organisation.
pub const INSTALLATION: OrgId = OrgId::from_uuid(Uuid::nil());

/// The actor of a change that another organisation's proof caused. Its people are not named here.
pub const ACTOR_SYSTEM: &str = "hookswitch";

/// An entry as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAuditEntry {
    /// UUIDv7; the cursor.
    pub id: Uuid,
    pub at: Timestamp,
    pub actor: String,
    pub verb: String,
    pub target_kind: String,
    pub target_id: String,
    pub fields: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub actor: Option<String>,
    pub period: Period,
}

#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Writes the entry of an act that changes no configuration: retry, cancel, replay.
    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError>;
    /// Newest first, before `before`.
    async fn list_audit(
        &self,
        org: OrgId,
        filter: AuditFilter,
        before: Option<Uuid>,
        count_max: u32,
    ) -> Result<Vec<StoredAuditEntry>, StoreError>;
}
