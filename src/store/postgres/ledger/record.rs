//! Records: transitions out of `running` under the fence, and the end of leases.

use super::{add_turns, failed, of_actions};
use crate::{
    domain::{ActionId, ActionState, OrgId, Timestamp},
    killpoint::{Step, reach},
    store::{
        StoreError,
        ledger::{Record, Recorded},
        sql::ledger::{clean, cut, make_ambiguous, mark_written},
    },
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, postgres::PgRow};
use std::time::Duration;
use uuid::Uuid;

/// One entry a record, by position. The fence and the state stand in the WHERE: a record that was
/// overtaken changes nothing. A success still counts after its lease ended, as long as nobody else
/// has claimed the row since.
const RECORD: &str = "UPDATE actions SET state = r.state, cause = r.cause, detail = r.detail, http_status = \
    r.http_status, provider_code = r.provider_code, \
    provider_ref = coalesce(r.provider_ref, actions.provider_ref), due_at = coalesce(r.due_at, actions.due_at), \
    lease_until = NULL, updated_at = r.ended_at, \
    attempts = actions.attempts + r.counts, look_ups = actions.look_ups + r.looked_up, absences = CASE WHEN \
    r.is_absence THEN actions.absences + 1 ELSE 0 END, \
    credential_version = coalesce(r.credential_version, actions.credential_version), \
    first_sent_at = CASE WHEN r.is_unsent THEN NULL ELSE actions.first_sent_at END \
    FROM json_to_recordset($1::text::json) AS r (id uuid, org_id uuid, fence bigint, state text, cause text, detail \
    text, http_status bigint, provider_code text, \
    provider_ref text, due_at bigint, counts bigint, is_absence boolean, is_unsent boolean, ended_at bigint, \
    credential_version bigint, looked_up bigint) \
    WHERE actions.id = r.id AND actions.org_id = r.org_id AND actions.fence = r.fence \
    AND (actions.state = 'running' \
        OR (actions.state = 'unknown' AND actions.cause = 'lease_ended' AND r.state = 'succeeded')) \
    RETURNING actions.id, actions.org_id, actions.provider, actions.state, actions.due_at";

const END_ATTEMPTS: &str = "UPDATE attempts SET ended_at = r.ended_at, outcome = r.outcome, cause = r.cause, \
    http_status = r.http_status, \
    provider_code = r.provider_code, detail = r.detail, credential_version = r.credential_version \
    FROM json_to_recordset($1::text::json) AS r (id uuid, number bigint, ended_at bigint, outcome text, cause text, \
    http_status bigint, provider_code text, \
    detail text, credential_version bigint) \
    WHERE attempts.action_id = r.id AND attempts.number = r.number";

/// A newer version of the credential was saved while the attempt was under way: its save has passed
/// these rows by (invariant 6).
const UNPARK: &str = "UPDATE actions SET state = 'pending', due_at = $2 WHERE actions.id = ANY($1) AND actions.state = \
    'parked' AND EXISTS (SELECT 1 FROM org_credentials AS c WHERE c.org_id = actions.org_id \
    AND c.provider = actions.provider AND c.name = actions.credential_name AND c.is_active AND c.version > \
    coalesce(actions.credential_version, 0)) \
    RETURNING actions.id, actions.org_id, actions.provider, actions.state, actions.due_at";

/// `$4` leases that end until then; `$1` now, `$2` settling time in µs, `$3` rows. Those that
/// someone records at this moment are passed over.
const END_LEASES: &str = "UPDATE actions SET state = 'unknown', cause = 'lease_ended', detail = NULL, due_at = \
    least(lease_until, $1) + $2, lease_until = NULL, \
    updated_at = $1 WHERE id IN (SELECT id FROM actions WHERE state = 'running' AND lease_until <= $4 ORDER BY \
    lease_until LIMIT $3 FOR UPDATE SKIP LOCKED) \
    AND state = 'running' RETURNING actions.id, actions.org_id, actions.provider, actions.state, actions.due_at, \
    actions.fence";

