//! Manual transitions: a callback or a person moves an action. Each names the states that it starts
//! from.

use super::bring_turn_forward;
use crate::{
    domain::{ActionId, ActionState, Cause, OrgId, Timestamp},
    store::{
        StoreError,
        ledger::ManualTransition,
        sql::{Dialect, Sql, Statement, Transaction},
    },
};
use std::time::Duration;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(READ),
    Sql::both(OTHER_RUN),
    Sql::both(CALL_BACK),
    Sql::both(RETRY),
    Sql::both(LOOK_NOW),
    Sql::both(CANCEL),
    Sql::both(IT_WENT_OUT),
    Sql::both(SEND_AGAIN),
    Sql::both(END_ATTEMPT),
    SAVEPOINT,
    RELEASE,
    ROLLBACK_TO,
];

const READ: &str = "
    SELECT state, provider, fence, request_sealed IS NOT NULL AS has_request
    FROM actions
    WHERE id = $1 AND org_id = $2";

/// Another run of the rule for the event that has done its work or may still do it: a later one, or
/// an earlier one that a person tried again since. A second one would act twice (invariant 4).
macro_rules! other_run {
    ($own:literal) => {
        concat!(
            "other.event_id = ",
            $own,
            ".event_id AND other.org_id = ",
            $own,
            ".org_id AND other.rule_id = ",
            $own,
            ".rule_id AND other.id <> ",
            $own,
            ".id
    AND other.state NOT IN ('dead', 'cancelled', 'suppressed')
    AND (other.series > ",
            $own,
            ".series OR other.updated_at > ",
            $own,
            ".created_at)"
        )
    };
}
pub(in crate::store::sql) use other_run;

const OTHER_RUN: &str = concat!(
    "
    SELECT other.series, other.state
    FROM actions AS own
    JOIN actions AS other ON ",
    other_run!("own"),
    "
    WHERE own.id = $1 AND own.org_id = $2
    ORDER BY other.series DESC
    LIMIT 1"
);

const CALL_BACK: &str = "
    UPDATE actions
    SET state = 'succeeded', cause = 'called_back', detail = NULL, provider_ref = $4, lease_until = NULL,
        updated_at = $5
    WHERE id = $1 AND org_id = $2 AND state = $3
    AND state IN ('pending', 'running', 'waiting', 'unknown', 'parked')";
/// Where nothing has gone out the provider gets a key that it does not know, so that its memory of
/// the first try answers nothing. Where something may have, the key stays (invariant 4).
const RETRY: &str = "
    UPDATE actions
    SET state = 'pending', cause = NULL, detail = NULL, http_status = NULL, provider_code = NULL, due_at = $5,
        expires_at = $4, attempts = 0, absences = 0, updated_at = $5,
        idempotency_key = CASE
            WHEN first_sent_at IS NULL THEN idempotency_key || '.' || CAST(fence AS text)
            ELSE idempotency_key
        END
    WHERE id = $1 AND org_id = $2 AND state = $3
    AND state IN ('dead', 'parked', 'suppressed', 'cancelled', 'waiting') AND request_sealed IS NOT NULL";
const LOOK_NOW: &str = "
    UPDATE actions
    SET due_at = $5, expires_at = $4, updated_at = $5
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state = 'unknown'";
const CANCEL: &str = "
    UPDATE actions
    SET state = 'cancelled', cause = NULL, detail = NULL, updated_at = $4
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state IN ('pending', 'waiting', 'parked')";
const IT_WENT_OUT: &str = "
    UPDATE actions
    SET state = 'succeeded', cause = 'resolved_by_hand', detail = NULL, updated_at = $4
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state = 'unknown'";
const SEND_AGAIN: &str = "
    UPDATE actions
    SET state = 'pending', cause = 'resolved_by_hand', detail = NULL, due_at = $4,
        expires_at = CASE WHEN expires_at > $5 THEN expires_at ELSE $5 END, attempts = 0, absences = 0,
        first_sent_at = NULL, updated_at = $4
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state = 'unknown'";
const END_ATTEMPT: &str = "
    UPDATE attempts
    SET ended_at = $3, outcome = $4, cause = $5, http_status = NULL, provider_code = NULL, detail = NULL,
        credential_version = NULL
    WHERE action_id = $1 AND number = $2 AND org_id = $6";

// On Postgres a failed statement ends its whole transaction; on SQLite it undoes only itself.
const SAVEPOINT: Sql = Sql::postgres_only("SAVEPOINT callback");
const RELEASE: Sql = Sql::postgres_only("RELEASE SAVEPOINT callback");
const ROLLBACK_TO: Sql = Sql::postgres_only("ROLLBACK TO SAVEPOINT callback");

/// How long an action that a person sends again may still start, whatever its rule says.
const SEND_AGAIN_WITHIN: Duration = Duration::from_hours(1);

const DOING: &str = "change an action";

/// An outcome, and the state that it began from.
pub type Transition = (ManualTransition, Option<ActionState>);

/// An action as it stands before the transition.
struct Before {
    org: OrgId,
    action: ActionId,
    state: ActionState,
    /// As the row has it.
    provider: String,
    fence: i64,
    has_request: bool,
}

impl Before {
    async fn find<D: Dialect>(
        tx: &mut Transaction<'_, D>,
        org: OrgId,
        action: ActionId,
    ) -> Result<Option<Self>, StoreError> {
        Statement::new("read an action", READ)
            .id(action)
            .id(org)
            .optional(tx, |row| {
                let row = row.table("actions");
                Ok(Self {
                    org,
                    action,
                    state: row.parse("state")?,
                    provider: row.string("provider")?,
                    fence: row.number("fence")?,
                    has_request: row.flag("has_request")?,
                })
            })
            .await
    }

    /// `Some` where another run of the rule stands in the way.
    async fn other_run<D: Dialect>(&self, tx: &mut Transaction<'_, D>) -> Result<Option<Transition>, StoreError> {
        Statement::new("look for another run of the rule", OTHER_RUN)
            .id(self.action)
            .id(self.org)
            .optional(tx, |row| {
                let row = row.table("actions");
                let (series, state) = (row.number("series")?, row.parse("state")?);
                Ok((ManualTransition::RanAgain { series, state }, None))
            })
            .await
    }

    /// A transition from the state that was read. It begins with three values: action,
    /// organisation, state.
    fn transition<D: Dialect>(&self, sql: &'static str) -> Statement<D> {
        Statement::new(DOING, sql)
            .id(self.action)
            .id(self.org)
            .text(self.state.as_str())
    }
}

pub async fn record_callback<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    action: ActionId,
    provider_ref: &str,
    now: Timestamp,
) -> Result<ManualTransition, StoreError> {
    let Some(before) = Before::find(tx, org, action).await? else {
        return Ok(ManualTransition::Absent);
    };
    Statement::new(DOING, SAVEPOINT).execute(tx).await?;
    let recorded = before
        .transition(CALL_BACK)
        .text(provider_ref)
        .time(now)
        .execute(tx)
        .await;
    let end = if recorded.is_ok() { RELEASE } else { ROLLBACK_TO };
    Statement::new(DOING, end).execute(tx).await?;
    match recorded {
        Ok(1) => {
            if before.state == ActionState::Running {
                end_attempt(tx, &before, now).await?;
            }
            Ok(ManualTransition::Done(ActionState::Succeeded))
        }
        // Another action holds the id and keeps it. This action is looked up as before.
        Ok(_) | Err(StoreError::Conflict { .. }) => Ok(ManualTransition::NotFrom(before.state)),
        Err(error) => Err(error),
    }
}

