//! The ledger in SQLite: plans, claims, records, manual transitions. Statements are counted by the
//! batch, never by the row: one costs more than a row.
//!
//! Lists go in as one JSON text and come out by `json_each`; ids travel in it as hex.
//! **Invariant:** a row leaves `running` only under its fence, and an action that can be claimed
//! has a turn that is due no later than it needs.

mod claim;
mod manual;
mod plan;
mod record;
#[cfg(test)]
mod tests;

use super::{Lane, SqliteStore, StoreError, failed, rows};
use crate::{
    domain::{ActionId, ActionState, OrgId, Provider, Source, Timestamp},
    store::ledger::{Claim, ClaimLimits, DeadEvent, Ledger, ManualTransition, Planned, PlannedEvent, Record, Recorded},
};
use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use std::{sync::Arc, time::Duration};

/// What can be claimed, as the partial index `actions_due` has it: statements repeat it word for
/// word, or the index is not used.
macro_rules! claimable {
    () => {
        "state IN ('pending', 'waiting', 'unknown')"
    };
}
use claimable;

/// Brings turns forward to when something becomes due. `$0` organisation in hex, `$1` provider,
/// `$2` due.
const ADD_TURNS: &str = "INSERT INTO turns (org_id, provider, due_at) \
    SELECT unhex(value ->> 0), value ->> 1, min(value ->> 2) FROM json_each(?1) WHERE true GROUP BY 1, 2 \
    ON CONFLICT (org_id, provider) DO UPDATE SET due_at = min(due_at, excluded.due_at)";

async fn add_turns(
    connection: &mut SqliteConnection,
    due: impl IntoIterator<Item = (OrgId, Provider, Timestamp)>,
) -> Result<(), StoreError> {
    let mut due: Vec<(OrgId, Provider, Timestamp)> = due.into_iter().collect();
    // Batches are mostly of few organisations: one entry each.
    due.sort_unstable();
    due.dedup_by_key(|(org, provider, _)| (*org, *provider));
    if due.is_empty() {
        return Ok(());
    }
    let list = due
        .iter()
        .map(|(org, provider, at)| json!([hex(org.as_bytes()), provider.as_str(), at.as_micros()]))
        .collect();
    sqlx::query(ADD_TURNS)
        .bind(text(list))
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("add turns"))
}

fn text(list: Vec<Value>) -> String {
    Value::Array(list).to_string()
}

fn hex(bytes: &[u8]) -> String {
    ::hex::encode(bytes)
}

/// The longest detail that is kept, in characters.
const DETAIL_CHARACTERS_MAX: usize = 500;

fn cut(text: &str) -> String {
    text.chars().take(DETAIL_CHARACTERS_MAX).collect()
}

const STORE_DEAD_EVENT: &str = "
    INSERT INTO dead_events (id, org_id, source, event_type, received_at, dead_at, reason, envelope)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO NOTHING";
const NEXT_DUE_AT: &str = "SELECT min(due_at) FROM turns";
const IS_REF_TAKEN: &str =
    "SELECT EXISTS (SELECT 1 FROM actions WHERE org_id = ? AND provider = ? AND provider_ref = ? AND id <> ?)";

#[async_trait]
impl Ledger for SqliteStore {
    async fn plan(&self, events: Arc<[PlannedEvent]>) -> Result<Vec<Planned>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        self.write(Lane::Bulk, "plan events", move |connection| {
            Box::pin(plan::plan(connection, events, now))
        })
        .await
    }

    async fn store_dead_event(&self, dead: DeadEvent) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.write(Lane::Bulk, "set an event aside", move |connection| {
            Box::pin(async move {
                sqlx::query(STORE_DEAD_EVENT)
                    .bind(dead.id.as_bytes().as_slice())
                    .bind(dead.org.as_ref().map(|org| org.as_bytes().as_slice()))
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
        self.write(Lane::Urgent, "claim actions", move |connection| {
            Box::pin(claim::claim(connection, limits, now))
        })
        .await
    }

    async fn record(&self, records: Vec<Record>) -> Result<Vec<Recorded>, StoreError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.write(Lane::Urgent, "record attempts", move |connection| {
            Box::pin(record::record(connection, records))
        })
        .await
    }

    async fn expire_leases(&self, now: Timestamp, settle: Duration, count_max: u32) -> Result<u64, StoreError> {
        self.write(Lane::Urgent, "end leases", move |connection| {
            Box::pin(record::end_leases(connection, Some(now), now, settle, count_max))
        })
        .await
    }

    async fn abandon_leases(&self, now: Timestamp, settle: Duration) -> Result<u64, StoreError> {
        self.write(
            Lane::Urgent,
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
        let provider_ref = provider_ref.to_owned();
        self.write(Lane::Urgent, "settle an action", move |connection| {
            Box::pin(manual::record_callback(connection, org, action, provider_ref, now))
        })
        .await
    }

    async fn next_due_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let due_at: Option<i64> = sqlx::query_scalar(NEXT_DUE_AT)
            .fetch_one(self.readers())
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
        sqlx::query_scalar(IS_REF_TAKEN)
            .bind(org.as_bytes().as_slice())
            .bind(provider.as_str())
            .bind(provider_ref)
            .bind(by_other_than.as_bytes().as_slice())
            .fetch_one(self.readers())
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
        self.write(Lane::Urgent, "retry an action", move |connection| {
            Box::pin(manual::retry(connection, org, action, expires_at, now))
        })
        .await
    }

    async fn cancel(&self, org: OrgId, action: ActionId, now: Timestamp) -> Result<ManualTransition, StoreError> {
        self.write(Lane::Urgent, "cancel an action", move |connection| {
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
        self.write(Lane::Urgent, "resolve an action", move |connection| {
            Box::pin(manual::resolve(connection, org, action, to, now))
        })
        .await
    }
}

/// A text column of a closed set, in the words of the ledger.
fn state(row: &sqlx::sqlite::SqliteRow) -> Result<ActionState, StoreError> {
    rows::parse(row, "actions", "state", |text| text.parse().ok())
}
