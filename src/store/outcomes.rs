//! Outcomes of events, for lists.

use super::StoreError;
use crate::domain::{ActionState, EventId, OrgId};
use async_trait::async_trait;

/// How many actions of an event are in a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutcomeCount {
    pub event: EventId,
    pub state: ActionState,
    pub count: u64,
}

#[async_trait]
pub trait Outcomes: Send + Sync + 'static {
    /// Of the actions of these events, a page of them at most, in one statement. An event without
    /// actions has no count.
    async fn count_outcomes(&self, org: OrgId, events: &[EventId]) -> Result<Vec<OutcomeCount>, StoreError>;
}
