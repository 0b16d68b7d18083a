//! Deletion by age, in small steps while the service runs. **Invariant:** what has not ended stays,
//! however old it is.

use super::StoreError;
use crate::domain::{EventId, OrgId, Timestamp};
use async_trait::async_trait;

/// One step through a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<P> {
    pub deleted: u64,
    /// Where the next step begins; `None` at the end.
    pub next: Option<P>,
}

/// Keys of the narrow tables (invariant 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyTable {
    Dedupe,
    Idempotency,
}

/// A key: its organisation and its hash.
pub type KeyPosition = (OrgId, [u8; 16]);

#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// Looks at `count_max` events after `after`, oldest first, and deletes those that were
    /// received before `before` and whose actions have all ended before it, with actions and
    /// attempts. Of one organisation, or of all.
    async fn delete_events(
        &self,
        org: Option<OrgId>,
        before: Timestamp,
        after: Option<EventId>,
        count_max: u32,
    ) -> Result<Step<EventId>, StoreError>;

    /// Organisations that keep what is theirs for a time of their own, in order of id, after
    /// `after`. The time in days; `None` where it cannot be read.
    async fn list_own_retention(
        &self,
        after: Option<OrgId>,
        count_max: u32,
    ) -> Result<Vec<(OrgId, Option<u32>)>, StoreError>;

    /// Deletes dead events that died before `before`, at most `count_max`. Of one organisation, or
    /// of all. How many.
    async fn delete_dead_events(
        &self,
        org: Option<OrgId>,
        before: Timestamp,
        count_max: u32,
    ) -> Result<u64, StoreError>;

    /// Deletes jobs that ended before `before`, at most `count_max`. Of one organisation, or of
    /// all. How many.
    async fn delete_jobs(&self, org: Option<OrgId>, before: Timestamp, count_max: u32) -> Result<u64, StoreError>;

    /// Deletes audit entries from before `before`, at most `count_max`. How many.
    async fn delete_audit(&self, before: Timestamp, count_max: u32) -> Result<u64, StoreError>;

    /// Looks at `count_max` keys after `after` and deletes those that were made before `before`.
    async fn delete_keys(
        &self,
        table: KeyTable,
        before: Timestamp,
        after: Option<KeyPosition>,
        count_max: u32,
    ) -> Result<Step<KeyPosition>, StoreError>;

    /// Forgets how many actions were planned on days before `day`.
    async fn delete_days(&self, before_day: i64) -> Result<u64, StoreError>;

    /// Rows of actions that each organisation has planned on a day.
    async fn list_day(&self, day: i64) -> Result<Vec<(OrgId, u64)>, StoreError>;
}
