//! The ledger's batches in SQLite: claims, records, the end of leases. Each batch is one statement,
//! because a statement costs more than a row.
//!
//! Lists go in as one JSON text and come out by `json_each`; ids travel in it as hex.

mod claim;
mod record;
#[cfg(test)]
mod tests;

use super::failed;
use crate::{
    domain::{OrgId, Provider, Timestamp},
    store::{
        StoreError,
        sql::ledger::{Key, KeysOf, PlanSql},
    },
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::{Sqlite, SqliteConnection, sqlite::SqliteRow};

/// Returns the keys that are new. `$0` organisation, `$1` hash; both in hex.
const MARK_EVENTS: &str = "
    INSERT INTO dedupe_keys (org_id, hash, created_at)
    SELECT unhex(value ->> 0), unhex(value ->> 1), ?2 FROM json_each(?1) WHERE true
    ON CONFLICT (org_id, hash) DO NOTHING
    RETURNING org_id, hash";
const MARK_ACTIONS: &str = "
    INSERT INTO idempotency_keys (org_id, hash, created_at)
    SELECT unhex(value ->> 0), unhex(value ->> 1), ?2 FROM json_each(?1) WHERE true
    ON CONFLICT (org_id, hash) DO NOTHING
    RETURNING org_id, hash";

/// Brings turns forward to the time at which an action becomes due. `$0` organisation in hex, `$1`
/// provider, `$2` due.
const ADD_TURNS: &str = "
    INSERT INTO turns (org_id, provider, due_at)
    SELECT unhex(value ->> 0), value ->> 1, min(value ->> 2) FROM json_each(?1) WHERE true GROUP BY 1, 2
    ON CONFLICT (org_id, provider) DO UPDATE
    SET due_at = min(due_at, excluded.due_at)";

/// `$0` organisation in hex, `$1` how many.
const ADD_USED: &str = "
    INSERT INTO action_days (org_id, day, used)
    SELECT unhex(value ->> 0), ?2, value ->> 1 FROM json_each(?1) WHERE true
    ON CONFLICT (org_id, day) DO UPDATE
    SET used = used + excluded.used";

impl PlanSql for Sqlite {
    fn add_used(
        connection: &mut SqliteConnection,
        day: i64,
        used: Vec<(OrgId, u64)>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let list = used
                .into_iter()
                .map(|(org, count)| json!([hex(org.as_bytes()), count]))
                .collect();
            sqlx::query(ADD_USED)
                .bind(text(list))
                .bind(day)
                .execute(connection)
                .await
                .map_err(failed("count the actions of a day"))
                .map(drop)
        })
    }

    fn mark(
        connection: &mut SqliteConnection,
        keys_of: KeysOf,
        sorted: Vec<Key>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<SqliteRow>, StoreError>> {
        Box::pin(async move {
            let statement = match keys_of {
                KeysOf::Events => MARK_EVENTS,
                KeysOf::Actions => MARK_ACTIONS,
            };
            let list = sorted
                .into_iter()
                .map(|(org, hash)| json!([hex(org.as_bytes()), hex(&hash)]))
                .collect();
            sqlx::query(statement)
                .bind(text(list))
                .bind(now.as_micros())
                .fetch_all(connection)
                .await
                .map_err(failed("mark keys"))
        })
    }

    fn add_turns(
        connection: &mut SqliteConnection,
        due: Vec<(OrgId, Provider, Timestamp)>,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
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
        })
    }
}

fn text(list: Vec<Value>) -> String {
    Value::Array(list).to_string()
}

fn hex(bytes: &[u8]) -> String {
    ::hex::encode(bytes)
}

/// For the tests: every statement of this folder.
#[cfg(test)]
fn statements() -> Vec<&'static str> {
    [MARK_EVENTS, MARK_ACTIONS, ADD_TURNS]
        .into_iter()
        .chain(claim::statements())
        .chain(record::statements())
        .collect()
}
