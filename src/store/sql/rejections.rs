//! Rejections: a ring. `seq` has no gaps, so the newest less the oldest gives their number without
//! a count.

use super::{
    Access, Dialect, Row, Sql, SqlStore, Statement, Transaction,
    history::{end, first_id, start},
};
use crate::{
    domain::{OrgId, RouteKey, RouteKind},
    store::{StoreError, rejections::*},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    LOCK,
    Sql::both(INSERT),
    Sql::both(OLDEST),
    Sql::both(NEWEST),
    Sql::both(DROP_OLDEST),
    Sql::both(LIST_ALL),
    Sql::both(LIST_OF_ORG),
];

/// Most rows that one batch drops beyond its own length, because all commands share the writer
/// (invariant 15).
const DROPPED_MAX: i64 = 1_000;

/// One batch after the other, so that `seq` has no gaps.
const LOCK: Sql = Sql::postgres_only("SELECT pg_advisory_xact_lock(hashtextextended('hookswitch rejections', 0))");
const INSERT: &str = "
    INSERT INTO rejections
        (id, seq, at, source, endpoint_id, org_id, is_claimed, cause, status, bytes, ids, head, signed_url)
    VALUES ($1, (SELECT coalesce(max(seq), 0) + 1 FROM rejections), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (id) DO NOTHING";
const OLDEST: &str = "SELECT min(seq) AS seq FROM rejections";
const NEWEST: &str = "SELECT max(seq) AS seq FROM rejections";
const DROP_OLDEST: &str = "DELETE FROM rejections WHERE seq < $1";

/// The operator's: over all organisations.
const LIST_ALL: &str = "
    SELECT id, at, source, endpoint_id, org_id, is_claimed, cause, status, bytes, ids, head, signed_url
    FROM rejections
    WHERE id < $1 AND id >= $3 AND at >= $4 AND at < $5 AND (CAST($6 AS text) IS NULL OR cause = $6)
    ORDER BY id DESC
    LIMIT $2";
/// An organisation does not see the head of a request that anyone could have sent in its name.
const LIST_OF_ORG: &str = "
    SELECT id, at, source, endpoint_id, org_id, is_claimed, cause, status, bytes, ids,
        CASE WHEN is_claimed THEN '' ELSE head END AS head,
        CASE WHEN is_claimed THEN NULL ELSE signed_url END AS signed_url
    FROM rejections
    WHERE org_id = $7 AND id < $1 AND id >= $3 AND at >= $4 AND at < $5
    AND (CAST($6 AS text) IS NULL OR cause = $6)
    ORDER BY id DESC
    LIMIT $2";

fn rejection<D: Dialect>(row: Row<'_, D>) -> Result<Rejection, StoreError> {
    let row = row.table("rejections");
    let ids: Vec<(RouteKind, Box<str>)> = row.json("ids")?;
    Ok(Rejection {
        id: row.id("id")?,
        at: row.time("at")?,
        source: row.parse("source")?,
        endpoint: row.id_opt("endpoint_id")?,
        org: row.id_opt("org_id")?,
        is_claimed: row.flag("is_claimed")?,
        cause: row.string("cause")?,
        status: row.number("status")?,
        bytes: row.number("bytes")?,
        ids: ids.into_iter().map(|(kind, value)| RouteKey { kind, value }).collect(),
        head: row.string("head")?,
        signed_url: row.string_opt("signed_url")?,
    })
}

async fn record<D: Dialect>(tx: &mut Transaction<'_, D>, batch: &[Rejection], kept_max: u32) -> Result<(), StoreError> {
    const DOING: &str = "record rejections";
    Statement::new(DOING, LOCK).execute(tx).await?;
    for one in batch {
        let ids: Vec<_> = one.ids.iter().map(|key| (key.kind, &*key.value)).collect();
        Statement::new(DOING, INSERT)
            .id(one.id)
            .time(one.at)
            .text(one.source.as_str())
            .id_opt(one.endpoint)
            .id_opt(one.org)
            .flag(one.is_claimed)
            .text(&one.cause)
            .number(one.status)
            .count(one.bytes)
            .json(&ids)?
            .text(&one.head)
            .text_opt(one.signed_url.as_deref())
            .execute(tx)
            .await?;
    }
    let oldest: Option<i64> = Statement::new(DOING, OLDEST)
        .one(tx, |row| row.table("rejections").number_opt("seq"))
        .await?;
    let newest: Option<i64> = Statement::new(DOING, NEWEST)
        .one(tx, |row| row.table("rejections").number_opt("seq"))
        .await?;
    if let (Some(oldest), Some(newest)) = (oldest, newest) {
        let dropped_max = DROPPED_MAX + i64::try_from(batch.len()).unwrap_or(i64::MAX - DROPPED_MAX);
        let first_kept = (newest - i64::from(kept_max) + 1).min(oldest.saturating_add(dropped_max));
        if first_kept > oldest {
            Statement::new(DOING, DROP_OLDEST)
                .number(first_kept)
                .execute(tx)
                .await?;
        }
    }
    Ok(())
}

#[async_trait]
impl<S: SqlStore> Rejections for S {
    async fn record_rejections(&self, batch: Vec<Rejection>, kept_max: u32) -> Result<(), StoreError> {
        self.write(Access::ALL_ORGS.in_bulk(), "record rejections", move |mut tx| {
            Box::pin(async move { record(&mut tx, &batch, kept_max).await })
        })
        .await
    }

    async fn list_rejections(
        &self,
        org: Option<OrgId>,
        filter: RejectionFilter,
        before: Option<Uuid>,
        count_max: u32,
    ) -> Result<Vec<Rejection>, StoreError> {
        const DOING: &str = "list rejections";
        let mut reader = self.read(org.map_or(Access::ALL_ORGS, Access::org)).await?;
        let list = Statement::new(DOING, if org.is_some() { LIST_OF_ORG } else { LIST_ALL })
            .id(before.unwrap_or(Uuid::max()))
            .number(count_max)
            .id(first_id(filter.period))
            .time(start(filter.period))
            .time(end(filter.period))
            .text_opt(filter.cause.as_deref());
        let list = match org {
            Some(org) => list.id(org),
            None => list,
        };
        list.all(&mut reader, rejection).await
    }
}
