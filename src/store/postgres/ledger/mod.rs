//! The ledger in Postgres: plans, claims, records, manual transitions. Statements are counted by
//! the batch, never by the row.
//!
//! **Invariant:** a row leaves `running` only under its fence, and an action that can be claimed
//! has a turn that is due no later than it needs. Whoever makes an action claimable writes its turn
//! in the same transaction; a claim holds the turns that it has taken until its commit, so none is
//! lost between the two. A claim waits for nobody: what others hold it passes over.

mod claim;
mod manual;
mod plan;
mod record;

use super::{Access, PostgresStore, StoreError, failed, in_savepoint, rows::Fields};
use crate::{
    domain::{ActionId, ActionState, OrgId, Provider, Source, Timestamp},
    store::ledger::{Claim, ClaimLimits, DeadEvent, Ledger, ManualTransition, Planned, PlannedEvent, Record, Recorded},
};
use async_trait::async_trait;
use sqlx::{PgConnection, postgres::PgRow};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// What can be claimed, as the partial index `actions_due` has it.
macro_rules! claimable {
    () => {
        "state IN ('pending', 'waiting', 'unknown')"
    };
}
use claimable;

/// For the tests: every statement of the ledger.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    let own: &[&str] = &[ADD_TURNS, STORE_DEAD_EVENT, NEXT_DUE_AT, IS_REF_TAKEN];
    [own, claim::STATEMENTS, manual::STATEMENTS, record::STATEMENTS]
        .concat()
        .into_iter()
        .chain(plan::statements())
        .collect()
}

/// Brings turns forward to when something becomes due. Sorted by the caller, so that two of them
/// never wait for each other.
const ADD_TURNS: &str = "INSERT INTO turns (org_id, provider, due_at) SELECT * FROM unnest($1::uuid[], $2::text[], \
    $3::bigint[]) \
    ON CONFLICT (org_id, provider) DO UPDATE SET due_at = least(turns.due_at, excluded.due_at)";

async fn add_turns(
    connection: &mut PgConnection,
    due: impl IntoIterator<Item = (OrgId, Provider, Timestamp)>,
) -> Result<(), StoreError> {
    let mut due: Vec<(OrgId, Provider, Timestamp)> = due.into_iter().collect();
    due.sort_unstable();
    due.dedup_by_key(|(org, provider, _)| (*org, *provider));
    if due.is_empty() {
        return Ok(());
    }
    sqlx::query(ADD_TURNS)
        .bind(due.iter().map(|(org, ..)| *org.as_uuid()).collect::<Vec<Uuid>>())
        .bind(
            due.iter()
                .map(|(_, provider, _)| provider.as_str())
                .collect::<Vec<&str>>(),
        )
        .bind(due.iter().map(|(.., at)| at.as_micros()).collect::<Vec<i64>>())
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("add turns"))
}

/// The longest detail that is kept, in characters.
const DETAIL_CHARACTERS_MAX: usize = 500;

fn cut(text: &str) -> String {
    clean(text).chars().take(DETAIL_CHARACTERS_MAX).collect()
}

/// Postgres has no NUL in a text; a provider's words may.
fn clean(text: &str) -> std::borrow::Cow<'_, str> {
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
const NEXT_DUE_AT: &str = "SELECT min(due_at) FROM turns";
const IS_REF_TAKEN: &str =
    "SELECT EXISTS (SELECT FROM actions WHERE org_id = $1 AND provider = $2 AND provider_ref = $3 AND id <> $4)";

