//! Events that the platform's own accounts signed and that led to no organisation. They wait for an
//! operator, who names one. Lists show nothing of a content.

use super::{StoreError, audit::AuditEntry, held::HeldEvent};
use crate::domain::{EventId, RouteKey, SealedBytes, Timestamp};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedEvent {
    pub id: EventId,
    pub source: String,
    pub event_type: String,
    pub received_at: Timestamp,
    /// The external ids that it names, as far as they were read.
    pub ids: Vec<RouteKey>,
}

/// What the gauges show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineState {
    pub events: u64,
    pub oldest_at: Option<Timestamp>,
}

/// The count of [`QuarantineState`] stops here.
pub const QUARANTINE_COUNT_MAX: u32 = 1_000_000;

#[async_trait]
pub trait Quarantine: Send + Sync + 'static {
    /// Keeps an event, sealed under the ring. Once for each id.
    async fn quarantine(&self, event: QuarantinedEvent, envelope: SealedBytes) -> Result<(), StoreError>;

    /// Newest first, before `before`.
    async fn list_quarantine(
        &self,
        before: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<QuarantinedEvent>, StoreError>;

    async fn find_quarantined(&self, id: EventId) -> Result<Option<(QuarantinedEvent, SealedBytes)>, StoreError>;

    /// Gives the event to the organisation of `held`, in one transaction with its audit entry: it
    /// is among the held events then, sealed for the organisation, and is planned next. Counts as a
    /// change of configuration, so that every worker looks. `false`: it is not there any more.
    async fn release_quarantined(&self, held: HeldEvent, audit: AuditEntry) -> Result<bool, StoreError>;

    async fn quarantine_state(&self) -> Result<QuarantineState, StoreError>;

    /// Deletes events that were kept before `before`, at most `count_max`. How many.
    async fn delete_quarantined(&self, before: Timestamp, count_max: u32) -> Result<u64, StoreError>;
}
