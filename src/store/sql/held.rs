//! Events that cannot be planned yet.

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, Transaction, audit};
use crate::{
    domain::{EventId, OrgId, SealedBytes},
    store::{StoreError, audit::AuditEntry, held::*, ledger::Replay},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(HOLD),
    Sql::both(NEXT_ORG),
    Sql::both(LIST),
    Sql::both(FORGET),
    Sql::both(REPLAY),
    Sql::both(SERIES),
];

const HOLD: &str = "
    INSERT INTO held_events (org_id, event_id, cause, received_at, envelope)
    VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (org_id, event_id) DO NOTHING";
/// One step along the primary key: the cost does not grow with the events of an organisation.
const NEXT_ORG: &str = "
    SELECT org_id
    FROM held_events
    WHERE org_id > $1
    ORDER BY org_id
    LIMIT 1";
/// Ids of events are in the order of their receipt.
const LIST: &str = "
    SELECT org_id, event_id, cause, received_at, envelope, series, is_forced
    FROM held_events
    WHERE org_id = $1 AND event_id > $2
    ORDER BY event_id
    LIMIT $3";
/// An event that waits already stays as it is.
const REPLAY: &str = "
    INSERT INTO held_events (org_id, event_id, cause, received_at, envelope, is_forced, series)
    SELECT $1, $2, $3, $4, $5, $6, 1 + coalesce(max(series), 0)
    FROM actions
    WHERE org_id = $1 AND event_id = $2
    ON CONFLICT (org_id, event_id) DO NOTHING";
const SERIES: &str = "SELECT series FROM held_events WHERE org_id = $1 AND event_id = $2";
const FORGET: &str = "DELETE FROM held_events WHERE org_id = $1 AND event_id = $2";

/// An event that waits already stays as it is.
pub(super) async fn hold<D: Dialect>(tx: &mut Transaction<'_, D>, held: &HeldEvent) -> Result<(), StoreError> {
    Statement::new("hold an event", HOLD)
        .id(held.org)
        .id(held.event)
        .text(held.cause.as_str())
        .time(held.received_at)
        .bytes(&held.envelope.0)
        .execute(tx)
        .await
        .map(drop)
}

async fn replay<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    held: &HeldEvent,
    entry: &AuditEntry,
) -> Result<(u32, bool), StoreError> {
    const DOING: &str = "replay an event";
    let is_new = Statement::new(DOING, REPLAY)
        .id(held.org)
        .id(held.event)
        .text(held.cause.as_str())
        .time(held.received_at)
        .bytes(&held.envelope.0)
        .flag(held.replay.is_some_and(|replay| replay.is_forced))
        .execute(tx)
        .await?
        > 0;
    if is_new {
        audit::insert(tx, held.org, entry).await?;
    }
    let series = Statement::new(DOING, SERIES)
        .id(held.org)
        .id(held.event)
        .one(tx, |row| row.table("held_events").number("series"))
        .await?;
    Ok((series, is_new))
}

async fn forget<D: Dialect>(tx: &mut Transaction<'_, D>, events: Vec<(OrgId, EventId)>) -> Result<(), StoreError> {
    for (org, event) in events {
        Statement::new("forget held events", FORGET)
            .id(org)
            .id(event)
            .execute(tx)
            .await?;
    }
    Ok(())
}

fn held_event<D: Dialect>(row: Row<'_, D>) -> Result<HeldEvent, StoreError> {
    let row = row.table("held_events");
    let replay = Replay {
        series: row.number("series")?,
        is_forced: row.flag("is_forced")?,
    };
    Ok(HeldEvent {
        org: row.id("org_id")?,
        event: row.id("event_id")?,
        cause: row.parse("cause")?,
        received_at: row.time("received_at")?,
        envelope: SealedBytes(row.bytes("envelope")?.into()),
        replay: Some(replay).filter(|replay| replay.series > 0),
    })
}

#[async_trait]
impl<S: SqlStore> HeldEvents for S {
    async fn hold_events(&self, events: Vec<HeldEvent>) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(Access::ALL_ORGS.in_bulk(), "hold events", move |mut tx| {
            Box::pin(async move {
                for held in &events {
                    hold(&mut tx, held).await?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn next_held_org(&self, after: Option<OrgId>) -> Result<Option<OrgId>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("look for held events", NEXT_ORG)
            .id(after.map_or(Uuid::nil(), Uuid::from))
            .optional(&mut reader, |row| row.table("held_events").id("org_id"))
            .await
    }

    async fn list_held_events(
        &self,
        org: OrgId,
        after: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<HeldEvent>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("read held events", LIST)
            .id(org)
            .id(after.map_or(Uuid::nil(), Uuid::from))
            .number(count_max)
            .all(&mut reader, held_event)
            .await
    }

    async fn replay_event(&self, held: HeldEvent, audit: AuditEntry) -> Result<u32, StoreError> {
        self.configure_if(held.org, "replay an event", move |mut tx, _| {
            Box::pin(async move { replay(&mut tx, &held, &audit).await })
        })
        .await
    }

    async fn drop_held_events(&self, events: Vec<(OrgId, EventId)>) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(Access::ALL_ORGS.in_bulk(), "forget held events", move |mut tx| {
            Box::pin(async move { forget(&mut tx, events).await })
        })
        .await
    }
}