#[async_trait]
impl Ledger for PostgresStore {
    async fn plan(&self, events: Arc<[PlannedEvent]>) -> Result<Vec<Planned>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        self.write(Access::ALL_ORGS, "plan events", move |connection| {
            Box::pin(plan::plan(connection, events, now))
        })
        .await
    }

    async fn store_dead_event(&self, dead: DeadEvent) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.write(Access::ALL_ORGS, "set an event aside", move |connection| {
            Box::pin(async move {
                sqlx::query(STORE_DEAD_EVENT)
                    .bind(*dead.id.as_uuid())
                    .bind(dead.org.map(|org| *org.as_uuid()))
                    .bind(dead.source.map_or("", Source::as_str))
                    .bind(dead.event_type.as_ref().map_or("", |event_type| event_type.as_str()))
                    .bind(dead.received_at.as_micros())
                    .bind(now.as_micros())
                    .bind(cut(&dead.reason))
                    .bind(dead.envelope.as_slice())
                    .execute(connection)
                    .await
                    .map(drop)
                    .map_err(failed("set an event aside"))
            })
        })
        .await
    }

    async fn claim(&self, limits: ClaimLimits, now: Timestamp) -> Result<Vec<Claim>, StoreError> {
        self.write(Access::ALL_ORGS, "claim actions", move |connection| {
            Box::pin(claim::claim(connection, limits, now))
        })
        .await
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Access::ALL_ORGS, "record attempts", move |connection| {
            Box::pin(record::record(connection, records))
        })
        .await
    }

    async fn expire_leases(&self, now: Timestamp, settle: Duration, count_max: u32) -> Result<u64, StoreError> {
        self.write(Access::ALL_ORGS, "end leases", move |connection| {
            Box::pin(record::end_leases(connection, Some(now), now, settle, count_max))
        })
        .await
    }

    async fn abandon_leases(&self, now: Timestamp, settle: Duration) -> Result<u64, StoreError> {
        self.write(
            Access::ALL_ORGS,
            "end the leases of a process that died",
            move |connection| Box::pin(record::end_leases(connection, None, now, settle, u32::MAX)),
        )
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
        self.write(org, "settle an action", move |connection| {
            Box::pin(manual::record_callback(connection, org, action, provider_ref, now))
        })
        .await
    }

    async fn next_due_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut reader = self.reader(Access::ALL_ORGS).await?;
        let due_at: Option<i64> = sqlx::query_scalar(NEXT_DUE_AT)
            .fetch_one(&mut *reader)
            .await
            .map_err(failed("read when the next turn is due"))?;
        Ok(due_at.map(Timestamp::from_micros))
    }

    async fn is_ref_taken(
        &self,
        org: OrgId,
        provider: Provider,
        provider_ref: &str,
        by_other_than: ActionId,
    ) -> Result<bool, StoreError> {
        let mut reader = self.reader(org).await?;
        sqlx::query_scalar(IS_REF_TAKEN)
            .bind(*org.as_uuid())
            .bind(provider.as_str())
            .bind(clean(provider_ref))
            .bind(*by_other_than.as_uuid())
            .fetch_one(&mut *reader)
            .await
            .map_err(failed("look for the holder of a provider's id"))
    }

    async fn retry(
        &self,
        org: OrgId,
        action: ActionId,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<ManualTransition, StoreError> {
        self.write(org, "retry an action", move |connection| {
            Box::pin(manual::retry(connection, org, action, expires_at, now))
        })
        .await
    }

    async fn cancel(&self, org: OrgId, action: ActionId, now: Timestamp) -> Result<ManualTransition, StoreError> {
        self.write(org, "cancel an action", move |connection| {
            Box::pin(manual::cancel(connection, org, action, now))
        })
        .await
    }

    async fn resolve(
        &self,
        org: OrgId,
        action: ActionId,
        to: ActionState,
        now: Timestamp,
    ) -> Result<ManualTransition, StoreError> {
        if !matches!(to, ActionState::Succeeded | ActionState::Pending) {
            return Err(StoreError::Data {
                doing: "resolve an action",
                reason: "an unknown outcome is resolved to succeeded or pending".into(),
            });
        }
        self.write(org, "resolve an action", move |connection| {
            Box::pin(manual::resolve(connection, org, action, to, now))
        })
        .await
    }
}

fn of_actions(row: &PgRow) -> Fields<'_> {
    Fields::of(row, "actions")
}

/// A text column of a closed set, in the words of the ledger.
fn state(row: &PgRow) -> Result<ActionState, StoreError> {
    of_actions(row).parse("state", |text| text.parse().ok())
}

fn provider(row: &PgRow) -> Result<Provider, StoreError> {
    of_actions(row).parse("provider", |text| text.parse().ok())
}
