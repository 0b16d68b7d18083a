//! Claims: turns, the rows of each, `running` with a fence and the attempt's row, in one
//! transaction.

use super::{failed, hex, of_actions, text};
use crate::{
    domain::{ActionId, ActionState, OrgId, Provider, Timestamp},
    killpoint::{Step, reach},
    store::{
        StoreError,
        ledger::{Claim, ClaimLimits},
        sql::{
            Row,
            ledger::{claim_of, claimable},
        },
    },
};
use serde_json::{Value, json};
use sqlx::{Sqlite, SqliteConnection, sqlite::SqliteRow};
use std::sync::LazyLock;

/// `$0` organisation, `$1` provider, `$2` until. Never brings a turn forward.
const DEFER: &str = "UPDATE turns SET due_at = held.until FROM (SELECT unhex(value ->> 0) AS org_id, value ->> 1 AS \
    provider, value ->> 2 AS until FROM json_each(?1)) AS held \
    WHERE turns.org_id = held.org_id AND turns.provider = held.provider AND turns.due_at < held.until";

const TURNS: &str = "SELECT org_id, provider FROM turns WHERE due_at <= ?1 ORDER BY due_at LIMIT ?2";

/// The rows of many turns at once, each turn's oldest first. `?1` turns, `?2` now, `?3` rows a
/// turn.
pub(super) const ROWS: &str = concat!(
    "SELECT a.id, a.org_id, a.event_id, a.kind, a.provider, a.credential_name, a.state, a.request_sealed, \
    a.idempotency_key, a.fence, a.attempts, a.look_ups, \
     a.absences, a.first_sent_at, a.expires_at, a.created_at, a.hops, a.account, c.account_fingerprint, c.version \
     FROM (SELECT key, unhex(value ->> 0) AS org_id, value ->> 1 AS provider FROM json_each(?1)) AS turn \
     CROSS JOIN actions AS a ON a.id IN (SELECT id FROM actions INDEXED BY actions_due WHERE org_id = turn.org_id AND \
     provider = turn.provider AND ",
    claimable!(),
    " AND due_at <= ?2 ORDER BY due_at, id LIMIT ?3) \
     LEFT JOIN org_credentials AS c ON c.org_id = a.org_id AND c.provider = a.provider AND c.name = a.credential_name \
     ORDER BY turn.key, a.due_at, a.id"
);

/// What follows a choice reads it from one document, so that all of it is one hand-over to the
/// database: `now`, `lease_until`, `claims` (action, fence, organisation, whether it is a look-up,
/// account), `expired` (actions), `turns` (organisation, provider).
const RUN: &str = concat!(
    "UPDATE actions SET state = 'running', fence = fence + 1, lease_until = ?1 ->> '$.lease_until', updated_at = ?1 \
    ->> '$.now', \
     first_sent_at = CASE WHEN state = 'unknown' THEN first_sent_at ELSE coalesce(first_sent_at, ?1 ->> '$.now') END, \
     account = claimed.sent_by \
     FROM (SELECT unhex(value ->> 0) AS claimed_id, value ->> 4 AS sent_by FROM json_each(?1, '$.claims')) AS claimed \
     WHERE actions.id = claimed.claimed_id AND ",
    claimable!()
);

const BEGIN_ATTEMPTS: &str = "INSERT INTO attempts (action_id, number, org_id, is_look_up, started_at) \
    SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3, ?1 ->> '$.now' FROM json_each(?1, \
    '$.claims')";

const EXPIRE: &str = "UPDATE actions SET state = 'dead', cause = 'expired', detail = NULL, updated_at = ?1 ->> '$.now' \
    WHERE id IN (SELECT unhex(value) FROM json_each(?1, '$.expired')) AND state IN ('pending', 'waiting')";

const END_TURNS: &str = concat!(
    "DELETE FROM turns WHERE (org_id, provider) IN (SELECT unhex(value ->> 0), value ->> 1 FROM json_each(?1, \
    '$.turns')) \
     AND NOT EXISTS (SELECT 1 FROM actions INDEXED BY actions_due WHERE org_id = turns.org_id AND provider = \
     turns.provider AND ",
    claimable!(),
    ")"
);

/// After its turn an organisation stands behind all that are due now, or is due when its next
/// action is.
pub(super) const PASS_TURNS: &str = concat!(
    "UPDATE turns SET last_turn_at = ?1 ->> '$.now', due_at = max(?1 ->> '$.now', coalesce((SELECT due_at FROM actions \
    INDEXED BY actions_due \
     WHERE org_id = turns.org_id AND provider = turns.provider AND ",
    claimable!(),
    " ORDER BY due_at LIMIT 1), -1)) WHERE (org_id, provider) IN (SELECT unhex(value ->> 0), value ->> 1 FROM \
    json_each(?1, '$.turns'))"
);

