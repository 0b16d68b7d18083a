//! Events, actions and attempts in SQLite, read only. Pages go by id, so each costs what it shows.

use super::{SqliteStore, StoreError, failed, rows::Fields};
use crate::{
    domain::{
        ActionId, ActionState, EndpointId, EventId, EventType, OrgId, Provider, RuleId, SealedBytes, Source, Timestamp,
    },
    store::history::*,
};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[
    LIST_EVENTS,
    LIST_EVENTS_OF_SUBJECT,
    FIND_EVENT,
    LIST_ACTIONS,
    LIST_ACTIONS_OF_EVENT,
    LIST_ACTIONS_SETTLED,
    LIST_ACTIONS_CLAIMABLE,
    LIST_ACTIONS_RUNNING,
    FIND_ACTION,
    LIST_ATTEMPTS,
    COUNT_STATES,
    OLDEST_DUE,
    OLDEST_UNKNOWN,
];

macro_rules! event_columns {
    () => {
        "id, org_id, source, event_type, subject, endpoint_id, time, received_at, content_type, path, query, headers, \
        hops, body_sealed, body_bytes, dead_reason"
    };
}
const LIST_EVENTS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM events WHERE org_id = ?1 AND id < ?2 AND (?4 IS NULL OR source = ?4) AND (?5 IS NULL OR event_type = ?5) \
    ORDER BY id DESC LIMIT ?3"
);
const LIST_EVENTS_OF_SUBJECT: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM events WHERE org_id = ?1 AND subject = ?6 AND id < ?2 AND (?4 IS NULL OR source = ?4) AND (?5 IS NULL OR \
    event_type = ?5) \
     ORDER BY id DESC LIMIT ?3"
);
const FIND_EVENT: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM events WHERE org_id = ?1 AND id = ?2"
);

macro_rules! list_actions {
    ($table:literal, $where:literal) => {
        concat!(
            "SELECT id, org_id, event_id, rule_id, rule_name, kind, provider, credential_name, state, cause, detail, \
            http_status, provider_code, \
             request_sealed, series, due_at, expires_at, attempts, look_ups, provider_ref, created_at, updated_at FROM \
             ",
            $table,
            " WHERE org_id = ?1 AND id < ?2 AND (?4 IS NULL OR state = ?4) AND (?5 IS NULL OR provider = ?5) AND ",
            $where,
            " ORDER BY id DESC LIMIT ?3"
        )
    };
}
const LIST_ACTIONS: &str = list_actions!("actions", "?6 IS NULL");
const LIST_ACTIONS_OF_EVENT: &str = list_actions!("actions INDEXED BY actions_event", "event_id = ?6");
// Few rows are in these states, and partial indexes hold them: their own terms have to stand here
// in their words. All other rows would have to be passed over by way of the ids.
const LIST_ACTIONS_SETTLED: &str = list_actions!(
    "actions INDEXED BY actions_state",
    "state = ?4 AND ?6 IS NULL AND state IN ('unknown', 'parked', 'suppressed', 'cancelled', 'dead')"
);
const LIST_ACTIONS_CLAIMABLE: &str = list_actions!(
    "actions INDEXED BY actions_due",
    "?6 IS NULL AND state IN ('pending', 'waiting', 'unknown')"
);
const LIST_ACTIONS_RUNNING: &str =
    list_actions!("actions INDEXED BY actions_leases", "?6 IS NULL AND state = 'running'");
const FIND_ACTION: &str = "SELECT id, org_id, event_id, rule_id, rule_name, kind, provider, credential_name, state, \
    cause, detail, http_status, provider_code, \
    request_sealed, series, due_at, expires_at, attempts, look_ups, provider_ref, created_at, updated_at FROM actions \
    WHERE org_id = ?1 AND id = ?2";

const LIST_ATTEMPTS: &str = "SELECT number, is_look_up, started_at, ended_at, outcome, cause, http_status, \
    provider_code, detail, credential_version \
    FROM attempts WHERE org_id = ?1 AND action_id = ?2 ORDER BY number DESC LIMIT ?3";

// Gauges, over all organisations.
const COUNT_STATES: &str = "SELECT state, count(*) AS count FROM \
    (SELECT state FROM actions INDEXED BY actions_state WHERE state IN ('unknown', 'parked', 'suppressed', \
    'cancelled', 'dead') LIMIT ?1) GROUP BY state";
