//! Figures of an organisation's last hour or day, and its backlog now.

use super::StoreError;
use crate::domain::{ActionState, EventId, OrgId, Timestamp};
use async_trait::async_trait;

/// Actions that are read at most, the newest first.
pub const ACTIONS_READ_MAX: u32 = 20_000;
/// Events that are counted at most in each part of the time.
pub const EVENTS_COUNTED_MAX: u32 = 20_000;
/// Counts of a backlog stop here.
pub const BACKLOG_COUNTED_MAX: u32 = 10_000;

/// An action, as far as figures need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountedAction {
    pub event: EventId,
    pub state: ActionState,
    pub series: u32,
    /// Claims so far, with look-ups.
    pub claims: u32,
    pub look_ups: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The actions of one state that have not gone out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backlog {
    pub state: ActionState,
    pub count: u64,
    /// When the oldest of them was planned.
    pub oldest_at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Events by the time in their ids, in each part of the time.
    pub events: Vec<u64>,
    /// Those that were planned in it, the newest first, up to [`ACTIONS_READ_MAX`].
    pub actions: Vec<CountedAction>,
    /// Those that were planned in the day before it, and that went on or ended in it. They are
    /// among the newest [`ACTIONS_READ_MAX`] of that day.
    pub earlier: Vec<CountedAction>,
    /// `pending`, `waiting` and `unknown`, up to [`BACKLOG_COUNTED_MAX`] in all.
    pub backlog: Vec<Backlog>,
}

#[async_trait]
pub trait Statistics: Send + Sync + 'static {
    /// `edges` are the begins of the parts of the time, and the end of the last one.
    async fn count_history(&self, org: OrgId, edges: &[Timestamp]) -> Result<Counted, StoreError>;
}
