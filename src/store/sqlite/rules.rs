//! Rules in SQLite.

use super::{SqliteStore, StoreError};
use crate::{
    domain::*,
    store::{audit::AuditEntry, rules::*},
};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl Rules for SqliteStore {
    async fn create_rule(&self, rule: Rule, audit: AuditEntry) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn find_rule(&self, org: OrgId, id: RuleId) -> Result<Option<Rule>, StoreError> {
        unimplemented!()
    }

    async fn list_rules(&self, org: OrgId, after: Option<RuleId>, count_max: u32) -> Result<Vec<Rule>, StoreError> {
        unimplemented!()
    }

    async fn update_rule(&self, org: OrgId, id: RuleId, version: i64, spec: RuleSpec, audit: AuditEntry) -> Result<Option<i64>, StoreError> {
        unimplemented!()
    }

    async fn delete_rule(&self, org: OrgId, id: RuleId, audit: AuditEntry) -> Result<bool, StoreError> {
        unimplemented!()
    }

    async fn count_rules(&self, org: OrgId) -> Result<u32, StoreError> {
        unimplemented!()
    }

    async fn load_rule_changes(&self, version: i64) -> Result<RuleChanges, StoreError> {
        unimplemented!()
    }
}