/// The key of `sql::credentials::LOCK`, shared among attempts that park: they wait for a save and
/// not for each other.
const LOCK_SHARED: &str = "SELECT pg_advisory_xact_lock_shared(key) FROM (SELECT DISTINCT \
    hashtextextended(concat(r.org_id, '/', a.provider, '/', a.credential_name), 0) AS key \
    FROM unnest($1::uuid[], $2::uuid[]) AS r (id, org_id) JOIN actions AS a ON a.id = r.id ORDER BY key) AS keys";
#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[RECORD, END_ATTEMPTS, UNPARK, END_LEASES, LOCK_SHARED];

pub(super) async fn record(
    connection: &mut PgConnection,
    mut records: Vec<Record>,
) -> Result<Vec<Recorded>, StoreError> {
    let mut results = vec![Recorded::Superseded; records.len()];
    lock_credentials(connection, &records).await?;
    match write_apart(connection, &records).await {
        Ok(done) => mark_written(&records, &done, &mut results),
        // One of them brings an id of the provider's that another action holds. One by one, to know
        // which.
        Err(StoreError::Conflict { .. }) => {
            for (record, result) in records.iter_mut().zip(&mut results) {
                let done = match write_apart(connection, std::slice::from_ref(record)).await {
                    Err(StoreError::Conflict { .. }) => {
                        make_ambiguous(record);
                        let done = write_apart(connection, std::slice::from_ref(record)).await?;
                        if !done.is_empty() {
                            *result = Recorded::RefTaken;
                        }
                        continue;
                    }
                    done => done?,
                };
                if !done.is_empty() {
                    *result = Recorded::Done;
                }
            }
        }
        Err(error) => return Err(error),
    }
    unpark(connection, &records).await?;
    let ended: Vec<&Record> = records
        .iter()
        .zip(&results)
        .filter(|(_, result)| **result != Recorded::Superseded)
        .map(|(record, _)| record)
        .collect();
    end_attempts(connection, &ended).await?;
    reach(Step::RecordWritten);
    Ok(results)
}

/// Where an id of the provider's may be another's, what fails is undone alone: a failed statement
/// would end the whole transaction.
async fn write_apart(connection: &mut PgConnection, records: &[Record]) -> Result<Vec<(ActionId, OrgId)>, StoreError> {
    if records.iter().all(|record| record.provider_ref.is_none()) {
        return write(connection, records).await;
    }
    let mut savepoint = connection.begin().await.map_err(failed("record attempts"))?;
    match write(&mut savepoint, records).await {
        Ok(done) => savepoint
            .commit()
            .await
            .map_err(failed("record attempts"))
            .map(|()| done),
        Err(error) => {
            savepoint.rollback().await.map_err(failed("record attempts"))?;
            Err(error)
        }
    }
}

async fn lock_credentials(connection: &mut PgConnection, records: &[Record]) -> Result<(), StoreError> {
    let parked: Vec<&Record> = records
        .iter()
        .filter(|record| record.to == ActionState::Parked)
        .collect();
    if parked.is_empty() {
        return Ok(());
    }
    sqlx::query(LOCK_SHARED)
        .bind(
            parked
                .iter()
                .map(|record| *record.action.as_uuid())
                .collect::<Vec<Uuid>>(),
        )
        .bind(parked.iter().map(|record| *record.org.as_uuid()).collect::<Vec<Uuid>>())
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("wait for who saves the credential"))
}

