//! Events, actions and attempts, read for people. Only the ledger changes them. A row with a word
//! that only a newer release knows, left by a roll back, is read with that word.

use super::StoreError;
use crate::domain::{
    ActionId, ActionKind, ActionState, Cause, Delivery, EndpointId, EventId, EventType, HeldCause, OrgId, Period,
    Provider, RuleId, SealedBytes, SecretId, Source, Timestamp, Word,
};
use async_trait::async_trait;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    pub id: EventId,
    pub org: OrgId,
    pub source: Word<Source>,
    pub event_type: EventType,
    pub subject: String,
    pub endpoint: Option<EndpointId>,
    /// The secret that verified it; `None` in events of earlier releases.
    pub secret: Option<SecretId>,
    pub time: Timestamp,
    pub received_at: Timestamp,
    pub content_type: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub hops: u8,
    /// Sealed with `Purpose::Payload`; `None` once forgotten.
    pub body: Option<SealedBytes>,
    pub body_bytes: u64,
    pub dead_reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAction {
    pub id: ActionId,
    pub org: OrgId,
    pub event: EventId,
    pub rule: RuleId,
    pub rule_name: String,
    pub kind: Word<ActionKind>,
    pub provider: Word<Provider>,
    pub credential_name: String,
    pub state: ActionState,
    pub cause: Option<Cause>,
    pub detail: Option<String>,
    pub http_status: Option<u16>,
    pub provider_code: Option<String>,
    /// Sealed with `Purpose::Payload`: the frozen request's JSON.
    pub request: Option<SealedBytes>,
    pub series: u32,
    pub due_at: Timestamp,
    pub expires_at: Timestamp,
    /// Claims so far, each with a row of an attempt.
    pub claims: u32,
    /// Those that use up a try.
    pub attempts: u32,
    pub look_ups: u32,
    pub provider_ref: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Another run of its rule for the event has acted or may still act. Only one of the two is
    /// tried again.
    pub has_other_run: bool,
    /// The delivery after the provider had accepted the action, and the time of the provider's
    /// report.
    pub delivery: Option<(Delivery, Timestamp)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAttempt {
    pub number: u32,
    pub is_look_up: bool,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub outcome: Option<String>,
    pub cause: Option<String>,
    pub http_status: Option<u16>,
    pub provider_code: Option<String>,
    pub detail: Option<String>,
    pub credential_version: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub source: Option<Source>,
    pub event_type: Option<String>,
    pub subject: Option<String>,
    /// Of the receipt.
    pub period: Period,
}

#[derive(Clone, Debug, Default)]
pub struct ActionFilter {
    pub state: Option<ActionState>,
    pub event: Option<EventId>,
    pub rule: Option<RuleId>,
    pub provider: Option<Provider>,
    pub cause: Option<Cause>,
    /// Of the planning.
    pub period: Period,
}

/// An organisation's actions that have not gone out by one credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenActions {
    pub provider: Provider,
    pub credential_name: String,
    pub parked: u64,
    pub waiting: u64,
    pub unknown: u64,
    /// Since the moment that was asked for.
    pub dead: u64,
    pub last_problem: LastProblem,
}

/// The newest problem among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastProblem {
    pub action: ActionId,
    pub at: Timestamp,
    pub state: ActionState,
    pub cause: Option<Cause>,
    pub detail: Option<String>,
}

/// The figures of the gauges over all organisations, gathered at each scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerState {
    /// By provider: when the oldest claimable action became due.
    pub oldest_due_at: Vec<(Provider, Timestamp)>,
    /// When the oldest `unknown` action was first sent.
    pub oldest_unknown_at: Option<Timestamp>,
    pub parked: u64,
    pub unknown: u64,
    pub dead: u64,
    /// Events that are held, by cause.
    pub held: Vec<(HeldCause, u64)>,
    /// When the oldest held event was received.
    pub oldest_held_at: Option<Timestamp>,
    pub dead_events: u64,
}

pub const ATTEMPTS_LISTED_MAX: u32 = 200;
/// Counts of [`OpenActions`] stop here, for each state.
pub const OPEN_ACTIONS_COUNTED_MAX: u32 = 10_000;
/// Counts of [`LedgerState`] stop here, so that a scrape stays cheap.
pub const LEDGER_COUNT_MAX: u32 = 1_000_000;

#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Newest first, before `before`.
    async fn list_events(
        &self,
        org: OrgId,
        filter: EventFilter,
        before: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<StoredEvent>, StoreError>;
    async fn find_event(&self, org: OrgId, id: EventId) -> Result<Option<StoredEvent>, StoreError>;
    /// Newest first, before `before`.
    async fn list_actions(
        &self,
        org: OrgId,
        filter: ActionFilter,
        before: Option<ActionId>,
        count_max: u32,
    ) -> Result<Vec<StoredAction>, StoreError>;
    async fn find_action(&self, org: OrgId, id: ActionId) -> Result<Option<StoredAction>, StoreError>;
    /// The newest [`ATTEMPTS_LISTED_MAX`], oldest of them first.
    async fn list_attempts(&self, org: OrgId, id: ActionId) -> Result<Vec<StoredAttempt>, StoreError>;
    /// By provider and credential, where there are any; dead ones count from `dead_since` on.
    async fn list_open_actions(&self, org: OrgId, dead_since: Timestamp) -> Result<Vec<OpenActions>, StoreError>;
    /// Counts stop at [`LEDGER_COUNT_MAX`] rows in all.
    async fn ledger_state(&self) -> Result<LedgerState, StoreError>;
}
