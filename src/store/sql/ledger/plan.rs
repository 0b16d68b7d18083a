//! Plans: dedupe keys, events, idempotency keys, actions and turns, in one transaction.

use super::{Key, KeysOf, LedgerSql, cut};
use crate::{
    domain::{ActionId, ActionState, Cause, EventId, OrgId, Provider, RuleId, Timestamp},
    killpoint::{Step, reach},
    store::{
        StoreError,
        ledger::{Occasion, Planned, PlannedAction, PlannedEvent},
        sql::{Dialect, Row, Sql, Statement, Transaction},
    },
};
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, LazyLock},
};

type Hash = [u8; 16];

/// Rows of an INSERT. The sizes are few, so that few statements are prepared.
const CHUNKS: [usize; 3] = [32, 8, 1];

/// One INSERT of many rows, for each size and each database.
struct Inserts([(String, String); 3]);

static INSERT_EVENTS: LazyLock<Inserts> = LazyLock::new(|| {
    // A replay comes with the event that is there already.
    Inserts::of(
        "events (id, org_id, source, event_type, subject, endpoint_id, time, received_at, content_type, path, query,
            headers, traceparent, hops, body_sealed, body_bytes, secret_id)",
        17,
        "ON CONFLICT (id) DO NOTHING",
    )
});

static INSERT_ACTIONS: LazyLock<Inserts> = LazyLock::new(|| {
    Inserts::of(
        "actions (id, org_id, event_id, rule_id, rule_name, kind, provider, credential_name, state, cause, detail,
            request_sealed, idempotency_key, series, due_at, expires_at, hops, created_at, updated_at)",
        19,
        "",
    )
});

/// An action that may have gone out before it was planned counts as sent from the receipt on.
const MAY_BE_SENT: &str = "
    UPDATE actions
    SET first_sent_at = $3
    WHERE org_id = $1 AND id = $2 AND state = 'unknown'";

/// Rules whose action for this event has done its work, or may still do it.
const LIST_SERVED_RULES: &str = "
    SELECT rule_id
    FROM actions
    WHERE org_id = $1 AND event_id = $2 AND state NOT IN ('dead', 'cancelled', 'suppressed')";

impl Inserts {
    fn of(into: &str, columns: usize, end: &str) -> Self {
        // SQLite looks each numbered placeholder up in a list, which costs the square of their
        // number. Postgres knows numbered placeholders only.
        let text = |count: usize, placeholder: &dyn Fn(usize) -> String| {
            let row = |row: usize| {
                let values: Vec<String> = (1..=columns).map(|n| placeholder(row * columns + n)).collect();
                format!("({})", values.join(", "))
            };
            let rows: Vec<String> = (0..count).map(row).collect();
            format!("INSERT INTO {into} VALUES {} {end}", rows.join(", "))
        };
        Self(CHUNKS.map(|count| (text(count, &|_| "?".to_owned()), text(count, &|n| format!("${n}")))))
    }

    fn text(&'static self, at: usize) -> Sql {
        let (sqlite, postgres) = &self.0[at];
        Sql { sqlite, postgres }
    }

    /// Cuts rows into the sizes that there are statements for.
    fn chunks<'r, T>(&'static self, rows: &'r [T]) -> impl Iterator<Item = (Sql, &'r [T])> {
        let mut rest = rows;
        std::iter::from_fn(move || {
            let at = CHUNKS.iter().position(|&size| size <= rest.len())?;
            let (chunk, after) = rest.split_at(CHUNKS[at]);
            rest = after;
            Some((self.text(at), chunk))
        })
    }
}

