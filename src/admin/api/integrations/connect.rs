//! `POST /api/integrations/{provider}`: asks the provider, then stores the credential.
//!
//! | answer | when |
//! |---|---|
//! | 409 `account_differs` | it opens another account than before, without `?replace_account=true` |
//! | 422 `refused_by_provider` | the provider refuses it |
//! | 503 `provider_unreachable` | the provider cannot be asked, without `?unverified=true` |

use super::{
    account::{fingerprint, is_same_account},
    check::{VerifiedCredential, ask},
    parse_provider,
    request::ConnectRequest,
    signing,
    view::{AccountView, IntegrationView},
};
use crate::{
    admin::{
        Admin,
        state::{AdminState, Answer},
        web::{
            auth::Manager,
            body::Id,
            page::Params,
            problem::{Code, Problem},
            token::Member,
        },
    },
    provider::Credential,
    store::{
        credentials::{NewCredential, StoredCredential},
        grants::{IntegrationChange, SecretsChange},
    },
    vault::Purpose,
};
use axum::{
    Json,
    extract::{Request, State},
};
use http::Uri;

/// Stores nothing that the provider refuses, and nothing unchecked unless `?unverified=true` asks
/// for it.
pub async fn connect(
    State(state): Admin,
    Manager(member): Manager,
    Id(provider): Id<String>,
    uri: Uri,
    request: Request,
) -> Answer<Json<IntegrationView>> {
    let provider = parse_provider(&provider)?;
    let mut params = Params::of(&uri)?;
    let (may_be_unverified, may_replace) = (params.take_flag("unverified")?, params.take_flag("replace_account")?);
    params.finish()?;
    let request = ConnectRequest::read(provider, request).await?;

    // Ask the provider.
    let mut verified = match ask(&state, &request.credential).await {
        Ok(verified) => {
            VerifiedCredential::of(verified, state.now()).map_err(|refused| Problem::from_refused(&refused))?
        }
        Err(_) if may_be_unverified => VerifiedCredential {
            account: None,
            missing: None,
            verified_at: None,
        },
        Err(error) => return Err(Problem::unreachable(&error)),
    };

    // Compare the account with the one that was connected.
    let existing = state.store.find_credential(member.org, provider, "").await?;
    let is_same = complete_account(&state, &member, &request, existing.as_ref(), &mut verified);
    if !is_same && !may_replace {
        return Err(Problem::new(Code::AccountDiffers).detail(
            "This credential opens another account than the one that was connected. Repeat with \
                ?replace_account=true to change the account.",
        ));
    }

    // Store it, with the signing secrets that came along.
    let secrets = signing::change(&state, &member, &request, !is_same).await?;
    let former_fingerprint = existing.and_then(|row| row.account_fingerprint);
    let saved = save(&state, &member, request, verified, former_fingerprint, secrets).await?;
    state.forget(member.org);
    Ok(Json(IntegrationView::new(provider, Some(saved), None)))
}

/// Completes the account of `verified`, and says whether it is the account of the stored row.
fn complete_account(
    state: &AdminState,
    member: &Member,
    request: &ConnectRequest,
    existing: Option<&StoredCredential>,
    verified: &mut VerifiedCredential,
) -> bool {
    let is_same = |account: &str| is_same_account(state, existing, request.provider, member.org, account);
    match (&verified.account, &request.credential) {
        (Some(account), _) => is_same(&account.id),
        // An unchecked credential of Twilio names its account by itself.
        (None, Credential::Twilio(twilio)) => {
            let is_same = is_same(&twilio.account_sid);
            verified.account = Some(AccountView {
                id: twilio.account_sid.clone(),
                name: None,
            });
            is_same
        }
        // The provider names no account: keep the account that the row names.
        (None, _) => {
            verified.account = existing.and_then(|row| {
                Some(AccountView {
                    id: row.account_id.clone()?,
                    name: row.account_name.clone(),
                })
            });
            true
        }
    }
}

/// `former_fingerprint` is kept when the provider names no account, so that a later reconnect can
/// still be compared with it.
async fn save(
    state: &AdminState,
    member: &Member,
    request: ConnectRequest,
    verified: VerifiedCredential,
    former_fingerprint: Option<String>,
    secrets: Option<SecretsChange>,
) -> Answer<StoredCredential> {
    let provider = request.provider;
    let stored = request.credential.to_stored();
    let sealed = state
        .vault
        .seal(member.org, Purpose::Credential(provider), stored.expose_secret())
        .await?;
    let new = NewCredential {
        org: member.org,
        provider,
        name: String::new(),
        sealed,
        state: verified.state(),
        account_fingerprint: verified
            .account
            .as_ref()
            .map(|account| fingerprint(state, member.org, provider, &account.id))
            .or(former_fingerprint),
        missing: verified.missing,
        verified_at: verified.verified_at,
        account_id: verified.account.as_ref().map(|account| account.id.clone()),
        account_name: verified.account.and_then(|account| account.name),
        last_four: request.last_four,
    };
    let audit = state.audit(member, "connect", "credential", provider, &["credential"]);
    Ok(state
        .store
        .save_integration(IntegrationChange {
            credential: new,
            refresh_at: None,
            secrets,
            audit,
        })
        .await?)
}
