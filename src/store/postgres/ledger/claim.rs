//! Claims: turns, the rows of each, `running` with a fence and the attempt's row, in one
//! transaction. Rows that another claim holds are passed over.

use super::failed;
use crate::{
    domain::{OrgId, Provider, Timestamp},
    store::{
        StoreError,
        sql::ledger::{Choice, ClaimSql, Turn, claimable},
    },
};
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, Postgres, postgres::PgRow};
use uuid::Uuid;

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[DEFER, ROWS, RUN, EXPIRE, BEGIN_ATTEMPTS, PASS_TURNS, END_TURNS];

/// Never brings a turn forward. Another claim may hold a turn; it is deferred the next time.
const DEFER: &str = "
    UPDATE turns
    SET due_at = held.until
    FROM (
        SELECT t.org_id, t.provider, d.until
        FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS d (org_id, provider, until)
        JOIN turns AS t ON t.org_id = d.org_id AND t.provider = d.provider AND t.due_at < d.until
        FOR UPDATE OF t SKIP LOCKED
    ) AS held
    WHERE turns.org_id = held.org_id AND turns.provider = held.provider";

/// The rows of many turns at once, each turn's oldest first. `$1`, `$2` turns, `$3` now, `$4` rows
/// a turn.
pub(crate) const ROWS: &str = concat!(
    "
    SELECT a.*, c.account_fingerprint, c.version, e.subject, p.target IS NOT NULL AS is_paused
    FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS turn (org_id, provider, place)
    CROSS JOIN LATERAL (
        SELECT id, org_id, event_id, kind, provider, credential_name, state, request_sealed, idempotency_key, fence,
            attempts, look_ups, absences, first_sent_at, expires_at, created_at, hops, account, due_at, rule_id
        FROM actions
        WHERE org_id = turn.org_id AND provider = turn.provider AND ",
    claimable!(),
    " AND due_at <= $3
        ORDER BY due_at, id
        LIMIT $4
        FOR UPDATE SKIP LOCKED
    ) AS a
    LEFT JOIN org_credentials AS c
        ON c.org_id = a.org_id AND c.provider = a.provider AND c.name = a.credential_name
    LEFT JOIN events AS e ON e.id = a.event_id
    LEFT JOIN pauses AS p ON p.scope = 'rule' AND p.org_id = a.org_id AND p.rule_id = a.rule_id
    ORDER BY turn.place, a.due_at, a.id"
);

const RUN: &str = concat!(
    "
    UPDATE actions
    SET state = 'running',
        fence = fence + 1,
        lease_until = $2,
        updated_at = $3,
        first_sent_at = CASE WHEN state = 'unknown' THEN first_sent_at ELSE coalesce(first_sent_at, $3) END,
        account = claimed.sent_by
    FROM unnest($1::uuid[], $4::text[]) AS claimed (claimed_id, sent_by)
    WHERE actions.id = claimed.claimed_id AND ",
    claimable!()
);

const EXPIRE: &str = "
    UPDATE actions
    SET state = 'dead', cause = 'expired', detail = NULL, updated_at = $2
    WHERE id = ANY($1) AND state IN ('pending', 'waiting')";

const BEGIN_ATTEMPTS: &str = "
    INSERT INTO attempts (action_id, number, org_id, is_look_up, started_at)
    SELECT begun.*, $5
    FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::boolean[]) AS begun";

/// After its turn an organisation comes after all that are due now, or becomes due with its next
/// action.
const PASS_TURNS: &str = concat!(
    "
    UPDATE turns
    SET last_turn_at = $3,
        due_at = greatest($3, coalesce((
            SELECT due_at FROM actions
            WHERE org_id = turns.org_id AND provider = turns.provider AND ",
    claimable!(),
    "
            ORDER BY due_at, id
            LIMIT 1
        ), -1))
    WHERE (org_id, provider) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))"
);

const END_TURNS: &str = concat!(
    "
    DELETE FROM turns
    WHERE (org_id, provider) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))
        AND (
            SELECT due_at FROM actions
            WHERE org_id = turns.org_id AND provider = turns.provider AND ",
    claimable!(),
    "
            ORDER BY due_at, id
            LIMIT 1
        ) IS NULL"
);

fn orgs(turns: &[Turn]) -> Vec<Uuid> {
    turns.iter().map(|(org, _)| *org.as_uuid()).collect()
}

fn providers(turns: &[Turn]) -> Vec<&'static str> {
    turns.iter().map(|(_, provider)| provider.as_str()).collect()
}

impl ClaimSql for Postgres {
    fn defer<'c>(
        connection: &'c mut PgConnection,
        deferred: &'c [(OrgId, Provider, Timestamp)],
    ) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            let turns: Vec<Turn> = deferred.iter().map(|(org, provider, _)| (*org, *provider)).collect();
            sqlx::query(DEFER)
                .bind(orgs(&turns))
                .bind(providers(&turns))
                .bind(
                    deferred
                        .iter()
                        .map(|(.., until)| until.as_micros())
                        .collect::<Vec<i64>>(),
                )
                .execute(connection)
                .await
                .map(drop)
                .map_err(failed("defer turns"))
        })
    }

    fn rows_of_turns<'c>(
        connection: &'c mut PgConnection,
        turns: &'c [Turn],
        now: Timestamp,
        turn_max: u32,
    ) -> BoxFuture<'c, Result<Vec<PgRow>, StoreError>> {
        Box::pin(async move {
            sqlx::query(ROWS)
                .bind(orgs(turns))
                .bind(providers(turns))
                .bind(now.as_micros())
                .bind(i64::from(turn_max))
                .fetch_all(connection)
                .await
                .map_err(failed("read what can be claimed"))
        })
    }

    fn take<'c>(connection: &'c mut PgConnection, choice: &'c Choice) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            let now = choice.now.as_micros();
            if !choice.expired.is_empty() {
                sqlx::query(EXPIRE)
                    .bind(&choice.expired)
                    .bind(now)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("end expired actions"))?;
            }
            let claims = &choice.claims;
            if !claims.is_empty() {
                let ids: Vec<Uuid> = claims.iter().map(|claim| *claim.action.as_uuid()).collect();
                sqlx::query(RUN)
                    .bind(&ids)
                    .bind(choice.lease_until.as_micros())
                    .bind(now)
                    .bind(claims.iter().map(|claim| claim.account.as_deref()).collect::<Vec<_>>())
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("set actions running"))?;
                sqlx::query(BEGIN_ATTEMPTS)
                    .bind(ids)
                    .bind(claims.iter().map(|claim| claim.fence).collect::<Vec<i64>>())
                    .bind(claims.iter().map(|claim| *claim.org.as_uuid()).collect::<Vec<Uuid>>())
                    .bind(claims.iter().map(|claim| claim.is_look_up).collect::<Vec<bool>>())
                    .bind(now)
                    .execute(&mut *connection)
                    .await
                    .map_err(failed("begin attempts"))?;
            }
            sqlx::query(END_TURNS)
                .bind(orgs(&choice.taken))
                .bind(providers(&choice.taken))
                .execute(&mut *connection)
                .await
                .map_err(failed("end turns"))?;
            sqlx::query(PASS_TURNS)
                .bind(orgs(&choice.taken))
                .bind(providers(&choice.taken))
                .bind(now)
                .execute(connection)
                .await
                .map(drop)
                .map_err(failed("pass turns on"))
        })
    }
}
