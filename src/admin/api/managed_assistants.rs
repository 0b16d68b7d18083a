//! `PUT /api/assistants/{role}` and `/api/managed-assistants`: assistants that Hookswitch keeps at
//! Vapi, one for each role.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::{Manager, Reader},
            body::{self, Id, check_text},
            etag,
            problem::{Code, Problem},
            view::Time,
        },
    },
    assistants::{AssistantError, Audits, RESERVED, Wanted},
    domain::{AssistantRole, ManagedAssistantState},
    provider::vapi::assistants::MARKER,
    store::{audit::Changes, managed::ManagedAssistant},
};
use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/managed-assistants", get(list))
        .route("/api/managed-assistants/{role}", get(show).delete(delete))
}

/// Vapi's own limit.
const NAME_CHARS_MAX: usize = 40;

#[derive(Serialize, utoipa::ToSchema)]
pub struct ManagedAssistantView {
    role: AssistantRole,
    /// `null` until Vapi has answered.
    assistant_id: Option<String>,
    name: String,
    /// The wanted fields of Vapi's assistant, without those that Hookswitch sets.
    #[schema(value_type = Object)]
    assistant: Value,
    state: ManagedAssistantState,
    /// Names of the fields that differ at Vapi.
    drift: Vec<String>,
    /// Why the last change or look came to nothing.
    error: Option<String>,
    checked_at: Option<Time>,
    /// The endpoint that its webhooks come to.
    endpoint_id: String,
    version: i64,
    etag: String,
    created_at: Time,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ManagedAssistants {
    data: Vec<ManagedAssistantView>,
}

async fn view(state: &AdminState, row: ManagedAssistant) -> Answer<ManagedAssistantView> {
    let wanted = state.assistants.wanted(&row).await.map_err(problem)?;
    Ok(ManagedAssistantView {
        etag: tag(state, &row),
        role: row.role,
        assistant_id: row.assistant_id,
        name: wanted.name,
        assistant: Value::Object(wanted.config),
        state: row.state,
        drift: row.drift,
        error: row.error,
        checked_at: row.checked_at.map(Time),
        endpoint_id: row.endpoint.to_string(),
        version: row.version,
        created_at: Time(row.created_at),
    })
}

fn tag(state: &AdminState, row: &ManagedAssistant) -> String {
    etag::tag(&state.vault, row.org, "managed assistant", row.role, row.version)
}

pub async fn list(State(state): Admin, Reader(member): Reader) -> Answer<Json<ManagedAssistants>> {
    let mut data = Vec::new();
    for row in state.store.list_managed_assistants(member.org).await? {
        data.push(view(&state, row).await?);
    }
    Ok(Json(ManagedAssistants { data }))
}

pub async fn show(
    State(state): Admin,
    Reader(member): Reader,
    Id(role): Id<AssistantRole>,
) -> Answer<impl IntoResponse> {
    let row = state
        .store
        .find_managed_assistant(member.org, role)
        .await?
        .ok_or(Problem::not_found())?;
    shown(&state, row).await
}

async fn shown(state: &AdminState, row: ManagedAssistant) -> Answer<impl IntoResponse + use<>> {
    let view = view(state, row).await?;
    Ok(([(header::ETAG, etag::header_value(&view.etag))], Json(view)))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewManagedAssistant {
    name: String,
    /// Fields of Vapi's assistant, as its API takes them. Hookswitch sets `server` and the name.
    #[schema(value_type = Object)]
    assistant: serde_json::Map<String, Value>,
}

impl NewManagedAssistant {
    fn check(&self) -> Answer<()> {
        check_text("name", &self.name, NAME_CHARS_MAX)?;
        let mut wrong: Vec<(String, &str)> = RESERVED
            .iter()
            .filter(|name| self.assistant.contains_key(**name))
            .map(|name| (format!("assistant.{name}"), "is set by Vapi or by Hookswitch"))
            .collect();
        if let Some(metadata) = self.assistant.get("metadata") {
            if !metadata.is_object() {
                wrong.push(("assistant.metadata".to_owned(), "expected an object"));
            }
            if metadata.get(MARKER).is_some() {
                wrong.push((format!("assistant.metadata.{MARKER}"), "is set by Hookswitch"));
            }
        }
        let mut wrong = wrong.into_iter();
        let Some((field, problem)) = wrong.next() else {
            return Ok(());
        };
        let first = Problem::field(Code::InvalidField, field, problem);
        Err(wrong.fold(first, |all, (field, problem)| all.and_field(field, problem)))
    }
}

/// Makes the assistant of a role at Vapi, or brings the one that there is to what is wanted. Sent
/// twice, or from two sides at once, it makes one.
pub async fn ensure(
    State(state): Admin,
    Manager(member): Manager,
    Id(role): Id<AssistantRole>,
    headers: HeaderMap,
    body::Json(new): body::Json<NewManagedAssistant>,
) -> Answer<impl IntoResponse> {
    new.check()?;
    let row = state.store.find_managed_assistant(member.org, role).await?;
    let current = row.as_ref().map(|row| tag(&state, row)).unwrap_or_default();
    let expects = etag::checked(&headers, &current, row.map_or(0, |row| row.version))?;
    let wanted = Wanted {
        name: new.name.trim().to_owned(),
        config: new.assistant,
    };
    let audits = Audits {
        assistant: state.audit(&member, "ensure", "assistant", role, Changes::default()),
        endpoint: state.audit(&member, "create", "endpoint", role, Changes::default()),
    };
    let row = state
        .assistants
        .ensure(member.org, role, wanted, expects, audits)
        .await
        .map_err(problem)?;
    shown(&state, row).await
}

/// Deletes it at Vapi and here, with the endpoint of its webhooks.
pub async fn delete(
    State(state): Admin,
    Manager(member): Manager,
    Id(role): Id<AssistantRole>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let row = state
        .store
        .find_managed_assistant(member.org, role)
        .await?
        .ok_or(Problem::not_found())?;
    let expects = etag::checked(&headers, &tag(&state, &row), row.version)?;
    let audits = Audits {
        assistant: state.audit(&member, "delete", "assistant", role, Changes::default()),
        endpoint: state.audit(&member, "delete", "endpoint", row.endpoint, Changes::default()),
    };
    match state.assistants.delete(member.org, role, expects, audits).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::not_found()),
        Err(error) => Err(problem(error)),
    }
}

fn problem(error: AssistantError) -> Problem {
    match error {
        AssistantError::NotConnected => {
            Problem::new(Code::NotConnected).detail("Connect Vapi first: assistants are made with your own key.")
        }
        AssistantError::Undecryptable { words } => {
            tracing::error!(reason = words, "A kept assistant cannot be opened");
            Problem::new(Code::Undecryptable)
        }
        AssistantError::NoPublicUrl => Problem::new(Code::Internal).detail(
            "This installation has no public URL that Vapi could send webhooks to: whoever runs it has to set \
                HOOKSWITCH_PUBLIC_URL.",
        ),
        AssistantError::Busy => Problem::new(Code::Conflict)
            .detail("The assistant is being changed by another request: send it again in a moment.")
            .retry_after(Duration::from_secs(2)),
        AssistantError::Stale => etag::stale(),
        AssistantError::Refused(refused) => Problem::refused_by("Vapi", &refused),
        AssistantError::Unreachable(error) => Problem::unreachable(&error).detail(
            "Nobody knows whether Vapi has done it. Send the same request again: it looks first, and makes no second \
                assistant.",
        ),
        AssistantError::Store(error) => error.into(),
    }
}
