//! `/api/assistants`: which of Vapi's assistants lead to this organisation. Each is proven by the
//! organisation's own key before it routes (invariant 18).

use crate::{
    admin::{
        Admin, AdminState,
        api::managed_assistants,
        credentials,
        proof::{self, Readable, refused_or_unknown},
        state::Answer,
        usable::Connected,
        web::{
            auth::{Manager, Reader},
            body::{self, Id, check_text},
            etag,
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{AssistantRole, OrgId, Provider, RouteState},
    provider::{Credential, vapi::VapiAssistant},
    store::routes::{AssistantClaim, Displaces, Proof},
};
use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::{HeaderMap, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/api/assistants", get(list).post(create)).route(
        "/api/assistants/{id}",
        get(show).put(managed_assistants::ensure).delete(delete),
    )
}

const NAME_CHARS_MAX: usize = 100;

#[derive(Serialize, utoipa::ToSchema)]
pub struct AssistantView {
    assistant_id: String,
    role: Option<AssistantRole>,
    name: Option<String>,
    state: RouteState,
    /// Whether its webhooks can be taken now, and why not.
    usable: bool,
    reason: Option<String>,
    proof: Option<&'static str>,
    proven_at: Option<Time>,
    /// `platform`: the platform's own account signs for it. Only an operator sets that.
    managed_by: Option<&'static str>,
    version: i64,
    etag: String,
    created_at: Time,
}

impl AssistantView {
    fn new(state: &AdminState, connected: &Connected, row: AssistantClaim) -> Self {
        let reason = connected.reason(Provider::Vapi).filter(|_| !row.is_platform_managed);
        Self {
            usable: reason.is_none() && row.state == RouteState::Live,
            reason,
            etag: tag(state, &row),
            assistant_id: row.assistant_id,
            role: row.role,
            name: row.name,
            state: row.state,
            proof: row.proof.map(Proof::as_str),
            proven_at: row.proven_at.map(Time),
            managed_by: row.is_platform_managed.then_some("platform"),
            version: row.version,
            created_at: Time(row.created_at),
        }
    }
}

fn tag(state: &AdminState, row: &AssistantClaim) -> String {
    etag::tag(&state.vault, row.org, "assistant", &row.assistant_id, row.version)
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<AssistantView>>> {
    let mut params = Params::of(&uri)?;
    let page = Page::<String>::take(&mut params, &state.vault, Some(member.org), "assistants", String::new())?;
    params.finish()?;
    let connected = Connected::load(&state, member.org).await?;
    let rows = state
        .store
        .list_assistants(member.org, page.after.as_deref(), page.count())
        .await?;
    Ok(Json(page.answer(
        &state.vault,
        rows,
        |row| row.assistant_id.clone(),
        |row| AssistantView::new(&state, &connected, row),
    )))
}

pub async fn show(State(state): Admin, Reader(member): Reader, Id(id): Id<String>) -> Answer<impl IntoResponse> {
    let row = state
        .store
        .find_assistant(member.org, &id)
        .await?
        .ok_or(Problem::not_found())?;
    let connected = Connected::load(&state, member.org).await?;
    let view = AssistantView::new(&state, &connected, row);
    Ok(etag::tagged(view, |view| &view.etag))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAssistant {
    assistant_id: String,
    role: Option<AssistantRole>,
    /// Vapi's own name where it is not given.
    name: Option<String>,
}

pub async fn create(
    State(state): Admin,
    Manager(member): Manager,
    body::Json(new): body::Json<NewAssistant>,
) -> Answer<impl IntoResponse> {
    new.check()?;
    let id = new.assistant_id;
    let assistant = match read(&state, member.org, &id).await? {
        Readable::Yes(assistant) => assistant,
        Readable::No => return Err(proof::not_readable("assistant_id")),
        Readable::Unknown(problem) => return Err(problem),
    };
    let checked = check_holder(&state, member.org, &id).await?;
    let before = state.store.find_assistant(member.org, &id).await?;
    let (role, name) = before.as_ref().map_or((None, None), |row| (row.role, row.name.clone()));
    let now = state.now();
    let claim = AssistantClaim {
        org: member.org,
        assistant_id: id.clone(),
        role: new.role.or(role),
        name: new.name.or(name).or_else(|| shown_name(assistant.name.as_deref())),
        state: RouteState::Live,
        proof: Some(Proof::ReadAtProvider),
        proven_at: Some(now),
        is_platform_managed: false,
        version: 1,
        created_at: now,
    };
    let audit = state.audit(&member, "prove", "assistant", &id, &["assistant_id", "role", "name"]);
    state
        .store
        .prove_assistant(claim, Displaces::Checked(checked), audit)
        .await?;
    let row = state
        .store
        .find_assistant(member.org, &id)
        .await?
        .ok_or(Problem::not_found())?;
    let connected = Connected::load(&state, member.org).await?;
    Ok((
        etag::status_of(before.is_some()),
        etag::tagged(AssistantView::new(&state, &connected, row), |view| &view.etag),
    ))
}

impl NewAssistant {
    fn check(&self) -> Answer<()> {
        let id = &self.assistant_id;
        let is_id = (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
        if !is_id {
            return Err(Problem::field(
                Code::InvalidField,
                "assistant_id",
                "expected an assistant's id as Vapi writes it",
            ));
        }
        self.name
            .as_ref()
            .map_or(Ok(()), |name| check_text("name", name, NAME_CHARS_MAX))
    }
}

/// Refuses while the credential of another organisation still reads the assistant. A claim that
/// outlived its credential moves: its holder is returned.
async fn check_holder(state: &AdminState, org: OrgId, id: &str) -> Answer<Option<OrgId>> {
    let Some(holder) = state
        .store
        .find_assistant_holder(id)
        .await?
        .filter(|holder| *holder != org)
    else {
        return Ok(None);
    };
    match proof::of_holder(read(state, holder, id).await)? {
        Readable::Yes(_) => Err(proof::held_elsewhere()),
        Readable::No => Ok(Some(holder)),
        Readable::Unknown(problem) => Err(problem),
    }
}

/// The name that Vapi has, without control characters and cut to the limit.
fn shown_name(name: Option<&str>) -> Option<String> {
    let name: String = name?.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Whether an organisation's own key reads the assistant now.
async fn read(state: &AdminState, org: OrgId, id: &str) -> Answer<Readable<VapiAssistant>> {
    let Some(opened) = credentials::find(state, org, Provider::Vapi, "").await? else {
        return Ok(Readable::No);
    };
    let (_, Credential::Vapi(vapi)) = opened.usable()? else {
        return Ok(Readable::No);
    };
    Ok(
        match state.providers.vapi.get_assistant(&vapi, id, proof::READ_MAX).await {
            Ok(Some(assistant)) => Readable::Yes(assistant),
            Ok(None) => Readable::No,
            Err(error) => refused_or_unknown(&error),
        },
    )
}

pub async fn delete(
    State(state): Admin,
    Manager(member): Manager,
    Id(id): Id<String>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let row = state
        .store
        .find_assistant(member.org, &id)
        .await?
        .ok_or(Problem::not_found())?;
    let version = etag::checked(&headers, &tag(&state, &row), row.version)?;
    let audit = state.audit(&member, "release", "assistant", &id, &["state"]);
    if state.store.release_assistant(member.org, &id, version, audit).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}
