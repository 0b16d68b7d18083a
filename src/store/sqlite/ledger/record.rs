//! Records: transitions out of `running` under the fence, and the end of leases.

use super::{add_turns, failed, hex, of_actions, text};
use crate::{
    domain::{ActionId, ActionState, OrgId, Provider, Timestamp},
    killpoint::{Step, reach},
    store::{
        StoreError,
        ledger::{Record, Recorded},
        sql::ledger::{cut, make_ambiguous, mark_written},
    },
};
use serde_json::{Value, json};
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use std::time::Duration;

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
    FROM (SELECT unhex(value ->> 0) AS id, unhex(value ->> 1) AS org_id, value ->> 2 AS fence, value ->> 3 AS state, \
    value ->> 4 AS cause, value ->> 5 AS detail, \
    value ->> 6 AS http_status, value ->> 7 AS provider_code, value ->> 8 AS provider_ref, value ->> 9 AS due_at, \
    value ->> 10 AS counts, value ->> 11 AS is_absence, \
    value ->> 12 AS is_unsent, value ->> 13 AS ended_at, value ->> 14 AS credential_version, value ->> 15 AS looked_up \
    FROM json_each(?1)) AS r \
    WHERE actions.id = r.id AND actions.org_id = r.org_id AND actions.fence = r.fence \
    AND (actions.state = 'running' \
        OR (actions.state = 'unknown' AND actions.cause = 'lease_ended' AND r.state = 'succeeded')) \
    RETURNING id, org_id, provider, state, due_at";

const END_ATTEMPTS: &str = "UPDATE attempts SET ended_at = r.ended_at, outcome = r.outcome, cause = r.cause, \
    http_status = r.http_status, \
    provider_code = r.provider_code, detail = r.detail, credential_version = r.credential_version \
    FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS number, value ->> 2 AS ended_at, value ->> 3 AS outcome, \
    value ->> 4 AS cause, value ->> 5 AS http_status, \
    value ->> 6 AS provider_code, value ->> 7 AS detail, value ->> 8 AS credential_version FROM json_each(?1)) AS r \
    WHERE attempts.action_id = r.id AND attempts.number = r.number";

/// A newer version of the credential was saved while the attempt was under way: its save has passed
/// these rows by (invariant 6).
const UNPARK: &str = "UPDATE actions SET state = 'pending', due_at = ?2 FROM (SELECT unhex(value) AS id FROM \
    json_each(?1)) AS parked \
    WHERE actions.id = parked.id AND actions.state = 'parked' AND EXISTS (SELECT 1 FROM org_credentials AS c WHERE \
    c.org_id = actions.org_id \
    AND c.provider = actions.provider AND c.name = actions.credential_name AND c.is_active = 1 AND c.version > \
    coalesce(actions.credential_version, 0)) \
    RETURNING id, org_id, provider, state, due_at";

/// `?1` leases that end until then; `?2` now, `?3` settling time in µs, `?4` rows.
const END_LEASES: &str = "UPDATE actions SET state = 'unknown', cause = 'lease_ended', detail = NULL, due_at = \
    min(lease_until, ?2) + ?3, lease_until = NULL, \
    updated_at = ?2 WHERE id IN (SELECT id FROM actions INDEXED BY actions_leases WHERE state = 'running' AND \
    lease_until <= ?1 ORDER BY lease_until LIMIT ?4) \
    AND state = 'running' RETURNING id, org_id, provider, state, due_at, fence";

