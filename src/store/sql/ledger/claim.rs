//! Claims: reads due turns and the rows of each, and chooses among them. Each database then writes
//! the choice in its own way.

use super::{LedgerSql, claim_of, claimable, unpaused};
use crate::{
    domain::{ActionState, OrgId, Provider, Timestamp},
    killpoint::{Step, reach},
    store::{
        StoreError,
        ledger::{Claim, ClaimLimits},
        sql::{Dialect, Row, Sql, Statement, Transaction},
    },
};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tracing::warn;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    TURNS,
    Sql::both(PARK_PAUSED),
    Sql::both(PUT_OFF_PAUSED),
    Sql::both(PUT_OFF_UNREAD),
    Sql::both(PUT_OFF_TURN),
];

/// A turn that another claim holds is passed over. A paused action keeps its place.
const TURNS: Sql = Sql {
    sqlite: concat!(
        "SELECT org_id, provider FROM turns WHERE due_at <= $1 AND ",
        unpaused!(),
        " ORDER BY due_at LIMIT $2"
    ),
    postgres: concat!(
        "SELECT org_id, provider FROM turns WHERE due_at <= $1 AND ",
        unpaused!(),
        " ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED"
    ),
};
const PARK_PAUSED: &str = "
    UPDATE actions
    SET state = 'parked', cause = 'paused', detail = NULL, updated_at = $3
    WHERE id = $1 AND org_id = $2 AND state IN ('pending', 'waiting')";
const PUT_OFF_PAUSED: &str = "
    UPDATE actions
    SET due_at = $4
    WHERE id = $1 AND org_id = $2 AND state = 'unknown' AND updated_at <= $3";
const PUT_OFF_UNREAD: &str = concat!(
    "
    UPDATE actions
    SET due_at = $3
    WHERE id = $1 AND org_id = $2 AND ",
    claimable!()
);
const PUT_OFF_TURN: &str = "
    UPDATE turns
    SET due_at = $3
    WHERE org_id = $1 AND provider = $2";

/// Expired rows that one command ends at most (invariant 15).
const EXPIRED_MAX: usize = 1_000;
/// Looks at the turns in one command.
const ROUNDS_MAX: usize = 64;

/// An organisation's place among those that wait for a provider.
pub type Turn = (OrgId, Provider);

/// The result of one look at the turns.
pub struct Choice {
    pub now: Timestamp,
    pub lease_until: Timestamp,
    pub claims: Vec<Claim>,
    /// Actions that may not start any more.
    pub expired: Vec<Uuid>,
    /// Actions of paused rules.
    paused: Vec<(OrgId, Uuid)>,
    /// Actions with a value that this release does not know, each with the value's place.
    unread: Vec<(OrgId, Uuid, StoreError)>,
    /// Turns that were taken, whether or not they led to a claim.
    pub taken: Vec<Turn>,
}

/// How each database reads and writes the rows of many turns at once.
pub trait ClaimSql: Dialect {
    /// Moves turns to later times, never to earlier ones.
    fn defer<'c>(
        on: &'c mut Self::Connection,
        deferred: &'c [(OrgId, Provider, Timestamp)],
    ) -> BoxFuture<'c, Result<(), StoreError>>;

    /// The actions that can be claimed in these turns, in their order, each turn's oldest first.
    fn rows_of_turns<'c>(
        on: &'c mut Self::Connection,
        turns: &'c [Turn],
        now: Timestamp,
        turn_max: u32,
    ) -> BoxFuture<'c, Result<Vec<Self::Row>, StoreError>>;

    /// Writes a choice: claimed actions become `running` with their attempts begun, expired actions
    /// become dead, and turns are passed on or ended.
    fn take<'c>(on: &'c mut Self::Connection, choice: &'c Choice) -> BoxFuture<'c, Result<(), StoreError>>;
}

pub async fn claim<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    limits: ClaimLimits,
    now: Timestamp,
) -> Result<Vec<Claim>, StoreError> {
    let mut ended = 0;
    for _ in 0..ROUNDS_MAX {
        let Due { turns, held, unread } = turns_due(tx, &limits, now).await?;
        put_off_turns(tx, &unread, now).await?;
        if !held.is_empty() {
            // Only those that are due: one that was moved before costs nothing until its time.
            D::defer(tx.connection, &held).await?;
        }
        if turns.is_empty() && held.is_empty() && unread.is_empty() {
            break;
        }
        if turns.is_empty() {
            continue;
        }
        let looked_at: Vec<Turn> = turns.iter().map(|(turn, _)| *turn).collect();
        let rows = D::rows_of_turns(tx.connection, &looked_at, now, limits.turn_max).await?;
        let choice = choose::<D>(&turns, &rows, &limits, now)?;
        hold_paused(tx, &choice).await?;
        put_off_unread(tx, &choice).await?;
        D::take(tx.connection, &choice).await?;
        ended += choice.expired.len() + choice.paused.len() + choice.unread.len();
        if !choice.claims.is_empty() {
            reach(Step::ClaimWritten);
        }
        // A turn whose actions had expired or were cancelled gave no claim. Look at the next turns
        // instead, so that no organisation loses its turn to them.
        if !choice.claims.is_empty() || ended >= EXPIRED_MAX {
            return Ok(choice.claims);
        }
    }
    Ok(Vec::new())
}

/// How long an open outcome of a paused rule waits before it is looked at again, and what only a
/// newer release can read.
const PUT_OFF_FOR: Duration = Duration::from_secs(30);

