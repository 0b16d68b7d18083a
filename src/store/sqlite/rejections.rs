//! Rejections in SQLite: a ring. `seq` has no gaps, so how many there are is the newest less the
//! oldest, without counting.

use super::{Lane, SqliteStore, StoreError, failed, rows::Fields};
use crate::{
    domain::{EndpointId, OrgId, RouteKey, RouteKind},
    store::rejections::*,
};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[INSERT, OLDEST, NEWEST, DROP_OLDEST, LIST_ALL, LIST_OF_ORG];

/// Rows that one batch drops at most beyond its own length: the writer is everybody's (invariant
/// 15).
const DROPPED_MAX: i64 = 1_000;

const INSERT: &str = "INSERT INTO rejections (id, seq, at, source, endpoint_id, org_id, is_claimed, cause, status, \
    bytes, ids, head) \
    VALUES (?1, (SELECT ifnull(max(seq), 0) + 1 FROM rejections), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON \
    CONFLICT (id) DO NOTHING";
const OLDEST: &str = "SELECT min(seq) FROM rejections";
const NEWEST: &str = "SELECT max(seq) FROM rejections";
const DROP_OLDEST: &str = "DELETE FROM rejections WHERE seq < ?1";

/// The operator's: over all organisations.
const LIST_ALL: &str = "SELECT id, at, source, endpoint_id, org_id, is_claimed, cause, status, bytes, ids, head FROM \
    rejections \
    WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
/// What anyone could have sent in an organisation's name is not shown to it.
const LIST_OF_ORG: &str = "SELECT id, at, source, endpoint_id, org_id, is_claimed, cause, status, bytes, ids, \
    CASE WHEN is_claimed THEN '' ELSE head END AS head FROM rejections WHERE org_id = ?3 AND id < ?1 ORDER BY id DESC \
    LIMIT ?2";

fn ids_text(ids: &[RouteKey]) -> Result<String, StoreError> {
    let pairs: Vec<_> = ids.iter().map(|key| (key.kind, &*key.value)).collect();
    serde_json::to_string(&pairs).map_err(|_| StoreError::Data {
        doing: "record rejections",
        reason: "the ids are not JSON".into(),
    })
}

fn rejection(row: &SqliteRow) -> Result<Rejection, StoreError> {
    let row = Fields::of(row, "rejections");
    let ids: Vec<(RouteKind, Box<str>)> = row.json("ids")?;
    Ok(Rejection {
        id: row.id("id", |id| id)?,
        at: row.time("at")?,
        source: row.parse("source", |text| text.parse().ok())?,
        endpoint: row.id_opt("endpoint_id", EndpointId::from_uuid)?,
        org: row.id_opt("org_id", OrgId::from_uuid)?,
        is_claimed: row.get("is_claimed")?,
        cause: row.get("cause")?,
        status: row.number("status")?,
        bytes: row.number("bytes")?,
        ids: ids.into_iter().map(|(kind, value)| RouteKey { kind, value }).collect(),
        head: row.get("head")?,
    })
}

#[async_trait]
impl Rejections for SqliteStore {
    async fn record_rejections(&self, batch: Vec<Rejection>, kept_max: u32) -> Result<(), StoreError> {
        const DOING: &str = "record rejections";
        self.write(Lane::Bulk, DOING, move |connection| {
            Box::pin(async move {
                for one in &batch {
                    sqlx::query(INSERT)
                        .bind(one.id.as_bytes().as_slice())
                        .bind(one.at.as_micros())
                        .bind(one.source.as_str())
                        .bind(one.endpoint.as_ref().map(|id| id.as_bytes().as_slice()))
                        .bind(one.org.as_ref().map(|id| id.as_bytes().as_slice()))
                        .bind(one.is_claimed)
                        .bind(one.cause.as_str())
                        .bind(one.status)
                        .bind(i64::try_from(one.bytes).unwrap_or(i64::MAX))
                        .bind(ids_text(&one.ids)?)
                        .bind(one.head.as_str())
                        .execute(&mut *connection)
                        .await
                        .map_err(failed(DOING))?;
                }
                let oldest: Option<i64> = sqlx::query_scalar(OLDEST)
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                let newest: Option<i64> = sqlx::query_scalar(NEWEST)
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(failed(DOING))?;
                if let (Some(oldest), Some(newest)) = (oldest, newest) {
                    let dropped_max = DROPPED_MAX + i64::try_from(batch.len()).unwrap_or(i64::MAX - DROPPED_MAX);
                    let first_kept = (newest - i64::from(kept_max) + 1).min(oldest.saturating_add(dropped_max));
                    if first_kept > oldest {
                        sqlx::query(DROP_OLDEST)
                            .bind(first_kept)
                            .execute(connection)
                            .await
                            .map_err(failed(DOING))?;
                    }
                }
                Ok(())
            })
        })
        .await
    }

    async fn list_rejections(
        &self,
        org: Option<OrgId>,
        before: Option<Uuid>,
        count_max: u32,
    ) -> Result<Vec<Rejection>, StoreError> {
        let query = sqlx::query(if org.is_some() { LIST_OF_ORG } else { LIST_ALL })
            .bind(before.unwrap_or(Uuid::max()).into_bytes().to_vec())
            .bind(count_max);
        let query = match &org {
            Some(org) => query.bind(org.as_bytes().as_slice()),
            None => query,
        };
        query
            .fetch_all(self.readers())
            .await
            .map_err(failed("list rejections"))?
            .iter()
            .map(rejection)
            .collect()
    }
}
