//! History in SQLite.

use super::{SqliteStore, StoreError};
use crate::{domain::*, store::history::*};
use async_trait::async_trait;

#[async_trait]
#[allow(unused_variables)]
impl History for SqliteStore {
    async fn list_events(&self, org: OrgId, filter: EventFilter, before: Option<EventId>, count_max: u32) -> Result<Vec<StoredEvent>, StoreError> {
        unimplemented!()
    }

    async fn find_event(&self, org: OrgId, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        unimplemented!()
    }

    async fn list_actions(&self, org: OrgId, filter: ActionFilter, before: Option<ActionId>, count_max: u32) -> Result<Vec<StoredAction>, StoreError> {
        unimplemented!()
    }

    async fn find_action(&self, org: OrgId, id: ActionId) -> Result<Option<StoredAction>, StoreError> {
        unimplemented!()
    }

    async fn list_attempts(&self, org: OrgId, id: ActionId) -> Result<Vec<StoredAttempt>, StoreError> {
        unimplemented!()
    }

    async fn ledger_state(&self) -> Result<LedgerState, StoreError> {
        unimplemented!()
    }
}