pub(super) async fn record(
    connection: &mut SqliteConnection,
    mut records: Vec<Record>,
) -> Result<Vec<Recorded>, StoreError> {
    let mut results = vec![Recorded::Superseded; records.len()];
    match write(connection, &records).await {
        Ok(done) => mark_written(&records, &done, &mut results),
        // One of them brings an id of the provider's that another action holds. One by one, to know
        // which.
        Err(StoreError::Conflict { .. }) => {
            for (record, result) in records.iter_mut().zip(&mut results) {
                let done = match write(connection, std::slice::from_ref(record)).await {
                    Err(StoreError::Conflict { .. }) => {
                        make_ambiguous(record);
                        let done = write(connection, std::slice::from_ref(record)).await?;
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

async fn write(connection: &mut SqliteConnection, records: &[Record]) -> Result<Vec<(ActionId, OrgId)>, StoreError> {
    let list: Vec<Value> = records
        .iter()
        .map(|r| {
            json!([
                hex(r.action.as_bytes()),
                hex(r.org.as_bytes()),
                r.fence,
                r.to.as_str(),
                r.cause.as_str(),
                (!r.detail.is_empty()).then(|| cut(&r.detail)),
                r.http_status,
                r.provider_code,
                r.provider_ref,
                r.due_at.map(Timestamp::as_micros),
                u8::from(r.counts),
                u8::from(r.is_absence),
                u8::from(r.is_unsent),
                r.ended_at.as_micros(),
                r.credential_version,
                u8::from(r.is_look_up),
            ])
        })
        .collect();
    let changed = sqlx::query(RECORD)
        .bind(text(list))
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("record attempts"))?;
    bring_turns_forward(connection, &changed).await?;
    changed
        .iter()
        .map(|row| Ok((of_actions(row).id("id")?, of_actions(row).id("org_id")?)))
        .collect()
}

async fn unpark(connection: &mut SqliteConnection, records: &[Record]) -> Result<(), StoreError> {
    let parked: Vec<&Record> = records
        .iter()
        .filter(|record| record.to == ActionState::Parked)
        .collect();
    let Some(now) = parked.iter().map(|record| record.ended_at).max() else {
        return Ok(());
    };
    let list = parked
        .into_iter()
        .map(|record| json!(hex(record.action.as_bytes())))
        .collect();
    let changed = sqlx::query(UNPARK)
        .bind(text(list))
        .bind(now.as_micros())
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("let parked actions go on"))?;
    bring_turns_forward(connection, &changed).await
}

/// Rows that can be claimed again have a turn when they are due.
async fn bring_turns_forward(connection: &mut SqliteConnection, changed: &[SqliteRow]) -> Result<(), StoreError> {
    let mut due = Vec::new();
    for row in changed {
        if matches!(
            of_actions(row).parse("state")?,
            ActionState::Pending | ActionState::Waiting | ActionState::Unknown
        ) {
            let provider: Provider = of_actions(row).parse("provider")?;
            due.push((of_actions(row).id("org_id")?, provider, of_actions(row).time("due_at")?));
        }
    }
    add_turns(connection, due).await
}

async fn end_attempts(connection: &mut SqliteConnection, records: &[&Record]) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let list = records
        .iter()
        .map(|r| {
            json!([
                hex(r.action.as_bytes()),
                r.fence,
                r.ended_at.as_micros(),
                r.outcome.as_str(),
                r.cause.as_str(),
                r.http_status,
                r.provider_code,
                (!r.detail.is_empty()).then(|| cut(&r.detail)),
                r.credential_version,
            ])
        })
        .collect();
    sqlx::query(END_ATTEMPTS)
        .bind(text(list))
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("end attempts"))
}

/// `until` is `None` where no other process can hold a lease: then all have ended.
pub(super) async fn end_leases(
    connection: &mut SqliteConnection,
    until: Option<Timestamp>,
    now: Timestamp,
    settle: Duration,
    count_max: u32,
) -> Result<u64, StoreError> {
    let changed = sqlx::query(END_LEASES)
        .bind(until.map_or(i64::MAX, Timestamp::as_micros))
        .bind(now.as_micros())
        .bind(i64::try_from(settle.as_micros()).unwrap_or(i64::MAX / 2))
        .bind(count_max)
        .fetch_all(&mut *connection)
        .await
        .map_err(failed("end leases"))?;
    bring_turns_forward(connection, &changed).await?;
    let mut list = Vec::with_capacity(changed.len());
    for row in &changed {
        let id: ActionId = of_actions(row).id("id")?;
        list.push(json!([
            hex(id.as_bytes()),
            of_actions(row).number::<i64>("fence")?,
            now.as_micros(),
            "unknown",
            "lease_ended"
        ]));
    }
    if !list.is_empty() {
        sqlx::query(END_ATTEMPTS)
            .bind(text(list))
            .execute(connection)
            .await
            .map_err(failed("end attempts"))?;
    }
    Ok(changed.len() as u64)
}

/// For the tests: every statement of this file.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    vec![RECORD, END_ATTEMPTS, UNPARK, END_LEASES]
}
