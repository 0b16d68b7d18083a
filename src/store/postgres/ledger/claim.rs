//! Claims: turns, the rows of each, `running` with a fence and the attempt's row, in one
//! transaction. What another claim holds is passed over.

use super::{failed, of_actions};
use crate::{
    domain::{ActionState, OrgId, Provider, Timestamp},
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
use sqlx::{PgConnection, Postgres, postgres::PgRow};
use uuid::Uuid;

#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[DEFER, TURNS, ROWS, RUN, EXPIRE, BEGIN_ATTEMPTS, PASS_TURNS, END_TURNS];

/// Never brings a turn forward. A turn that someone holds is being taken: it is deferred the next
/// time.
const DEFER: &str = "UPDATE turns SET due_at = held.until FROM (SELECT t.org_id, t.provider, d.until FROM \
    unnest($1::uuid[], $2::text[], $3::bigint[]) AS d (org_id, provider, until) \
    JOIN turns AS t ON t.org_id = d.org_id AND t.provider = d.provider AND t.due_at < d.until FOR UPDATE OF t SKIP \
    LOCKED) AS held \
    WHERE turns.org_id = held.org_id AND turns.provider = held.provider";

const TURNS: &str =
    "SELECT org_id, provider FROM turns WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED";

/// The rows of many turns at once, each turn's oldest first. `$1`, `$2` turns, `$3` now, `$4` rows
/// a turn.
pub(crate) const ROWS: &str = concat!(
    "SELECT a.*, c.account_fingerprint, c.version \
     FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS turn (org_id, provider, place) \
     CROSS JOIN LATERAL (SELECT id, org_id, event_id, kind, provider, credential_name, state, request_sealed, \
     idempotency_key, fence, attempts, look_ups, \
     absences, first_sent_at, expires_at, created_at, hops, account, due_at FROM actions \
     WHERE org_id = turn.org_id AND provider = turn.provider AND ",
    claimable!(),
    " AND due_at <= $3 ORDER BY due_at, id LIMIT $4 FOR UPDATE SKIP LOCKED) AS a \
     LEFT JOIN org_credentials AS c ON c.org_id = a.org_id AND c.provider = a.provider AND c.name = a.credential_name \
     ORDER BY turn.place, a.due_at, a.id"
);

const RUN: &str = concat!(
    "UPDATE actions SET state = 'running', fence = fence + 1, lease_until = $2, updated_at = $3, \
     first_sent_at = CASE WHEN state = 'unknown' THEN first_sent_at ELSE coalesce(first_sent_at, $3) END, \
     account = claimed.sent_by FROM unnest($1::uuid[], $4::text[]) AS claimed (claimed_id, sent_by) \
     WHERE actions.id = claimed.claimed_id AND ",
    claimable!()
);

const EXPIRE: &str = "UPDATE actions SET state = 'dead', cause = 'expired', detail = NULL, updated_at = $2 WHERE id = \
    ANY($1) AND state IN ('pending', 'waiting')";

const BEGIN_ATTEMPTS: &str = "INSERT INTO attempts (action_id, number, org_id, is_look_up, started_at) \
    SELECT begun.*, $5 FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::boolean[]) AS begun";

/// After its turn an organisation stands behind all that are due now, or is due when its next
/// action is.
const PASS_TURNS: &str = concat!(
    "UPDATE turns SET last_turn_at = $3, due_at = greatest($3, coalesce((SELECT due_at FROM actions \
     WHERE org_id = turns.org_id AND provider = turns.provider AND ",
    claimable!(),
    " ORDER BY due_at, id LIMIT 1), -1)) WHERE (org_id, provider) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))"
);

const END_TURNS: &str = concat!(
    "DELETE FROM turns WHERE (org_id, provider) IN (SELECT * FROM unnest($1::uuid[], $2::text[])) \
     AND (SELECT due_at FROM actions WHERE org_id = turns.org_id AND provider = turns.provider AND ",
    claimable!(),
    " ORDER BY due_at, id LIMIT 1) IS NULL"
);

/// Expired rows that one command ends at most (invariant 15).
const EXPIRED_MAX: usize = 1_000;
/// Looks at the turns in one command.
const ROUNDS_MAX: usize = 64;

/// Organisations and providers as two arrays.
#[derive(Default)]
struct Turns {
    orgs: Vec<Uuid>,
    providers: Vec<&'static str>,
}

impl Turns {
    fn push(&mut self, org: OrgId, provider: Provider) {
        self.orgs.push(*org.as_uuid());
        self.providers.push(provider.as_str());
    }
}

pub(super) async fn claim(
    connection: &mut PgConnection,
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Vec<Claim>, StoreError> {
    if !limits.deferred.is_empty() {
        let mut turns = Turns::default();
        limits
            .deferred
            .iter()
            .for_each(|(org, provider, _)| turns.push(*org, *provider));
        let until: Vec<i64> = limits.deferred.iter().map(|(.., until)| until.as_micros()).collect();
        sqlx::query(DEFER)
            .bind(turns.orgs)
            .bind(turns.providers)
            .bind(until)
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
            if !claims.is_empty() {
                reach(Step::ClaimWritten);
            }
            return Ok(claims);
        }
    }
    Ok(Vec::new())
}

/// One look at the turns that are due: what was claimed, and how many rows had expired; `None`
/// where no turn was due.
async fn round(
    connection: &mut PgConnection,
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
        .bind(i64::from(turns_max))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("read turns"))?;
    let mut turns = Vec::new();
    let mut looked_at = Turns::default();
    for row in &due {
        let fields = Row::<Postgres>::of(row).table("turns");
        let (org, provider) = (fields.id("org_id")?, fields.parse::<Provider>("provider")?);
        let allowance = limits
            .allowances
            .iter()
            .find(|(o, p, _)| *o == org && *p == provider)
            .map_or(limits.turn_max, |(_, _, allowance)| *allowance);
        if allowance > 0 {
            turns.push((org, provider, allowance.min(limits.turn_max)));
            looked_at.push(org, provider);
        }
    }
    if turns.is_empty() {
        return Ok((Vec::new(), None));
    }
    let found = sqlx::query(ROWS)
        .bind(looked_at.orgs)
        .bind(looked_at.providers)
        .bind(now.as_micros())
        .bind(i64::from(limits.turn_max))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("read what can be claimed"))?;

    let mut found = found.iter().peekable();
    let (mut claims, mut expired, mut taken) = (Vec::new(), Vec::new(), Turns::default());
    for (org, provider, allowance) in turns {
        if claims.len() >= limits.count_max as usize {
            break;
        }
        let mut left = allowance;
        while let Some(row) = found.peek() {
            if owner(row)? != (org, provider) {
                break;
            }
            let row = found.next().unwrap_or_else(|| unreachable!("it was peeked at"));
            let is_look_up = of_actions(row).parse::<ActionState>("state")? == ActionState::Unknown;
            if !is_look_up && of_actions(row).time("expires_at")? <= now {
                expired.push(of_actions(row).id::<Uuid>("id")?);
            } else if left > 0 && claims.len() < limits.count_max as usize {
                left -= 1;
                claims.push(claim_of(of_actions(row), is_look_up, now, now + limits.lease)?);
            }
        }
        taken.push(org, provider);
    }

    let expired_count = expired.len();
    if !expired.is_empty() {
        sqlx::query(EXPIRE)
            .bind(expired)
            .bind(now.as_micros())
            .execute(&mut *connection)
            .await
            .map_err(failed("end expired actions"))?;
    }
    if !claims.is_empty() {
        let ids: Vec<Uuid> = claims.iter().map(|claim| *claim.action.as_uuid()).collect();
        let run = sqlx::query(RUN)
            .bind(&ids)
            .bind((now + limits.lease).as_micros())
            .bind(now.as_micros())
            .bind(claims.iter().map(|claim| claim.account.clone()).collect::<Vec<_>>());
        run.execute(&mut *connection)
            .await
            .map_err(failed("set actions running"))?;
        sqlx::query(BEGIN_ATTEMPTS)
            .bind(ids)
            .bind(claims.iter().map(|claim| claim.fence).collect::<Vec<i64>>())
            .bind(claims.iter().map(|claim| *claim.org.as_uuid()).collect::<Vec<Uuid>>())
            .bind(claims.iter().map(|claim| claim.is_look_up).collect::<Vec<bool>>())
            .bind(now.as_micros())
            .execute(&mut *connection)
            .await
            .map_err(failed("begin attempts"))?;
    }
    sqlx::query(END_TURNS)
        .bind(&taken.orgs)
        .bind(&taken.providers)
        .execute(&mut *connection)
        .await
        .map_err(failed("end turns"))?;
    let pass = sqlx::query(PASS_TURNS)
        .bind(taken.orgs)
        .bind(taken.providers)
        .bind(now.as_micros());
    pass.execute(&mut *connection).await.map_err(failed("pass turns on"))?;
    Ok((claims, Some(expired_count)))
}

fn owner(row: &PgRow) -> Result<(OrgId, Provider), StoreError> {
    let row = of_actions(row);
    Ok((row.id("org_id")?, row.parse("provider")?))
}
