//! `/api/events`: the events that were received, and their replay. Bodies are opened for their
//! organisation, with secrets in known places masked (invariant 19).

use crate::{
    admin::{
        Admin, AdminState,
        api::dead_events::ReplayView,
        state::Answer,
        web::{
            auth::{Reader, Retrier},
            body::{self, Id},
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{ActionState, Cause, DedupeKey, Envelope, EventId, EventType, HeldCause, SecretBytes, Source, Subject},
    queue, rule, source,
    store::{
        audit::Changes,
        held::HeldEvent,
        history::{ActionFilter, EventFilter, StoredAction, StoredEvent},
        ledger::Replay,
    },
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
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/events", get(list))
        .route("/api/events/{id}", get(show))
        .route("/api/events/{id}/replay", post(replay))
}

/// Actions shown with an event. There are at most 50 a series.
const ACTIONS_SHOWN_MAX: u32 = 200;

/// The fields that the list and the page of an event share.
#[derive(Serialize, utoipa::ToSchema)]
struct EventFields {
    id: String,
    /// A source, or the word of a newer release for one.
    source: String,
    r#type: String,
    subject: String,
    endpoint_id: Option<String>,
    time: Time,
    received_at: Time,
    body_bytes: u64,
    dead_reason: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct EventView {
    #[serde(flatten)]
    event: EventFields,
    /// How many of its actions are in each state; a state without one is left out.
    actions: BTreeMap<&'static str, u64>,
}

impl From<&StoredEvent> for EventFields {
    fn from(row: &StoredEvent) -> Self {
        Self {
            id: row.id.to_string(),
            source: row.source.to_string(),
            r#type: row.event_type.to_string(),
            subject: row.subject.clone(),
            endpoint_id: row.endpoint.map(|id| id.to_string()),
            time: Time(row.time),
            received_at: Time(row.received_at),
            body_bytes: row.body_bytes,
            dead_reason: row.dead_reason.clone(),
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct EventDetail {
    #[serde(flatten)]
    event: EventFields,
    content_type: String,
    path: String,
    query: String,
    headers: Vec<HeaderView>,
    hops: u8,
    /// The signing secret that verified it, as `/api/endpoints` and the status of integrations list
    /// it. `null` in events of earlier releases.
    secret_id: Option<String>,
    /// The JSON that was sent, or a text for other formats, with secrets masked. `null` once the
    /// body was deleted, with `?body=false`, and of a source that only a newer release knows: this
    /// one cannot mask it.
    body: Option<Value>,
    actions: Vec<EventAction>,
    /// The changes that a person can ask for: `replay`, while the body is kept.
    can: Vec<&'static str>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct HeaderView {
    name: String,
    value: String,
}

#[derive(Serialize, utoipa::ToSchema)]
struct EventAction {
    id: String,
    rule_id: String,
    rule_name: String,
    /// An action of the catalogue, or the word of a newer release for one.
    action: String,
    state: ActionState,
    cause: Option<Cause>,
    /// `0`, or the number of the replay that planned it.
    series: u32,
}

impl From<StoredAction> for EventAction {
    fn from(row: StoredAction) -> Self {
        Self {
            id: row.id.to_string(),
            rule_id: row.rule.to_string(),
            rule_name: row.rule_name,
            action: row.kind.to_string(),
            state: row.state,
            cause: row.cause,
            series: row.series,
        }
    }
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<EventView>>> {
    let mut params = Params::of(&uri)?;
    let filter = EventFilter {
        source: params.take_parsed::<Source>("source")?,
        event_type: params.take_text("type", 128)?.map(|text| full_type(&text)),
        subject: params.take_text("subject", 256)?,
        period: params.take_period()?,
    };
    let bound = format!(
        "{:?}",
        (&filter.source, &filter.event_type, &filter.subject, filter.period)
    );
    let page = Page::<EventId>::take(&mut params, &state.vault, Some(member.org), "events", bound)?;
    params.finish()?;
    let rows = state
        .store
        .list_events(member.org, filter, page.after, page.count())
        .await?;
    let ids: Vec<EventId> = rows.iter().map(|row| row.id).collect();
    let mut outcomes: BTreeMap<EventId, BTreeMap<&'static str, u64>> = BTreeMap::new();
    for one in state.store.count_outcomes(member.org, &ids).await? {
        outcomes
            .entry(one.event)
            .or_default()
            .insert(one.state.as_str(), one.count);
    }
    let view = |row: StoredEvent| EventView {
        event: EventFields::from(&row),
        actions: outcomes.remove(&row.id).unwrap_or_default(),
    };
    Ok(Json(page.answer(&state.vault, rows, |row| row.id, view)))
}

/// The type with its source in front: `end-of-call-report` is `vapi.end-of-call-report`, as rules
/// name it.
fn full_type(text: &str) -> String {
    let of_source = |source: Source| {
        source::kinds(source)
            .iter()
            .map(|kind| EventType::new(source, kind))
            .find(|known| known.kind() == text)
    };
    let found = [Source::Vapi, Source::Twilio].into_iter().find_map(of_source);
    found.map_or_else(|| text.to_owned(), |found| found.as_str().to_owned())
}

pub async fn show(
    State(state): Admin,
    Reader(member): Reader,
    Id(id): Id<EventId>,
    uri: Uri,
) -> Answer<Json<EventDetail>> {
    let mut params = Params::of(&uri)?;
    let has_body = params.take_flag_or("body", true)?;
    params.finish()?;
    let row = state
        .store
        .find_event(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    let filter = ActionFilter {
        event: Some(id),
        ..ActionFilter::default()
    };
    let actions = state
        .store
        .list_actions(member.org, filter, None, ACTIONS_SHOWN_MAX)
        .await?;
    let body = if has_body { open_body(&state, &row).await? } else { None };
    let may_replay = row.body.is_some() && row.source.known().is_some();
    let can = may_replay.then_some("replay").into_iter().collect();
    Ok(Json(EventDetail {
        event: EventFields::from(&row),
        content_type: row.content_type,
        path: row.path,
        query: row.query,
        headers: row
            .headers
            .into_iter()
            .map(|(name, value)| HeaderView { name, value })
            .collect(),
        hops: row.hops,
        secret_id: row.secret.map(|id| id.to_string()),
        body,
        actions: actions.into_iter().map(EventAction::from).collect(),
        can,
    }))
}

#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayRequest {
    /// Also run rules whose action has succeeded, or may still succeed. Their effect happens again.
    #[serde(default)]
    force: bool,
}

/// Plans an event once more, by the rules that stand now. A rule whose action has succeeded, or may
/// still succeed, does not run again unless that is asked for (invariant 4).
pub async fn replay(
    State(state): Admin,
    Retrier(member): Retrier,
    Id(id): Id<EventId>,
    body::OptionalJson(request): body::OptionalJson<ReplayRequest>,
) -> Answer<(StatusCode, Json<ReplayView>)> {
    let row = state
        .store
        .find_event(member.org, id)
        .await?
        .ok_or(Problem::not_found())?;
    let Some(sealed) = &row.body else {
        return Err(Problem::new(Code::NotReplayable).detail("The body of the event was deleted by age."));
    };
    let Some(source) = row.source.known() else {
        return Err(Problem::new(Code::OfNewerRelease)
            .detail("A newer release received this event, and this release does not know its source."));
    };
    let read = |plain: &SecretBytes| Bytes::copy_from_slice(plain.expose_secret());
    let body = state.vault.open(member.org, Purpose::Payload, sealed, read).await?;
    let received_at = row.received_at;
    let mut encoded = Vec::new();
    queue::encode(&envelope(row, source, body), &mut encoded);
    let held = HeldEvent {
        org: member.org,
        event: id,
        cause: HeldCause::Replay,
        received_at,
        envelope: state.vault.seal(member.org, Purpose::Payload, &encoded).await?,
        // The store counts.
        replay: Some(Replay {
            series: 0,
            is_forced: request.force,
        }),
    };
    let changes = Changes::default().value("force", false, request.force);
    let audit = state.audit(&member, "replay", "event", id, changes);
    let series = state.store.replay_event(held, audit).await?;
    Ok((StatusCode::ACCEPTED, Json(ReplayView::of(id, series))))
}

/// The event as it came. It is known by its id: its dedupe key was needed for its first series.
fn envelope(row: StoredEvent, source: Source, body: Bytes) -> Envelope {
    let text = String::into_boxed_str;
    Envelope {
        id: row.id,
        source,
        event_type: row.event_type,
        time: row.time,
        received_at: row.received_at,
        subject: Subject(text(row.subject)),
        org: Some(row.org),
        endpoint: row.endpoint,
        secret: row.secret,
        dedupe_key: DedupeKey(*row.id.as_bytes()),
        traceparent: None,
        content_type: text(row.content_type),
        path: text(row.path),
        query: text(row.query),
        headers: row
            .headers
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
        hops: row.hops,
        body,
    }
}

async fn open_body(state: &AdminState, row: &StoredEvent) -> Answer<Option<Value>> {
    let (Some(sealed), Some(source)) = (&row.body, row.source.known()) else {
        return Ok(None);
    };
    let content_type = row.content_type.clone();
    let read = move |plain: &SecretBytes| rule::shown_body(source, &content_type, plain.expose_secret());
    Ok(Some(state.vault.open(row.org, Purpose::Payload, sealed, read).await?))
}
