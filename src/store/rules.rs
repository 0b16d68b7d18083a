//! Rules: written by the admin API, loaded by the worker.

use super::{StoreError, audit::AuditEntry, settings::StoredSettings};
use crate::domain::{EventType, OrgId, Rule, RuleId, RuleSpec, Source, TypePattern};
use async_trait::async_trait;
use serde::Deserialize as _;

/// The changes that bring a worker's snapshot of rules up to date.
#[derive(Clone, Debug, Default)]
pub struct RuleChanges {
    /// The configuration version that these rules are current for.
    pub version: i64,
    /// Rules changed above the version asked for, with whether they are deleted.
    pub rules: Vec<(Rule, bool)>,
    /// Changed rules that cannot be read. They affect their own organisation only.
    pub unreadable: Vec<UnreadableRule>,
    /// All organisations known at `version` that were changed above the one asked for, and whether
    /// they are active. An event of an organisation that is in no snapshot waits (invariant 7).
    pub organisations: Vec<(OrgId, bool)>,
    /// The settings of organisations that were changed above the version asked for.
    pub settings: Vec<(OrgId, StoredSettings)>,
}

/// A stored rule that this release cannot read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnreadableRule {
    pub org: OrgId,
    /// The row's id as it stands, because the id itself may be damaged.
    pub key: Box<[u8]>,
    /// The column that cannot be read.
    pub column: &'static str,
    pub is_deleted: bool,
    /// The part of the rule that can be read.
    pub scope: RuleScope,
}

/// The events that a rule is about, read from a spec that cannot be read as a whole. A later
/// release may know more kinds of action than this one.
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
pub struct RuleScope {
    #[serde(default, deserialize_with = "or_default")]
    pub source: Option<Source>,
    #[serde(default, deserialize_with = "or_default")]
    pub event_type: Option<TypePattern>,
    #[serde(default = "enabled", deserialize_with = "or_enabled")]
    pub enabled: bool,
}

impl UnreadableRule {
    /// The rule's id, where the row still has one.
    #[must_use]
    pub fn id(&self) -> Option<RuleId> {
        let bytes = <[u8; 16]>::try_from(&*self.key).ok()?;
        Some(RuleId::from_uuid(uuid::Uuid::from_bytes(bytes)))
    }
}

impl RuleScope {
    /// A field that cannot be read matches all values.
    #[must_use]
    pub fn of(spec: &str) -> Self {
        serde_json::from_str(spec).unwrap_or(Self {
            source: None,
            event_type: None,
            enabled: true,
        })
    }

    /// Whether the rule may want an event.
    #[must_use]
    pub fn may_want(&self, source: Source, event_type: &EventType) -> bool {
        self.enabled
            && self.source.is_none_or(|wanted| wanted == source)
            && self
                .event_type
                .as_ref()
                .is_none_or(|pattern| pattern.matches(event_type))
    }
}

fn or_default<'de, D: serde::Deserializer<'de>, T: serde::de::DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

const fn enabled() -> bool {
    true
}

fn or_enabled<'de, D: serde::Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(serde_json::Value::deserialize(from)?.as_bool().unwrap_or(true))
}

#[async_trait]
pub trait Rules: Send + Sync + 'static {
    /// `Conflict` when the id is taken. The rule's `version` is not read: it begins at 1.
    async fn create_rule(&self, rule: Rule, audit: AuditEntry) -> Result<(), StoreError>;
    async fn find_rule(&self, org: OrgId, id: RuleId) -> Result<Option<Rule>, StoreError>;
    /// In order of id, after `after`. A rule that cannot be read is left out.
    async fn list_rules(&self, org: OrgId, after: Option<RuleId>, count_max: u32) -> Result<Vec<Rule>, StoreError>;
    /// The stored rules of an organisation that this release cannot read.
    async fn list_unreadable_rules(&self, org: OrgId) -> Result<Vec<UnreadableRule>, StoreError>;
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
    /// `false` when there is none, `Stale` when it is not of the `version` that the caller names.
    async fn delete_rule(
        &self,
        org: OrgId,
        id: RuleId,
        version: Option<i64>,
        audit: AuditEntry,
    ) -> Result<bool, StoreError>;
    /// Rules of an organisation, enabled or not, so that the limit (invariant 22) still holds when
    /// all are switched on.
    async fn count_rules(&self, org: OrgId) -> Result<u32, StoreError>;
    /// Changes above `version`; `0` asks for all. One read transaction.
    async fn load_rule_changes(&self, version: i64) -> Result<RuleChanges, StoreError>;
}
