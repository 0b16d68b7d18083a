//! Dead events: lists without contents, and the way back.

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, Transaction, audit};
use crate::{
    domain::{EventId, HeldCause, OrgId},
    store::{StoreError, audit::AuditEntry, dead::*},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(LIST),
    Sql::both(FIND),
    Sql::both(IS_THERE),
    Sql::both(HOLD),
    Sql::both(FORGET),
];

/// The operator's: over all organisations.
const LIST: &str = "
    SELECT id, org_id, source, event_type, received_at, dead_at, reason
    FROM dead_events
    WHERE id < $1 AND (CAST($3 AS text) IS NULL OR org_id = $4)
    ORDER BY id DESC
    LIMIT $2";
const FIND: &str = "
    SELECT id, org_id, source, event_type, received_at, dead_at, reason
    FROM dead_events
    WHERE id = $1";
const IS_THERE: &str = "SELECT count(*) AS count FROM dead_events WHERE org_id = $1 AND id = $2";
/// Without a content there is nothing to put back.
const HOLD: &str = "
    INSERT INTO held_events (org_id, event_id, cause, received_at, envelope)
    SELECT org_id, id, $3, received_at, envelope
    FROM dead_events
    WHERE org_id = $1 AND id = $2 AND length(envelope) > 0
    ON CONFLICT (org_id, event_id) DO UPDATE
    SET cause = excluded.cause";
const FORGET: &str = "DELETE FROM dead_events WHERE org_id = $1 AND id = $2";

fn dead_event<D: Dialect>(row: Row<'_, D>) -> Result<StoredDeadEvent, StoreError> {
    let row = row.table("dead_events");
    Ok(StoredDeadEvent {
        id: row.id("id")?,
        org: row.id_opt("org_id")?,
        source: row.string("source")?,
        event_type: row.string("event_type")?,
        received_at: row.time("received_at")?,
        dead_at: row.time("dead_at")?,
        reason: row.string("reason")?,
    })
}

async fn replay<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    org: OrgId,
    id: EventId,
    entry: &AuditEntry,
) -> Result<Replayed, StoreError> {
    const DOING: &str = "put a dead event back";
    let there: i64 = Statement::new(DOING, IS_THERE)
        .id(org)
        .id(id)
        .one(tx, |row| row.table("dead_events").number("count"))
        .await?;
    if there == 0 {
        return Ok(Replayed::Absent);
    }
    let held = Statement::new(DOING, HOLD)
        .id(org)
        .id(id)
        .text(HeldCause::Replay.as_str())
        .execute(tx)
        .await?;
    if held == 0 {
        return Ok(Replayed::NothingKept);
    }
    Statement::new(DOING, FORGET).id(org).id(id).execute(tx).await?;
    audit::insert(tx, org, entry).await?;
    Ok(Replayed::PutBack)
}

#[async_trait]
impl<S: SqlStore> DeadEvents for S {
    async fn list_dead_events(
        &self,
        org: Option<OrgId>,
        before: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<StoredDeadEvent>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list dead events", LIST)
            .id(before.map_or(Uuid::max(), Uuid::from))
            .number(count_max)
            .text_opt(org.map(|_| "of one organisation"))
            .id_opt(org)
            .all(&mut reader, dead_event)
            .await
    }

    async fn find_dead_event(&self, id: EventId) -> Result<Option<StoredDeadEvent>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("find a dead event", FIND)
            .id(id)
            .optional(&mut reader, dead_event)
            .await
    }

    async fn replay_dead_event(&self, org: OrgId, id: EventId, audit: AuditEntry) -> Result<Replayed, StoreError> {
        self.configure_if(org, "put a dead event back", move |mut tx, _| {
            Box::pin(async move {
                let replayed = replay(&mut tx, org, id, &audit).await?;
                Ok((replayed, replayed == Replayed::PutBack))
            })
        })
        .await
    }
}
