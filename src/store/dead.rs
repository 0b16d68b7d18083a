//! Dead events as operators look at them, and their way back. Lists show nothing of a content.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{EventId, OrgId, Timestamp};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDeadEvent {
    pub id: EventId,
    /// `None`: it could not be decoded, or it leads to no organisation.
    pub org: Option<OrgId>,
    /// Empty where it could not be decoded.
    pub source: String,
    pub event_type: String,
    pub received_at: Timestamp,
    pub dead_at: Timestamp,
    pub reason: String,
}

/// The result of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The event is among the held events now, and is planned next.
    PutBack,
    /// The content of the event was not kept.
    NothingKept,
    Absent,
}

#[async_trait]
pub trait DeadEvents: Send + Sync + 'static {
    /// Newest first, before `before`; of one organisation, or of all.
    async fn list_dead_events(
        &self,
        org: Option<OrgId>,
        before: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<StoredDeadEvent>, StoreError>;

    async fn find_dead_event(&self, id: EventId) -> Result<Option<StoredDeadEvent>, StoreError>;

    /// Moves a dead event of an organisation to the held ones, in one transaction with its audit
    /// entry. Counts as a change of configuration, so that every worker looks.
    async fn replay_dead_event(&self, org: OrgId, id: EventId, audit: AuditEntry) -> Result<Replayed, StoreError>;
}
