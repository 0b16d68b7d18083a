//! `POST /api/integrations/{provider}/verify`: asks the provider about the stored credential, and
//! stores its answer. A provider that has an outage or asks to wait changes nothing.

use super::{
    check::{VerifiedCredential, ask, not_checked},
    parse_provider,
    view::{IntegrationView, view},
};
use crate::{
    admin::{
        Admin,
        credentials::{self, Opened},
        state::{AdminState, Answer},
        web::{
            auth::Manager,
            body::{Id, NoFields},
            problem::{Code, Problem},
            token::Member,
        },
    },
    domain::{IntegrationState, Provider},
    oauth::{NotFresh, Want},
    provider::{Credential, Verified},
    store::{
        audit::Changes,
        credentials::{CredentialError, CredentialHealth, Expects, NewCredential, StoredCredential},
        grants::IntegrationChange,
    },
};
use axum::{Json, extract::State};

pub async fn verify(
    State(state): Admin,
    Manager(member): Manager,
    Id(provider): Id<String>,
    _: NoFields,
) -> Answer<Json<IntegrationView>> {
    let provider = parse_provider(&provider)?;
    let mut opened = find(&state, &member, provider).await?;
    if let Ok(Credential::Google(_)) = &opened.credential {
        refresh_google(&state, &member, &opened).await?;
        opened = find(&state, &member, provider).await?;
        if opened.row.health.state.is_failing() {
            return Ok(Json(view(&state, member.org, provider, Some(opened.row)).await?));
        }
    }
    let Ok(credential) = &opened.credential else {
        return Ok(Json(view(&state, member.org, provider, Some(opened.row)).await?));
    };
    let answer = match ask(&state, credential).await {
        Ok(answer) => answer,
        Err(error) => {
            let why = not_checked(provider, &error, state.providers.http.now());
            let shown = view(&state, member.org, provider, Some(opened.row)).await?;
            return Ok(Json(shown.not_checked(why)));
        }
    };
    record(&state, &member, opened.row, answer).await?;
    state.forget(member.org);
    let row = state.store.find_credential(member.org, provider, "").await?;
    Ok(Json(view(&state, member.org, provider, row).await?))
}

fn not_connected() -> Problem {
    Problem::new(Code::NotConnected).detail("There is nothing to verify: connect it first.")
}

async fn find(state: &AdminState, member: &Member, provider: Provider) -> Answer<Opened> {
    credentials::find(state, member.org, provider, "")
        .await?
        .ok_or_else(not_connected)
}

/// A grant of Google works when it gives a new token: an access token that still works proves
/// nothing about the grant.
async fn refresh_google(state: &AdminState, member: &Member, opened: &Opened) -> Answer<()> {
    match state
        .refresher
        .ensure(member.org, Want::NewerThanNow(opened.row.version))
        .await
    {
        Ok(_) | Err(NotFresh::NeedsReconnecting { .. } | NotFresh::Later { .. }) => {}
        Err(NotFresh::NotConnected) => return Err(not_connected()),
        Err(NotFresh::Undecryptable { .. }) => return Err(Problem::new(Code::Undecryptable)),
        Err(NotFresh::Unavailable) => return Err(Problem::new(Code::DatabaseUnavailable)),
    }
    state.forget(member.org);
    Ok(())
}

/// Stores what the provider said about the row.
async fn record(state: &AdminState, member: &Member, row: StoredCredential, answer: Verified) -> Answer<()> {
    let now = state.now();
    let before = row.health.state;
    let (health, verified_at) = match VerifiedCredential::of(answer, now) {
        // Parked actions wait for a newer version. The same secret under a new version lets them go
        // on (invariant 6).
        Ok(verified) if row.health.state.is_failing() && row.sealed.is_some() => {
            return resume(state, member, row, verified).await;
        }
        Ok(verified) => {
            let state_now = verified.state();
            let health = CredentialHealth {
                missing: verified.missing,
                checked_at: Some(now),
                ..CredentialHealth::of(state_now)
            };
            (health, Some(now))
        }
        Err(refused) => {
            let health = CredentialHealth {
                state: IntegrationState::NeedsReconnecting,
                cause: Some("credential_refused".to_owned()),
                error: Some(CredentialError {
                    message: refused.message.to_string(),
                    http_status: Some(refused.http_status),
                    code: refused.code.as_deref().map(str::to_owned),
                }),
                missing: None,
                checked_at: Some(now),
                first_failed_at: row.health.first_failed_at.or(Some(now)),
            };
            (health, None)
        }
    };
    let changes = Changes::default().value("state", before, health.state);
    let audit = state.audit(member, "verify", "credential", row.provider, changes);
    state
        .store
        .record_credential_health(member.org, row.id, row.version, health, verified_at, Some(audit))
        .await?;
    Ok(())
}

/// Saves the same secret under the next version, so that parked actions are due.
async fn resume(
    state: &AdminState,
    member: &Member,
    row: StoredCredential,
    verified: VerifiedCredential,
) -> Answer<()> {
    let Some(sealed) = row.sealed else { return Ok(()) };
    let changes = Changes::default().value("state", row.health.state, verified.state());
    let new = NewCredential {
        org: member.org,
        provider: row.provider,
        name: row.name,
        sealed,
        state: verified.state(),
        missing: verified.missing,
        account_id: row.account_id,
        account_name: row.account_name,
        account_fingerprint: row.account_fingerprint,
        last_four: row.last_four,
        verified_at: verified.verified_at,
        expects: Expects::Version(row.version),
    };
    let audit = state.audit(member, "verify", "credential", row.provider, changes);
    state
        .store
        .save_integration(IntegrationChange {
            credential: new,
            refresh_at: row.refresh_at,
            is_new_secret: false,
            secrets: None,
            audit,
        })
        .await?;
    Ok(())
}
