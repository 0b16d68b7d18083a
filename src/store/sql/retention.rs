//! Deletion by age. Each statement walks a short range of a primary key, so its cost does not grow
//! with the table.

use super::{Access, Dialect, Sql, SqlStore, Statement, Transaction};
use crate::{
    domain::{EventId, OrgId, Timestamp},
    store::{StoreError, retention::*},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(LIST_OWN),
    Sql::both(LAST_EVENT_OF),
    Sql::both(DELETE_ATTEMPTS_OF),
    Sql::both(DELETE_ACTIONS_OF),
    Sql::both(DELETE_EVENTS_OF),
    Sql::both(DELETE_DEAD_EVENTS_OF),
    Sql::both(LAST_EVENT),
    Sql::both(DELETE_ATTEMPTS),
    Sql::both(DELETE_ACTIONS),
    Sql::both(DELETE_EVENTS),
    Sql::both(DELETE_DEAD_EVENTS),
    Sql::both(DELETE_JOBS_OF),
    Sql::both(DELETE_JOBS),
    Sql::both(DELETE_AUDIT),
    Sql::both(LAST_DEDUPE_KEY),
    Sql::both(DELETE_DEDUPE_KEYS),
    Sql::both(LAST_IDEMPOTENCY_KEY),
    Sql::both(DELETE_IDEMPOTENCY_KEYS),
    DELETE_DAYS,
    LIST_DAY,
];

// Ids of events are in the order of their receipt.
const LAST_EVENT: &str = "
    SELECT id, received_at
    FROM (SELECT id, received_at FROM events WHERE id > $1 ORDER BY id LIMIT $2) AS page
    ORDER BY id DESC
    LIMIT 1";
/// As [`LAST_EVENT`], of one organisation.
const LAST_EVENT_OF: &str = "
    SELECT received_at, id
    FROM (SELECT received_at, id FROM events WHERE org_id = $3 AND id > $1 ORDER BY id LIMIT $2) AS page
    ORDER BY id DESC
    LIMIT 1";
/// The events of a range that may go: each of their actions has ended, and has not changed since.
macro_rules! ended_events {
    () => {
        ended_events!("")
    };
    ($of:literal) => {
        concat!(
            "
        SELECT e.id FROM events e
        WHERE ",
            $of,
            "e.id > $1 AND e.id <= $2 AND e.received_at < $3 AND NOT EXISTS (
            SELECT 1 FROM actions a
            WHERE a.event_id = e.id
            AND (a.state NOT IN ('succeeded', 'suppressed', 'cancelled', 'dead') OR a.updated_at >= $3)
        )"
        )
    };
}
const DELETE_ATTEMPTS_OF: &str = concat!(
    "
    DELETE FROM attempts
    WHERE org_id = $4 AND action_id IN (SELECT id FROM actions WHERE org_id = $4 AND event_id IN (",
    ended_events!("e.org_id = $4 AND "),
    "
    ))"
);
const DELETE_ACTIONS_OF: &str = concat!(
    "
    DELETE FROM actions
    WHERE org_id = $4 AND state IN ('succeeded', 'suppressed', 'cancelled', 'dead') AND event_id IN (",
    ended_events!("e.org_id = $4 AND "),
    "
    )"
);
const DELETE_EVENTS_OF: &str = "
    DELETE FROM events
    WHERE org_id = $4 AND id > $1 AND id <= $2 AND received_at < $3
    AND NOT EXISTS (SELECT 1 FROM actions a WHERE a.event_id = events.id)";
const DELETE_DEAD_EVENTS_OF: &str = "
    DELETE FROM dead_events
    WHERE org_id = $4 AND dead_at < $1
    AND id IN (SELECT id FROM dead_events WHERE org_id = $4 AND dead_at < $1 AND id > $3 ORDER BY id LIMIT $2)";
const LIST_OWN: &str = "
    SELECT org_id, retention_days
    FROM organization_settings
    WHERE retention_days IS NOT NULL AND org_id > $1
    ORDER BY org_id
    LIMIT $2";
const DELETE_ATTEMPTS: &str = concat!(
    "
    DELETE FROM attempts
    WHERE action_id IN (SELECT id FROM actions WHERE event_id IN (",
    ended_events!(),
    "
    ))"
);
// The state is looked at again: a person may have tried an action again meanwhile.
const DELETE_ACTIONS: &str = concat!(
    "
    DELETE FROM actions
    WHERE state IN ('succeeded', 'suppressed', 'cancelled', 'dead') AND event_id IN (",
    ended_events!(),
    "
    )"
);
const DELETE_EVENTS: &str = "
    DELETE FROM events
    WHERE id > $1 AND id <= $2 AND received_at < $3
    AND NOT EXISTS (SELECT 1 FROM actions a WHERE a.event_id = events.id)";
