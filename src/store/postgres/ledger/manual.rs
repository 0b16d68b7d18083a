//! Manual transitions: what a callback or a person does to an action. Each names the states that it
//! takes it from.

use super::{add_turns, failed, in_savepoint, of_actions, provider, record::end_attempt, state};
use crate::{
    domain::{ActionId, ActionState, Cause, OrgId, Provider, Timestamp},
    store::{StoreError, ledger::ManualTransition},
};
use sqlx::PgConnection;
use std::time::Duration;

const READ: &str = "SELECT state, provider, fence, request_sealed IS NOT NULL AS has_request FROM actions WHERE id = \
    $1 AND org_id = $2";

const SETTLE: &str = "UPDATE actions SET state = 'succeeded', cause = 'called_back', detail = NULL, provider_ref = $4, \
    lease_until = NULL, updated_at = $5 \
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state IN ('pending', 'running', 'waiting', 'unknown', 'parked')";
const RETRY: &str = "UPDATE actions SET state = 'pending', cause = NULL, detail = NULL, http_status = NULL, \
    provider_code = NULL, due_at = $5, expires_at = $4, \
    attempts = 0, absences = 0, updated_at = $5 \
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state IN ('dead', 'parked', 'suppressed', 'cancelled', 'waiting') \
    AND request_sealed IS NOT NULL";
const LOOK_NOW: &str = "UPDATE actions SET due_at = $5, expires_at = $4, updated_at = $5 WHERE id = $1 AND org_id = $2 \
    AND state = $3 AND state = 'unknown'";
const CANCEL: &str = "UPDATE actions SET state = 'cancelled', cause = NULL, detail = NULL, updated_at = $4 \
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state IN ('pending', 'waiting', 'parked')";
const IT_WENT_OUT: &str = "UPDATE actions SET state = 'succeeded', cause = 'resolved_by_hand', detail = NULL, \
    updated_at = $4 \
    WHERE id = $1 AND org_id = $2 AND state = $3 AND state = 'unknown'";
const SEND_AGAIN: &str = "UPDATE actions SET state = 'pending', cause = 'resolved_by_hand', detail = NULL, due_at = \
    $4, expires_at = greatest(expires_at, $5), \
    attempts = 0, absences = 0, first_sent_at = NULL, updated_at = $4 WHERE id = $1 AND org_id = $2 AND state = $3 AND \
    state = 'unknown'";

/// How long an action that a person sends again may still start, whatever its rule says.
const SEND_AGAIN_WITHIN: Duration = Duration::from_hours(1);

struct Found {
    state: ActionState,
    provider: Provider,
    fence: i64,
    has_request: bool,
}

async fn read(connection: &mut PgConnection, org: OrgId, action: ActionId) -> Result<Option<Found>, StoreError> {
    let row = sqlx::query(READ)
        .bind(*action.as_uuid())
        .bind(*org.as_uuid())
        .fetch_optional(connection)
        .await
        .map_err(failed("read an action"))?;
    row.map(|row| {
        Ok(Found {
            state: state(&row)?,
            provider: provider(&row)?,
            fence: of_actions(&row).get("fence")?,
            has_request: of_actions(&row).get("has_request")?,
        })
    })
    .transpose()
}

macro_rules! transition {
    ($connection:expr, $statement:expr, $org:expr, $action:expr, $from:expr $(, $value:expr)*) => {
        sqlx::query($statement)
            .bind(*$action.as_uuid())
            .bind(*$org.as_uuid())
            .bind($from.as_str())
            $(.bind($value))*
            .execute(&mut *$connection)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(failed("change an action"))
    };
}

pub(super) async fn record_callback(
    connection: &mut PgConnection,
    org: OrgId,
    action: ActionId,
    provider_ref: String,
    now: Timestamp,
) -> Result<ManualTransition, StoreError> {
    let Some(found) = read(connection, org, action).await? else {
        return Ok(ManualTransition::Absent);
    };
    let from = found.state;
    let settled = in_savepoint(connection, "settle an action", |connection| {
        Box::pin(async move { transition!(connection, SETTLE, org, action, from, provider_ref, now.as_micros()) })
    });
    match settled.await {
        Ok(true) => {
            if found.state == ActionState::Running {
                end_attempt(
                    connection,
                    action,
                    found.fence,
                    "succeeded",
                    Cause::CalledBack.as_str(),
                    now,
                )
                .await?;
            }
            Ok(ManualTransition::Done(ActionState::Succeeded))
        }
        // The id is another action's: that one keeps it, and this one is looked up as before.
        Ok(false) | Err(StoreError::Conflict { .. }) => Ok(ManualTransition::NotFrom(found.state)),
        Err(error) => Err(error),
    }
}

pub(super) async fn retry(
    connection: &mut PgConnection,
    org: OrgId,
    action: ActionId,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<ManualTransition, StoreError> {
    let Some(found) = read(connection, org, action).await? else {
        return Ok(ManualTransition::Absent);
    };
    let (statement, to) = if found.state == ActionState::Unknown {
        (LOOK_NOW, ActionState::Unknown)
    } else {
        (RETRY, ActionState::Pending)
    };
    if !found.has_request
        || !transition!(
            connection,
            statement,
            org,
            action,
            found.state,
            expires_at.as_micros(),
            now.as_micros()
        )?
    {
        return Ok(ManualTransition::NotFrom(found.state));
    }
    add_turns(connection, [(org, found.provider, now)]).await?;
    Ok(ManualTransition::Done(to))
}

pub(super) async fn cancel(
    connection: &mut PgConnection,
    org: OrgId,
    action: ActionId,
    now: Timestamp,
) -> Result<ManualTransition, StoreError> {
    let Some(found) = read(connection, org, action).await? else {
        return Ok(ManualTransition::Absent);
    };
    let done = transition!(connection, CANCEL, org, action, found.state, now.as_micros())?;
    Ok(if done {
        ManualTransition::Done(ActionState::Cancelled)
    } else {
        ManualTransition::NotFrom(found.state)
    })
}

pub(super) async fn resolve(
    connection: &mut PgConnection,
    org: OrgId,
    action: ActionId,
    to: ActionState,
    now: Timestamp,
) -> Result<ManualTransition, StoreError> {
    let Some(found) = read(connection, org, action).await? else {
        return Ok(ManualTransition::Absent);
    };
    let done = if to == ActionState::Succeeded {
        transition!(connection, IT_WENT_OUT, org, action, found.state, now.as_micros())?
    } else {
        transition!(
            connection,
            SEND_AGAIN,
            org,
            action,
            found.state,
            now.as_micros(),
            (now + SEND_AGAIN_WITHIN).as_micros()
        )?
    };
    if !done {
        return Ok(ManualTransition::NotFrom(found.state));
    }
    if to == ActionState::Pending {
        add_turns(connection, [(org, found.provider, now)]).await?;
    }
    Ok(ManualTransition::Done(to))
}

/// For the tests: every statement of this file.
#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[READ, SETTLE, RETRY, LOOK_NOW, CANCEL, IT_WENT_OUT, SEND_AGAIN];
