//! Recoveries: the actions that had not ended, and the mark by which later plans know old events.

use super::{
    Access, Dialect, Row, Sql, SqlStore, Statement, Transaction, audit,
    ledger::{self, claimable},
    pauses,
};
use crate::{
    domain::{OrgId, Timestamp},
    store::{StoreError, audit::AuditEntry, pauses::Pause, recovery::*},
};
use async_trait::async_trait;
use std::collections::BTreeSet;
use uuid::Uuid;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    NEWEST_EVENT,
    Sql::both(COUNT_RUNNING),
    Sql::both(COUNT_REPLAYS),
    Sql::both(BEGIN),
    Sql::both(LAST),
    Sql::both(DOUBT_DUE),
    Sql::both(DOUBT_PARKED),
    Sql::both(DROP_REPLAYS),
];

/// Ids of events are in the order of their receipt.
const NEWEST_EVENT: Sql = Sql {
    sqlite: "SELECT max(id) AS id FROM events",
    postgres: "SELECT id FROM events ORDER BY id DESC LIMIT 1",
};
const COUNT_RUNNING: &str = "SELECT count(*) AS count FROM actions WHERE state = 'running'";
const COUNT_REPLAYS: &str = "SELECT count(*) AS count FROM held_events WHERE series > 0";
const BEGIN: &str = "
    INSERT INTO recoveries (recovered_at, restored_to, actor)
    VALUES ($1, $2, $3)
    ON CONFLICT (recovered_at) DO NOTHING";
const LAST: &str = "
    SELECT recovered_at, restored_to, actor
    FROM recoveries
    ORDER BY recovered_at DESC
    LIMIT 1";
macro_rules! doubt {
    ($open:expr) => {
        concat!(
            "
    UPDATE actions
    SET state = 'unknown', cause = 'ambiguous', detail = $2, due_at = $3, absences = 0, updated_at = $4,
        first_sent_at = coalesce(first_sent_at, CASE WHEN created_at > $5 THEN created_at ELSE $5 END)
    WHERE org_id = $1 AND id IN (
        SELECT id FROM actions
        WHERE org_id = $1 AND ",
            $open,
            "
        ORDER BY id
        LIMIT $6
    )
    RETURNING provider"
        )
    };
}
/// Conditions repeat those of the partial indexes, so that the database uses them.
const DOUBT_DUE: &str = doubt!(concat!(claimable!(), " AND state <> 'unknown'"));
const DOUBT_PARKED: &str =
    doubt!("state IN ('unknown', 'parked', 'suppressed', 'cancelled', 'dead') AND state = 'parked'");
const DROP_REPLAYS: &str = "DELETE FROM held_events WHERE series > 0";

/// When an id was made: its first 48 bits are milliseconds.
fn made_at(id: Uuid) -> Timestamp {
    let millis = i64::try_from(id.as_u128() >> 80).unwrap_or(i64::MAX);
    Timestamp::from_micros(millis.saturating_mul(1_000))
}

async fn begin<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    recovery: &Recovery,
    pause: &Pause,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    Statement::new("begin a recovery", BEGIN)
        .time(recovery.recovered_at)
        .time(recovery.restored_to)
        .text(&recovery.actor)
        .execute(tx)
        .await?;
    pauses::insert(tx, pause).await?;
    audit::insert(tx, entry.org, entry).await
}

/// The values of a step over one organisation.
struct Doubt {
    org: OrgId,
    sent_from: Timestamp,
    due_at: Timestamp,
    count_max: u32,
}

async fn doubt<D: Dialect>(tx: &mut Transaction<'_, D>, step: &Doubt, entry: &AuditEntry) -> Result<u64, StoreError> {
    const DOING: &str = "doubt open actions";
    const WHY: &str = "the database was restored from a backup, and it may have gone out since";
    let (now, mut changed) = (tx.now, Vec::<String>::new());
    for sql in [DOUBT_DUE, DOUBT_PARKED] {
        let some: Vec<String> = Statement::new(DOING, sql)
            .id(step.org)
            .text(WHY)
            .time(step.due_at)
            .time(now)
            .time(step.sent_from)
            .number(step.count_max)
            .all(tx, |row| row.table("actions").string("provider"))
            .await?;
        changed.extend(some);
    }
    for provider in changed.iter().collect::<BTreeSet<_>>() {
        ledger::bring_turn_forward(tx, step.org, provider, step.due_at).await?;
    }
    if !changed.is_empty() {
        audit::insert(tx, step.org, entry).await?;
    }
    Ok(changed.len() as u64)
}

fn recovery<D: Dialect>(row: Row<'_, D>) -> Result<Recovery, StoreError> {
    let row = row.table("recoveries");
    Ok(Recovery {
        restored_to: row.time("restored_to")?,
        recovered_at: row.time("recovered_at")?,
        actor: row.string("actor")?,
    })
}

#[async_trait]
impl<S: SqlStore> Recoveries for S {
    async fn load_recovery_facts(&self) -> Result<RecoveryFacts, StoreError> {
        const DOING: &str = "look at what a recovery would meet";
        let mut reader = self.read_moment(Access::ALL_ORGS).await?;
        let newest: Option<Option<Uuid>> = Statement::new(DOING, NEWEST_EVENT)
            .optional(&mut reader, |row| row.table("events").id_opt("id"))
            .await?;
        let running = Statement::new(DOING, COUNT_RUNNING)
            .one(&mut reader, |row| row.table("actions").number("count"))
            .await?;
        let waiting_replays = Statement::new(DOING, COUNT_REPLAYS)
            .one(&mut reader, |row| row.table("held_events").number("count"))
            .await?;
        reader.end(DOING).await?;
        Ok(RecoveryFacts {
            newest_event_at: newest.flatten().map(made_at),
            running,
            waiting_replays,
        })
    }

    async fn begin_recovery(&self, recovery: Recovery, pause: Pause, audit: AuditEntry) -> Result<(), StoreError> {
        self.configure(Access::ALL_ORGS, "begin a recovery", move |mut tx, _| {
            Box::pin(async move { begin(&mut tx, &recovery, &pause, &audit).await })
        })
        .await
    }

    async fn find_recovery(&self) -> Result<Option<Recovery>, StoreError> {
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new("look for a recovery", LAST)
            .optional(&mut reader, recovery)
            .await
    }

    async fn doubt_open_actions(
        &self,
        org: OrgId,
        sent_from: Timestamp,
        due_at: Timestamp,
        count_max: u32,
        audit: AuditEntry,
    ) -> Result<u64, StoreError> {
        let step = Doubt {
            org,
            sent_from,
            due_at,
            count_max,
        };
        self.write(Access::org(org).in_bulk(), "doubt open actions", move |mut tx| {
            Box::pin(async move { doubt(&mut tx, &step, &audit).await })
        })
        .await
    }

    async fn drop_waiting_replays(&self) -> Result<u64, StoreError> {
        const DOING: &str = "forget replays that wait";
        self.write(Access::ALL_ORGS.in_bulk(), DOING, move |mut tx| {
            Box::pin(async move { Statement::new(DOING, DROP_REPLAYS).execute(&mut tx).await })
        })
        .await
    }
}
