//! Ledger in SQLite.

use super::{SqliteStore, StoreError};
use crate::{domain::*, store::ledger::*};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
#[allow(unused_variables)]
impl Ledger for SqliteStore {
    async fn plan(&self, events: Vec<PlannedEvent>) -> Result<Vec<Planned>, StoreError> {
        unimplemented!()
    }

    async fn bury(&self, envelope: Envelope, org: Option<OrgId>, reason: &str) -> Result<(), StoreError> {
        unimplemented!()
    }

    async fn claim(&self, limits: ClaimLimits, now: Timestamp) -> Result<Vec<Claim>, StoreError> {
        unimplemented!()
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>, StoreError> {
        unimplemented!()
    }

    async fn expire_leases(&self, now: Timestamp, settle: Duration, count_max: u32) -> Result<u64, StoreError> {
        unimplemented!()
    }

    async fn abandon_leases(&self, now: Timestamp, settle: Duration) -> Result<u64, StoreError> {
        unimplemented!()
    }

    async fn settle(&self, org: OrgId, action: ActionId, provider_ref: &str, now: Timestamp) -> Result<Levered, StoreError> {
        unimplemented!()
    }

    async fn next_due_at(&self) -> Result<Option<Timestamp>, StoreError> {
        unimplemented!()
    }

    async fn is_ref_taken(&self, org: OrgId, provider: Provider, provider_ref: &str, by_other_than: ActionId) -> Result<bool, StoreError> {
        unimplemented!()
    }

    async fn retry(&self, org: OrgId, action: ActionId, expires_at: Timestamp, now: Timestamp) -> Result<Levered, StoreError> {
        unimplemented!()
    }

    async fn cancel(&self, org: OrgId, action: ActionId, now: Timestamp) -> Result<Levered, StoreError> {
        unimplemented!()
    }

    async fn resolve(&self, org: OrgId, action: ActionId, to: ActionState, now: Timestamp) -> Result<Levered, StoreError> {
        unimplemented!()
    }
}
