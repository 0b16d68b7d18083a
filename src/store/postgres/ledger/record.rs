//! Records: transitions out of `running` under the fence, and the end of leases.

use super::failed;
use crate::{
    domain::{ActionId, OrgId, Timestamp},
    store::{
        StoreError,
        ledger::Record,
        sql::ledger::{EndedAttempt, RecordSql, clean, cut, end_attempts_sql, record_sql},
    },
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, postgres::PgRow};
use uuid::Uuid;

const RECORD: &str = record_sql!(
    "json_to_recordset($1::text::json) AS r (
        id uuid, org_id uuid, fence bigint, state text, cause text, detail text, http_status bigint,
        provider_code text, provider_ref text, due_at bigint, counts bigint, is_absence boolean, is_unsent boolean,
        ended_at bigint, credential_version bigint, looked_up bigint
    )",
    "actions.id, actions.org_id, actions.provider, actions.state, actions.due_at"
);

const END_ATTEMPTS: &str = end_attempts_sql!(
    "json_to_recordset($1::text::json) AS r (
        id uuid, number bigint, ended_at bigint, outcome text, cause text, http_status bigint, provider_code text,
        detail text, credential_version bigint
    )"
);

/// A newer version of the credential was saved during the attempt. That save did not see these
/// rows, because they were not parked yet (invariant 6).
const UNPARK: &str = "
    UPDATE actions
    SET state = 'pending', due_at = $2
    WHERE actions.id = ANY($1) AND actions.state = 'parked'
        AND EXISTS (
            SELECT 1 FROM org_credentials AS c
            WHERE c.org_id = actions.org_id AND c.provider = actions.provider AND c.name = actions.credential_name
                AND c.is_active AND c.version > coalesce(actions.credential_version, 0)
        )
    RETURNING actions.id, actions.org_id, actions.provider, actions.state, actions.due_at";

/// `$4` leases that end until then; `$1` now, `$2` delay of the look-up in µs, `$3` rows. Rows that
/// a record holds at this moment are passed over.
const END_LEASES: &str = "
    UPDATE actions
    SET state = 'unknown',
        cause = 'lease_ended',
        detail = NULL,
        due_at = least(lease_until, $1) + $2,
        lease_until = NULL,
        updated_at = $1
    WHERE id IN (
            SELECT id FROM actions
            WHERE state = 'running' AND lease_until <= $4
            ORDER BY lease_until
            LIMIT $3
            FOR UPDATE SKIP LOCKED
        )
        AND state = 'running'
    RETURNING actions.id, actions.org_id, actions.provider, actions.state, actions.due_at, actions.fence";

/// The key of `sql::credentials::LOCK`, shared among attempts that park. They wait for a save and
/// not for each other.
const LOCK_SHARED: &str = "
    SELECT pg_advisory_xact_lock_shared(key)
    FROM (
        SELECT DISTINCT hashtextextended(concat(r.org_id, '/', a.provider, '/', a.credential_name), 0) AS key
        FROM unnest($1::uuid[], $2::uuid[]) AS r (id, org_id)
        JOIN actions AS a ON a.id = r.id AND a.org_id = r.org_id
        ORDER BY key
    ) AS keys";
#[cfg(test)]
pub(crate) const STATEMENTS: &[&str] = &[RECORD, END_ATTEMPTS, UNPARK, END_LEASES, LOCK_SHARED];

impl RecordSql for Postgres {
    fn lock_credentials<'c>(
        connection: &'c mut PgConnection,
        parks: &'c [(ActionId, OrgId)],
    ) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            sqlx::query(LOCK_SHARED)
                .bind(parks.iter().map(|(action, _)| *action.as_uuid()).collect::<Vec<Uuid>>())
                .bind(parks.iter().map(|(_, org)| *org.as_uuid()).collect::<Vec<Uuid>>())
                .execute(connection)
                .await
                .map(drop)
                .map_err(failed("wait for a save of the credential"))
        })
    }

    fn write_records<'c>(
        connection: &'c mut PgConnection,
        records: &'c [Record],
    ) -> BoxFuture<'c, Result<Vec<PgRow>, StoreError>> {
        Box::pin(async move {
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
            sqlx::query(RECORD)
                .bind(Value::Array(list).to_string())
                .fetch_all(connection)
                .await
                .map_err(failed("record attempts"))
        })
    }

    fn unpark<'c>(
        connection: &'c mut PgConnection,
        actions: &'c [ActionId],
        now: Timestamp,
    ) -> BoxFuture<'c, Result<Vec<PgRow>, StoreError>> {
        Box::pin(async move {
            sqlx::query(UNPARK)
                .bind(actions.iter().map(|action| *action.as_uuid()).collect::<Vec<Uuid>>())
                .bind(now.as_micros())
                .fetch_all(connection)
                .await
                .map_err(failed("let parked actions go on"))
        })
    }

    fn end_attempts<'c>(
        connection: &'c mut PgConnection,
        ended: &'c [EndedAttempt],
    ) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            let list = ended
                .iter()
                .map(|r| {
                    json!({
                        "id": r.action.as_uuid(),
                        "number": r.fence,
                        "ended_at": r.ended_at.as_micros(),
                        "outcome": r.outcome.as_str(),
                        "cause": r.cause.as_str(),
                        "http_status": r.http_status,
                        "provider_code": r.provider_code,
                        "detail": r.detail,
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
        })
    }

    fn end_leases(
        connection: &mut PgConnection,
        until: i64,
        now: Timestamp,
        look_up_delay: i64,
        count_max: u32,
    ) -> BoxFuture<'_, Result<Vec<PgRow>, StoreError>> {
        Box::pin(async move {
            sqlx::query(END_LEASES)
                .bind(now.as_micros())
                .bind(look_up_delay)
                .bind(i64::from(count_max))
                .bind(until)
                .fetch_all(connection)
                .await
                .map_err(failed("end leases"))
        })
    }
}
