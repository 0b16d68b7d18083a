//! `/operator/pause`, `/operator/resume` and what is paused: no attempt begins for it, and webhooks
//! are taken all the while.

use crate::{
    admin::{
        Admin, AdminState,
        state::Answer,
        web::{
            auth::{Operator, OperatorName, Reader},
            body::{self, check_text},
            page::Params,
            problem::{Code, Problem},
            view::Time,
        },
    },
    domain::{OrgId, Provider, RuleId},
    store::{
        audit::{AuditEntry, Changes},
        pauses::{Pause, Paused},
    },
};
use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use http::Uri;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Held actions that one transaction makes due.
const RELEASE_MAX: u32 = 1_000;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/operator/pauses", get(list))
        .route("/operator/pause", post(pause))
        .route("/operator/resume", post(resume))
        .route("/api/pauses", get(list_own))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct PausesView {
    pauses: Vec<PauseView>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct PauseView {
    /// `all`, `org`, `provider` or `rule`.
    scope: &'static str,
    org_id: Option<String>,
    provider: Option<Provider>,
    rule_id: Option<String>,
    reason: String,
    since: Time,
    /// The operator that paused it; `null` for an organisation, which is not shown it.
    actor: Option<String>,
}

impl PauseView {
    fn of(pause: Pause, is_for_operator: bool) -> Self {
        Self {
            scope: pause.paused.scope(),
            org_id: pause.paused.org().map(|org| org.to_string()),
            provider: pause.paused.provider(),
            rule_id: pause.paused.rule().map(|rule| rule.to_string()),
            reason: pause.reason,
            since: Time(pause.since),
            actor: Some(pause.actor).filter(|_| is_for_operator),
        }
    }
}

pub async fn list(State(state): Admin, _: Operator, uri: Uri) -> Answer<Json<PausesView>> {
    Params::of(&uri)?.finish()?;
    let pauses = state.store.list_pauses(None).await?;
    let pauses = pauses.into_iter().map(|pause| PauseView::of(pause, true)).collect();
    Ok(Json(PausesView { pauses }))
}

/// The pauses that hold actions of this organisation back.
pub async fn list_own(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<PausesView>> {
    Params::of(&uri)?.finish()?;
    let pauses = state.store.list_pauses(Some(member.org)).await?;
    let pauses = pauses.into_iter().map(|pause| PauseView::of(pause, false)).collect();
    Ok(Json(PausesView { pauses }))
}

/// Exactly one of the first four.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// `true`: everything.
    all: Option<bool>,
    org_id: Option<String>,
    provider: Option<Provider>,
    rule_id: Option<String>,
    /// Why, for the others. It is shown to the organisations that it concerns.
    reason: String,
}

/// Exactly one of these.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeRequest {
    /// `true`: the pause of everything. Others stay.
    all: Option<bool>,
    org_id: Option<String>,
    provider: Option<Provider>,
    rule_id: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct PausedView {
    /// `false`: it was paused already, and the first reason stays.
    is_new: bool,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ResumedView {
    /// `false`: it was not paused.
    was_paused: bool,
    /// Actions that a paused rule had held back and that are due now.
    released: u64,
}

pub async fn pause(
    State(state): Admin,
    Operator(subject): Operator,
    body::Json(request): body::Json<PauseRequest>,
) -> Answer<Json<PausedView>> {
    check_text("reason", &request.reason, 500)?;
    let named = (request.all, request.org_id, request.provider, request.rule_id);
    let paused = target(&state, named).await?;
    let audit = AuditEntry {
        changes: Changes::default().value("reason", (), &request.reason),
        ..entry(&state, &subject, "pause", paused)
    };
    let pause = Pause {
        paused,
        reason: request.reason,
        actor: audit.actor.clone(),
        since: state.now(),
    };
    let is_new = state.store.pause(pause, audit).await?;
    tracing::warn!(scope = paused.scope(), operator = %subject, is_new, "Paused by an operator");
    Ok(Json(PausedView { is_new }))
}

/// It can be repeated: what a cut-off request left held back is released by the next.
pub async fn resume(
    State(state): Admin,
    Operator(subject): Operator,
    body::Json(request): body::Json<ResumeRequest>,
) -> Answer<Json<ResumedView>> {
    let named = (request.all, request.org_id, request.provider, request.rule_id);
    let paused = target(&state, named).await?;
    let audit = entry(&state, &subject, "resume", paused);
    let was_paused = state.store.resume(paused, audit).await?;
    tracing::warn!(scope = paused.scope(), operator = %subject, was_paused, "Resumed by an operator");
    let mut released = 0;
    if let Paused::Rule(org, rule) = paused {
        loop {
            let step = state.store.release_held_by_rule(org, rule, RELEASE_MAX).await?;
            released += step;
            if step < u64::from(RELEASE_MAX) {
                break;
            }
        }
    }
    Ok(Json(ResumedView { was_paused, released }))
}

type Named = (Option<bool>, Option<String>, Option<Provider>, Option<String>);

async fn target(state: &AdminState, named: Named) -> Answer<Paused> {
    let wrong = |field: &'static str, problem: &str| Problem::field(Code::InvalidField, field, problem);
    match named {
        (Some(true), None, None, None) => Ok(Paused::All),
        (None, Some(org), None, None) => {
            let org: OrgId = org.parse().map_err(|_| wrong("org_id", "expected a UUID"))?;
            state
                .store
                .find_organisation(org)
                .await?
                .map(|_| Paused::Org(org))
                .ok_or_else(|| wrong("org_id", "is no organisation here"))
        }
        (None, None, Some(provider), None) => Ok(Paused::Provider(provider)),
        (None, None, None, Some(rule)) => {
            let rule: RuleId = rule.parse().map_err(|_| wrong("rule_id", "expected a UUID"))?;
            let org = state.store.find_org_of_rule(rule).await?;
            org.map(|org| Paused::Rule(org, rule))
                .ok_or_else(|| wrong("rule_id", "is no rule here"))
        }
        _ => Err(wrong(
            "all",
            "name exactly one of all (true), org_id, provider and rule_id",
        )),
    }
}

fn entry(state: &AdminState, operator: &OperatorName, verb: &'static str, paused: Paused) -> AuditEntry {
    let (kind, id) = match paused {
        Paused::All => ("installation", "all".to_owned()),
        Paused::Org(org) => ("organisation", org.to_string()),
        Paused::Provider(provider) => ("provider", provider.to_string()),
        Paused::Rule(_, rule) => ("rule", rule.to_string()),
    };
    state.audit_of_operator(operator, paused.org(), verb, kind, id)
}
