//! `PATCH /api/integrations/{provider}`: after how many days another secret is due.

use super::{
    parse_provider,
    view::{IntegrationView, check_etag, view},
};
use crate::admin::{
    Admin,
    state::Answer,
    web::{
        auth::Manager,
        body::{self, Id},
        problem::{Code, Problem},
    },
};
use axum::{Json, extract::State};
use http::HeaderMap;
use serde::Deserialize;

const DAYS_MAX: u32 = 3_650;

/// The settings of an integration that need no check at the provider.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegrationChanges {
    /// After how many days another secret is due, 90 by default; 0 is never.
    rotate_after_days: u32,
}

/// The credential and its version stay.
pub async fn patch(
    State(state): Admin,
    Manager(member): Manager,
    Id(provider): Id<String>,
    headers: HeaderMap,
    body::Json(changes): body::Json<IntegrationChanges>,
) -> Answer<Json<IntegrationView>> {
    let provider = parse_provider(&provider)?;
    let days = changes.rotate_after_days;
    if days > DAYS_MAX {
        return Err(Problem::field(
            Code::InvalidField,
            "rotate_after_days",
            format!("expected 0 (never) to {DAYS_MAX} days"),
        ));
    }
    let row = state.store.find_credential(member.org, provider, "").await?;
    check_etag(&state, &headers, row.as_ref())?;
    let audit = state.audit(&member, "update", "credential", provider, &["rotate_after_days"]);
    if state
        .store
        .set_rotation(member.org, provider, days, audit)
        .await?
        .is_none()
    {
        return Err(Problem::new(Code::NotConnected).detail("There is no secret to rotate: connect it first."));
    }
    let row = state.store.find_credential(member.org, provider, "").await?;
    Ok(Json(view(&state, member.org, provider, row).await?))
}