/// By the rows themselves: a turn's own time may have been moved by a limit or a breaker.
const OLDEST_DUE: &str = "SELECT provider, min(due_at) AS due_at FROM (SELECT t.provider, (SELECT a.due_at FROM \
    actions a \
    WHERE a.org_id = t.org_id AND a.provider = t.provider AND a.state IN ('pending', 'waiting', 'unknown') ORDER BY \
    a.due_at, a.id LIMIT 1) AS due_at \
    FROM turns t) WHERE due_at IS NOT NULL GROUP BY provider ORDER BY provider";
const OLDEST_UNKNOWN: &str =
    "SELECT min(first_sent_at) FROM actions WHERE state = 'unknown' AND first_sent_at IS NOT NULL";

fn event(row: &SqliteRow) -> Result<StoredEvent, StoreError> {
    let row = Fields::of(row, "events");
    Ok(StoredEvent {
        id: row.id("id", EventId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        source: row.parse("source", |text| text.parse().ok())?,
        event_type: EventType::from_stored(row.get("event_type")?),
        subject: row.get("subject")?,
        endpoint: row.id_opt("endpoint_id", EndpointId::from_uuid)?,
        time: row.time("time")?,
        received_at: row.time("received_at")?,
        content_type: row.get("content_type")?,
        path: row.get("path")?,
        query: row.get("query")?,
        headers: row.json("headers")?,
        hops: row.number("hops")?,
        body: row.get::<Option<Box<[u8]>>>("body_sealed")?.map(SealedBytes),
        body_bytes: row.number("body_bytes")?,
        dead_reason: row.get("dead_reason")?,
    })
}

fn action(row: &SqliteRow) -> Result<StoredAction, StoreError> {
    let row = Fields::of(row, "actions");
    Ok(StoredAction {
        id: row.id("id", ActionId::from_uuid)?,
        org: row.id("org_id", OrgId::from_uuid)?,
        event: row.id("event_id", EventId::from_uuid)?,
        rule: row.id("rule_id", RuleId::from_uuid)?,
        rule_name: row.get("rule_name")?,
        kind: row.parse("kind", |text| text.parse().ok())?,
        provider: row.parse("provider", |text| text.parse().ok())?,
        credential_name: row.get("credential_name")?,
        state: row.parse("state", |text| text.parse().ok())?,
        cause: row.parse_opt("cause", |text| text.parse().ok())?,
        detail: row.get("detail")?,
        http_status: row.number_opt("http_status")?,
        provider_code: row.get("provider_code")?,
        request: row.get::<Option<Box<[u8]>>>("request_sealed")?.map(SealedBytes),
        series: row.number("series")?,
        due_at: row.time("due_at")?,
        expires_at: row.time("expires_at")?,
        attempts: row.number("attempts")?,
        look_ups: row.number("look_ups")?,
        provider_ref: row.get("provider_ref")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn attempt(row: &SqliteRow) -> Result<StoredAttempt, StoreError> {
    let row = Fields::of(row, "attempts");
    Ok(StoredAttempt {
        number: row.number("number")?,
        is_look_up: row.get("is_look_up")?,
        started_at: row.time("started_at")?,
        ended_at: row.time_opt("ended_at")?,
        outcome: row.get("outcome")?,
        cause: row.get("cause")?,
        http_status: row.number_opt("http_status")?,
        provider_code: row.get("provider_code")?,
        detail: row.get("detail")?,
        credential_version: row.get("credential_version")?,
    })
}

#[async_trait]
impl History for SqliteStore {
    async fn list_events(
        &self,
        org: OrgId,
        filter: EventFilter,
        before: Option<EventId>,
        count_max: u32,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let before = before.map_or(Uuid::max(), |id| *id.as_uuid());
        let mut query = sqlx::query(if filter.subject.is_some() {
            LIST_EVENTS_OF_SUBJECT
        } else {
            LIST_EVENTS
        })
        .bind(org.as_bytes().as_slice())
        .bind(before.as_bytes().as_slice())
        .bind(count_max)
        .bind(filter.source.map(Source::as_str))
        .bind(filter.event_type.as_deref());
        if let Some(subject) = filter.subject.as_deref() {
            query = query.bind(subject);
        }
        query
            .fetch_all(self.readers())
            .await
            .map_err(failed("list events"))?
            .iter()
            .map(event)
            .collect()
    }

    async fn find_event(&self, org: OrgId, id: EventId) -> Result<Option<StoredEvent>, StoreError> {
        let found = sqlx::query(FIND_EVENT)
            .bind(org.as_bytes().as_slice())
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers());
        found
            .await
            .map_err(failed("find the event"))?
            .as_ref()
            .map(event)
            .transpose()
    }

    async fn list_actions(
        &self,
        org: OrgId,
        filter: ActionFilter,
        before: Option<ActionId>,
        count_max: u32,
    ) -> Result<Vec<StoredAction>, StoreError> {
        use ActionState::{Cancelled, Dead, Parked, Pending, Running, Succeeded, Suppressed, Unknown, Waiting};
        let before = before.map_or(Uuid::max(), |id| *id.as_uuid());
        let statement = match (filter.event, filter.state) {
            (Some(_), _) => LIST_ACTIONS_OF_EVENT,
            (None, Some(Unknown | Parked | Suppressed | Cancelled | Dead)) => LIST_ACTIONS_SETTLED,
            (None, Some(Pending | Waiting)) => LIST_ACTIONS_CLAIMABLE,
            (None, Some(Running)) => LIST_ACTIONS_RUNNING,
            (None, None | Some(Succeeded)) => LIST_ACTIONS,
        };
        sqlx::query(statement)
            .bind(org.as_bytes().as_slice())
            .bind(before.as_bytes().as_slice())
            .bind(count_max)
            .bind(filter.state.map(ActionState::as_str))
            .bind(filter.provider.map(Provider::as_str))
            .bind(filter.event.as_ref().map(|id| id.as_bytes().as_slice()))
            .fetch_all(self.readers())
            .await
            .map_err(failed("list actions"))?
            .iter()
            .map(action)
            .collect()
    }

    async fn find_action(&self, org: OrgId, id: ActionId) -> Result<Option<StoredAction>, StoreError> {
        let found = sqlx::query(FIND_ACTION)
            .bind(org.as_bytes().as_slice())
            .bind(id.as_bytes().as_slice())
            .fetch_optional(self.readers());
        found
            .await
            .map_err(failed("find the action"))?
            .as_ref()
            .map(action)
            .transpose()
    }

    async fn list_attempts(&self, org: OrgId, id: ActionId) -> Result<Vec<StoredAttempt>, StoreError> {
        let rows = sqlx::query(LIST_ATTEMPTS)
            .bind(org.as_bytes().as_slice())
            .bind(id.as_bytes().as_slice())
            .bind(ATTEMPTS_LISTED_MAX);
        rows.fetch_all(self.readers())
            .await
            .map_err(failed("list attempts"))?
            .iter()
            .rev()
            .map(attempt)
            .collect()
    }

    async fn ledger_state(&self) -> Result<LedgerState, StoreError> {
        const DOING: &str = "read the ledger's state";
        let mut state = LedgerState::default();
        for row in &sqlx::query(COUNT_STATES)
            .bind(LEDGER_COUNT_MAX)
            .fetch_all(self.readers())
            .await
            .map_err(failed(DOING))?
        {
            let row = Fields::of(row, "actions");
            let count = row.number("count")?;
            match row.parse("state", |text| text.parse().ok())? {
                ActionState::Parked => state.parked = count,
                ActionState::Unknown => state.unknown = count,
                ActionState::Dead => state.dead = count,
                _ => {}
            }
        }
        for row in &sqlx::query(OLDEST_DUE)
            .fetch_all(self.readers())
            .await
            .map_err(failed(DOING))?
        {
            let row = Fields::of(row, "actions");
            state
                .oldest_due_at
                .push((row.parse("provider", |text| text.parse().ok())?, row.time("due_at")?));
        }
        let oldest: Option<i64> = sqlx::query_scalar(OLDEST_UNKNOWN)
            .fetch_one(self.readers())
            .await
            .map_err(failed(DOING))?;
        state.oldest_unknown_at = oldest.map(Timestamp::from_micros);
        Ok(state)
    }
}
