//! `/api/endpoints`: an organisation's own webhook URLs and their signing secrets.
//!
//! **Invariant:** a secret that we made is shown in the answer that made it, and in no other.

use crate::{
    admin::{
        Admin, AdminState, plans,
        state::Answer,
        web::{
            auth::{Manager, Reader},
            body::{self, Id, check_text},
            etag,
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{Endpoint, EndpointId, EventType, OrgId, Source, TypePattern},
    source::{self, Plan},
    store::{
        audit::{Changes, SecretChange},
        endpoints::{NewSecret, StoredSecret},
    },
};
use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/endpoints", get(list).post(create))
        .route("/api/endpoints/{id}", get(show).patch(patch).delete(delete))
        .route("/api/endpoints/{id}/secrets", post(rotate))
}

const ENDPOINTS_MAX: usize = 200;
const NAME_CHARS_MAX: usize = 100;
const IGNORED_TYPES_MAX: usize = 50;
const OVERLAP_SECONDS_DEFAULT: u32 = 24 * 3600;
const OVERLAP_SECONDS_MAX: u32 = 30 * 24 * 3600;

#[derive(Serialize, utoipa::ToSchema)]
pub struct EndpointView {
    id: String,
    source: Source,
    name: String,
    /// The address to enter at the sender; `null` until `HOOKSWITCH_PUBLIC_URL` is set.
    url: Option<String>,
    path: String,
    ignored_types: Vec<String>,
    /// The valid ones, newest first.
    secrets: Vec<SecretView>,
    version: i64,
    etag: String,
    created_at: Time,
}

impl EndpointView {
    fn new(state: &AdminState, row: Endpoint, secrets: Vec<StoredSecret>) -> Self {
        let path = format!("/webhooks/{}/{}", row.source, row.id);
        Self {
            etag: tag(state, &row),
            id: row.id.to_string(),
            source: row.source,
            name: row.name,
            url: state.public_url.as_ref().map(|base| format!("{base}{path}")),
            path,
            ignored_types: row.ignored_types,
            secrets: secrets.into_iter().map(SecretView::from).collect(),
            version: row.version,
            created_at: Time(row.created_at),
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct SecretView {
    id: String,
    plan: Value,
    last_four: Option<String>,
    /// The end of its validity, once another secret has taken its place.
    not_after: Option<Time>,
    /// When it verified a webhook last, to the minute. One that has ended its use can be retired.
    last_used_at: Option<Time>,
    created_at: Time,
}

impl From<StoredSecret> for SecretView {
    fn from(row: StoredSecret) -> Self {
        Self {
            id: row.id.to_string(),
            plan: serde_json::from_str(&row.plan).unwrap_or(Value::Null),
            last_four: row.last_four,
            not_after: row.not_after.map(Time),
            last_used_at: row.last_used_at.map(Time),
            created_at: Time(row.created_at),
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct EndpointDetail {
    #[serde(flatten)]
    endpoint: EndpointView,
    /// The secret that was made for this request, for the only time.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

fn tag(state: &AdminState, row: &Endpoint) -> String {
    etag::tag(&state.vault, row.org, "endpoint", row.id, row.version)
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<EndpointView>>> {
    let mut params = Params::of(&uri)?;
    let page = Page::<EndpointId>::take(&mut params, &state.vault, Some(member.org), "endpoints", String::new())?;
    params.finish()?;
    let rows = state.store.list_endpoints(member.org, page.after, page.count()).await?;
    let mut secrets: HashMap<EndpointId, Vec<StoredSecret>> = HashMap::new();
    for secret in state.store.list_endpoint_secrets(member.org).await? {
        if let Some(endpoint) = secret.endpoint {
            secrets.entry(endpoint).or_default().push(secret);
        }
    }
    let view = |row: Endpoint| {
        let own = secrets.remove(&row.id).unwrap_or_default();
        EndpointView::new(&state, row, own)
    };
    Ok(Json(page.answer(&state.vault, rows, |row| row.id, view)))
}

pub async fn show(State(state): Admin, Reader(member): Reader, Id(id): Id<EndpointId>) -> Answer<impl IntoResponse> {
    detail(&state, member.org, id, None).await
}

async fn detail(
    state: &AdminState,
    org: OrgId,
    id: EndpointId,
    secret: Option<String>,
) -> Answer<impl IntoResponse + use<>> {
    let row = state.store.find_endpoint(org, id).await?.ok_or(Problem::not_found())?;
    let secrets = state.store.list_secrets(org, row.source, Some(id)).await?;
    let view = EndpointDetail {
        endpoint: EndpointView::new(state, row, secrets),
        secret,
    };
    Ok(etag::tagged(view, |view| &view.endpoint.etag))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEndpoint {
    source: Source,
    name: String,
    #[schema(value_type = Option<String>)]
    secret: Option<SecretString>,
    plan: Option<Value>,
    #[serde(default)]
    ignored_types: Vec<String>,
}

pub async fn create(
    State(state): Admin,
    Manager(member): Manager,
    body::Json(mut new): body::Json<NewEndpoint>,
) -> Answer<impl IntoResponse> {
    new.ignored_types = canonical(new.source, new.ignored_types);
    check_text("name", &new.name, NAME_CHARS_MAX)?;
    check_ignored(new.source, &new.ignored_types)?;
    let plans = plans::read(new.source, new.plan)?;
    let count_max = u32::try_from(ENDPOINTS_MAX).unwrap_or(u32::MAX);
    if state.store.list_endpoints(member.org, None, count_max).await?.len() >= ENDPOINTS_MAX {
        return Err(Problem::new(Code::LimitReached).detail(format!(
            "An organisation has {ENDPOINTS_MAX} endpoints at most; delete one first."
        )));
    }
    let id = EndpointId::generate();
    let (given, made) = match (new.secret, new.source) {
        (Some(secret), _) => (Some(secret), None),
        // Twilio signs with secrets of its own: without one here, the organisation's auth token
        // verifies.
        (None, Source::Twilio) => (None, None),
        (None, _) => {
            let made = make_secret()?;
            (Some(SecretString::from(made.clone())), Some(made))
        }
    };
    if given.is_some() {
        plans::check_room(&state, member.org, new.source, plans.len()).await?;
    }
    let secrets = match &given {
        Some(secret) => seal_all(&state, member.org, id, new.source, &plans, secret).await?,
        None => Vec::new(),
    };
    let row = Endpoint {
        id,
        org: member.org,
        source: new.source,
        name: new.name,
        is_active: true,
        ignored_types: new.ignored_types,
        version: 1,
        created_at: state.now(),
    };
    let changes = changed(None, Some(&row)).secret("secret", SecretChange::between(false, given.is_some()));
    let audit = state.audit(&member, "create", "endpoint", id, changes);
    state.store.create_endpoint(row, secrets, audit).await?;
    let location = HeaderValue::from_str(&format!("/api/endpoints/{id}")).expect("an id is visible ASCII");
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        detail(&state, member.org, id, made).await?,
    ))
}

/// The endpoint that a request changes, where its `If-Match` allows that.
async fn find_current(state: &AdminState, org: OrgId, id: EndpointId, headers: &HeaderMap) -> Answer<Endpoint> {
    let row = state.store.find_endpoint(org, id).await?.ok_or(Problem::not_found())?;
    etag::check(headers, &tag(state, &row))?;
    Ok(row)
}

/// The fields of an endpoint that can be changed. Its source and its id stand in the URL that the
/// sender has.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointChanges {
    name: Option<String>,
    ignored_types: Option<Vec<String>>,
}

/// Changes the fields that the body names.
pub async fn patch(
    State(state): Admin,
    Manager(member): Manager,
    Id(id): Id<EndpointId>,
    headers: HeaderMap,
    body::Json(changes): body::Json<EndpointChanges>,
) -> Answer<impl IntoResponse> {
    let mut row = find_current(&state, member.org, id, &headers).await?;
    let before = row.clone();
    let is_change = changes.name.is_some() || changes.ignored_types.is_some();
    if let Some(name) = changes.name {
        check_text("name", &name, NAME_CHARS_MAX)?;
        row.name = name;
    }
    if let Some(kinds) = changes.ignored_types {
        row.ignored_types = canonical(row.source, kinds);
        check_ignored(row.source, &row.ignored_types)?;
    }
    let audit = state.audit(&member, "update", "endpoint", id, changed(Some(&before), Some(&row)));
    if is_change && !state.store.update_endpoint(row, audit).await? {
        return Err(etag::stale());
    }
    detail(&state, member.org, id, None).await
}

/// The fields of an endpoint that differ.
fn changed(before: Option<&Endpoint>, after: Option<&Endpoint>) -> Changes {
    let value =
        |changes: Changes, field: &str, of: fn(&Endpoint) -> Value| changes.value(field, before.map(of), after.map(of));
    let changes = value(Changes::default(), "source", |row| json!(row.source));
    let changes = value(changes, "name", |row| json!(row.name));
    value(changes, "ignored_types", |row| json!(row.ignored_types))
}

/// The types in the form in which they are stored and shown.
fn canonical(source: Source, kinds: Vec<String>) -> Vec<String> {
    let short = |kind: String| TypePattern(kind.into()).canonical(source).0.into();
    kinds.into_iter().map(short).collect()
}

pub async fn delete(
    State(state): Admin,
    Manager(member): Manager,
    Id(id): Id<EndpointId>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let row = find_current(&state, member.org, id, &headers).await?;
    let changes = changed(Some(&row), None).secret("secret", Some(SecretChange::Cleared));
    let audit = state.audit(&member, "delete", "endpoint", id, changes);
    if state
        .store
        .delete_endpoint(member.org, id, Some(row.version), audit)
        .await?
    {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(etag::stale())
    }
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    #[schema(value_type = Option<String>)]
    secret: Option<SecretString>,
    /// The plan of the newest secret where it is not given.
    plan: Option<Value>,
    /// How long the former secrets stay valid. Default a day.
    overlap_seconds: Option<u32>,
}

pub async fn rotate(
    State(state): Admin,
    Manager(member): Manager,
    Id(id): Id<EndpointId>,
    headers: HeaderMap,
    body::OptionalJson(request): body::OptionalJson<Rotation>,
) -> Answer<impl IntoResponse> {
    let row = find_current(&state, member.org, id, &headers).await?;
    let overlap = request.overlap_seconds.unwrap_or(OVERLAP_SECONDS_DEFAULT);
    if overlap > OVERLAP_SECONDS_MAX {
        return Err(Problem::field(
            Code::InvalidField,
            "overlap_seconds",
            format!("expected 0 to {OVERLAP_SECONDS_MAX}"),
        ));
    }
    let plans = match request.plan {
        Some(plan) => plans::read(row.source, Some(plan))?,
        None => current_plans(&state, member.org, &row).await?,
    };
    let (secret, made) = match (request.secret, row.source) {
        (Some(secret), _) => (secret, None),
        (None, Source::Twilio) => {
            return Err(Problem::field(
                Code::InvalidField,
                "secret",
                "is required: Twilio signs with a secret of its own",
            ));
        }
        (None, _) => {
            let made = make_secret()?;
            (SecretString::from(made.clone()), Some(made))
        }
    };
    plans::check_room(&state, member.org, row.source, plans.len()).await?;
    let others_not_after = state.now() + Duration::from_secs(overlap.into());
    let sealed = seal_all(&state, member.org, id, row.source, &plans, &secret).await?;
    let former = state.store.list_secrets(member.org, row.source, Some(id)).await?;
    let changes = Changes::default()
        .secret("secret", SecretChange::between(!former.is_empty(), true))
        .value("former_secrets_end_at", (), Time(others_not_after));
    let audit = state.audit(&member, "rotate", "secret", id, changes);
    if !state
        .store
        .add_secrets(sealed, Some(row.version), Some(others_not_after), audit)
        .await?
    {
        return Err(etag::stale());
    }
    Ok((StatusCode::CREATED, detail(&state, member.org, id, made).await?))
}

/// The plans of the endpoint's secrets without an end, or the default plans of its source.
async fn current_plans(state: &AdminState, org: OrgId, row: &Endpoint) -> Answer<Vec<Plan>> {
    let secrets = state.store.list_secrets(org, row.source, Some(row.id)).await?;
    let mut plans: Vec<Plan> = Vec::new();
    for plan in secrets
        .iter()
        .filter(|secret| secret.not_after.is_none())
        .filter_map(|secret| serde_json::from_str(&secret.plan).ok())
    {
        if !plans.contains(&plan) {
            plans.push(plan);
        }
    }
    if plans.is_empty() {
        plans::read(row.source, None)
    } else {
        Ok(plans)
    }
}

async fn seal_all(
    state: &AdminState,
    org: OrgId,
    id: EndpointId,
    source: Source,
    plans: &[Plan],
    secret: &SecretString,
) -> Answer<Vec<NewSecret>> {
    let mut sealed = Vec::with_capacity(plans.len());
    for plan in plans {
        sealed.push(plans::seal(state, org, Some(id), source, plan, secret).await?);
    }
    Ok(sealed)
}

/// 32 random bytes in hex.
fn make_secret() -> Answer<String> {
    plans::random_bytes().map(hex::encode)
}

fn check_ignored(source: Source, kinds: &[String]) -> Answer<()> {
    let is_kind = |kind: &String| {
        source::kinds(source)
            .iter()
            .any(|known| EventType::new(source, known).kind() == kind.as_str())
    };
    if kinds.len() > IGNORED_TYPES_MAX || !kinds.iter().all(is_kind) {
        return Err(Problem::field(
            Code::InvalidField,
            "ignored_types",
            format!("expected at most {IGNORED_TYPES_MAX} types that this source has, such as speech-update"),
        ));
    }
    Ok(())
}
