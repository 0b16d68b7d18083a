//! Claims: turns, the rows of each, `running` with a fence and the attempt's row, in one
//! transaction.

use super::failed;
use super::{hex, text};
use crate::{
    domain::{OrgId, Provider, Timestamp},
    store::{
        StoreError,
        sql::ledger::{Choice, ClaimSql, Turn, claimable},
    },
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::{Sqlite, SqliteConnection, sqlite::SqliteRow};
use std::sync::LazyLock;

/// `$0` organisation, `$1` provider, `$2` until. Never brings a turn forward.
const DEFER: &str = "
    UPDATE turns
    SET due_at = held.until
    FROM (
        SELECT unhex(value ->> 0) AS org_id, value ->> 1 AS provider, value ->> 2 AS until
        FROM json_each(?1)
    ) AS held
    WHERE turns.org_id = held.org_id AND turns.provider = held.provider AND turns.due_at < held.until";

/// The rows of many turns at once, each turn's oldest first. `?1` turns, `?2` now, `?3` rows a
/// turn.
pub(super) const ROWS: &str = concat!(
    "
    SELECT a.id, a.org_id, a.event_id, a.kind, a.provider, a.credential_name, a.state, a.request_sealed,
        a.idempotency_key, a.fence, a.attempts, a.look_ups, a.absences, a.first_sent_at, a.expires_at, a.created_at,
        a.hops, a.account, c.account_fingerprint, c.version, e.subject, p.target IS NOT NULL AS is_paused
    FROM (
        SELECT key, unhex(value ->> 0) AS org_id, value ->> 1 AS provider
        FROM json_each(?1)
    ) AS turn
    CROSS JOIN actions AS a ON a.id IN (
        SELECT id FROM actions INDEXED BY actions_due
        WHERE org_id = turn.org_id AND provider = turn.provider AND ",
    claimable!(),
    " AND due_at <= ?2
        ORDER BY due_at, id
        LIMIT ?3
    )
    LEFT JOIN org_credentials AS c
        ON c.org_id = a.org_id AND c.provider = a.provider AND c.name = a.credential_name
    LEFT JOIN events AS e ON e.id = a.event_id
    LEFT JOIN pauses AS p ON p.scope = 'rule' AND p.org_id = a.org_id AND p.rule_id = a.rule_id
    ORDER BY turn.key, a.due_at, a.id"
);

/// The statements after a choice read it from one document, so that all of them go to the database
/// at once. Its fields are `now`, `lease_until`, `claims` (action, fence, organisation, whether it
/// is a look-up, account), `expired` (actions), and `turns` (organisation, provider).
const RUN: &str = concat!(
    "
    UPDATE actions
    SET state = 'running',
        fence = fence + 1,
        lease_until = ?1 ->> '$.lease_until',
        updated_at = ?1 ->> '$.now',
        first_sent_at = CASE
            WHEN state = 'unknown' THEN first_sent_at
            ELSE coalesce(first_sent_at, ?1 ->> '$.now')
        END,
        account = claimed.sent_by
    FROM (
        SELECT unhex(value ->> 0) AS claimed_id, value ->> 4 AS sent_by
        FROM json_each(?1, '$.claims')
    ) AS claimed
    WHERE actions.id = claimed.claimed_id AND ",
    claimable!()
);

const BEGIN_ATTEMPTS: &str = "
    INSERT INTO attempts (action_id, number, org_id, is_look_up, started_at)
    SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3, ?1 ->> '$.now'
    FROM json_each(?1, '$.claims')";

const EXPIRE: &str = "
    UPDATE actions
    SET state = 'dead', cause = 'expired', detail = NULL, updated_at = ?1 ->> '$.now'
    WHERE id IN (SELECT unhex(value) FROM json_each(?1, '$.expired'))
        AND state IN ('pending', 'waiting')";

const END_TURNS: &str = concat!(
    "
    DELETE FROM turns
    WHERE (org_id, provider) IN (SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1, '$.turns'))
        AND NOT EXISTS (
            SELECT 1 FROM actions INDEXED BY actions_due
            WHERE org_id = turns.org_id AND provider = turns.provider AND ",
    claimable!(),
    ")"
);

/// After its turn an organisation comes after all that are due now, or becomes due with its next
/// action.
pub(super) const PASS_TURNS: &str = concat!(
    "
    UPDATE turns
    SET last_turn_at = ?1 ->> '$.now',
        due_at = max(?1 ->> '$.now', coalesce((
            SELECT due_at FROM actions INDEXED BY actions_due
            WHERE org_id = turns.org_id AND provider = turns.provider AND ",
    claimable!(),
    "
            ORDER BY due_at
            LIMIT 1
        ), -1))
    WHERE (org_id, provider) IN (SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1, '$.turns'))"
);

static TAKE: LazyLock<String> = LazyLock::new(|| [RUN, BEGIN_ATTEMPTS, END_TURNS, PASS_TURNS].join("; "));
static EXPIRE_AND_TAKE: LazyLock<String> = LazyLock::new(|| format!("{EXPIRE}; {}", *TAKE));

fn list_of(turns: &[Turn]) -> Vec<Value> {
    turns
        .iter()
        .map(|(org, provider)| json!([hex(org.as_bytes()), provider.as_str()]))
        .collect()
}

impl ClaimSql for Sqlite {
    fn defer<'c>(
        connection: &'c mut SqliteConnection,
        deferred: &'c [(OrgId, Provider, Timestamp)],
    ) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            let list = deferred
                .iter()
                .map(|(org, provider, until)| json!([hex(org.as_bytes()), provider.as_str(), until.as_micros()]))
                .collect();
            sqlx::query(DEFER)
                .bind(text(list))
                .execute(connection)
                .await
                .map(drop)
                .map_err(failed("defer turns"))
        })
    }

    fn rows_of_turns<'c>(
        connection: &'c mut SqliteConnection,
        turns: &'c [Turn],
        now: Timestamp,
        turn_max: u32,
    ) -> BoxFuture<'c, Result<Vec<SqliteRow>, StoreError>> {
        Box::pin(async move {
            sqlx::query(ROWS)
                .bind(text(list_of(turns)))
                .bind(now.as_micros())
                .bind(turn_max)
                .fetch_all(connection)
                .await
                .map_err(failed("read what can be claimed"))
        })
    }

    fn take<'c>(connection: &'c mut SqliteConnection, choice: &'c Choice) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            let claims: Vec<Value> = choice
                .claims
                .iter()
                .map(|claim| {
                    json!([
                        hex(claim.action.as_bytes()),
                        claim.fence,
                        hex(claim.org.as_bytes()),
                        u8::from(claim.is_look_up),
                        claim.account
                    ])
                })
                .collect();
            let expired: Vec<String> = choice.expired.iter().map(|id| hex(id.as_bytes())).collect();
            let document = json!({
                "now": choice.now.as_micros(), "lease_until": choice.lease_until.as_micros(), "claims": claims,
                "expired": expired, "turns": list_of(&choice.taken),
            });
            let statements = if expired.is_empty() {
                TAKE.as_str()
            } else {
                EXPIRE_AND_TAKE.as_str()
            };
            sqlx::query(statements)
                .bind(document.to_string())
                .execute(connection)
                .await
                .map(drop)
                .map_err(failed("take turns"))
        })
    }
}

/// For the tests: every statement of this file.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    vec![DEFER, ROWS, RUN, EXPIRE, BEGIN_ATTEMPTS, PASS_TURNS, END_TURNS]
}
