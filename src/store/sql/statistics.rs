//! Figures of one organisation. Each statement walks over an index by (organisation, id), with a
//! limit.

use super::{Dialect, Row, Sql, SqlStore, Statement, history::lowest_id};
use crate::{
    domain::{OrgId, Timestamp},
    store::{StoreError, statistics::*},
};
use async_trait::async_trait;
use std::time::Duration;

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    COUNT_EVENTS,
    Sql::both(READ_ACTIONS),
    Sql::both(READ_EARLIER),
    COUNT_BACKLOG,
];

/// An id is made a moment before its row, by the clock of another process perhaps.
const ID_SLACK: Duration = Duration::from_mins(5);
/// How long before the time an action was planned at most, to count in its backlog once it ended.
const EARLIER: Duration = Duration::from_hours(24);

/// Counts in the index alone: rows of events are wide. The edges come as a JSON list of pairs of
/// ids.
const COUNT_EVENTS: Sql = Sql {
    sqlite: "
    SELECT (
        SELECT count(*)
        FROM (
            SELECT id FROM events
            WHERE org_id = $1 AND id >= unhex(part.value ->> 0) AND id < unhex(part.value ->> 1)
            LIMIT $3
        ) AS page
    ) AS count
    FROM json_each($2) AS part
    ORDER BY part.key",
    postgres: "
    SELECT (
        SELECT count(*)
        FROM (
            SELECT id FROM events
            WHERE org_id = $1 AND id >= CAST(part.value ->> 0 AS uuid) AND id < CAST(part.value ->> 1 AS uuid)
            LIMIT $3
        ) AS page
    ) AS count
    FROM json_array_elements(CAST($2 AS json)) WITH ORDINALITY AS part (value, place)
    ORDER BY part.place",
};

const READ_ACTIONS: &str = "
    SELECT event_id, state, series, fence, look_ups, created_at, updated_at
    FROM actions
    WHERE org_id = $1 AND id >= $2 AND created_at >= $3
    ORDER BY id DESC
    LIMIT $4";

/// The limit is on rows that are walked over, not on those that are found.
const READ_EARLIER: &str = "
    SELECT event_id, state, series, fence, look_ups, created_at, updated_at
    FROM (
        SELECT event_id, state, series, fence, look_ups, created_at, updated_at
        FROM actions
        WHERE org_id = $1 AND id >= $2 AND id < $3
        ORDER BY id DESC
        LIMIT $5
    ) AS page
    WHERE created_at < $4 AND updated_at >= $4";

macro_rules! count_backlog {
    ($index:literal) => {
        concat!(
            "
    SELECT state, count(*) AS count, min(created_at) AS created_at
    FROM (
        SELECT state, created_at FROM actions",
            $index,
            "
        WHERE org_id = $1 AND state IN ('pending', 'waiting', 'unknown')
        LIMIT $2
    ) AS stuck
    GROUP BY state
    ORDER BY state"
        )
    };
}
const COUNT_BACKLOG: Sql = Sql {
    sqlite: count_backlog!(" INDEXED BY actions_due"),
    postgres: count_backlog!(""),
};

fn action<D: Dialect>(row: Row<'_, D>) -> Result<CountedAction, StoreError> {
    let row = row.table("actions");
    Ok(CountedAction {
        event: row.id("event_id")?,
        state: row.parse("state")?,
        series: row.number("series")?,
        claims: row.number("fence")?,
        look_ups: row.number("look_ups")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn backlog<D: Dialect>(row: Row<'_, D>) -> Result<Backlog, StoreError> {
    let row = row.table("actions");
    Ok(Backlog {
        state: row.parse("state")?,
        count: row.number("count")?,
        oldest_at: row.time("created_at")?,
    })
}

#[async_trait]
impl<S: SqlStore> Statistics for S {
    async fn count_history(&self, org: OrgId, edges: &[Timestamp]) -> Result<Counted, StoreError> {
        const DOING: &str = "count an organisation's history";
        let since = edges.first().copied().unwrap_or(Timestamp::from_micros(0));
        let id = |at: Timestamp| lowest_id(at).simple().to_string();
        let parts: Vec<[String; 2]> = edges.windows(2).map(|pair| [id(pair[0]), id(pair[1])]).collect();
        let mut reader = self.read_moment(org).await?;
        let events = Statement::new(DOING, COUNT_EVENTS)
            .id(org)
            .json(&parts)?
            .number(EVENTS_COUNTED_MAX)
            .all(&mut reader, |row| row.table("events").number("count"))
            .await?;
        let actions = Statement::new(DOING, READ_ACTIONS)
            .id(org)
            .id(lowest_id(since - ID_SLACK))
            .time(since)
            .number(ACTIONS_READ_MAX)
            .all(&mut reader, action)
            .await?;
        let earlier = Statement::new(DOING, READ_EARLIER)
            .id(org)
            .id(lowest_id(since - EARLIER))
            .id(lowest_id(since + ID_SLACK))
            .time(since)
            .number(ACTIONS_READ_MAX)
            .all(&mut reader, action)
            .await?;
        let backlog = Statement::new(DOING, COUNT_BACKLOG)
            .id(org)
            .number(BACKLOG_COUNTED_MAX)
            .all(&mut reader, backlog)
            .await?;
        reader.end(DOING).await?;
        Ok(Counted {
            events,
            actions,
            earlier,
            backlog,
        })
    }
}
