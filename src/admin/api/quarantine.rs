//! `/operator/quarantine`: events that the platform's own account signed and that led to no
//! organisation. An operator names one. No content is ever shown here.

use crate::{
    admin::{
        Admin, AdminState,
        api::dead_events::ReplayView,
        state::Answer,
        web::{
            auth::Operator,
            body::{self, Id},
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{
        Envelope, EventId, HeldCause, INSTALLATION, OrgId, Provider, RouteKey, RouteKind, SealedBytes, SecretBytes,
    },
    queue,
    store::{audit::Changes, held::HeldEvent, quarantine::QuarantinedEvent},
    vault::Purpose,
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use bytes::Bytes;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/operator/quarantine", get(list))
        .route("/operator/quarantine/{id}/replay", post(replay))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct QuarantineView {
    id: String,
    source: String,
    r#type: String,
    received_at: Time,
    /// The external ids that it names: its organisation is found by them.
    ids: Vec<ExternalId>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ExternalId {
    kind: &'static str,
    value: String,
}

impl From<QuarantinedEvent> for QuarantineView {
    fn from(row: QuarantinedEvent) -> Self {
        let shown = |key: RouteKey| ExternalId {
            kind: key.kind.as_str(),
            value: key.value.into(),
        };
        Self {
            id: row.id.to_string(),
            source: row.source,
            r#type: row.event_type,
            received_at: Time(row.received_at),
            ids: row.ids.into_iter().map(shown).collect(),
        }
    }
}

pub async fn list(State(state): Admin, _: Operator, uri: Uri) -> Answer<Json<Listed<QuarantineView>>> {
    let mut params = Params::of(&uri)?;
    let page = Page::<EventId>::take(&mut params, &state.vault, None, "quarantine", String::new())?;
    params.finish()?;
    let rows = state.store.list_quarantine(page.after, page.count()).await?;
    Ok(Json(page.answer(
        &state.vault,
        rows,
        |row| row.id,
        QuarantineView::from,
    )))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineReplay {
    org_id: String,
}

/// Gives the event to an organisation: a worker plans it by the rules that stand now. It is refused
/// where an id of the event leads to another organisation.
pub async fn replay(
    State(state): Admin,
    Operator(subject): Operator,
    Id(id): Id<EventId>,
    body::Json(request): body::Json<QuarantineReplay>,
) -> Answer<(StatusCode, Json<ReplayView>)> {
    let wrong = |problem: &str| Problem::field(Code::InvalidField, "org_id", problem);
    let org: OrgId = request.org_id.parse().map_err(|_| wrong("expected a UUID"))?;
    let (row, sealed) = state.store.find_quarantined(id).await?.ok_or(Problem::not_found())?;
    let known = state.store.find_organisation(org).await?;
    if !known.is_some_and(|known| known.is_active) {
        return Err(wrong("is no active organisation here"));
    }
    for key in &row.ids {
        if holder(&state, key).await?.is_some_and(|holder| holder != org) {
            return Err(Problem::new(Code::Conflict).detail(format!(
                "The {} of this event leads to another organisation. Name that one, or move the route first.",
                key.kind
            )));
        }
    }
    let envelope = open(&state, &sealed).await?;
    let held = HeldEvent {
        org,
        event: id,
        cause: HeldCause::Replay,
        received_at: row.received_at,
        envelope: seal(&state, org, envelope).await?,
        replay: None,
    };
    let mut audit = state.audit_of_operator(&subject, Some(org), "replay", "event", id);
    audit.changes = Changes::default().value("org_id", (), org.to_string());
    if state.store.release_quarantined(held, audit).await? {
        Ok((StatusCode::ACCEPTED, Json(ReplayView::of(id, 0))))
    } else {
        // Another replay came first.
        Err(Problem::not_found())
    }
}

/// The organisation that an external id leads to now.
async fn holder(state: &AdminState, key: &RouteKey) -> Answer<Option<OrgId>> {
    let store = &state.store;
    Ok(match key.kind {
        RouteKind::VapiAssistant => store.find_assistant_holder(&key.value).await?,
        RouteKind::VapiPhoneNumber => {
            store
                .find_number_holder(Provider::Vapi, "", None, Some(&key.value))
                .await?
        }
        RouteKind::TwilioNumber => match key.value.split_once('/') {
            Some((account, number)) => {
                store
                    .find_number_holder(Provider::Twilio, number, Some(account), None)
                    .await?
            }
            None => None,
        },
        // Not unique, or the account of many.
        RouteKind::VapiNumber | RouteKind::TwilioAccount => None,
    })
}

async fn open(state: &AdminState, sealed: &SealedBytes) -> Answer<Envelope> {
    let read = |plain: &SecretBytes| Bytes::copy_from_slice(plain.expose_secret());
    let encoded = state.vault.open_payload(INSTALLATION, sealed, read).await?;
    queue::decode(&encoded).map_err(|error| {
        tracing::error!(%error, "A quarantined event cannot be read");
        Problem::new(Code::Internal)
    })
}

async fn seal(state: &AdminState, org: OrgId, envelope: Envelope) -> Answer<SealedBytes> {
    let envelope = Envelope {
        org: Some(org),
        ..envelope
    };
    let mut encoded = Vec::new();
    queue::encode(&envelope, &mut encoded);
    Ok(state.vault.seal(org, Purpose::Payload, &encoded).await?)
}
