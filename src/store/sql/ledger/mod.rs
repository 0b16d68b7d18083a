//! The ledger, as far as it is equal on both databases. The batches of claims and records stand in
//! the folders of the databases on purpose. They put a whole batch into one statement (`json_each`
//! on SQLite, `unnest` on Postgres) and lock rows in each database's own way. [`LedgerSql`] is the
//! interface between the two.
//!
//! **Invariant:** a row leaves `running` only under its fence. An action that can be claimed has a
//! turn that is due in time.

mod claim;
mod delivery;
pub(in crate::store::sql) mod manual;
mod parts;
mod plan;
mod record;
mod tries;

pub use claim::{Choice, ClaimSql, Turn};
pub use plan::PlanSql;
pub use record::{EndedAttempt, RecordSql};
pub(in crate::store) use record::{end_attempts_sql, record_sql};

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, Transaction, audit};
use crate::{
    domain::{
        ActionId, ActionState, AttemptOutcome, Delivery, EventId, OrgId, Provider, SealedBytes, Source, Subject,
        Timestamp,
    },
    store::{
        StoreError,
        audit::{AuditEntry, Changes},
        credentials::account_mark,
        ledger::{
            Claim, ClaimLimits, DeadEvent, HeldPart, Ledger, ManualTransition, Planned, PlannedEvent, Record, Recorded,
        },
    },
};
use async_trait::async_trait;
use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

/// Every statement of this folder, for the tests.
#[cfg(test)]
pub fn statements() -> Vec<Sql> {
    let own = [STORE_DEAD_EVENT, NEXT_DUE_AT, IS_REF_TAKEN, BRING_TURN_FORWARD].map(Sql::both);
    own.into_iter()
        .chain(claim::STATEMENTS.iter().copied())
        .chain(manual::STATEMENTS.iter().copied())
        .chain(record::STATEMENTS.iter().copied())
        .chain(parts::STATEMENTS.iter().copied())
        .chain(tries::STATEMENTS.iter().copied())
        .chain([delivery::statement()])
        .chain(plan::statements())
        .collect()
}

/// The condition of the partial index `actions_due`: an action that can be claimed. A statement
/// repeats it to the letter, or the database does not use the index.
macro_rules! claimable {
    () => {
        "state IN ('pending', 'waiting', 'unknown')"
    };
}
pub(in crate::store) use claimable;

/// A turn whose attempts may begin (invariant 28).
macro_rules! unpaused {
    () => {
        "NOT EXISTS (
            SELECT 1 FROM pauses AS p
            WHERE p.scope = 'all' OR p.scope = 'org' AND p.org_id = turns.org_id
                OR p.scope = 'provider' AND p.provider = turns.provider
        )"
    };
}
use unpaused;

/// A dedupe key or an idempotency key, within its organisation.
pub type Key = (OrgId, [u8; 16]);

/// The kind of the keys that are marked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysOf {
    Events,
    Actions,
}

/// The statements over a whole batch, which each database has in its own form.
pub trait LedgerSql: PlanSql + ClaimSql + RecordSql {}

impl<D: PlanSql + ClaimSql + RecordSql> LedgerSql for D {}

/// The longest detail that is kept, in characters.
const DETAIL_CHARACTERS_MAX: usize = 500;

pub fn cut(text: &str) -> String {
    clean(text).chars().take(DETAIL_CHARACTERS_MAX).collect()
}

/// Postgres has no NUL in a text; a provider's words may.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

const STORE_DEAD_EVENT: &str = "
    INSERT INTO dead_events (id, org_id, source, event_type, received_at, dead_at, reason, envelope)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (id) DO NOTHING";
const NEXT_DUE_AT: &str = concat!("SELECT min(due_at) AS due_at FROM turns WHERE ", unpaused!());
const IS_REF_TAKEN: &str = "
    SELECT count(*) AS count FROM actions
    WHERE org_id = $1 AND provider = $2 AND provider_ref = $3 AND id <> $4";
const BRING_TURN_FORWARD: &str = "
    INSERT INTO turns (org_id, provider, due_at)
    VALUES ($1, $2, $3)
    ON CONFLICT (org_id, provider) DO UPDATE
    SET due_at = CASE WHEN turns.due_at < excluded.due_at THEN turns.due_at ELSE excluded.due_at END";

/// Brings one turn forward. Its provider is the text of a row, which only a newer release may know.
pub async fn bring_turn_forward<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    provider: &str,
    due_at: Timestamp,
) -> Result<(), StoreError> {
    Statement::new("bring a turn forward", BRING_TURN_FORWARD)
        .id(org)
        .text(provider)
        .time(due_at)
        .execute(tx)
        .await
        .map(drop)
}