static TAKE: LazyLock<String> = LazyLock::new(|| [RUN, BEGIN_ATTEMPTS, END_TURNS, PASS_TURNS].join("; "));
static EXPIRE_AND_TAKE: LazyLock<String> = LazyLock::new(|| format!("{EXPIRE}; {}", *TAKE));

/// Expired rows that one command ends at most (invariant 15).
const EXPIRED_MAX: usize = 1_000;
/// Looks at the turns in one command.
const ROUNDS_MAX: usize = 64;

pub(super) async fn claim(
    connection: &mut SqliteConnection,
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Vec<Claim>, StoreError> {
    if !limits.deferred.is_empty() {
        let list = limits
            .deferred
            .iter()
            .map(|(org, provider, until)| json!([hex(org.as_bytes()), provider.as_str(), until.as_micros()]))
            .collect();
        sqlx::query(DEFER)
            .bind(text(list))
            .execute(&mut *connection)
            .await
            .map_err(failed("defer turns"))?;
    }
    let mut ended = 0;
    for _ in 0..ROUNDS_MAX {
        let (claims, expired) = round(connection, &limits, now).await?;
        ended += expired.unwrap_or(0);
        // Turns of what has expired or was cancelled since cost no one a turn: the next ones are
        // looked at instead.
        if !claims.is_empty() || expired.is_none() || ended >= EXPIRED_MAX {
            return Ok(claims);
        }
    }
    Ok(Vec::new())
}

/// One look at the turns that are due: what was claimed, and how many rows had expired; `None`
/// where no turn was due.
async fn round(
    connection: &mut SqliteConnection,
    limits: &ClaimLimits,
    now: Timestamp,
) -> Result<(Vec<Claim>, Option<usize>), StoreError> {
    // Those that may take nothing now keep their place; there are at most as many of them as
    // attempts run.
    let turns_max = limits
        .count_max
        .saturating_add(u32::try_from(limits.allowances.len()).unwrap_or(u32::MAX));
    let due = sqlx::query(TURNS)
        .bind(now.as_micros())
        .bind(turns_max)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("read turns"))?;
    let mut turns = Vec::new();
    for row in &due {
        let turn = Row::<Sqlite>::of(row).table("turns");
        let org = turn.id("org_id")?;
        let provider: Provider = turn.parse("provider")?;
        let allowance = limits
            .allowances
            .iter()
            .find(|(o, p, _)| *o == org && *p == provider)
            .map_or(limits.turn_max, |(_, _, allowance)| *allowance);
        if allowance > 0 {
            turns.push((org, provider, allowance.min(limits.turn_max)));
        }
    }
    if turns.is_empty() {
        return Ok((Vec::new(), None));
    }
    let list: Vec<Value> = turns
        .iter()
        .map(|(org, provider, _)| json!([hex(org.as_bytes()), provider.as_str()]))
        .collect();
    let found = sqlx::query(ROWS)
        .bind(text(list))
        .bind(now.as_micros())
        .bind(limits.turn_max)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("read what can be claimed"))?;

    let mut found = found.iter().peekable();
    let (mut claims, mut expired, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for (org, provider, allowance) in turns {
        if claims.len() >= limits.count_max as usize {
            break;
        }
        let mut left = allowance;
        while let Some(row) = found.peek() {
            let (row_org, row_provider) = owner(row)?;
            if (row_org, row_provider) != (org, provider) {
                break;
            }
            let row = found.next().unwrap_or_else(|| unreachable!("it was peeked at"));
            let is_look_up = of_actions(row).parse::<ActionState>("state")? == ActionState::Unknown;
            if !is_look_up && of_actions(row).time("expires_at")? <= now {
                expired.push(json!(hex(of_actions(row).id::<ActionId>("id")?.as_bytes())));
            } else if left > 0 && claims.len() < limits.count_max as usize {
                left -= 1;
                claims.push(claim_of(of_actions(row), is_look_up, now, now + limits.lease)?);
            }
        }
        taken.push(json!([hex(org.as_bytes()), provider.as_str()]));
    }

    let expired_count = expired.len();
    let claimed: Vec<Value> = claims
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
    let choice = json!({
        "now": now.as_micros(), "lease_until": (now + limits.lease).as_micros(), "claims": claimed, "expired": expired,
        "turns": taken,
    });
    let statements = if expired_count == 0 {
        TAKE.as_str()
    } else {
        EXPIRE_AND_TAKE.as_str()
    };
    sqlx::query(statements)
        .bind(choice.to_string())
        .execute(&mut *connection)
        .await
        .map_err(failed("take turns"))?;
    if !claims.is_empty() {
        reach(Step::ClaimWritten);
    }
    Ok((claims, Some(expired_count)))
}

fn owner(row: &SqliteRow) -> Result<(OrgId, Provider), StoreError> {
    let row = of_actions(row);
    Ok((row.id("org_id")?, row.parse("provider")?))
}

/// For the tests: every statement of this file.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    vec![DEFER, TURNS, ROWS, RUN, EXPIRE, BEGIN_ATTEMPTS, PASS_TURNS, END_TURNS]
}
