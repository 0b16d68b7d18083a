//! Records: transitions out of `running` under the fence, and the end of leases.

use super::{failed, hex, text};
use crate::{
    domain::{ActionId, OrgId, Timestamp},
    store::{
        StoreError,
        ledger::Record,
        sql::ledger::{EndedAttempt, RecordSql, cut, end_attempts_sql, record_sql},
    },
};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::{Sqlite, SqliteConnection, sqlite::SqliteRow};

const RECORD: &str = record_sql!(
    "(
        SELECT unhex(value ->> 0) AS id, unhex(value ->> 1) AS org_id, value ->> 2 AS fence, value ->> 3 AS state,
            value ->> 4 AS cause, value ->> 5 AS detail, value ->> 6 AS http_status, value ->> 7 AS provider_code,
            value ->> 8 AS provider_ref, value ->> 9 AS due_at, value ->> 10 AS counts, value ->> 11 AS is_absence,
            value ->> 12 AS is_unsent, value ->> 13 AS ended_at, value ->> 14 AS credential_version,
            value ->> 15 AS looked_up
        FROM json_each(?1)
    ) AS r",
    "id, org_id, provider, state, due_at"
);

const END_ATTEMPTS: &str = end_attempts_sql!(
    "(
        SELECT unhex(value ->> 0) AS id, value ->> 1 AS number, value ->> 2 AS ended_at, value ->> 3 AS outcome,
            value ->> 4 AS cause, value ->> 5 AS http_status, value ->> 6 AS provider_code, value ->> 7 AS detail,
            value ->> 8 AS credential_version
        FROM json_each(?1)
    ) AS r"
);

/// A newer version of the credential was saved during the attempt. That save did not see these
/// rows, because they were not parked yet (invariant 6).
const UNPARK: &str = "
    UPDATE actions
    SET state = 'pending', due_at = ?2
    FROM (SELECT unhex(value) AS id FROM json_each(?1)) AS parked
    WHERE actions.id = parked.id AND actions.state = 'parked'
        AND EXISTS (
            SELECT 1 FROM org_credentials AS c
            WHERE c.org_id = actions.org_id AND c.provider = actions.provider AND c.name = actions.credential_name
                AND c.is_active = 1 AND c.version > coalesce(actions.credential_version, 0)
        )
    RETURNING id, org_id, provider, state, due_at";

/// `?1` leases that end until then; `?2` now, `?3` delay of the look-up in µs, `?4` rows.
const END_LEASES: &str = "
    UPDATE actions
    SET state = 'unknown',
        cause = 'lease_ended',
        detail = NULL,
        due_at = min(lease_until, ?2) + ?3,
        lease_until = NULL,
        updated_at = ?2
    WHERE id IN (
            SELECT id FROM actions INDEXED BY actions_leases
            WHERE state = 'running' AND lease_until <= ?1
            ORDER BY lease_until
            LIMIT ?4
        )
        AND state = 'running'
    RETURNING id, org_id, provider, state, due_at, fence";

impl RecordSql for Sqlite {
    /// SQLite has one writer, so a save comes before or after.
    fn lock_credentials<'c>(
        _: &'c mut SqliteConnection,
        _: &'c [(ActionId, OrgId)],
    ) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn write_records<'c>(
        connection: &'c mut SqliteConnection,
        records: &'c [Record],
    ) -> BoxFuture<'c, Result<Vec<SqliteRow>, StoreError>> {
        Box::pin(async move {
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
            sqlx::query(RECORD)
                .bind(text(list))
                .fetch_all(connection)
                .await
                .map_err(failed("record attempts"))
        })
    }

    fn unpark<'c>(
        connection: &'c mut SqliteConnection,
        actions: &'c [ActionId],
        now: Timestamp,
    ) -> BoxFuture<'c, Result<Vec<SqliteRow>, StoreError>> {
        Box::pin(async move {
            let list = actions.iter().map(|action| json!(hex(action.as_bytes()))).collect();
            sqlx::query(UNPARK)
                .bind(text(list))
                .bind(now.as_micros())
                .fetch_all(connection)
                .await
                .map_err(failed("let parked actions go on"))
        })
    }

    fn end_attempts<'c>(
        connection: &'c mut SqliteConnection,
        ended: &'c [EndedAttempt],
    ) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            let list = ended
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
                        r.detail,
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
        })
    }

    fn end_leases(
        connection: &mut SqliteConnection,
        until: i64,
        now: Timestamp,
        look_up_delay: i64,
        count_max: u32,
    ) -> BoxFuture<'_, Result<Vec<SqliteRow>, StoreError>> {
        Box::pin(async move {
            sqlx::query(END_LEASES)
                .bind(until)
                .bind(now.as_micros())
                .bind(look_up_delay)
                .bind(count_max)
                .fetch_all(connection)
                .await
                .map_err(failed("end leases"))
        })
    }
}

/// For the tests: every statement of this file.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    vec![RECORD, END_ATTEMPTS, UNPARK, END_LEASES]
}
