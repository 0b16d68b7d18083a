//! The ledger's batches in Postgres: claims, records, the end of leases. Statements are counted by
//! the batch, never by the row.
//!
//! **Invariant:** a transaction that makes an action claimable writes its turn too. A claim holds
//! the turns that it has taken until its commit, so no turn is lost between the two. A claim never
//! waits: it passes over rows that another transaction holds.

mod claim;
mod record;

use super::failed;
use crate::{
    domain::{OrgId, Provider, Timestamp},
    store::{
        StoreError,
        sql::ledger::{Key, KeysOf, PlanSql},
    },
};
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Postgres, postgres::PgRow};
use uuid::Uuid;

/// Returns the keys that are new. The arrays are sorted, so that two batches with the same keys
/// never deadlock.
const MARK_EVENTS: &str = "
    INSERT INTO dedupe_keys (org_id, hash, created_at)
    SELECT org_id, hash, $3 FROM unnest($1::uuid[], $2::bytea[]) AS marked (org_id, hash)
    ON CONFLICT (org_id, hash) DO NOTHING
    RETURNING org_id, hash";
const MARK_ACTIONS: &str = "
    INSERT INTO idempotency_keys (org_id, hash, created_at)
    SELECT org_id, hash, $3 FROM unnest($1::uuid[], $2::bytea[]) AS marked (org_id, hash)
    ON CONFLICT (org_id, hash) DO NOTHING
    RETURNING org_id, hash";

/// Brings turns forward to the time at which an action becomes due. The caller sorts them, so that
/// two calls never deadlock.
const ADD_TURNS: &str = "
    INSERT INTO turns (org_id, provider, due_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])
    ON CONFLICT (org_id, provider) DO UPDATE
    SET due_at = least(turns.due_at, excluded.due_at)";

/// Sorted by the caller, as turns are.
const ADD_USED: &str = "
    INSERT INTO action_days (org_id, day, used)
    SELECT org_id, $3, used FROM unnest($1::uuid[], $2::bigint[]) AS planned (org_id, used)
    ON CONFLICT (org_id, day) DO UPDATE
    SET used = action_days.used + excluded.used";

impl PlanSql for Postgres {
    fn add_used(
        connection: &mut PgConnection,
        day: i64,
        used: Vec<(OrgId, u64)>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            sqlx::query(ADD_USED)
                .bind(used.iter().map(|(org, _)| *org.as_uuid()).collect::<Vec<Uuid>>())
                .bind(used.iter().map(|(_, used)| count(*used)).collect::<Vec<i64>>())
                .bind(day)
                .execute(connection)
                .await
                .map(drop)
                .map_err(failed("count the actions of a day"))
        })
    }

    fn mark(
        connection: &mut PgConnection,
        keys_of: KeysOf,
        sorted: Vec<Key>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<PgRow>, StoreError>> {
        Box::pin(async move {
            let statement = match keys_of {
                KeysOf::Events => MARK_EVENTS,
                KeysOf::Actions => MARK_ACTIONS,
            };
            sqlx::query(statement)
                .bind(sorted.iter().map(|(org, _)| *org.as_uuid()).collect::<Vec<Uuid>>())
                .bind(sorted.iter().map(|(_, hash)| hash.as_slice()).collect::<Vec<&[u8]>>())
                .bind(now.as_micros())
                .fetch_all(connection)
                .await
                .map_err(failed("mark keys"))
        })
    }

    fn add_turns(
        connection: &mut PgConnection,
        due: Vec<(OrgId, Provider, Timestamp)>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
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
        })
    }
}

/// For the tests: every statement of this folder.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    let own: &[&str] = &[MARK_EVENTS, MARK_ACTIONS, ADD_USED, ADD_TURNS];
    [own, claim::STATEMENTS, record::STATEMENTS].concat()
}
