//! All rules in memory, refreshed by version. A rule is compiled at its first use.

use crate::{
    domain::{Envelope, OrgId, OrgSettings, Rule, RuleId, RuleSpec},
    rule::{Compiled, FieldProblem},
    store::{
        Store, StoreError,
        rules::{RuleChanges, RuleScope, UnreadableRule},
        settings::StoredSettings,
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

    /// Whether the rule is about events of this source and type.
    pub fn is_meant(&self, event: &Envelope) -> bool {
        self.spec.source == event.source && self.spec.event_type.matches(&event.event_type)
    }

    /// Whether its action depends on the settings of its organisation.
    fn asks_settings(&self) -> bool {
        self.spec.keeps_quiet_hours() || self.compiled().is_ok_and(Compiled::asks_organisation)
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
    /// `None`: the organisation has chosen nothing, or it cannot be read.
    pub settings: Option<Arc<OrgSettings>>,
    /// Rules that ask for the settings wait, as rules that cannot be read themselves.
    are_settings_unreadable: bool,
}

impl OrgRules {
    /// Rules that run now.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<ActiveRule>> {
        self.rules.iter().filter(|rule| !self.waits(rule))
    }

    fn waits(&self, rule: &ActiveRule) -> bool {
        self.are_settings_unreadable && rule.asks_settings()
    }

    /// Rules that wait and may want an event.
    pub fn waiting_for(&self, event: &Envelope) -> impl Iterator<Item = &[u8]> {
        let unreadable = self
            .unreadable
            .iter()
            .filter(|(_, scope)| scope.may_want(event.source, &event.event_type))
            .map(|(key, _)| &**key);
        let waiting = self.rules.iter().filter(|rule| self.waits(rule));
        let waiting = waiting.filter(|rule| rule.is_meant(event));
        unreadable.chain(waiting.map(|rule| rule.id.as_bytes().as_slice()))
    }

    pub fn is_waiting(&self, key: &[u8]) -> bool {
        self.unreadable.contains_key(key) || self.find(key).is_some_and(|rule| self.waits(rule))
    }

    fn set_settings(&mut self, org: OrgId, stored: StoredSettings) {
        // Retention is not for rules.
        let damaged = stored.damaged.iter().find(|column| **column != "retention_days");
        self.are_settings_unreadable = damaged.is_some();
        if let Some(column) = damaged {
            error!(org.id = %org, column, "The settings of an organisation cannot be read: its rules that ask for them \
                wait until they are set anew");
        }
        let is_chosen = damaged.is_none() && stored.settings != OrgSettings::default();
        self.settings = is_chosen.then(|| Arc::new(stored.settings));
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
        for (org, stored) in changes.settings {
            self.organisations.entry(org).or_default().set_settings(org, stored);
        }
        let all = || self.organisations.values();
        let rules: usize = all().map(|org| org.unreadable.len()).sum();
        catalogue::RULES_UNREADABLE.set(rules as f64, &[]);
        let settings = all().filter(|org| org.are_settings_unreadable).count();
        catalogue::SETTINGS_UNREADABLE.set(settings as f64, &[]);
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
