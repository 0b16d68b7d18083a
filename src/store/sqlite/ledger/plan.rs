//! Plans: dedupe keys, events, idempotency keys, actions and turns, in one transaction.

use super::{add_turns, cut, failed, hex, text};
use crate::{
    domain::{ActionState, Cause, OrgId, Timestamp},
    killpoint::{Step, reach},
    store::{
        StoreError,
        ledger::{Planned, PlannedAction, PlannedEvent},
    },
};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::{Row, SqliteConnection};
use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

type Hash = [u8; 16];

/// Returns what was not there yet. `$0` organisation, `$1` hash; both in hex.
const MARK_EVENTS: &str = "INSERT INTO dedupe_keys (org_id, hash, created_at) SELECT unhex(value ->> 0), unhex(value \
    ->> 1), ?2 FROM json_each(?1) WHERE true \
    ON CONFLICT (org_id, hash) DO NOTHING RETURNING org_id, hash";
const MARK_ACTIONS: &str = "INSERT INTO idempotency_keys (org_id, hash, created_at) SELECT unhex(value ->> 0), \
    unhex(value ->> 1), ?2 FROM json_each(?1) \
    WHERE true ON CONFLICT (org_id, hash) DO NOTHING RETURNING org_id, hash";

/// Rows of an INSERT: few sizes, so that few statements are prepared.
const CHUNKS: [usize; 3] = [32, 8, 1];

static INSERT_EVENTS: LazyLock<[String; 3]> = LazyLock::new(|| {
    // A replay comes with the event that is there already.
    inserts(
        "events (id, org_id, source, event_type, subject, endpoint_id, time, received_at, content_type, path, query, \
        headers, traceparent, hops, body_sealed, body_bytes)",
        16,
        "ON CONFLICT (id) DO NOTHING",
    )
});

static INSERT_ACTIONS: LazyLock<[String; 3]> = LazyLock::new(|| {
    inserts(
        "actions (id, org_id, event_id, rule_id, rule_name, kind, provider, credential_name, state, cause, detail, \
        request_sealed, idempotency_key, series, \
         due_at, expires_at, hops, created_at, updated_at)",
        19,
        "",
    )
});

fn inserts(into: &str, columns: usize, end: &str) -> [String; 3] {
    let row = format!("({})", vec!["?"; columns].join(", "));
    CHUNKS.map(|count| {
        format!(
            "INSERT INTO {into} VALUES {} {end}",
            vec![row.as_str(); count].join(", ")
        )
    })
}

/// Cuts rows into the sizes that there are statements for.
fn chunks<'a, T>(rows: &'a [T], statements: &'static [String; 3]) -> impl Iterator<Item = (&'static str, &'a [T])> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let at = CHUNKS.iter().position(|&size| size <= rest.len())?;
        let (chunk, after) = rest.split_at(CHUNKS[at]);
        rest = after;
        Some((statements[at].as_str(), chunk))
    })
}

pub(super) async fn plan(
    connection: &mut SqliteConnection,
    events: Arc<[PlannedEvent]>,
    now: Timestamp,
) -> Result<Vec<Planned>, StoreError> {
    let hashes: Vec<(OrgId, Hash)> = events.iter().map(|event| (event.org, dedupe_hash(event))).collect();
    let mut fresh = mark(connection, MARK_EVENTS, &hashes, now).await?;
    // The first of equal ones in a batch is the new one.
    let planned: Vec<Planned> = hashes
        .iter()
        .map(|key| {
            if fresh.remove(key) {
                Planned::New
            } else {
                Planned::Duplicate
            }
        })
        .collect();
    let new: Vec<(&PlannedEvent, Hash)> = events
        .iter()
        .zip(&hashes)
        .zip(&planned)
        .filter(|(_, planned)| **planned == Planned::New)
        .map(|((event, key), _)| (event, key.1))
        .collect();

    for (statement, chunk) in chunks(&new, &INSERT_EVENTS) {
        insert_events(connection, statement, chunk).await?;
    }

    let keys: Vec<(OrgId, Hash)> = new
        .iter()
        .flat_map(|(event, hash)| {
            event
                .actions
                .iter()
                .map(|action| (event.org, idempotency_hash(hash, action)))
        })
        .collect();
    let mut fresh = mark(connection, MARK_ACTIONS, &keys, now).await?;
    let actions: Vec<(&PlannedEvent, &PlannedAction, Hash)> = new
        .iter()
        .flat_map(|(event, _)| event.actions.iter().map(move |action| (*event, action)))
        .zip(&keys)
        .filter(|(_, key)| fresh.remove(key))
        .map(|((event, action), key)| (event, action, key.1))
        .collect();
    for (statement, chunk) in chunks(&actions, &INSERT_ACTIONS) {
        insert_actions(connection, statement, chunk, now).await?;
    }
    add_turns(
        connection,
        actions
            .iter()
            .filter(|(_, action, _)| action.state == ActionState::Pending)
            .map(|(event, action, _)| (event.org, action.kind.provider(), now)),
    )
    .await?;
    reach(Step::PlanWritten);
    Ok(planned)
}

