//! Pauses: what no attempt may begin for, until an operator resumes it (invariant 28).

use super::{StoreError, audit::AuditEntry};
use crate::domain::{OrgId, Provider, RuleId, Timestamp};
use async_trait::async_trait;

/// The scope of a pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paused {
    All,
    Org(OrgId),
    Provider(Provider),
    Rule(OrgId, RuleId),
}

impl Paused {
    pub const SCOPES: &'static [&'static str] = &["all", "org", "provider", "rule"];

    #[must_use]
    pub const fn scope(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Org(_) => "org",
            Self::Provider(_) => "provider",
            Self::Rule(..) => "rule",
        }
    }

    #[must_use]
    pub const fn org(self) -> Option<OrgId> {
        match self {
            Self::Org(org) | Self::Rule(org, _) => Some(org),
            Self::All | Self::Provider(_) => None,
        }
    }

    #[must_use]
    pub const fn provider(self) -> Option<Provider> {
        match self {
            Self::Provider(provider) => Some(provider),
            _ => None,
        }
    }

    #[must_use]
    pub const fn rule(self) -> Option<RuleId> {
        match self {
            Self::Rule(_, rule) => Some(rule),
            _ => None,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pause {
    pub paused: Paused,
    /// Why, in the operator's words.
    pub reason: String,
    pub actor: String,
    pub since: Timestamp,
}

#[async_trait]
pub trait Pauses: Send + Sync + 'static {
    /// `false` where it is paused already: the first reason stays.
    async fn pause(&self, pause: Pause, audit: AuditEntry) -> Result<bool, StoreError>;
    /// `false` where it is not paused.
    async fn resume(&self, paused: Paused, audit: AuditEntry) -> Result<bool, StoreError>;
    /// Makes actions due that a paused rule held back, at most `count_max`. Returns how many.
    async fn release_held_by_rule(&self, org: OrgId, rule: RuleId, count_max: u32) -> Result<u64, StoreError>;
    /// All of them, or those that concern an organisation. Oldest first.
    async fn list_pauses(&self, org: Option<OrgId>) -> Result<Vec<Pause>, StoreError>;
    async fn find_org_of_rule(&self, rule: RuleId) -> Result<Option<OrgId>, StoreError>;
}
