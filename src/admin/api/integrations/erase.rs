//! `DELETE /api/integrations/{provider}`: erases the credential.

use super::{parse_provider, request::source_of, signing, view::check_etag};
use crate::{
    admin::{
        Admin,
        state::Answer,
        web::{auth::Manager, body::Id},
    },
    domain::Provider,
    store::credentials::Expects,
};
use axum::extract::State;
use http::{HeaderMap, StatusCode, header};

/// Revokes the grant at the provider where a provider can do that. Then erases the ciphertext of
/// the credential and of the signing secrets that came with it. The row stays, so that a reconnect
/// keeps its id. To erase it a second time is 204 as well.
pub async fn erase(
    State(state): Admin,
    Manager(member): Manager,
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
    let mut fields = vec!["credential"];
    if provider == Provider::GoogleCalendar
        && let Some(sealed) = row.and_then(|row| row.sealed)
        && state.consents.revoke(member.org, &sealed).await
    {
        fields.push("revoked_at_provider");
    }
    let secrets = source_of(provider).map(|source| signing::erase(&state, &member, source));
    let audit = state.audit(&member, "erase", "credential", provider, &fields);
    state
        .store
        .erase_integration(member.org, provider, "", expects, secrets, audit)
        .await?;
    state.forget(member.org);
    Ok(StatusCode::NO_CONTENT)
}
