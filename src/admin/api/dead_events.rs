//! `/operator/dead-events`: events that could not be planned, and their way back. No content is
//! ever shown here, because an operator sees no text of a message.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::Operator,
            body::Id,
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{EventId, HeldCause, OrgId},
    store::dead::{Replayed, StoredDeadEvent},
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::{StatusCode, Uri};
use serde::Serialize;
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/operator/dead-events", get(list))
        .route("/operator/dead-events/{id}", get(show))
        .route("/operator/dead-events/{id}/replay", post(replay))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct DeadEventView {
    id: String,
    /// `null`: it could not be decoded, or it leads to no organisation.
    org_id: Option<String>,
    source: Option<String>,
    r#type: Option<String>,
    received_at: Time,
    dead_at: Time,
    reason: String,
}

impl From<StoredDeadEvent> for DeadEventView {
    fn from(row: StoredDeadEvent) -> Self {
        let known = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: row.id.to_string(),
            org_id: row.org.map(|org| org.to_string()),
            source: known(row.source),
            r#type: known(row.event_type),
            received_at: Time(row.received_at),
            dead_at: Time(row.dead_at),
            reason: row.reason,
        }
    }
}

pub async fn list(State(state): Admin, _: Operator, uri: Uri) -> Answer<Json<Listed<DeadEventView>>> {
    let mut params = Params::of(&uri)?;
    let org = params.take_parsed::<OrgId>("org_id")?;
    let page = Page::<EventId>::take(&mut params, &state.vault, None, "dead events", format!("{org:?}"))?;
    params.finish()?;
    let rows = state.store.list_dead_events(org, page.after, page.count()).await?;
    Ok(Json(page.answer(&state.vault, rows, |row| row.id, DeadEventView::from)))
}

pub async fn show(State(state): Admin, _: Operator, Id(id): Id<EventId>) -> Answer<Json<DeadEventView>> {
    let row = state.store.find_dead_event(id).await?.ok_or(Problem::not_found())?;
    Ok(Json(row.into()))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ReplayView {
    id: String,
    /// `held`: the event waits for a worker, which plans it at once where it can.
    state: &'static str,
    #[schema(value_type = String)]
    cause: HeldCause,
    /// `0` where it was never planned; else the number of the replay, which its actions carry.
    series: u32,
}

impl ReplayView {
    pub fn of(id: EventId, series: u32) -> Self {
        Self {
            id: id.to_string(),
            state: "held",
            cause: HeldCause::Replay,
            series,
        }
    }
}

/// Puts a dead event back: it is planned by the rules that stand now, as if it came from the queue.
/// An action that it has already had is not planned again.
pub async fn replay(
    State(state): Admin,
    Operator(subject): Operator,
    Id(id): Id<EventId>,
) -> Answer<(StatusCode, Json<ReplayView>)> {
    let row = state.store.find_dead_event(id).await?.ok_or(Problem::not_found())?;
    let Some(org) = row.org else {
        return Err(nothing_kept());
    };
    let audit = state.audit_of_operator(&subject, Some(org), "replay", "event", id);
    match state.store.replay_dead_event(org, id, audit).await? {
        Replayed::PutBack => Ok((StatusCode::ACCEPTED, Json(ReplayView::of(id, 0)))),
        Replayed::NothingKept => Err(nothing_kept()),
        // Another replay came first.
        Replayed::Absent => Err(Problem::not_found()),
    }
}

fn nothing_kept() -> Problem {
    Problem::new(Code::NotReplayable)
        .detail("Its content was not kept, or it leads to no organisation: there is nothing to plan.")
}
