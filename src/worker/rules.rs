//! All rules in memory, refreshed by version. A rule is compiled at its first use.

use crate::{
    domain::{Envelope, OrgId, Rule, RuleId, RuleSpec},
    rule::{Compiled, FieldProblem},
    store::{
        Store, StoreError,
        rules::{RuleChanges, RuleScope, UnreadableRule},
    },
    telemetry::catalogue,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};
use tracing::error;

pub(super) struct ActiveRule {
    pub id: RuleId,
    pub spec: RuleSpec,
    compiled: OnceLock<Result<Compiled, Vec<FieldProblem>>>,
}

impl ActiveRule {
    pub fn compiled(&self) -> Result<&Compiled, &[FieldProblem]> {
        self.compiled
            .get_or_init(|| Compiled::new(&self.spec))
            .as_ref()
            .map_err(Vec::as_slice)
    }
}

#[derive(Default)]
pub(super) struct OrgRules {
    pub is_active: bool,
    /// In the order of their ids. Shared with plans that run.
    pub rules: Vec<Arc<ActiveRule>>,
    /// Rules that cannot be read, and which events they are about. The actions that they would have
    /// made of such an event are unknown: that part of it waits (invariant 7).
    unreadable: BTreeMap<Box<[u8]>, RuleScope>,
}

impl OrgRules {
    /// Rules that cannot be read and may want an event.
    pub fn unreadable_for(&self, event: &Envelope) -> impl Iterator<Item = &[u8]> {
        self.unreadable
            .iter()
            .filter(|(_, scope)| scope.may_want(event.source, &event.event_type))
            .map(|(key, _)| &**key)
    }

    pub fn is_unreadable(&self, key: &[u8]) -> bool {
        self.unreadable.contains_key(key)
    }

    /// The rule of a key, where it can be read and is enabled.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<ActiveRule>> {
        self.rules.iter().find(|rule| rule.id.as_bytes().as_slice() == key)
    }
}

/// A snapshot of all rules, and the version that it is current for. An organisation that is not in
/// it is not known.
#[derive(Default)]
pub(super) struct RuleBook {
    version: i64,
    organisations: HashMap<OrgId, OrgRules>,
}

impl RuleBook {
    pub const fn version(&self) -> i64 {
        self.version
    }

    pub fn get(&self, org: OrgId) -> Option<&OrgRules> {
        self.organisations.get(&org)
    }

    /// Reads the version, and loads the changes since, if there are any. After it the book is
    /// current for the moment of the call.
    pub async fn refresh(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        if store.config_version().await? != self.version {
            self.apply(store.load_rule_changes(self.version).await?);
        }
        Ok(())
    }

    fn apply(&mut self, changes: RuleChanges) {
        for (org, is_active) in changes.organisations {
            self.organisations.entry(org).or_default().is_active = is_active;
        }
        for (rule, is_deleted) in changes.rules {
            self.replace(rule, is_deleted);
        }
        for rule in changes.unreadable {
            self.mark_unreadable(rule);
        }
        catalogue::RULES_UNREADABLE.set(
            self.organisations
                .values()
                .map(|org| org.unreadable.len())
                .sum::<usize>() as f64,
            &[],
        );
        self.version = changes.version;
    }

    fn replace(&mut self, rule: Rule, is_deleted: bool) {
        let known = self.organisations.entry(rule.org).or_default();
        known.unreadable.remove(rule.id.as_bytes().as_slice());
        let rules = &mut known.rules;
        rules.retain(|known| known.id != rule.id);
        if !is_deleted && rule.spec.enabled {
            let at = rules.partition_point(|known| known.id < rule.id);
            rules.insert(
                at,
                Arc::new(ActiveRule {
                    id: rule.id,
                    spec: rule.spec,
                    compiled: OnceLock::new(),
                }),
            );
        }
    }

    /// Also forgets the rule as it was: it was changed, and to what is not known.
    fn mark_unreadable(&mut self, rule: UnreadableRule) {
        let org = self.organisations.entry(rule.org).or_default();
        org.rules.retain(|known| known.id.as_bytes().as_slice() != &*rule.key);
        if rule.is_deleted {
            org.unreadable.remove(&rule.key);
            return;
        }
        error!(org.id = %rule.org, rule.id = hex::encode(&rule.key), column = rule.column, "A stored rule cannot be \
            read: its part of each event waits until it is saved again or deleted");
        org.unreadable.insert(rule.key, rule.scope);
    }
}
