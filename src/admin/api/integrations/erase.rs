//! `DELETE /api/integrations/{provider}`: erases the credential.

use super::{changes, parse_provider, request::source_of, signing, view::check_etag};
use crate::{
    admin::{
        Admin, AdminState, credentials,
        state::Answer,
        web::{auth::Connector, body::Id},
    },
    domain::{IntegrationState, Provider},
    store::{
        audit::{Changes, SecretChange},
        credentials::{Expects, StoredCredential},
    },
};
use axum::extract::State;
use http::{HeaderMap, StatusCode, header};

/// Revokes the grant at the provider where a provider can do that. Then erases the ciphertext of
/// the credential and of the signing secrets that came with it. The row stays, so that a reconnect
/// keeps its id. To erase it a second time is 204 as well.
pub async fn erase(
    State(state): Admin,
    Connector(member): Connector,
    Id(provider): Id<String>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let provider = parse_provider(&provider)?;
    let row = state.store.find_credential(member.org, provider, "").await?;
    check_etag(&state, &headers, row.as_ref())?;
    let expects = match &row {
        Some(row) if headers.contains_key(header::IF_MATCH) => Expects::Version(row.version),
        _ => Expects::Anything,
    };
    let mut changes = changes_of(&state, row.as_ref()).await?;
    if provider == Provider::GoogleCalendar
        && let Some(sealed) = row.and_then(|row| row.sealed)
    {
        changes = changes.secret("consent", Some(SecretChange::Cleared));
        if state.consents.revoke(member.org, &sealed).await {
            changes = changes.value("revoked_at_provider", (), true);
        }
    }
    let secrets = source_of(provider).map(|source| signing::erase(&state, &member, source));
    let audit = state.audit(&member, "erase", "credential", provider, changes);
    state
        .store
        .erase_integration(member.org, provider, "", expects, secrets, audit)
        .await?;
    state.forget(member.org);
    Ok(StatusCode::NO_CONTENT)
}

async fn changes_of(state: &AdminState, row: Option<&StoredCredential>) -> Answer<Changes> {
    let opened = match row {
        Some(row) => credentials::open(state, row.clone()).await?,
        None => None,
    };
    let before = opened.and_then(|opened| opened.credential.ok());
    let account = row.and_then(|row| row.account_id.as_deref());
    Ok(changes::of_fields(before.as_ref(), None)
        .value("account", account, ())
        .value("state", changes::state_of(row), IntegrationState::NotConnected))
}