async fn write(connection: &mut PgConnection, records: &[Record]) -> Result<Vec<(ActionId, OrgId)>, StoreError> {
    let list: Vec<Value> = records
        .iter()
        .map(|r| {
            json!({
                "id": r.action.as_uuid(),
                "org_id": r.org.as_uuid(),
                "fence": r.fence,
                "state": r.to.as_str(),
                "cause": r.cause.as_str(),
                "detail": (!r.detail.is_empty()).then(|| cut(&r.detail)),
                "http_status": r.http_status,
                "provider_code": r.provider_code.as_deref().map(clean),
                "provider_ref": r.provider_ref.as_deref().map(clean),
                "due_at": r.due_at.map(Timestamp::as_micros),
                "counts": u8::from(r.counts),
                "is_absence": r.is_absence,
                "is_unsent": r.is_unsent,
                "ended_at": r.ended_at.as_micros(),
                "credential_version": r.credential_version,
                "looked_up": u8::from(r.is_look_up),
            })
        })
        .collect();
    let changed = sqlx::query(RECORD)
        .bind(Value::Array(list).to_string())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("record attempts"))?;
    bring_turns_forward(connection, &changed).await?;
    changed
        .iter()
        .map(|row| Ok((of_actions(row).id("id")?, of_actions(row).id("org_id")?)))
        .collect()
}

async fn unpark(connection: &mut PgConnection, records: &[Record]) -> Result<(), StoreError> {
    let parked: Vec<&Record> = records
        .iter()
        .filter(|record| record.to == ActionState::Parked)
        .collect();
    let Some(now) = parked.iter().map(|record| record.ended_at).max() else {
        return Ok(());
    };
    let ids: Vec<Uuid> = parked.into_iter().map(|record| *record.action.as_uuid()).collect();
    let changed = sqlx::query(UNPARK)
        .bind(ids)
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("let parked actions go on"))?;
    bring_turns_forward(connection, &changed).await
}

/// Rows that can be claimed again have a turn when they are due.
async fn bring_turns_forward(connection: &mut PgConnection, changed: &[PgRow]) -> Result<(), StoreError> {
    let mut due = Vec::new();
    for row in changed {
        if matches!(
            of_actions(row).parse("state")?,
            ActionState::Pending | ActionState::Waiting | ActionState::Unknown
        ) {
            due.push((
                of_actions(row).id("org_id")?,
                of_actions(row).parse("provider")?,
                of_actions(row).time("due_at")?,
            ));
        }
    }
    add_turns(connection, due).await
}

async fn end_attempts(connection: &mut PgConnection, records: &[&Record]) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let list = records
        .iter()
        .map(|r| {
            json!({
                "id": r.action.as_uuid(),
                "number": r.fence,
                "ended_at": r.ended_at.as_micros(),
                "outcome": r.outcome.as_str(),
                "cause": r.cause.as_str(),
                "http_status": r.http_status,
                "provider_code": r.provider_code.as_deref().map(clean),
                "detail": (!r.detail.is_empty()).then(|| cut(&r.detail)),
                "credential_version": r.credential_version,
            })
        })
        .collect();
    sqlx::query(END_ATTEMPTS)
        .bind(Value::Array(list).to_string())
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("end attempts"))
}

/// `until` is `None` where no other process can hold a lease: then all have ended.
pub(super) async fn end_leases(
    connection: &mut PgConnection,
    until: Option<Timestamp>,
    now: Timestamp,
    settle: Duration,
    count_max: u32,
) -> Result<u64, StoreError> {
    let changed = sqlx::query(END_LEASES)
        .bind(now.as_micros())
        .bind(i64::try_from(settle.as_micros()).unwrap_or(i64::MAX / 2))
        .bind(i64::from(count_max))
        .bind(until.map_or(i64::MAX, Timestamp::as_micros))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("end leases"))?;
    bring_turns_forward(connection, &changed).await?;
    let mut list = Vec::with_capacity(changed.len());
    for row in &changed {
        let row = of_actions(row);
        list.push(ended(
            row.id::<ActionId>("id")?,
            row.number("fence")?,
            "unknown",
            "lease_ended",
            now,
        ));
    }
    if !list.is_empty() {
        sqlx::query(END_ATTEMPTS)
            .bind(Value::Array(list).to_string())
            .execute(connection)
            .await
            .map_err(failed("end attempts"))?;
    }
    Ok(changed.len() as u64)
}

fn ended(action: ActionId, fence: i64, outcome: &str, cause: &str, now: Timestamp) -> Value {
    json!({"id": action.as_uuid(), "number": fence, "ended_at": now.as_micros(), "outcome": outcome, "cause": cause})
}