const DELETE_DEAD_EVENTS: &str = "
    DELETE FROM dead_events
    WHERE dead_at < $1 AND id IN (SELECT id FROM dead_events WHERE id > $3 ORDER BY id LIMIT $2)";
// A job that has not ended has no time of its end, and stays.
const DELETE_JOBS_OF: &str = "
    DELETE FROM bulk_jobs
    WHERE org_id = $4 AND ended_at < $1
    AND id IN (SELECT id FROM bulk_jobs WHERE org_id = $4 AND ended_at < $1 AND id > $3 ORDER BY id LIMIT $2)";
const DELETE_JOBS: &str = "
    DELETE FROM bulk_jobs
    WHERE ended_at < $1 AND id IN (SELECT id FROM bulk_jobs WHERE id > $3 ORDER BY id LIMIT $2)";
const DELETE_AUDIT: &str = "
    DELETE FROM audit_log
    WHERE at < $1 AND id IN (SELECT id FROM audit_log WHERE id > $3 ORDER BY id LIMIT $2)";

macro_rules! last_key {
    ($table:literal) => {
        concat!(
            "
    SELECT org_id, hash
    FROM (
        SELECT org_id, hash FROM ",
            $table,
            "
        WHERE (org_id, hash) > ($1, $2)
        ORDER BY org_id, hash
        LIMIT $3
    ) AS page
    ORDER BY org_id DESC, hash DESC
    LIMIT 1"
        )
    };
}
macro_rules! delete_keys {
    ($table:literal) => {
        concat!(
            "
    DELETE FROM ",
            $table,
            "
    WHERE (org_id, hash) > ($1, $2) AND (org_id, hash) <= ($3, $4) AND created_at < $5"
        )
    };
}
const LAST_DEDUPE_KEY: &str = last_key!("dedupe_keys");
const DELETE_DEDUPE_KEYS: &str = delete_keys!("dedupe_keys");
const LAST_IDEMPOTENCY_KEY: &str = last_key!("idempotency_keys");
const DELETE_IDEMPOTENCY_KEYS: &str = delete_keys!("idempotency_keys");

// A row an organisation and day, and a few days only.
const DELETE_DAYS: Sql = Sql {
    sqlite: "DELETE FROM action_days NOT INDEXED WHERE day < $1",
    postgres: "DELETE FROM action_days WHERE day < $1",
};
const LIST_DAY: Sql = Sql {
    sqlite: "SELECT org_id, used FROM action_days NOT INDEXED WHERE day = $1",
    postgres: "SELECT org_id, used FROM action_days WHERE day = $1",
};

/// The statement with the organisation as its last value, where it is about one.
fn of_org<D: Dialect>(statement: Statement<D>, org: Option<OrgId>) -> Statement<D> {
    match org {
        Some(org) => statement.id(org),
        None => statement,
    }
}

/// Of one organisation, or of all.
async fn delete_events<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: Option<OrgId>,
    before: Timestamp,
    after: Uuid,
    count_max: u32,
) -> Result<Step<EventId>, StoreError> {
    const DOING: &str = "delete events that have ended";
    let [last_event, attempts, actions, events] = match org {
        Some(_) => [LAST_EVENT_OF, DELETE_ATTEMPTS_OF, DELETE_ACTIONS_OF, DELETE_EVENTS_OF],
        None => [LAST_EVENT, DELETE_ATTEMPTS, DELETE_ACTIONS, DELETE_EVENTS],
    };
    let last: Option<(Uuid, Timestamp)> = of_org(Statement::new(DOING, last_event).id(after).number(count_max), org)
        .optional(tx, |row| {
            let row = row.table("events");
            Ok((row.id("id")?, row.time("received_at")?))
        })
        .await?;
    let Some((last, received_at)) = last else {
        return Ok(Step { deleted: 0, next: None });
    };
    let of_range = |sql: &'static str| of_org(Statement::new(DOING, sql).id(after).id(last).time(before), org);
    of_range(attempts).execute(tx).await?;
    of_range(actions).execute(tx).await?;
    let deleted = of_range(events).execute(tx).await?;
    Ok(Step {
        deleted,
        // Those behind it are younger.
        next: (received_at < before).then_some(last.into()),
    })
}

