//! The ledger: plans, claims with a lease and a fence, records. Each transition names both states.

use super::{StoreError, audit::AuditEntry};
use crate::domain::{
    ActionId, ActionKind, ActionState, AttemptOutcome, Cause, Delivery, Envelope, EventId, EventType, OrgId, Provider,
    RuleId, SealedBytes, Source, Subject, Timestamp,
};
use async_trait::async_trait;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// One event with the actions that were planned from it.
#[derive(Clone, Debug)]
pub struct PlannedEvent {
    pub org: OrgId,
    pub envelope: Envelope,
    /// The body, sealed for the organisation.
    pub body: SealedBytes,
    pub actions: Vec<PlannedAction>,
    pub occasion: Occasion,
}

/// Why an event is planned. It decides what a key that is there already means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// It came from its source: a redelivery plans nothing.
    Receipt,
    /// It waited for one rule, or an operator put it back. The event and some of its actions may be
    /// stored already. The key of event and rule still plans each action once.
    Rest,
    /// A person wants its actions again.
    Replay(Replay),
}

impl Occasion {
    /// Counts replays, which pass dedupe by it (invariant 4).
    #[must_use]
    pub const fn series(self) -> u32 {
        match self {
            Self::Receipt | Self::Rest => 0,
            Self::Replay(replay) => replay.series,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// From 1.
    pub series: u32,
    /// Rules run whose action has succeeded, or may still succeed.
    pub is_forced: bool,
}

#[derive(Clone, Debug)]
pub struct PlannedAction {
    pub id: ActionId,
    pub rule: RuleId,
    pub rule_name: String,
    pub kind: ActionKind,
    pub credential_name: String,
    /// The frozen request, sealed; `None` where it could not be rendered (then `state` is dead).
    pub request: Option<SealedBytes>,
    /// `Pending`; `Waiting` where it is due later. `Dead` with a cause where the rule's template
    /// failed for this event. `Unknown`
    /// where it may have gone out since the receipt, from a database that was replaced by a backup
    /// (invariant 29).
    pub state: ActionState,
    pub cause: Option<Cause>,
    pub detail: Option<String>,
    /// `None`: at once.
    pub due_at: Option<Timestamp>,
    pub expires_at: Timestamp,
}

/// The outcome for one event of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Planned {
    /// The first time: event and actions were written.
    New,
    /// A redelivery: nothing was written.
    Duplicate,
    /// The event was there already. These of its actions were written.
    Again { actions: Vec<ActionId> },
}

/// An event that cannot become a row of `events`: it cannot be decoded, has no organisation, or its
/// data fails.
#[derive(Clone, Debug)]
pub struct DeadEvent {
    pub id: EventId,
    pub org: Option<OrgId>,
    /// `None` where it could not be decoded.
    pub source: Option<Source>,
    pub event_type: Option<EventType>,
    pub received_at: Timestamp,
    pub reason: String,
    /// As the queue encodes it, sealed for the organisation where there is one.
    pub envelope: Vec<u8>,
}

/// An event that waits for one rule, because the rule could not be read when the event was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPart {
    pub org: OrgId,
    /// As [`super::rules::UnreadableRule::key`].
    pub rule_key: Box<[u8]>,
    pub event: EventId,
    /// As the queue encodes it, sealed for the organisation.
    pub envelope: SealedBytes,
}

/// Parts of one rule that are held at most.
pub const HELD_PARTS_MAX: u32 = 10_000;

/// An action that a worker has claimed. Its row is durably `running` under `fence` until
/// `lease_until`.
#[derive(Clone, Debug)]
pub struct Claim {
    pub action: ActionId,
    pub org: OrgId,
    pub event: EventId,
    /// For lines of the log; `None` where the event was deleted.
    pub subject: Option<Subject>,
    pub kind: ActionKind,
    pub provider: Provider,
    pub credential_name: String,
    pub request: SealedBytes,
    pub idempotency_key: String,
    /// A look-up of an unknown outcome, not a send.
    pub is_look_up: bool,
    pub fence: i64,
    pub lease_until: Timestamp,
    pub attempts: u32,
    pub look_ups: u32,
    pub absences: u32,
    pub first_sent_at: Option<Timestamp>,
    /// The account of the first try, as [`account_mark`] names it. Before a first try: the account
    /// that is connected now.
    ///
    /// [`account_mark`]: super::credentials::account_mark
    pub account: Option<String>,
    pub expires_at: Timestamp,
    pub planned_at: Timestamp,
    /// When this claim was made: the start of its attempt.
    pub claimed_at: Timestamp,
    pub hops: u8,
}

