//! A database that was put back from a backup: what had not ended by then may have gone out since
//! (invariant 29).

use super::{StoreError, audit::AuditEntry, pauses::Pause};
use crate::domain::{OrgId, Timestamp};
use async_trait::async_trait;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// The moment of the backup, as a person gave it.
    pub restored_to: Timestamp,
    /// Events that were received before may have been acted on in the database that is gone.
    pub recovered_at: Timestamp,
    pub actor: String,
}

/// The state that a recovery would meet, beside the actions that an organisation can still cancel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryFacts {
    /// When the newest event was received. A database that was put back knows none from after the
    /// backup.
    pub newest_event_at: Option<Timestamp>,
    pub running: u64,
    /// Replays that a person had asked for and that were not planned yet.
    pub waiting_replays: u64,
}

#[async_trait]
pub trait Recoveries: Send + Sync + 'static {
    async fn load_recovery_facts(&self) -> Result<RecoveryFacts, StoreError>;

    /// Keeps the recovery and pauses everything, in one transaction with its entry. A pause that is
    /// there already stays. Counts as a change of configuration, so that every worker looks.
    async fn begin_recovery(&self, recovery: Recovery, pause: Pause, audit: AuditEntry) -> Result<(), StoreError>;

    /// The last one.
    async fn find_recovery(&self) -> Result<Option<Recovery>, StoreError>;

    /// Makes `pending`, `waiting` and `parked` actions of one organisation `unknown`, at most
    /// `count_max`, with an entry where there are any. One that was never sent counts as sent from
    /// its plan on, or from `sent_from` where that is later. Returns how many.
    async fn doubt_open_actions(
        &self,
        org: OrgId,
        sent_from: Timestamp,
        due_at: Timestamp,
        count_max: u32,
        audit: AuditEntry,
    ) -> Result<u64, StoreError>;

    /// Forgets replays that wait: they may have been planned since. Returns how many.
    async fn drop_waiting_replays(&self) -> Result<u64, StoreError>;
}
