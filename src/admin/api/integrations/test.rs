//! `POST /api/integrations/{provider}/test`: asks the provider about a credential and stores
//! nothing.

use super::{
    account::is_same_account,
    check::{VerifiedCredential, ask, refusal, unreachable, warnings},
    parse_provider,
    request::ConnectRequest,
    view::AccountView,
};
use crate::{
    admin::{
        Admin,
        state::Answer,
        web::{auth::Manager, body::Id, problem::FieldError},
    },
    domain::{IntegrationState, Provider},
};
use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;

#[derive(Serialize, utoipa::ToSchema)]
pub struct TestedView {
    provider: Provider,
    /// `connected` or `limited`: what it would be stored as.
    state: IntegrationState,
    missing: Option<String>,
    account: Option<AccountView>,
    /// The connected account, where saving this credential would take its place.
    replaces_account: Option<AccountView>,
    /// Settings that the provider does not confirm.
    warnings: Vec<FieldError>,
}

pub async fn test(
    State(state): Admin,
    Manager(member): Manager,
    Id(provider): Id<String>,
    request: Request,
) -> Answer<Json<TestedView>> {
    let provider = parse_provider(&provider)?;
    let request = ConnectRequest::read(&state, member.org, provider, request).await?;
    let answer = ask(&state, &request.credential)
        .await
        .map_err(|error| unreachable(provider, &error, state.providers.http.now()))?;
    let verified = VerifiedCredential::of(answer, state.now())
        .map_err(|refused| refusal(provider, &request.credential, &refused))?;
    let existing = request.existing.as_ref();
    let is_same = verified
        .account
        .as_ref()
        .is_none_or(|account| is_same_account(&state, existing, provider, member.org, &account.id));
    let replaces_account = existing.filter(|_| !is_same).and_then(|row| {
        Some(AccountView {
            id: row.account_id.clone()?,
            name: row.account_name.clone(),
        })
    });
    Ok(Json(TestedView {
        replaces_account,
        warnings: warnings(&state, &request.credential).await,
        provider,
        state: verified.state(),
        missing: verified.missing,
        account: verified.account,
    }))
}
