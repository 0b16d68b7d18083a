//! Events, actions and attempts, read only. Pages go by id, so each costs what it shows.

use super::{Access, Dialect, Reader, Row, Sql, SqlStore, Statement, ledger::manual::other_run};
use crate::{
    domain::{
        ActionId, ActionState, Cause, Delivery, EventId, EventType, OrgId, Period, Provider, SealedBytes, Source,
        Timestamp,
    },
    store::{StoreError, history::*},
};
use async_trait::async_trait;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// Ids begin with the time at which they were made. A row may say another time than its id: by so
/// much at most.
const ID_SLACK: Duration = Duration::from_hours(24);

/// The lowest id that a row of the period can have: what is older is not walked over.
pub(super) fn first_id(period: Period) -> Uuid {
    period.since.map_or(Uuid::nil(), |since| lowest_id(since - ID_SLACK))
}

/// The lowest id that can be made at a moment.
pub(super) fn lowest_id(at: Timestamp) -> Uuid {
    Uuid::from_u128(u128::try_from(at.as_micros() / 1_000).unwrap_or(0) << 80)
}

pub(super) fn start(period: Period) -> Timestamp {
    period.since.unwrap_or(Timestamp::from_micros(i64::MIN))
}

pub(super) fn end(period: Period) -> Timestamp {
    period.until.unwrap_or(Timestamp::from_micros(i64::MAX))
}

#[cfg(test)]
pub const STATEMENTS: &[Sql] = &[
    Sql::both(LIST_EVENTS),
    Sql::both(LIST_EVENTS_OF_SUBJECT),
    Sql::both(FIND_EVENT),
    LIST_ACTIONS,
    LIST_ACTIONS_OF_EVENT,
    LIST_ACTIONS_SETTLED,
    LIST_ACTIONS_CLAIMABLE,
    LIST_ACTIONS_RUNNING,
    Sql::both(FIND_ACTION),
    Sql::both(LIST_ATTEMPTS),
    COUNT_OPEN_SETTLED,
    COUNT_OPEN_WAITING,
    LAST_SETTLED,
    LAST_WAITING,
    COUNT_STATES,
    Sql::both(OLDEST_DUE),
    Sql::both(OLDEST_UNKNOWN),
    Sql::both(COUNT_HELD),
    Sql::both(OLDEST_HELD),
    Sql::both(COUNT_DEAD_EVENTS),
];

macro_rules! event_columns {
    () => {
        "id, org_id, source, event_type, subject, endpoint_id, time, received_at, content_type, path, query, headers,
        hops, body_sealed, body_bytes, dead_reason, secret_id"
    };
}
const LIST_EVENTS: &str = concat!(
    "SELECT ",
    event_columns!(),
    "
    FROM events
    WHERE org_id = $1 AND id < $2 AND id >= $6
    AND (CAST($4 AS text) IS NULL OR source = $4) AND (CAST($5 AS text) IS NULL OR event_type = $5)
    AND received_at >= $7 AND received_at < $8
    ORDER BY id DESC
    LIMIT $3"
);
const LIST_EVENTS_OF_SUBJECT: &str = concat!(
    "SELECT ",
    event_columns!(),
    "
    FROM events
    WHERE org_id = $1 AND subject = $9 AND id < $2 AND id >= $6
    AND (CAST($4 AS text) IS NULL OR source = $4) AND (CAST($5 AS text) IS NULL OR event_type = $5)
    AND received_at >= $7 AND received_at < $8
    ORDER BY id DESC
    LIMIT $3"
);
const FIND_EVENT: &str = concat!(
    "SELECT ",
    event_columns!(),
    "
    FROM events
    WHERE org_id = $1 AND id = $2"
);

