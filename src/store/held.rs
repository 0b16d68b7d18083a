//! Events that cannot be planned yet. They are kept here instead of in the queue, so that one
//! organisation's waiting events do not fill the queue for the others.

use super::{StoreError, audit::AuditEntry, ledger::Replay};
use crate::domain::{EventId, HeldCause, OrgId, SealedBytes, Timestamp};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldEvent {
    pub org: OrgId,
    pub event: EventId,
    pub cause: HeldCause,
    pub received_at: Timestamp,
    /// As the queue encodes it. Sealed for the organisation, or under the ring of the installation
    /// where the organisation has no data key that opens.
    pub envelope: SealedBytes,
    /// Set where the event was planned before.
    pub replay: Option<Replay>,
}

#[async_trait]
pub trait HeldEvents: Send + Sync + 'static {
    /// Keeps events until they can be planned. An event that is held already stays as it is.
    async fn hold_events(&self, events: Vec<HeldEvent>) -> Result<(), StoreError>;

    /// The first organisation after `after` that has held events.
    async fn next_held_org(&self, after: Option<OrgId>) -> Result<Option<OrgId>, StoreError>;

    /// Held events of one organisation after `after`, in the order of their receipt.
    async fn list_held_events(
        &self,
        org: OrgId,
        after: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<HeldEvent>, StoreError>;

    /// Keeps an event that was planned before, so that it is planned once more, in one transaction
    /// with its audit entry. `held.replay` says whether it is forced; the series is the store's.
    /// Returns the series; an event that waits already keeps its own. Counts as a change of
    /// configuration, so that every worker looks.
    async fn replay_event(&self, held: HeldEvent, audit: AuditEntry) -> Result<u32, StoreError>;

    /// Forgets events that are planned.
    async fn drop_held_events(&self, events: Vec<(OrgId, EventId)>) -> Result<(), StoreError>;
}