/// Limits of one claim, so that each organisation gets its share (invariant 22).
#[derive(Clone, Debug)]
pub struct ClaimLimits {
    /// Actions in all.
    pub count_max: u32,
    /// Rows an organisation and provider a turn.
    pub turn_max: u32,
    /// The actions that an organisation with running ones may still take, where that is less than a
    /// turn. `0`: it is passed over and keeps its place. As many as attempts run, at most.
    pub allowances: Vec<(OrgId, Provider, u32)>,
    /// Turns at providers that fail. Until its time such a turn is moved there instead of taken.
    /// Afterwards it may take one action, unless `allowances` says otherwise. Shared and only
    /// looked up in, because in an outage it has an entry for each organisation.
    pub deferred: Arc<HashMap<(OrgId, Provider), Timestamp>>,
    pub lease: Duration,
}

/// A transition out of `running`, valid only under the fence that the claim was given.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four facts about one attempt that a transition needs and that do not exclude one another"
)]
pub struct Record {
    pub action: ActionId,
    pub org: OrgId,
    pub fence: i64,
    pub to: ActionState,
    pub cause: Cause,
    pub detail: String,
    pub http_status: Option<u16>,
    pub provider_code: Option<String>,
    pub provider_ref: Option<String>,
    pub due_at: Option<Timestamp>,
    /// Uses up a try.
    pub counts: bool,
    /// A look-up found nothing; `absences` counts up, else it is reset.
    pub is_absence: bool,
    /// Nothing of this action can have gone out so far. `first_sent_at` is cleared, so that a later
    /// look-up reaches no further back than necessary.
    pub is_unsent: bool,
    /// The attempt was a look-up: `look_ups` counts up.
    pub is_look_up: bool,
    pub outcome: AttemptOutcome,
    pub ended_at: Timestamp,
    pub credential_version: Option<i64>,
}

/// The outcome of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Done,
    /// The fence has moved on: the lease ended and someone else owns the row. Nothing was changed.
    Superseded,
    /// `provider_ref` belongs to another action (invariant 2): the row is `unknown` with cause
    /// `ambiguous`.
    RefTaken,
}

/// The outcome of a manual transition or of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManualTransition {
    Done(ActionState),
    /// Not from this state.
    NotFrom(ActionState),
    /// Another run of the rule for the event has acted or may still act: the one of this series.
    RanAgain {
        series: u32,
        state: ActionState,
    },
    Absent,
}

/// Tries to plan an event that ended their worker, until it is dead (invariant 26).
pub const TRIES_MAX: u32 = 3;