/// How each database writes many keys and turns at once.
pub trait PlanSql: Dialect {
    /// Writes sorted keys and returns `org_id` and `hash` of the new ones.
    fn mark(
        on: &mut Self::Connection,
        keys_of: KeysOf,
        sorted: Vec<Key>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Vec<Self::Row>, StoreError>>;

    /// Adds to how many actions organisations have planned on a day. They come sorted, one for an
    /// organisation.
    fn add_used(on: &mut Self::Connection, day: i64, used: Vec<(OrgId, u64)>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Brings turns forward to the time at which an action becomes due. They come sorted, one for
    /// each organisation and provider.
    fn add_turns(
        on: &mut Self::Connection,
        due: Vec<(OrgId, Provider, Timestamp)>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;
}

pub async fn plan<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    events: Arc<[PlannedEvent]>,
) -> Result<Vec<Planned>, StoreError> {
    let hashes: Vec<Key> = events.iter().map(|event| (event.org, dedupe_hash(event))).collect();
    let mut fresh = mark(tx, KeysOf::Events, &hashes).await?;
    // Of equal keys in a batch the first one is new.
    let is_new: Vec<bool> = hashes.iter().map(|key| fresh.remove(key)).collect();
    let chosen = |is_chosen: fn(&PlannedEvent, bool) -> bool| -> Vec<(&PlannedEvent, Hash)> {
        events
            .iter()
            .zip(&hashes)
            .zip(&is_new)
            .filter(|((event, _), is_new)| is_chosen(event, **is_new))
            .map(|((event, key), _)| (event, key.1))
            .collect()
    };
    let new = chosen(|_, is_new| is_new);
    // Elsewhere the event may be stored already; its actions have keys of their own.
    let acting = chosen(|event, is_new| is_new || event.occasion != Occasion::Receipt);
    for (statement, chunk) in INSERT_EVENTS.chunks(&new) {
        insert_events(tx, statement, chunk).await?;
    }
    let mut written = plan_actions(tx, &acting).await?;
    reach(Step::PlanWritten);
    Ok(events
        .iter()
        .zip(is_new)
        .map(|(event, is_new)| match event.occasion {
            Occasion::Receipt | Occasion::Rest if is_new => Planned::New,
            Occasion::Receipt => Planned::Duplicate,
            Occasion::Rest | Occasion::Replay(_) => Planned::Again {
                actions: written.remove(&event.envelope.id).unwrap_or_default(),
            },
        })
        .collect())
}

/// Writes the new actions of these events, and their turns. Returns those of events that may have
/// been stored before.
async fn plan_actions<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    events: &[(&PlannedEvent, Hash)],
) -> Result<HashMap<EventId, Vec<ActionId>>, StoreError> {
    let served = list_served(tx, events).await?;
    let wanted: Vec<(&PlannedEvent, &PlannedAction, Key)> = events
        .iter()
        .flat_map(|(event, hash)| {
            let key = move |action| (*event, action, (event.org, idempotency_hash(hash, action)));
            event.actions.iter().map(key)
        })
        .filter(|(event, action, _)| !served.contains(&(event.envelope.id, action.rule)))
        .collect();
    let keys: Vec<Key> = wanted.iter().map(|(.., key)| *key).collect();
    let mut fresh = mark(tx, KeysOf::Actions, &keys).await?;
    let actions: Vec<(&PlannedEvent, &PlannedAction, Hash)> = wanted
        .into_iter()
        .filter(|(.., key)| fresh.remove(key))
        .map(|(event, action, key)| (event, action, key.1))
        .collect();
    for (statement, chunk) in INSERT_ACTIONS.chunks(&actions) {
        insert_actions(tx, statement, chunk).await?;
    }
    for (event, action, _) in &actions {
        if action.state == ActionState::Unknown {
            may_be_sent(tx, event, action).await?;
        }
    }
    let due = actions
        .iter()
        .filter(|(_, action, _)| {
            use ActionState::{Pending, Unknown, Waiting};
            matches!(action.state, Pending | Waiting | Unknown)
        })
        .map(|(event, action, _)| (event.org, action.kind.provider(), action.due_at.unwrap_or(tx.now)))
        .collect();
    add_turns(tx, due).await?;
    let mut used = BTreeMap::<OrgId, u64>::new();
    for (event, ..) in &actions {
        *used.entry(event.org).or_default() += 1;
    }
    if !used.is_empty() {
        D::add_used(tx.connection, tx.now.utc_day(), used.into_iter().collect()).await?;
    }
    let mut written = HashMap::<EventId, Vec<ActionId>>::new();
    for (event, action, _) in actions {
        if event.occasion == Occasion::Receipt {
            continue;
        }
        written.entry(event.envelope.id).or_default().push(action.id);
    }
    Ok(written)
}

async fn may_be_sent<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    event: &PlannedEvent,
    action: &PlannedAction,
) -> Result<(), StoreError> {
    Statement::new("plan an action that may have gone out", MAY_BE_SENT)
        .id(event.org)
        .id(action.id)
        .time(event.envelope.received_at)
        .execute(tx)
        .await
        .map(drop)
}

