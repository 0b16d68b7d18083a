//! `/operator/keys`: which key seals, what stands under each key, which instances hold it, and its
//! rotation step by step. Names of keys only.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::Operator,
            body,
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{KeyId, OrgId},
    store::{
        keys::DataKeyRow,
        rotation::{DataKeyPlace, Instance, KeyUse, PrimaryKey, Promotion, SeenInstance},
    },
    vault::{self, SetAside},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// Data keys that do not open, in one answer.
const SET_ASIDE_SHOWN_MAX: usize = 100;
/// Data keys that one page of the look for those reads.
const LOOK_PAGE: u32 = 1_000;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/operator/keys", get(status))
        .route("/operator/keys/rotate", post(rotate))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct KeysView {
    /// The key that seals, and since when. `null` before an instance has reported.
    primary: Option<String>,
    since: Option<Time>,
    keys: Vec<KeyView>,
    instances: Vec<InstanceView>,
    /// Data keys that do not open here, a hundred at most.
    set_aside: Vec<SetAsideView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct KeyView {
    /// The key's name, never the key.
    key: String,
    is_primary: bool,
    /// Live instances whose ring has it.
    instances: usize,
    /// Data keys that are wrapped with it.
    data_keys: u64,
    /// The most seals that were made with one of these data keys.
    seals_max: u64,
    /// Events that wait or are dead, and are sealed under the key itself.
    events: u64,
    /// Nothing needs it: it can be taken out of every ring.
    may_leave: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct InstanceView {
    id: String,
    name: String,
    roles: String,
    /// The keys of its ring, newest first.
    keys: Vec<String>,
    /// The key that it seals with.
    seals_with: String,
    started_at: Time,
    seen_at: Time,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct SetAsideView {
    org_id: String,
    version: u32,
    /// The key that it is wrapped with.
    key: String,
    problem: String,
}

fn shown(key: &KeyId) -> String {
    key.0.to_string()
}

impl From<SeenInstance> for InstanceView {
    fn from(SeenInstance { instance, seen_at }: SeenInstance) -> Self {
        Self {
            id: instance.id.to_string(),
            name: instance.name,
            roles: instance.roles,
            keys: instance.ring.iter().map(shown).collect(),
            seals_with: shown(&instance.sealing),
            started_at: Time(instance.started_at),
            seen_at: Time(seen_at),
        }
    }
}

impl From<SetAside> for SetAsideView {
    fn from(row: SetAside) -> Self {
        let (org, version) = row.place;
        Self {
            org_id: org.to_string(),
            version,
            key: shown(&row.key),
            problem: row.error.to_string(),
        }
    }
}

/// Every key that something is sealed under, that an instance holds, or that is primary.
fn key_views(primary: Option<&PrimaryKey>, uses: Vec<(KeyId, KeyUse)>, instances: &[Instance]) -> Vec<KeyView> {
    let mut all: BTreeMap<KeyId, KeyUse> = uses.into_iter().collect();
    let known = instances.iter().flat_map(|one| &one.ring);
    for key in known.chain(primary.map(|primary| &primary.key)) {
        all.entry(key.clone()).or_default();
    }
    all.into_iter()
        .map(|(key, used)| {
            let is_primary = primary.is_some_and(|primary| primary.key == key);
            let is_used = used.data_keys > 0 || used.events > 0 || instances.iter().any(|one| one.sealing == key);
            KeyView {
                is_primary,
                instances: instances.iter().filter(|one| one.ring.contains(&key)).count(),
                data_keys: used.data_keys,
                seals_max: used.seals_max,
                events: used.events,
                may_leave: !is_primary && !is_used,
                key: shown(&key),
            }
        })
        .collect()
}

pub async fn status(State(state): Admin, _: Operator) -> Answer<Json<KeysView>> {
    let primary = state.store.load_primary_key().await?;
    let uses = state.store.load_key_uses().await?;
    let seen = state.store.load_instances().await?;
    let instances: Vec<Instance> = seen.iter().map(|seen| seen.instance.clone()).collect();
    Ok(Json(KeysView {
        keys: key_views(primary.as_ref(), uses, &instances),
        instances: seen.into_iter().map(InstanceView::from).collect(),
        set_aside: set_aside(&state).await?,
        since: primary.as_ref().map(|primary| Time(primary.since)),
        primary: primary.map(|primary| shown(&primary.key)),
    }))
}

/// Data keys that do not open with the ring of this instance.
async fn set_aside(state: &AdminState) -> Answer<Vec<SetAsideView>> {
    let (mut found, mut after) = (Vec::new(), None);
    // No key has this name: every data key is listed.
    let none = KeyId("".into());
    loop {
        let rows = state.store.list_data_keys_under_others(&none, after, LOOK_PAGE).await?;
        let is_last = rows.len() < LOOK_PAGE as usize;
        after = rows.last().map(|row| (row.org, row.version));
        found.extend(rows.iter().filter_map(|row| problem_of(state, row)));
        if is_last || found.len() >= SET_ASIDE_SHOWN_MAX {
            found.truncate(SET_ASIDE_SHOWN_MAX);
            return Ok(found);
        }
    }
}

fn problem_of(state: &AdminState, row: &DataKeyRow) -> Option<SetAsideView> {
    let error = state.vault.check(row).err()?;
    Some(SetAsideView {
        org_id: row.org.to_string(),
        version: row.version,
        key: shown(&row.kek),
        problem: error.to_string(),
    })
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// The name of the key that is to seal. Without it the first key of this instance's ring.
    key: Option<String>,
    /// `next` of the step before; without it from the beginning.
    after: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct RotatedView {
    primary: String,
    /// This step made the key primary.
    is_promoted: bool,
    /// Data keys that this step wrapped again.
    rewrapped: u64,
    /// Data keys of this step that do not open. They stay as they are.
    set_aside: Vec<SetAsideView>,
    /// Data keys that are not wrapped with the primary key yet.
    left: u64,
    /// Where the next step goes on; `null` at the end.
    next: Option<String>,
}

/// One step. The first makes the key primary where every live instance holds it; each wraps some
/// data keys. It can be cut off and begun again at any time. Where no next step comes, a process
/// that lives goes on by itself.
pub async fn rotate(
    State(state): Admin,
    Operator(subject): Operator,
    body::Json(request): body::Json<RotateRequest>,
) -> Answer<Json<RotatedView>> {
    let key = wanted_key(&state, request.key)?;
    let after = request.after.as_deref().map(parse_place).transpose()?;
    let audit = state.audit_of_operator(&subject, None, "promote", "key", &key);
    let (is_promoted, lease) = match vault::promote(&*state.store, key.clone(), audit).await? {
        Promotion::Promoted(lease) => (true, lease),
        Promotion::AlreadyPrimary(lease) => (false, lease),
        Promotion::NotEverywhere(without) => return Err(not_everywhere(&key, &without)),
    };
    if is_promoted {
        tracing::warn!(key = %key, operator = %subject, "The key {key} is primary: every instance seals with it");
    }
    state.vault.seal_with(&key);
    let step = state.vault.rotate_step(&*state.store, &lease, after).await?;
    let uses = state.store.load_key_uses().await?;
    let left = uses
        .iter()
        .filter(|(one, _)| *one != key)
        .map(|(_, used)| used.data_keys);
    Ok(Json(RotatedView {
        primary: shown(&key),
        is_promoted,
        rewrapped: step.rewrapped,
        set_aside: step.set_aside.into_iter().map(SetAsideView::from).collect(),
        left: left.sum(),
        next: step.next.map(|(org, version)| format!("{org}:{version}")),
    }))
}

fn wanted_key(state: &AdminState, named: Option<String>) -> Answer<KeyId> {
    let ring = state.vault.key_ids();
    let Some(named) = named else {
        return Ok(ring.into_iter().next().expect("a ring is never empty"));
    };
    ring.into_iter().find(|key| *key.0 == *named).ok_or_else(|| {
        Problem::field(
            Code::InvalidField,
            "key",
            "is in the ring of no admin instance: add the key to HOOKSWITCH_KEYRING of every process first",
        )
    })
}

fn parse_place(text: &str) -> Answer<DataKeyPlace> {
    let parsed = text.split_once(':').and_then(|(org, version)| {
        let org: OrgId = org.parse().ok()?;
        Some((org, version.parse().ok()?))
    });
    parsed.ok_or_else(|| Problem::field(Code::InvalidField, "after", "expected `next` of the step before"))
}

fn not_everywhere(key: &KeyId, without: &[Instance]) -> Problem {
    let names: Vec<&str> = without.iter().take(20).map(|one| one.name.as_str()).collect();
    Problem::new(Code::KeyNotEverywhere).detail(format!(
        "{} live instances do not hold the key {key}: {}. Add it to their HOOKSWITCH_KEYRING, restart them, and \
         begin again. Nothing was changed.",
        without.len(),
        names.join(", ")
    ))
}