#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Marks dedupe keys and inserts events, actions and turns in one transaction; keys are sorted
    /// first (invariant 15). One answer an event, in order. An error of data in one event fails the
    /// whole batch: the caller bisects it.
    async fn plan(&self, events: Arc<[PlannedEvent]>) -> Result<Vec<Planned>, StoreError>;

    /// Stores an event that cannot be planned, with the reason. A second call with the same id
    /// changes nothing.
    async fn store_dead_event(&self, dead: DeadEvent) -> Result<(), StoreError>;

    /// Records that an event is planned now which may end its worker. Returns how many such tries
    /// began before and did not end: [`TRIES_MAX`] at most. Beyond it no more are recorded.
    async fn begin_try(&self, org: OrgId, event: EventId) -> Result<u32, StoreError>;

    /// Forgets the tries of an event: its worker lives.
    async fn end_try(&self, org: OrgId, event: EventId) -> Result<(), StoreError>;

    /// Keeps a part until its rule can be read. A second call with the same event and rule changes
    /// nothing. Returns `false` where [`HELD_PARTS_MAX`] parts of the rule are held already.
    async fn hold_part(&self, part: HeldPart) -> Result<bool, StoreError>;

    /// Rules that parts are held for, of all organisations.
    async fn list_held_rules(&self, count_max: u32) -> Result<Vec<(OrgId, Box<[u8]>)>, StoreError>;

    /// Parts of one rule, oldest event first.
    async fn list_held_parts(&self, org: OrgId, rule_key: &[u8], count_max: u32) -> Result<Vec<HeldPart>, StoreError>;

    /// Forgets parts that were planned.
    async fn drop_held_parts(&self, parts: Vec<HeldPart>) -> Result<(), StoreError>;

    /// Claims due actions, organisation by organisation. Each becomes durably `running` with a
    /// fence and a row of its attempt. An expired action becomes `dead: expired` without an
    /// attempt. An `unknown` action comes as a look-up, expired or not. The first claim to send
    /// sets `first_sent_at` and the account that is connected then.
    async fn claim(&self, limits: ClaimLimits, now: Timestamp) -> Result<Vec<Claim>, StoreError>;

    /// Ends attempts: each record moves its row out of `running` if its fence still stands. A late
    /// success also moves a row whose lease has ended, as long as no other claim came since. One
    /// answer a record, in order.
    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>, StoreError>;

    /// A `running` row whose lease ended becomes `unknown`, due `look_up_delay` after the lease's
    /// end (invariant 1). Returns the count.
    async fn expire_leases(&self, now: Timestamp, look_up_delay: Duration, count_max: u32) -> Result<u64, StoreError>;

    /// For the start over a store that is not shared, where no other process can hold a lease.
    /// `running` rows of the former process become `unknown` at once, due after `look_up_delay`.
    async fn abandon_leases(&self, now: Timestamp, look_up_delay: Duration) -> Result<u64, StoreError>;

    /// Records an action as succeeded under the provider's id, because the provider called back
    /// about it (invariant 2). It changes no final state, and nothing where another action holds
    /// the id.
    async fn record_callback(
        &self,
        org: OrgId,
        action: ActionId,
        provider_ref: &str,
        now: Timestamp,
    ) -> Result<ManualTransition, StoreError>;

    /// Keeps the provider's report of a delivery beside the action's state. It counts only for the
    /// action that holds the provider's id, and only where the status outranks the present one.
    /// Returns `false` where nothing was changed.
    async fn record_delivery(
        &self,
        org: OrgId,
        action: ActionId,
        provider_ref: &str,
        delivery: Delivery,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// When the next turn is due, so that the worker can sleep until then.
    async fn next_due_at(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Whether another action holds this id of the provider's.
    async fn is_ref_taken(
        &self,
        org: OrgId,
        provider: Provider,
        provider_ref: &str,
        by_other_than: ActionId,
    ) -> Result<bool, StoreError>;

    /// A person tries again. `dead`, `parked`, `suppressed`, `cancelled` and `waiting` become
    /// `pending` with fresh tries; `unknown` is looked up now (invariant 4). An action without a
    /// request, because its template failed, stays. `audit` is written in the same transaction, and
    /// only where the action changes. The same holds for `cancel` and `resolve`.
    async fn retry(
        &self,
        org: OrgId,
        action: ActionId,
        expires_at: Timestamp,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<ManualTransition, StoreError>;

    /// A person stops an action that has not gone out: `pending`, `waiting`, `parked`.
    async fn cancel(
        &self,
        org: OrgId,
        action: ActionId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<ManualTransition, StoreError>;

    /// A person decides about an `unknown` action: it went out (`Succeeded`), or it is sent again
    /// (`Pending`, for at least another hour). Any other `to` is refused as a data error.
    async fn resolve(
        &self,
        org: OrgId,
        action: ActionId,
        to: ActionState,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<ManualTransition, StoreError>;
}