async fn delete_keys<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    table: KeyTable,
    before: Timestamp,
    after: Option<KeyPosition>,
    count_max: u32,
) -> Result<Step<KeyPosition>, StoreError> {
    const DOING: &str = "delete old keys";
    let (last_key, delete) = match table {
        KeyTable::Dedupe => (LAST_DEDUPE_KEY, DELETE_DEDUPE_KEYS),
        KeyTable::Idempotency => (LAST_IDEMPOTENCY_KEY, DELETE_IDEMPOTENCY_KEYS),
    };
    let (org, hash) = after.unwrap_or((OrgId::from_uuid(Uuid::nil()), [0; 16]));
    let last: Option<KeyPosition> = Statement::new(DOING, last_key)
        .id(org)
        .bytes(&hash)
        .number(count_max)
        .optional(tx, |row| {
            let row = row.table("keys");
            let hash = row.bytes("hash")?.try_into().map_err(|_| row.corrupt("hash"))?;
            Ok((row.id("org_id")?, hash))
        })
        .await?;
    let Some((last_org, last_hash)) = last else {
        return Ok(Step { deleted: 0, next: None });
    };
    let deleted = Statement::new(DOING, delete)
        .id(org)
        .bytes(&hash)
        .id(last_org)
        .bytes(&last_hash)
        .time(before)
        .execute(tx)
        .await?;
    Ok(Step { deleted, next: last })
}

/// Deletes rows by their own time alone, lowest ids first. Of one organisation, or of all.
pub(super) async fn delete_oldest<S: SqlStore>(
    store: &S,
    doing: &'static str,
    statement: &'static str,
    org: Option<OrgId>,
    before: Timestamp,
    count_max: u32,
) -> Result<u64, StoreError> {
    store
        .write(Access::ALL_ORGS.in_bulk(), doing, move |mut tx| {
            Box::pin(async move {
                let statement = Statement::new(doing, statement)
                    .time(before)
                    .number(count_max)
                    .id(Uuid::nil());
                of_org(statement, org).execute(&mut tx).await
            })
        })
        .await
}

#[async_trait]
impl<S: SqlStore> Retention for S {
    async fn delete_events(
        &self,
        org: Option<OrgId>,
        before: Timestamp,
        after: Option<EventId>,
        count_max: u32,
    ) -> Result<Step<EventId>, StoreError> {
        let after = after.map_or(Uuid::nil(), Uuid::from);
        self.write(
            Access::ALL_ORGS.in_bulk(),
            "delete events that have ended",
            move |mut tx| Box::pin(async move { delete_events(&mut tx, org, before, after, count_max).await }),
        )
        .await
    }

    async fn list_own_retention(
        &self,
        after: Option<OrgId>,
        count_max: u32,
    ) -> Result<Vec<(OrgId, Option<u32>)>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("read who keeps events for a time of its own", LIST_OWN)
            .id(after.map_or(Uuid::nil(), Uuid::from))
            .number(count_max)
            .all(&mut reader, |row| {
                let row = row.table("organization_settings");
                let days = row.number::<u32>("retention_days").ok();
                Ok((row.id("org_id")?, days.filter(|days| *days > 0)))
            })
            .await
    }

    async fn delete_dead_events(
        &self,
        org: Option<OrgId>,
        before: Timestamp,
        count_max: u32,
    ) -> Result<u64, StoreError> {
        let sql = org.map_or(DELETE_DEAD_EVENTS, |_| DELETE_DEAD_EVENTS_OF);
        delete_oldest(self, "delete old dead events", sql, org, before, count_max).await
    }

    async fn delete_jobs(&self, org: Option<OrgId>, before: Timestamp, count_max: u32) -> Result<u64, StoreError> {
        let sql = org.map_or(DELETE_JOBS, |_| DELETE_JOBS_OF);
        delete_oldest(self, "delete old jobs", sql, org, before, count_max).await
    }

    async fn delete_audit(&self, before: Timestamp, count_max: u32) -> Result<u64, StoreError> {
        delete_oldest(self, "delete old audit entries", DELETE_AUDIT, None, before, count_max).await
    }

    async fn delete_keys(
        &self,
        table: KeyTable,
        before: Timestamp,
        after: Option<KeyPosition>,
        count_max: u32,
    ) -> Result<Step<KeyPosition>, StoreError> {
        self.write(Access::ALL_ORGS.in_bulk(), "delete old keys", move |mut tx| {
            Box::pin(async move { delete_keys(&mut tx, table, before, after, count_max).await })
        })
        .await
    }

    async fn delete_days(&self, before_day: i64) -> Result<u64, StoreError> {
        self.write(
            Access::ALL_ORGS.in_bulk(),
            "forget the actions of days",
            move |mut tx| {
                Box::pin(async move {
                    Statement::new("forget the actions of days", DELETE_DAYS)
                        .number(before_day)
                        .execute(&mut tx)
                        .await
                })
            },
        )
        .await
    }

    async fn list_day(&self, day: i64) -> Result<Vec<(OrgId, u64)>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("read the actions of a day", LIST_DAY)
            .number(day)
            .all(&mut reader, |row| {
                let row = row.table("action_days");
                Ok((row.id("org_id")?, row.number("used")?))
            })
            .await
    }
}
