//! Events without an organisation. Their table belongs to the role that serves all.

#[cfg(test)]
use super::Sql;
use super::{Access, Dialect, Row, SqlStore, Statement, audit, held, retention::delete_oldest};
use crate::{
    domain::{EventId, RouteKey, SealedBytes, Timestamp},
    store::{StoreError, audit::AuditEntry, held::HeldEvent, quarantine::*},
};
use async_trait::async_trait;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(INSERT),
    Sql::both(LIST),
    Sql::both(FIND),
    Sql::both(TAKE),
    Sql::both(COUNT),
    Sql::both(OLDEST),
    Sql::both(DELETE_OLD),
];

const INSERT: &str = "
    INSERT INTO quarantine (id, source, event_type, received_at, quarantined_at, ids, envelope)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (id) DO NOTHING";
const LIST: &str = "
    SELECT id, source, event_type, received_at, ids
    FROM quarantine
    WHERE id < $1
    ORDER BY id DESC
    LIMIT $2";
const FIND: &str = "
    SELECT id, source, event_type, received_at, ids, envelope
    FROM quarantine
    WHERE id = $1";
const TAKE: &str = "DELETE FROM quarantine WHERE id = $1";
const COUNT: &str = "
    SELECT count(*) AS count
    FROM (SELECT id FROM quarantine WHERE id > $2 LIMIT $1) AS held";
/// Ids of events are in the order of their receipt.
const OLDEST: &str = "
    SELECT received_at FROM quarantine
    WHERE id > $1
    ORDER BY id
    LIMIT 1";
const DELETE_OLD: &str = "
    DELETE FROM quarantine
    WHERE quarantined_at < $1 AND id IN (SELECT id FROM quarantine WHERE id > $3 ORDER BY id LIMIT $2)";

fn quarantined<D: Dialect>(row: Row<'_, D>) -> Result<QuarantinedEvent, StoreError> {
    let row = row.table("quarantine");
    let ids: Vec<(String, String)> = row.json("ids")?;
    let ids = ids.into_iter().map(|(kind, value)| {
        let kind = kind.parse().map_err(|_| row.corrupt("ids"))?;
        Ok(RouteKey::new(kind, &value))
    });
    Ok(QuarantinedEvent {
        id: row.id("id")?,
        source: row.string("source")?,
        event_type: row.string("event_type")?,
        received_at: row.time("received_at")?,
        ids: ids.collect::<Result<_, StoreError>>()?,
    })
}

#[async_trait]
impl<S: SqlStore> Quarantine for S {
    async fn quarantine(&self, event: QuarantinedEvent, envelope: SealedBytes) -> Result<(), StoreError> {
        const DOING: &str = "keep an event that leads to no organisation";
        self.write(Access::ALL_ORGS.in_bulk(), DOING, move |mut tx| {
            Box::pin(async move {
                let ids: Vec<(&str, &str)> = event.ids.iter().map(|key| (key.kind.as_str(), &*key.value)).collect();
                Statement::new(DOING, INSERT)
                    .id(event.id)
                    .text(&event.source)
                    .text(&event.event_type)
                    .time(event.received_at)
                    .time(tx.now)
                    .json(&ids)?
                    .bytes(&envelope.0)
                    .execute(&mut tx)
                    .await
                    .map(drop)
            })
        })
        .await
    }

    async fn list_quarantine(
        &self,
        before: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<QuarantinedEvent>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("list the quarantine", LIST)
            .id(before.map_or(Uuid::max(), Uuid::from))
            .number(count_max)
            .all(&mut reader, quarantined)
            .await
    }

    async fn find_quarantined(&self, id: EventId) -> Result<Option<(QuarantinedEvent, SealedBytes)>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("find a quarantined event", FIND)
            .id(id)
            .optional(&mut reader, |row| {
                let envelope = SealedBytes(row.table("quarantine").bytes("envelope")?.into());
                Ok((quarantined(row)?, envelope))
            })
            .await
    }

    async fn release_quarantined(&self, held: HeldEvent, audit: AuditEntry) -> Result<bool, StoreError> {
        const DOING: &str = "give a quarantined event to an organisation";
        self.configure_if(Access::ALL_ORGS, DOING, move |mut tx, _| {
            Box::pin(async move {
                let taken = Statement::new(DOING, TAKE).id(held.event).execute(&mut tx).await?;
                if taken == 0 {
                    return Ok((false, false));
                }
                held::hold(&mut tx, &held).await?;
                audit::insert(&mut tx, held.org, &audit).await?;
                Ok((true, true))
            })
        })
        .await
    }

    async fn quarantine_state(&self) -> Result<QuarantineState, StoreError> {
        const DOING: &str = "read the state of the quarantine";
        let mut reader = self.read(Access::ALL_ORGS).await?;
        let events = Statement::new(DOING, COUNT)
            .number(QUARANTINE_COUNT_MAX)
            .id(Uuid::nil())
            .one(&mut reader, |row| row.table("quarantine").number("count"))
            .await?;
        let oldest_at = Statement::new(DOING, OLDEST)
            .id(Uuid::nil())
            .optional(&mut reader, |row| row.table("quarantine").time("received_at"))
            .await?;
        Ok(QuarantineState { events, oldest_at })
    }

    async fn delete_quarantined(&self, before: Timestamp, count_max: u32) -> Result<u64, StoreError> {
        delete_oldest(
            self,
            "delete old quarantined events",
            DELETE_OLD,
            None,
            before,
            count_max,
        )
        .await
    }
}