/// Takes the actions of paused rules out of the line, so that the others of their organisation go
/// on. An open outcome stays one, because some look-ups send again under the same key.
async fn hold_paused<D: LedgerSql>(tx: &mut Transaction<'_, D>, choice: &Choice) -> Result<(), StoreError> {
    const DOING: &str = "hold the actions of a paused rule";
    for (org, action) in &choice.paused {
        Statement::new(DOING, PARK_PAUSED)
            .id(*action)
            .id(*org)
            .time(choice.now)
            .execute(tx)
            .await?;
        Statement::new(DOING, PUT_OFF_PAUSED)
            .id(*action)
            .id(*org)
            .time(choice.now)
            .time(choice.now + PUT_OFF_FOR)
            .execute(tx)
            .await?;
    }
    Ok(())
}

/// A row that cannot be read costs nobody else a claim. It stays as it is, for the release that
/// wrote it.
async fn put_off_unread<D: LedgerSql>(tx: &mut Transaction<'_, D>, choice: &Choice) -> Result<(), StoreError> {
    for (org, action, _) in &choice.unread {
        Statement::new("put off an action that cannot be read", PUT_OFF_UNREAD)
            .id(*action)
            .id(*org)
            .time(choice.now + PUT_OFF_FOR)
            .execute(tx)
            .await?;
    }
    if let Some((_, action, error)) = choice.unread.first() {
        warn!(
            action.id = %action,
            %error,
            "{} due actions cannot be read and wait, this one first: a newer release wrote them, or they are damaged",
            choice.unread.len()
        );
    }
    Ok(())
}

async fn put_off_turns<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    unread: &[(OrgId, String)],
    now: Timestamp,
) -> Result<(), StoreError> {
    for (org, provider) in unread {
        Statement::new("put off a turn that cannot be read", PUT_OFF_TURN)
            .id(*org)
            .text(provider)
            .time(now + PUT_OFF_FOR)
            .execute(tx)
            .await?;
        warn!(org.id = %org, "Actions for a provider that only a newer release knows are due, and wait");
    }
    Ok(())
}

/// The turns that are due.
#[derive(Default)]
struct Due {
    /// Each with the rows that it may take.
    turns: Vec<(Turn, u32)>,
    /// Those of providers that fail, each with the time until which it waits.
    held: Vec<(OrgId, Provider, Timestamp)>,
    /// Those of providers that only a newer release knows.
    unread: Vec<(OrgId, String)>,
}

async fn turns_due<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    limits: &ClaimLimits,
    now: Timestamp,
) -> Result<Due, StoreError> {
    // An organisation that may take nothing now keeps its place. There are at most as many such
    // organisations as attempts run.
    let turns_max = limits
        .count_max
        .saturating_add(u32::try_from(limits.allowances.len()).unwrap_or(u32::MAX));
    let mut due = Due::default();
    Statement::new("read turns", TURNS)
        .time(now)
        .number(turns_max)
        .each(tx, |row| {
            let row = row.table("turns");
            let org = row.id("org_id")?;
            let provider = row.text("provider")?;
            let Ok(provider) = provider.parse::<Provider>() else {
                due.unread.push((org, provider.to_owned()));
                return Ok(());
            };
            let turn = (org, provider);
            let failing_until = limits.deferred.get(&turn).copied();
            if let Some(until) = failing_until.filter(|until| *until > now) {
                due.held.push((org, provider, until));
                return Ok(());
            }
            let allowance = limits
                .allowances
                .iter()
                .find(|(o, p, _)| *o == org && *p == provider)
                .map_or(limits.turn_max, |(_, _, allowance)| *allowance);
            let at_once = if failing_until.is_some() { 1 } else { limits.turn_max };
            if allowance > 0 {
                due.turns.push((turn, allowance.min(at_once)));
            }
            Ok(())
        })
        .await?;
    Ok(due)
}

/// Chooses among rows that stand in the order of their turns.
fn choose<D: LedgerSql>(
    turns: &[(Turn, u32)],
    rows: &[D::Row],
    limits: &ClaimLimits,
    now: Timestamp,
) -> Result<Choice, StoreError> {
    let mut choice = Choice {
        now,
        lease_until: now + limits.lease,
        claims: Vec::new(),
        expired: Vec::new(),
        paused: Vec::new(),
        unread: Vec::new(),
        taken: Vec::new(),
    };
    let mut rows = rows.iter().map(|row| Row::<D>::of(row).table("actions")).peekable();
    for &(turn, allowance) in turns {
        if choice.claims.len() >= limits.count_max as usize {
            break;
        }
        let mut left = allowance;
        while let Some(&row) = rows.peek() {
            if (row.id("org_id")?, row.parse("provider")?) != turn {
                break;
            }
            rows.next();
            let is_look_up = row.parse::<ActionState>("state")? == ActionState::Unknown;
            if !is_look_up && row.time("expires_at")? <= now {
                choice.expired.push(row.id("id")?);
            } else if row.flag("is_paused")? {
                choice.paused.push((turn.0, row.id("id")?));
            } else if left > 0 && choice.claims.len() < limits.count_max as usize {
                match claim_of(row, is_look_up, now, choice.lease_until) {
                    Ok(claim) => {
                        left -= 1;
                        choice.claims.push(claim);
                    }
                    Err(error) => choice.unread.push((turn.0, row.id("id")?, error)),
                }
            }
        }
        choice.taken.push(turn);
    }
    Ok(choice)
}