/// Ends the attempt that the callback overtook.
async fn end_attempt<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    before: &Before,
    now: Timestamp,
) -> Result<(), StoreError> {
    Statement::new("end an attempt", END_ATTEMPT)
        .id(before.action)
        .number(before.fence)
        .time(now)
        .text("succeeded")
        .text(Cause::CalledBack.as_str())
        .id(before.org)
        .execute(tx)
        .await
        .map(drop)
}

pub async fn retry<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    action: ActionId,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<Transition, StoreError> {
    let Some(before) = Before::find(tx, org, action).await? else {
        return Ok((ManualTransition::Absent, None));
    };
    let (statement, to) = if before.state == ActionState::Unknown {
        (LOOK_NOW, ActionState::Unknown)
    } else {
        if let Some(refused) = before.other_run(tx).await? {
            return Ok(refused);
        }
        (RETRY, ActionState::Pending)
    };
    let changed = if before.has_request {
        before
            .transition(statement)
            .time(expires_at)
            .time(now)
            .execute(tx)
            .await?
    } else {
        0
    };
    if changed == 0 {
        return Ok((ManualTransition::NotFrom(before.state), None));
    }
    bring_turn_forward(tx, org, &before.provider, now).await?;
    Ok((ManualTransition::Done(to), Some(before.state)))
}

pub async fn cancel<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    action: ActionId,
    now: Timestamp,
) -> Result<Transition, StoreError> {
    let Some(before) = Before::find(tx, org, action).await? else {
        return Ok((ManualTransition::Absent, None));
    };
    let changed = before.transition(CANCEL).time(now).execute(tx).await?;
    Ok(if changed == 1 {
        (ManualTransition::Done(ActionState::Cancelled), Some(before.state))
    } else {
        (ManualTransition::NotFrom(before.state), None)
    })
}

pub async fn resolve<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    action: ActionId,
    to: ActionState,
    now: Timestamp,
) -> Result<Transition, StoreError> {
    let Some(before) = Before::find(tx, org, action).await? else {
        return Ok((ManualTransition::Absent, None));
    };
    if to == ActionState::Pending
        && let Some(refused) = before.other_run(tx).await?
    {
        return Ok(refused);
    }
    let changed = if to == ActionState::Succeeded {
        before.transition(IT_WENT_OUT).time(now).execute(tx).await?
    } else {
        before
            .transition(SEND_AGAIN)
            .time(now)
            .time(now + SEND_AGAIN_WITHIN)
            .execute(tx)
            .await?
    };
    if changed == 0 {
        return Ok((ManualTransition::NotFrom(before.state), None));
    }
    if to == ActionState::Pending {
        bring_turn_forward(tx, org, &before.provider, now).await?;
    }
    Ok((ManualTransition::Done(to), Some(before.state)))
}