macro_rules! action_columns {
    () => {
        concat!(
            "id, org_id, event_id, rule_id, rule_name, kind, provider, credential_name, state, cause, detail,
        http_status, provider_code, request_sealed, series, due_at, expires_at, fence, attempts, look_ups, provider_ref,
        created_at, updated_at, delivery, delivery_code, delivery_detail, delivery_at,
        EXISTS (SELECT 1 FROM actions AS other WHERE ",
            other_run!("actions"),
            ") AS has_other_run"
        )
    };
}
macro_rules! list_actions {
    (@text $index:literal, $where:literal) => {
        concat!(
            "SELECT ",
            action_columns!(),
            "
    FROM actions",
            $index,
            "
    WHERE org_id = $1 AND id < $2 AND id >= $6
    AND (CAST($4 AS text) IS NULL OR state = $4) AND (CAST($5 AS text) IS NULL OR provider = $5)
    AND created_at >= $7 AND created_at < $8 AND (CAST($9 AS text) IS NULL OR cause = $9)
    AND rule_id = COALESCE($10, rule_id)",
            $where,
            "
    ORDER BY id DESC
    LIMIT $3"
        )
    };
    ($index:literal, $where:literal) => {
        Sql {
            sqlite: list_actions!(@text $index, $where),
            postgres: list_actions!(@text "", $where),
        }
    };
}
const LIST_ACTIONS: Sql = list_actions!("", "");
const LIST_ACTIONS_OF_EVENT: Sql = list_actions!(" INDEXED BY actions_event", " AND event_id = $11");
// Few rows are in these states, and partial indexes hold them. A statement must repeat the
// condition of such an index to the letter, or the database walks over all rows by id. SQLite gets
// the index by name; Postgres finds it by its statistics.
const LIST_ACTIONS_SETTLED: Sql = list_actions!(
    " INDEXED BY actions_state",
    " AND state = $4 AND state IN ('unknown', 'parked', 'suppressed', 'cancelled', 'dead')"
);
const LIST_ACTIONS_CLAIMABLE: Sql = list_actions!(
    " INDEXED BY actions_due",
    " AND state IN ('pending', 'waiting', 'unknown')"
);
const LIST_ACTIONS_RUNNING: Sql = list_actions!(" INDEXED BY actions_leases", " AND state = 'running'");
const FIND_ACTION: &str = concat!(
    "SELECT ",
    action_columns!(),
    "
    FROM actions
    WHERE org_id = $1 AND id = $2"
);

const LIST_ATTEMPTS: &str = "
    SELECT number, is_look_up, started_at, ended_at, outcome, cause, http_status, provider_code, detail,
        credential_version
    FROM attempts
    WHERE org_id = $1 AND action_id = $2
    ORDER BY number DESC
    LIMIT $3";

// Counts actions that have not gone out. Each state is counted by its own index.
macro_rules! count_open {
    (@text $index:literal, $states:literal) => {
        concat!(
            "
    SELECT provider, credential_name, count(*) AS count, max(updated_at) AS updated_at
    FROM (
        SELECT provider, credential_name, updated_at FROM actions",
            $index,
            "
        WHERE org_id = $1 AND state = $2 AND updated_at >= $3 AND state IN (",
            $states,
            ")
        ORDER BY id DESC
        LIMIT $4
    ) AS stuck
    GROUP BY provider, credential_name"
        )
    };
    ($index:literal, $states:literal) => {
        Sql {
            sqlite: count_open!(@text $index, $states),
            postgres: count_open!(@text "", $states),
        }
    };
}
const COUNT_OPEN_SETTLED: Sql = count_open!(
    " INDEXED BY actions_state",
    "'unknown', 'parked', 'suppressed', 'cancelled', 'dead'"
);
const COUNT_OPEN_WAITING: Sql = count_open!(" INDEXED BY actions_due", "'pending', 'waiting', 'unknown'");
macro_rules! last_of {
    (@text $index:literal, $states:literal) => {
        concat!(
            "
    SELECT id, cause, detail FROM actions",
            $index,
            "
    WHERE org_id = $1 AND state = $2 AND provider = $3 AND credential_name = $4 AND updated_at = $5 AND state IN (",
            $states,
            ")
    ORDER BY id DESC
    LIMIT 1"
        )
    };
    ($index:literal, $states:literal) => {
        Sql {
            sqlite: last_of!(@text $index, $states),
            postgres: last_of!(@text "", $states),
        }
    };
}
const LAST_SETTLED: Sql = last_of!(
    " INDEXED BY actions_state",
    "'unknown', 'parked', 'suppressed', 'cancelled', 'dead'"
);
const LAST_WAITING: Sql = last_of!(" INDEXED BY actions_due", "'pending', 'waiting', 'unknown'");

// Gauges, over all organisations.
macro_rules! count_states {
    ($index:literal) => {
        concat!(
            "
    SELECT state, count(*) AS count
    FROM (
        SELECT state FROM actions",
            $index,
            "
        WHERE state IN ('unknown', 'parked', 'suppressed', 'cancelled', 'dead')
        LIMIT $1
    ) AS stuck
    GROUP BY state"
        )
    };
}
const COUNT_STATES: Sql = Sql {
    sqlite: count_states!(" INDEXED BY actions_state"),
    postgres: count_states!(""),
};
/// Reads the actions themselves, because a limit or a breaker may have moved a turn's time.
const OLDEST_DUE: &str = "
    SELECT provider, min(due_at) AS due_at
    FROM (
        SELECT t.provider, (
            SELECT a.due_at FROM actions a
            WHERE a.org_id = t.org_id AND a.provider = t.provider AND a.state IN ('pending', 'waiting', 'unknown')
            ORDER BY a.due_at, a.id
            LIMIT 1
        ) AS due_at
        FROM turns t
    ) AS oldest
    WHERE due_at IS NOT NULL
    GROUP BY provider
    ORDER BY provider";
const OLDEST_UNKNOWN: &str = "
    SELECT min(first_sent_at) AS first_sent_at FROM actions
    WHERE state = 'unknown' AND first_sent_at IS NOT NULL";

const COUNT_HELD: &str = "
    SELECT cause, count(*) AS count
    FROM (SELECT cause FROM held_events LIMIT $1) AS held
    GROUP BY cause";
const OLDEST_HELD: &str = "SELECT min(received_at) AS received_at FROM held_events";
const COUNT_DEAD_EVENTS: &str = "
    SELECT count(*) AS count
    FROM (SELECT id FROM dead_events WHERE id > $2 LIMIT $1) AS dead";

fn event<D: Dialect>(row: Row<'_, D>) -> Result<StoredEvent, StoreError> {
    let row = row.table("events");
    Ok(StoredEvent {
        id: row.id("id")?,
        org: row.id("org_id")?,
        source: row.word("source")?,
        event_type: EventType::from_stored(row.text("event_type")?),
        subject: row.string("subject")?,
        endpoint: row.id_opt("endpoint_id")?,
        secret: row.id_opt("secret_id")?,
        time: row.time("time")?,
        received_at: row.time("received_at")?,
        content_type: row.string("content_type")?,
        path: row.string("path")?,
        query: row.string("query")?,
        headers: row.json("headers")?,
        hops: row.number("hops")?,
        body: row.bytes_opt("body_sealed")?.map(|sealed| SealedBytes(sealed.into())),
        body_bytes: row.number("body_bytes")?,
        dead_reason: row.string_opt("dead_reason")?,
    })
}

fn action<D: Dialect>(row: Row<'_, D>) -> Result<StoredAction, StoreError> {
    let row = row.table("actions");
    Ok(StoredAction {
        id: row.id("id")?,
        org: row.id("org_id")?,
        event: row.id("event_id")?,
        rule: row.id("rule_id")?,
        rule_name: row.string("rule_name")?,
        kind: row.word("kind")?,
        provider: row.word("provider")?,
        credential_name: row.string("credential_name")?,
        state: row.parse("state")?,
        cause: row.known_opt("cause")?,
        detail: row.string_opt("detail")?,
        http_status: row.number_opt("http_status")?,
        provider_code: row.string_opt("provider_code")?,
        request: row
            .bytes_opt("request_sealed")?
            .map(|sealed| SealedBytes(sealed.into())),
        series: row.number("series")?,
        due_at: row.time("due_at")?,
        expires_at: row.time("expires_at")?,
        claims: row.number("fence")?,
        attempts: row.number("attempts")?,
        look_ups: row.number("look_ups")?,
        provider_ref: row.string_opt("provider_ref")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        has_other_run: row.flag("has_other_run")?,
        delivery: match row.known_opt("delivery")? {
            None => None,
            Some(status) => {
                let delivery = Delivery {
                    status,
                    code: row.string_opt("delivery_code")?,
                    detail: row.string_opt("delivery_detail")?,
                };
                Some((delivery, row.time("delivery_at")?))
            }
        },
    })
}

fn attempt<D: Dialect>(row: Row<'_, D>) -> Result<StoredAttempt, StoreError> {
    let row = row.table("attempts");
    Ok(StoredAttempt {
        number: row.number("number")?,
        is_look_up: row.flag("is_look_up")?,
        started_at: row.time("started_at")?,
        ended_at: row.time_opt("ended_at")?,
        outcome: row.string_opt("outcome")?,
        cause: row.string_opt("cause")?,
        http_status: row.number_opt("http_status")?,
        provider_code: row.string_opt("provider_code")?,
        detail: row.string_opt("detail")?,
        credential_version: row.number_opt("credential_version")?,
    })
}

/// The actions of one state by one credential.
struct CountedOpen {
    provider: Provider,
    credential_name: String,
    count: u64,
    newest_at: Timestamp,
}

async fn count_open<D: Dialect>(
    reader: &mut Reader<D>,
    org: OrgId,
    state: ActionState,
    since: Timestamp,
) -> Result<Vec<CountedOpen>, StoreError> {
    const DOING: &str = "count actions that have not gone out";
    let count = match state {
        ActionState::Waiting => COUNT_OPEN_WAITING,
        _ => COUNT_OPEN_SETTLED,
    };
    let all = Statement::new(DOING, count)
        .id(org)
        .text(state.as_str())
        .time(since)
        .number(OPEN_ACTIONS_COUNTED_MAX)
        .all(reader, |row| {
            let row = row.table("actions");
            // A provider that only a newer release knows has no integration here.
            let Some(provider) = row.known_opt("provider")? else {
                return Ok(None);
            };
            Ok(Some(CountedOpen {
                provider,
                credential_name: row.string("credential_name")?,
                count: row.number("count")?,
                newest_at: row.time("updated_at")?,
            }))
        })
        .await?;
    Ok(all.into_iter().flatten().collect())
}

async fn last_problem<D: Dialect>(
    reader: &mut Reader<D>,
    org: OrgId,
    state: ActionState,
    counted: &CountedOpen,
) -> Result<LastProblem, StoreError> {
    const DOING: &str = "read the last of the actions that have not gone out";
    let last = match state {
        ActionState::Waiting => LAST_WAITING,
        _ => LAST_SETTLED,
    };
    Statement::new(DOING, last)
        .id(org)
        .text(state.as_str())
        .text(counted.provider.as_str())
        .text(&counted.credential_name)
        .time(counted.newest_at)
        .one(reader, |row| {
            let row = row.table("actions");
            Ok(LastProblem {
                action: row.id("id")?,
                at: counted.newest_at,
                state,
                cause: row.known_opt("cause")?,
                detail: row.string_opt("detail")?,
            })
        })
        .await
}

#[async_trait]
impl<S: SqlStore> History for S {
    async fn list_events(
        &self,
        org: OrgId,
        filter: EventFilter,
        before: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        const DOING: &str = "list events";
        let page = |sql: &'static str| {
            Statement::new(DOING, sql)
                .id(org)
                .id(before.map_or(Uuid::max(), Uuid::from))
                .number(count_max)
                .text_opt(filter.source.map(Source::as_str))
                .text_opt(filter.event_type.as_deref())
                .id(first_id(filter.period))
                .time(start(filter.period))
                .time(end(filter.period))
        };
        let list = match filter.subject.as_deref() {
            Some(subject) => page(LIST_EVENTS_OF_SUBJECT).text(subject),
            None => page(LIST_EVENTS),
        };
        let mut reader = self.read(org).await?;
        list.all(&mut reader, event).await
    }

    async fn find_event(&self, org: OrgId, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("find the event", FIND_EVENT)
            .id(org)
            .id(id)
            .optional(&mut reader, event)
            .await
    }

    async fn list_actions(
        &self,
        org: OrgId,
        filter: ActionFilter,
        before: Option<ActionId>,
        count_max: u32,
    ) -> Result<Vec<StoredAction>, StoreError> {
        use ActionState::{Cancelled, Dead, Parked, Pending, Running, Succeeded, Suppressed, Unknown, Waiting};
        const DOING: &str = "list actions";
        let page = |sql: Sql| {
            Statement::new(DOING, sql)
                .id(org)
                .id(before.map_or(Uuid::max(), Uuid::from))
                .number(count_max)
                .text_opt(filter.state.map(ActionState::as_str))
                .text_opt(filter.provider.map(Provider::as_str))
                .id(first_id(filter.period))
                .time(start(filter.period))
                .time(end(filter.period))
                .text_opt(filter.cause.map(Cause::as_str))
                .id_opt(filter.rule)
        };
        let list = match (filter.event, filter.state) {
            (Some(event), _) => page(LIST_ACTIONS_OF_EVENT).id(event),
            (None, Some(Unknown | Parked | Suppressed | Cancelled | Dead)) => page(LIST_ACTIONS_SETTLED),
            (None, Some(Pending | Waiting)) => page(LIST_ACTIONS_CLAIMABLE),
            (None, Some(Running)) => page(LIST_ACTIONS_RUNNING),
            (None, None | Some(Succeeded)) => page(LIST_ACTIONS),
        };
        let mut reader = self.read(org).await?;
        list.all(&mut reader, action).await
    }

    async fn find_action(&self, org: OrgId, id: ActionId) -> Result<Option<StoredAction>, StoreError> {
        let mut reader = self.read(org).await?;
        Statement::new("find the action", FIND_ACTION)
            .id(org)
            .id(id)
            .optional(&mut reader, action)
            .await
    }

    async fn list_attempts(&self, org: OrgId, id: ActionId) -> Result<Vec<StoredAttempt>, StoreError> {
        let mut reader = self.read(org).await?;
        let mut attempts = Statement::new("list attempts", LIST_ATTEMPTS)
            .id(org)
            .id(id)
            .number(ATTEMPTS_LISTED_MAX)
            .all(&mut reader, attempt)
            .await?;
        attempts.reverse();
        Ok(attempts)
    }

    async fn list_open_actions(&self, org: OrgId, dead_since: Timestamp) -> Result<Vec<OpenActions>, StoreError> {
        use ActionState::{Dead, Parked, Unknown, Waiting};
        let mut reader = self.read_moment(org).await?;
        let mut all: BTreeMap<(Provider, String), OpenActions> = BTreeMap::new();
        for state in [Parked, Waiting, Unknown, Dead] {
            let since = if state == Dead {
                dead_since
            } else {
                start(Period::default())
            };
            for counted in count_open(&mut reader, org, state, since).await? {
                let newest = last_problem(&mut reader, org, state, &counted).await?;
                let open = all
                    .entry((counted.provider, counted.credential_name))
                    .or_insert_with_key(|(provider, name)| OpenActions {
                        provider: *provider,
                        credential_name: name.clone(),
                        parked: 0,
                        waiting: 0,
                        unknown: 0,
                        dead: 0,
                        last_problem: newest.clone(),
                    });
                match state {
                    Parked => open.parked = counted.count,
                    Waiting => open.waiting = counted.count,
                    Unknown => open.unknown = counted.count,
                    _ => open.dead = counted.count,
                }
                if newest.at > open.last_problem.at {
                    open.last_problem = newest;
                }
            }
        }
        reader.end("count actions that have not gone out").await?;
        Ok(all.into_values().collect())
    }

    async fn ledger_state(&self) -> Result<LedgerState, StoreError> {
        const DOING: &str = "read the ledger's state";
        let mut state = LedgerState::default();
        let mut reader = self.read(Access::ALL_ORGS).await?;
        Statement::new(DOING, COUNT_STATES)
            .number(LEDGER_COUNT_MAX)
            .each(&mut reader, |row| {
                let row = row.table("actions");
                let count = row.number("count")?;
                match row.parse("state")? {
                    ActionState::Parked => state.parked = count,
                    ActionState::Unknown => state.unknown = count,
                    ActionState::Dead => state.dead = count,
                    _ => {}
                }
                Ok(())
            })
            .await?;
        state.oldest_due_at = Statement::new(DOING, OLDEST_DUE)
            .readable(&mut reader, |row| {
                let row = row.table("actions");
                Ok((row.parse("provider")?, row.time("due_at")?))
            })
            .await?;
        state.oldest_unknown_at = Statement::new(DOING, OLDEST_UNKNOWN)
            .one(&mut reader, |row| row.table("actions").time_opt("first_sent_at"))
            .await?;
        state.held = Statement::new(DOING, COUNT_HELD)
            .number(LEDGER_COUNT_MAX)
            .all(&mut reader, |row| {
                let row = row.table("held_events");
                Ok((row.parse("cause")?, row.number("count")?))
            })
            .await?;
        state.oldest_held_at = Statement::new(DOING, OLDEST_HELD)
            .one(&mut reader, |row| row.table("held_events").time_opt("received_at"))
            .await?;
        state.dead_events = Statement::new(DOING, COUNT_DEAD_EVENTS)
            .number(LEDGER_COUNT_MAX)
            .id(Uuid::nil())
            .one(&mut reader, |row| row.table("dead_events").number("count"))
            .await?;
        Ok(state)
    }
}
