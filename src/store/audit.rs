//! Who changed what: names of fields, never values.

use super::StoreError;
use crate::domain::{OrgId, Timestamp};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub org: OrgId,
    pub at: Timestamp,
    /// The token's subject, or `operator:` and the operator's.
    pub actor: String,
    /// `connect`, `erase`, `create`, `update`, `delete`, `rotate`, `prove`, `release`, `retry`, `cancel`, `replay`.
    pub verb: &'static str,
    /// `credential`, `endpoint`, `secret`, `assistant`, `phone_number`, `rule`, `action`, `event`, `organisation`.
    pub target_kind: &'static str,
    pub target_id: String,
    pub fields: Vec<&'static str>,
}

#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    async fn record_audit(&self, entry: AuditEntry) -> Result<(), StoreError>;
}
