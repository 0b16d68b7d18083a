//! `POST /api/integrations/{provider}/test`: asks the provider about a credential and stores
//! nothing.

use super::{
    check::{VerifiedCredential, ask},
    parse_provider,
    request::ConnectRequest,
    view::AccountView,
};
use crate::{
    admin::{
        Admin,
        state::Answer,
        web::{auth::Manager, body::Id, problem::Problem},
    },
    domain::{IntegrationState, Provider},
};
use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;

#[derive(Serialize)]
pub struct TestedView {
    provider: Provider,
    /// `connected` or `limited`: what it would be stored as.
    state: IntegrationState,
    missing: Option<String>,
    account: Option<AccountView>,
}

pub async fn test(
    State(state): Admin,
    _: Manager,
    Id(provider): Id<String>,
    request: Request,
) -> Answer<Json<TestedView>> {
    let provider = parse_provider(&provider)?;
    let request = ConnectRequest::read(provider, request).await?;
    let answer = ask(&state, &request.credential)
        .await
        .map_err(|error| Problem::unreachable(&error))?;
    let verified = VerifiedCredential::of(answer, state.now()).map_err(|refused| Problem::from_refused(&refused))?;
    Ok(Json(TestedView {
        provider,
        state: verified.state(),
        missing: verified.missing,
        account: verified.account,
    }))
}