/// Lists the actions that a replay leaves alone, unless it is forced (invariant 4).
async fn list_served<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    events: &[(&PlannedEvent, Hash)],
) -> Result<HashSet<(EventId, RuleId)>, StoreError> {
    let mut served = HashSet::new();
    for (event, _) in events {
        match event.occasion {
            Occasion::Replay(replay) if !replay.is_forced => {}
            _ => continue,
        }
        let id = event.envelope.id;
        Statement::new("read the actions of an event", LIST_SERVED_RULES)
            .id(event.org)
            .id(id)
            .each(tx, |row| {
                served.insert((id, row.table("actions").id("rule_id")?));
                Ok(())
            })
            .await?;
    }
    Ok(served)
}

/// Keys go in sorted, so that two batches with the same keys never deadlock.
async fn mark<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    keys_of: KeysOf,
    keys: &[Key],
) -> Result<HashSet<Key>, StoreError> {
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    let table = match keys_of {
        KeysOf::Events => "dedupe_keys",
        KeysOf::Actions => "idempotency_keys",
    };
    D::mark(tx.connection, keys_of, sorted, tx.now)
        .await?
        .iter()
        .map(|row| {
            let row = Row::<D>::of(row).table(table);
            let hash = row.bytes("hash")?.try_into().map_err(|_| row.corrupt("hash"))?;
            Ok((row.id("org_id")?, hash))
        })
        .collect()
}

/// Most batches concern few organisations. Each gets one turn, its earliest. The turns are sorted,
/// so that two batches never deadlock.
pub(super) async fn add_turns<D: LedgerSql>(
    tx: &mut Transaction<'_, D>,
    mut due: Vec<(OrgId, Provider, Timestamp)>,
) -> Result<(), StoreError> {
    due.sort_unstable();
    due.dedup_by_key(|(org, provider, _)| (*org, *provider));
    if due.is_empty() {
        return Ok(());
    }
    D::add_turns(tx.connection, due).await
}

async fn insert_events<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    statement: Sql,
    chunk: &[(&PlannedEvent, Hash)],
) -> Result<(), StoreError> {
    let mut insert = Statement::new("insert events", statement);
    for (event, _) in chunk {
        let envelope = &event.envelope;
        let headers: Vec<(&str, &str)> = envelope
            .headers
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
            .collect();
        insert = insert
            .id(envelope.id)
            .id(event.org)
            .text(envelope.source.as_str())
            .text(envelope.event_type.as_str())
            .text(&envelope.subject.0)
            .id_opt(envelope.endpoint)
            .time(envelope.time)
            .time(envelope.received_at)
            .text(&envelope.content_type)
            .text(&envelope.path)
            .text(&envelope.query)
            .json(&headers)?
            .text_opt(envelope.traceparent.as_deref())
            .number(envelope.hops)
            .bytes(&event.body.0)
            .count(envelope.body.len() as u64)
            .id_opt(envelope.secret);
    }
    insert.execute(tx).await.map(drop)
}

async fn insert_actions<D: Dialect>(
    tx: &mut Transaction<'_, D>,
    statement: Sql,
    chunk: &[(&PlannedEvent, &PlannedAction, Hash)],
) -> Result<(), StoreError> {
    let mut insert = Statement::new("insert actions", statement);
    for (event, action, hash) in chunk {
        insert = insert
            .id(action.id)
            .id(event.org)
            .id(event.envelope.id)
            .id(action.rule)
            .text(&action.rule_name)
            .text(action.kind.as_str())
            .text(action.kind.provider().as_str())
            .text(&action.credential_name)
            .text(action.state.as_str())
            .text_opt(action.cause.map(Cause::as_str))
            .text_opt(action.detail.as_deref().map(cut).as_deref())
            .bytes_opt(action.request.as_ref().map(|request| request.0.as_ref()))
            .text(&format!("{}:{}", event.org, hex::encode(hash)))
            .number(event.occasion.series())
            .time(action.due_at.unwrap_or(tx.now))
            .time(action.expires_at)
            .number(event.envelope.hops)
            .time(tx.now)
            .time(tx.now);
    }
    insert.execute(tx).await.map(drop)
}

/// Unique together with the organisation (invariant 20): source, endpoint or none, and the source's
/// own key. The series of a replay gives it another hash.
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
    hash.update(event.occasion.series().to_be_bytes());
    first_half(&hash.finalize())
}

/// Made from the event's hash and the rule, so that a repeated plan finds its own actions.
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
pub fn statements() -> impl Iterator<Item = Sql> {
    (0..CHUNKS.len())
        .flat_map(|at| [INSERT_EVENTS.text(at), INSERT_ACTIONS.text(at)])
        .chain([Sql::both(LIST_SERVED_RULES), Sql::both(MAY_BE_SENT)])
}
