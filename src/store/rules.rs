//! Rules: written by the admin API, loaded by the worker.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{OrgId, Rule, RuleId, RuleSpec};
use async_trait::async_trait;

/// What a worker's snapshot of rules is brought up to date with.
#[derive(Clone, Debug, Default)]
pub struct RuleChanges {
    /// The configuration version that these rules are current for.
    pub version: i64,
    /// Rules changed above the version asked for, with whether they are deleted.
    pub rules: Vec<(Rule, bool)>,
    /// Changed rules that cannot be read: they cost their own organisation, not the others.
    pub unreadable: Vec<UnreadableRule>,
    /// All organisations known at `version` that were changed above the one asked for, and whether
    /// they are active. An event of an organisation that is in no snapshot waits (invariant 7).
    pub organisations: Vec<(OrgId, bool)>,
}

/// A stored rule that is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnreadableRule {
    pub org: OrgId,
    /// The row's id as it stands, for it may be what is broken.
    pub key: Box<[u8]>,
    /// The column that does not read.
    pub column: &'static str,
    pub is_deleted: bool,
}

#[async_trait]
pub trait Rules: Send + Sync + 'static {
    /// `Conflict` when the id is taken. The rule's `version` is not read: it begins at 1.
    async fn create_rule(&self, rule: Rule, audit: AuditEntry) -> Result<(), StoreError>;
    async fn find_rule(&self, org: OrgId, id: RuleId) -> Result<Option<Rule>, StoreError>;
    /// In order of id, after `after`.
    async fn list_rules(&self, org: OrgId, after: Option<RuleId>, count_max: u32) -> Result<Vec<Rule>, StoreError>;
    /// Replaces the spec if `version` still stands; returns the new version. `Conflict` otherwise,
    /// `Ok(None)` when there is no such rule.
    async fn update_rule(
        &self,
        org: OrgId,
        id: RuleId,
        version: i64,
        spec: RuleSpec,
        audit: AuditEntry,
    ) -> Result<Option<i64>, StoreError>;
    /// `false` when there is none.
    async fn delete_rule(&self, org: OrgId, id: RuleId, audit: AuditEntry) -> Result<bool, StoreError>;
    /// Rules of an organisation, enabled or not, so that the limit (invariant 22) still holds when
    /// all are switched on.
    async fn count_rules(&self, org: OrgId) -> Result<u32, StoreError>;
    /// Changes above `version`; `0` asks for all. One read transaction.
    async fn load_rule_changes(&self, version: i64) -> Result<RuleChanges, StoreError>;
}