async fn mark(
    connection: &mut SqliteConnection,
    statement: &'static str,
    keys: &[(OrgId, Hash)],
    now: Timestamp,
) -> Result<HashSet<(OrgId, Hash)>, StoreError> {
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let mut sorted: Vec<&(OrgId, Hash)> = keys.iter().collect();
    sorted.sort_unstable();
    let list = sorted
        .into_iter()
        .map(|(org, hash)| json!([hex(org.as_bytes()), hex(hash)]))
        .collect();
    let rows = sqlx::query(statement)
        .bind(text(list))
        .bind(now.as_micros())
        .fetch_all(connection)
        .await
        .map_err(failed("mark keys"))?;
    rows.iter()
        .map(|row| {
            let org = OrgId::from_slice(row.get(0)).map_err(|_| StoreError::Corrupt {
                table: "dedupe_keys",
                column: "org_id",
            })?;
            let hash = Hash::try_from(row.get::<&[u8], _>(1)).map_err(|_| StoreError::Corrupt {
                table: "dedupe_keys",
                column: "hash",
            })?;
            Ok((org, hash))
        })
        .collect()
}

async fn insert_events(
    connection: &mut SqliteConnection,
    statement: &'static str,
    chunk: &[(&PlannedEvent, Hash)],
) -> Result<(), StoreError> {
    let mut query = sqlx::query(statement);
    for (event, _) in chunk {
        let envelope = &event.envelope;
        let headers: Vec<(&str, &str)> = envelope
            .headers
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
            .collect();
        query = query
            .bind(envelope.id.as_bytes().as_slice())
            .bind(event.org.as_bytes().as_slice())
            .bind(envelope.source.as_str())
            .bind(envelope.event_type.as_str())
            .bind(envelope.subject.0.as_ref())
            .bind(
                envelope
                    .endpoint
                    .as_ref()
                    .map(|endpoint| endpoint.as_bytes().as_slice()),
            )
            .bind(envelope.time.as_micros())
            .bind(envelope.received_at.as_micros())
            .bind(envelope.content_type.as_ref())
            .bind(envelope.path.as_ref())
            .bind(envelope.query.as_ref())
            .bind(json!(headers).to_string())
            .bind(envelope.traceparent.as_deref())
            .bind(i64::from(envelope.hops))
            .bind(event.body.0.as_ref())
            .bind(i64::try_from(envelope.body.len()).unwrap_or(i64::MAX));
    }
    query
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("insert events"))
}

async fn insert_actions(
    connection: &mut SqliteConnection,
    statement: &'static str,
    chunk: &[(&PlannedEvent, &PlannedAction, Hash)],
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut query = sqlx::query(statement);
    for (event, action, hash) in chunk {
        query = query
            .bind(action.id.as_bytes().as_slice())
            .bind(event.org.as_bytes().as_slice())
            .bind(event.envelope.id.as_bytes().as_slice())
            .bind(action.rule.as_bytes().as_slice())
            .bind(action.rule_name.as_str())
            .bind(action.kind.as_str())
            .bind(action.kind.provider().as_str())
            .bind(action.credential_name.as_str())
            .bind(action.state.as_str())
            .bind(action.cause.map(Cause::as_str))
            .bind(action.detail.as_deref().map(cut))
            .bind(action.request.as_ref().map(|request| request.0.as_ref()))
            .bind(format!("{}:{}", event.org, hex(hash)))
            .bind(i64::from(event.series))
            .bind(now.as_micros())
            .bind(action.expires_at.as_micros())
            .bind(i64::from(event.envelope.hops))
            .bind(now.as_micros())
            .bind(now.as_micros());
    }
    query
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("insert actions"))
}

/// Unique together with the organisation (invariant 20): source, endpoint or none, and the source's
/// own key; a replay's series makes it another one.
fn dedupe_hash(event: &PlannedEvent) -> Hash {
    let mut hash = Sha256::new();
    hash.update(event.envelope.source.as_str().as_bytes());
    hash.update([0]);
    hash.update(
        event
            .envelope
            .endpoint
            .as_ref()
            .map_or([0; 16], |endpoint| *endpoint.as_bytes()),
    );
    hash.update(event.envelope.dedupe_key.0);
    hash.update(event.series.to_be_bytes());
    first_half(&hash.finalize())
}

/// Keyed by the event's hash and the rule, so that a replayed plan meets its own actions.
fn idempotency_hash(dedupe: &Hash, action: &PlannedAction) -> Hash {
    let mut hash = Sha256::new();
    hash.update(dedupe);
    hash.update(action.rule.as_bytes());
    first_half(&hash.finalize())
}

fn first_half(digest: &[u8]) -> Hash {
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

/// For the tests: every statement of this file.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    let made = INSERT_EVENTS.iter().chain(INSERT_ACTIONS.iter()).map(String::as_str);
    [MARK_EVENTS, MARK_ACTIONS].into_iter().chain(made).collect()
}
