//! `PUT /operator/routes`: an operator approves a route for an organisation, and says whether the
//! platform's own account signs for it (invariants 18 and 19).

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
    domain::{OrgId, Proof, Provider, RouteState, Timestamp},
    provider::is_e164,
    store::routes::{AssistantClaim, Displaces, NumberClaim},
};
use axum::{Json, Router, extract::State, routing::put};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new().route("/operator/routes", put(approve))
}

/// One of `assistant_id` and `number`.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovedRoute {
    org_id: String,
    /// Of Vapi.
    assistant_id: Option<String>,
    /// In E.164 form.
    number: Option<String>,
    /// Of the number: `twilio` or `vapi`.
    provider: Option<Provider>,
    /// Of a Twilio number: the account's SID.
    account_id: Option<String>,
    /// Of a number: its id at the provider.
    provider_number_id: Option<String>,
    /// `platform`, or `null`: the organisation's own secrets sign for it.
    managed_by: Option<ManagedBy>,
}

#[derive(Clone, Copy, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ManagedBy {
    Platform,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ApprovedRouteView {
    org_id: String,
    assistant_id: Option<String>,
    number: Option<String>,
    managed_by: Option<ManagedBy>,
    proof: &'static str,
    at: Time,
}

const ID_BYTES_MAX: usize = 64;

/// A route that another organisation holds is not taken: that one lets it go first.
pub async fn approve(
    State(state): Admin,
    Operator(subject): Operator,
    body::Json(route): body::Json<ApprovedRoute>,
) -> Answer<Json<ApprovedRouteView>> {
    let org: OrgId = route.org_id.parse().map_err(|_| wrong("org_id", "expected a UUID"))?;
    if state.store.find_organisation(org).await?.is_none() {
        return Err(wrong("org_id", "is no organisation here"));
    }
    let now = state.now();
    let audit = |kind, id: &str| state.audit_of_operator(&subject, Some(org), "prove", kind, id);
    let proof = match (&route.assistant_id, &route.number) {
        (Some(id), None) => {
            let claim = assistant(&state, org, id, &route, now).await?;
            let proof = claim.proof;
            let audit = audit("assistant", id);
            state
                .store
                .prove_assistant(claim, Displaces::Checked(None), audit)
                .await?;
            proof
        }
        (None, Some(number)) => {
            let claim = phone_number(&state, org, number, &route, now).await?;
            let proof = claim.proof;
            let audit = audit("phone_number", number);
            state.store.prove_number(claim, Displaces::Checked(None), audit).await?;
            proof
        }
        _ => return Err(wrong("assistant_id", "name exactly one of assistant_id and number")),
    };
    Ok(Json(ApprovedRouteView {
        org_id: org.to_string(),
        assistant_id: route.assistant_id,
        number: route.number,
        managed_by: route.managed_by,
        proof: proof.map_or("", Proof::as_str),
        at: Time(now),
    }))
}

fn wrong(field: &'static str, problem: &str) -> Problem {
    Problem::field(Code::InvalidField, field, problem)
}

fn check_id(field: &'static str, id: &str) -> Answer<()> {
    let is_id = (1..=ID_BYTES_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    if is_id {
        Ok(())
    } else {
        Err(wrong(field, "expected an id as the provider writes it"))
    }
}

/// The claim with the operator's proof, where nothing better stands.
async fn assistant(
    state: &AdminState,
    org: OrgId,
    id: &str,
    route: &ApprovedRoute,
    now: Timestamp,
) -> Answer<AssistantClaim> {
    check_id("assistant_id", id)?;
    let before = state.store.find_assistant(org, id).await?;
    let (role, name, proof) = before.map_or((None, None, None), |row| (row.role, row.name, row.proof));
    Ok(AssistantClaim {
        org,
        assistant_id: id.to_owned(),
        role,
        name,
        state: RouteState::Live,
        proof: proof.or(Some(Proof::ApprovedByOperator)),
        proven_at: Some(now),
        is_platform_managed: route.managed_by.is_some(),
        version: 1,
        created_at: now,
    })
}

async fn phone_number(
    state: &AdminState,
    org: OrgId,
    number: &str,
    route: &ApprovedRoute,
    now: Timestamp,
) -> Answer<NumberClaim> {
    if !is_e164(number) {
        return Err(wrong("number", "expected a number in E.164 form, such as +15551234567"));
    }
    let Some(provider @ (Provider::Twilio | Provider::Vapi)) = route.provider else {
        return Err(wrong("provider", "expected twilio or vapi"));
    };
    if provider == Provider::Twilio && route.account_id.is_none() {
        return Err(wrong(
            "account_id",
            "is required: a Twilio number routes with its account",
        ));
    }
    for (field, id) in [
        ("account_id", &route.account_id),
        ("provider_number_id", &route.provider_number_id),
    ] {
        id.as_deref().map_or(Ok(()), |id| check_id(field, id))?;
    }
    let before = state.store.find_number(org, number, Some(provider)).await?;
    let before = before.filter(|row| row.account_id == route.account_id);
    let (proof, known_id) = before.map_or((None, None), |row| (row.proof, row.provider_number_id));
    Ok(NumberClaim {
        org,
        number: number.to_owned(),
        provider,
        account_id: route.account_id.clone(),
        provider_number_id: route.provider_number_id.clone().or(known_id),
        state: RouteState::Live,
        proof: proof.or(Some(Proof::ApprovedByOperator)),
        proven_at: Some(now),
        is_platform_managed: route.managed_by.is_some(),
        sms_at_vapi: None,
        version: 1,
        created_at: now,
    })
}