/// Reads a row that is being claimed.
pub fn claim_of<D: Dialect>(
    row: Row<'_, D>,
    is_look_up: bool,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Claim, StoreError> {
    let first_sent_at = row.time_opt("first_sent_at")?;
    let provider: Provider = row.parse("provider")?;
    let fingerprint = row.text_opt("account_fingerprint")?;
    let connected = row
        .number_opt::<i64>("version")?
        .and_then(|version| account_mark(provider, fingerprint, version));
    Ok(Claim {
        action: row.id("id")?,
        org: row.id("org_id")?,
        event: row.id("event_id")?,
        subject: row.text_opt("subject")?.map(|text| Subject(text.into())),
        kind: row.parse("kind")?,
        provider,
        credential_name: row.string("credential_name")?,
        request: SealedBytes(row.bytes("request_sealed")?.into()),
        idempotency_key: row.string("idempotency_key")?,
        is_look_up,
        fence: row.number::<i64>("fence")? + 1,
        lease_until,
        attempts: row.number("attempts")?,
        look_ups: row.number("look_ups")?,
        absences: row.number("absences")?,
        first_sent_at: if is_look_up {
            first_sent_at
        } else {
            first_sent_at.or(Some(now))
        },
        account: if first_sent_at.is_some() {
            row.string_opt("account")?
        } else {
            connected
        },
        expires_at: row.time("expires_at")?,
        planned_at: row.time("created_at")?,
        claimed_at: now,
        hops: row.number("hops")?,
    })
}

/// An id that another action holds says nothing about this one (invariant 2).
pub fn make_ambiguous(record: &mut Record) {
    record.to = ActionState::Unknown;
    record.cause = crate::domain::Cause::Ambiguous;
    record.outcome = AttemptOutcome::Unknown;
    record.provider_ref = None;
    record.is_unsent = false;
    // An hour from now: only a person, a callback or another look-up changes it.
    record.due_at = Some(record.due_at.unwrap_or(record.ended_at + Duration::from_hours(1)));
}

/// Sets the result of the records whose rows were written.
pub fn mark_written(records: &[Record], written: &[(ActionId, OrgId)], results: &mut [Recorded]) {
    let mut left: HashSet<(ActionId, OrgId)> = written.iter().copied().collect();
    for (record, result) in records.iter().zip(results) {
        if left.remove(&(record.action, record.org)) {
            *result = Recorded::Done;
        }
    }
}

#[async_trait]
impl<S> Ledger for S
where
    S: SqlStore,
    S::Db: LedgerSql,
{
    async fn plan(&self, events: Arc<[PlannedEvent]>) -> Result<Vec<Planned>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Access::ALL_ORGS.in_bulk(), "plan events", move |mut tx| {
            Box::pin(async move { plan::plan(&mut tx, events).await })
        })
        .await
    }

    async fn store_dead_event(&self, dead: DeadEvent) -> Result<(), StoreError> {
        const DOING: &str = "set an event aside";
        self.write(Access::ALL_ORGS.in_bulk(), DOING, move |mut tx| {
            Box::pin(async move {
                Statement::new(DOING, STORE_DEAD_EVENT)
                    .id(dead.id)
                    .id_opt(dead.org)
                    .text(dead.source.map_or("", Source::as_str))
                    .text(&clean(dead.event_type.as_ref().map_or("", |kind| kind.as_str())))
                    .time(dead.received_at)
                    .time(tx.now)
                    .text(&cut(&dead.reason))
                    .bytes(&dead.envelope)
                    .execute(&mut tx)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn begin_try(&self, org: OrgId, event: EventId) -> Result<u32, StoreError> {
        self.write(Access::ALL_ORGS.in_bulk(), "record a try", move |mut tx| {
            Box::pin(async move { tries::begin(&mut tx, org, event).await })
        })
        .await
    }

    async fn end_try(&self, org: OrgId, event: EventId) -> Result<(), StoreError> {
        self.write(Access::ALL_ORGS.in_bulk(), "forget a try", move |mut tx| {
            Box::pin(async move { tries::end(&mut tx, org, event).await })
        })
        .await
    }

    async fn hold_part(&self, part: HeldPart) -> Result<bool, StoreError> {
        self.write(Access::ALL_ORGS.in_bulk(), "hold a part of an event", move |mut tx| {
            Box::pin(async move { parts::hold(&mut tx, part).await })
        })
        .await
    }

    async fn list_held_rules(&self, count_max: u32) -> Result<Vec<(OrgId, Box<[u8]>)>, StoreError> {
        parts::rules(&mut self.read(Access::ALL_ORGS).await?, count_max).await
    }

    async fn list_held_parts(&self, org: OrgId, rule_key: &[u8], count_max: u32) -> Result<Vec<HeldPart>, StoreError> {
        parts::list(&mut self.read(Access::ALL_ORGS).await?, org, rule_key, count_max).await
    }

    async fn drop_held_parts(&self, parts: Vec<HeldPart>) -> Result<(), StoreError> {
        self.write(Access::ALL_ORGS.in_bulk(), "forget parts of events", move |mut tx| {
            Box::pin(async move { parts::forget(&mut tx, parts).await })
        })
        .await
    }

    async fn claim(&self, limits: ClaimLimits, now: Timestamp) -> Result<Vec<Claim>, StoreError> {
        self.write(Access::ALL_ORGS, "claim actions", move |mut tx| {
            Box::pin(async move { claim::claim(&mut tx, limits, now).await })
        })
        .await
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Access::ALL_ORGS, "record attempts", move |mut tx| {
            Box::pin(async move { record::record(&mut tx, records).await })
        })
        .await
    }

    async fn expire_leases(&self, now: Timestamp, look_up_delay: Duration, count_max: u32) -> Result<u64, StoreError> {
        self.write(Access::ALL_ORGS, "end leases", move |mut tx| {
            Box::pin(async move { record::end_leases(&mut tx, Some(now), now, look_up_delay, count_max).await })
        })
        .await
    }

    async fn abandon_leases(&self, now: Timestamp, look_up_delay: Duration) -> Result<u64, StoreError> {
        const DOING: &str = "end the leases of a process that died";
        self.write(Access::ALL_ORGS, DOING, move |mut tx| {
            Box::pin(async move { record::end_leases(&mut tx, None, now, look_up_delay, u32::MAX).await })
        })
        .await
    }

    async fn record_callback(
        &self,
        org: OrgId,
        action: ActionId,
        provider_ref: &str,
        now: Timestamp,
    ) -> Result<ManualTransition, StoreError> {
        let provider_ref = clean(provider_ref).into_owned();
        self.write(org, "record a callback", move |mut tx| {
            Box::pin(async move { manual::record_callback(&mut tx, org, action, &provider_ref, now).await })
        })
        .await
    }

    async fn record_delivery(
        &self,
        org: OrgId,
        action: ActionId,
        provider_ref: &str,
        delivery: Delivery,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let provider_ref = clean(provider_ref).into_owned();
        self.write(org, "record a delivery", move |mut tx| {
            Box::pin(async move { delivery::record(&mut tx, org, action, &provider_ref, delivery, now).await })
        })
        .await
    }

    async fn next_due_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("read when the next turn is due", NEXT_DUE_AT)
            .one(&mut reader, |row| row.table("turns").time_opt("due_at"))
            .await
    }

    async fn is_ref_taken(
        &self,
        org: OrgId,
        provider: Provider,
        provider_ref: &str,
        by_other_than: ActionId,
    ) -> Result<bool, StoreError> {
        let mut reader = self.read(org).await?;
        let holders: i64 = Statement::new("look for the holder of a provider's id", IS_REF_TAKEN)
            .id(org)
            .text(provider.as_str())
            .text(&clean(provider_ref))
            .id(by_other_than)
            .one(&mut reader, |row| row.table("actions").number("count"))
            .await?;
        Ok(holders > 0)
    }

    async fn retry(
        &self,
        org: OrgId,
        action: ActionId,
        expires_at: Timestamp,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<ManualTransition, StoreError> {
        self.write(org, "retry an action", move |mut tx| {
            Box::pin(async move {
                let transition = manual::retry(&mut tx, org, action, expires_at, now).await?;
                note(&mut tx, org, transition, audit).await
            })
        })
        .await
    }

    async fn cancel(
        &self,
        org: OrgId,
        action: ActionId,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<ManualTransition, StoreError> {
        self.write(org, "cancel an action", move |mut tx| {
            Box::pin(async move {
                let transition = manual::cancel(&mut tx, org, action, now).await?;
                note(&mut tx, org, transition, audit).await
            })
        })
        .await
    }

    async fn resolve(
        &self,
        org: OrgId,
        action: ActionId,
        to: ActionState,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<ManualTransition, StoreError> {
        const DOING: &str = "resolve an action";
        if !matches!(to, ActionState::Succeeded | ActionState::Pending) {
            return Err(StoreError::Data {
                doing: DOING,
                reason: "an unknown outcome is resolved to succeeded or pending".into(),
            });
        }
        self.write(org, DOING, move |mut tx| {
            Box::pin(async move {
                let transition = manual::resolve(&mut tx, org, action, to, now).await?;
                note(&mut tx, org, transition, audit).await
            })
        })
        .await
    }
}

/// Writes the entry of a transition that a person made, where the action changed.
async fn note<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    (transition, before): manual::Transition,
    audit: AuditEntry,
) -> Result<ManualTransition, StoreError> {
    if let ManualTransition::Done(after) = transition {
        let audit = AuditEntry {
            changes: Changes::default().value("state", before, after).named(&["state"]),
            ..audit
        };
        audit::insert(tx, org, &audit).await?;
    }
    Ok(transition)
}
