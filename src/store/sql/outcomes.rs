//! Outcomes of events.

use super::{Dialect, Row, Sql, SqlStore, Statement};
use crate::{
    domain::{EventId, OrgId},
    store::{StoreError, outcomes::*},
};
use async_trait::async_trait;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[COUNT_OUTCOMES];

/// The ids come as a JSON list of texts: neither database takes a list of another length without
/// another statement.
const COUNT_OUTCOMES: Sql = Sql {
    sqlite: "
    SELECT event_id, state, count(*) AS count
    FROM actions INDEXED BY actions_event
    WHERE org_id = $1 AND event_id IN (SELECT unhex(value) FROM json_each($2))
    GROUP BY event_id, state
    ORDER BY event_id, state",
    postgres: "
    SELECT event_id, state, count(*) AS count
    FROM actions
    WHERE org_id = $1 AND event_id IN (SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST($2 AS json)))
    GROUP BY event_id, state
    ORDER BY event_id, state",
};

fn outcome<D: Dialect>(row: Row<'_, D>) -> Result<OutcomeCount, StoreError> {
    let row = row.table("actions");
    Ok(OutcomeCount {
        event: row.id("event_id")?,
        state: row.parse("state")?,
        count: row.number("count")?,
    })
}

#[async_trait]
impl<S: SqlStore> Outcomes for S {
    async fn count_outcomes(&self, org: OrgId, events: &[EventId]) -> Result<Vec<OutcomeCount>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = events.iter().map(|id| hex::encode(id.as_bytes())).collect();
        let mut reader = self.read(org).await?;
        Statement::new("count what came of events", COUNT_OUTCOMES)
            .id(org)
            .json(&ids)?
            .all(&mut reader, outcome)
            .await
    }
}
