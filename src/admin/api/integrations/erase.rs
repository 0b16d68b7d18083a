//! `DELETE /api/integrations/{provider}`: erases the credential.

use super::{parse_provider, request::source_of, signing};
use crate::{
    admin::{
        Admin,
        state::Answer,
        web::{auth::Manager, body::Id},
    },
    domain::Provider,
};
use axum::extract::State;
use http::StatusCode;

/// Revokes the grant at the provider where a provider can do that. Then erases the ciphertext of
/// the credential and of the signing secrets that came with it. The row stays, so that a reconnect
/// keeps its id. To erase it a second time is 204 as well.
pub async fn erase(State(state): Admin, Manager(member): Manager, Id(provider): Id<String>) -> Answer<StatusCode> {
    let provider = parse_provider(&provider)?;
    let mut fields = vec!["credential"];
    if provider == Provider::GoogleCalendar
        && let Some(sealed) = state
            .store
            .find_credential(member.org, provider, "")
            .await?
            .and_then(|row| row.sealed)
        && state.consents.revoke(member.org, &sealed).await
    {
        fields.push("revoked_at_provider");
    }
    let secrets = source_of(provider).map(|source| signing::erase(&state, &member, source));
    let audit = state.audit(&member, "erase", "credential", provider, &fields);
    state
        .store
        .erase_integration(member.org, provider, "", secrets, audit)
        .await?;
    state.forget(member.org);
    Ok(StatusCode::NO_CONTENT)
}
