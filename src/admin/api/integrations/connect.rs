//! `POST /api/integrations/{provider}`: asks the provider, then stores the credential.
//!
//! | answer | when |
//! |---|---|
//! | 412 `precondition_failed` | `If-Match` is sent and another version is stored |
//! | 409 `account_differs` | it opens another account than before, without `?replace_account=true` |
//! | 422 `refused_by_provider` | the provider refuses it |
//! | 503 `provider_unreachable` | the provider cannot be asked, without `?unverified=true` |

use super::{
    account::{fingerprint_to_keep, is_same_account},
    changes,
    check::{VerifiedCredential, ask, refusal, unreachable, warnings},
    parse_provider,
    request::ConnectRequest,
    signing,
    view::{AccountView, IntegrationView, check_etag, view},
};
use crate::{
    admin::{
        Admin, credentials,
        state::{AdminState, Answer},
        web::{
            auth::Connector,
            body::Id,
            page::Params,
            problem::{Code, FieldError, Problem},
            token::Member,
        },
    },
    provider::Credential,
    store::{
        audit::Changes,
        credentials::{Expects, NewCredential, StoredCredential},
        grants::{IntegrationChange, SecretsChange},
    },
    vault::Purpose,
};
use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::Serialize;

/// RFC 9745: since when the field names of the API before this one are deprecated.
const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const FORMER_NAMES_SINCE: &str = "@1764028800";

#[derive(Serialize, utoipa::ToSchema)]
pub struct ConnectedView {
    #[serde(flatten)]
    integration: IntegrationView,
    /// Settings that the provider does not confirm. They are stored all the same.
    warnings: Vec<FieldError>,
}

/// Stores nothing that the provider refuses, and nothing unchecked unless `?unverified=true` asks
/// for it.
pub async fn connect(
    State(state): Admin,
    Connector(member): Connector,
    Id(provider): Id<String>,
    uri: Uri,
    headers: HeaderMap,
    request: Request,
) -> Answer<Response> {
    let provider = parse_provider(&provider)?;
    let mut params = Params::of(&uri)?;
    let (may_be_unverified, may_replace) = (params.take_flag("unverified")?, params.take_flag("replace_account")?);
    params.finish()?;
    let mut request = ConnectRequest::read(&state, member.org, provider, request).await?;
    check_etag(&state, &headers, request.existing.as_ref())?;

    // Ask the provider.
    let mut verified = verify(&state, &request, may_be_unverified).await?;
    let warnings = match verified.verified_at {
        Some(_) => warnings(&state, &request.credential).await,
        None => Vec::new(),
    };

    // Compare the account with the one that was connected.
    let existing = request.existing.take();
    let is_same = complete_account(&state, &member, &request, existing.as_ref(), &mut verified);
    if !is_same && !may_replace {
        let before = existing.and_then(|row| row.account_id);
        let now = verified.account.map(|account| account.id);
        return Err(Problem::new(Code::AccountDiffers).accounts(before, now).detail(
            "This credential opens another account than the one that was connected. Repeat with \
                    ?replace_account=true to change the account.",
        ));
    }

    // Store it, with the signing secrets that came along.
    let secrets = signing::change(&state, &member, &request, !is_same).await?;
    let has_former_names = request.has_former_names;
    let saved = save(&state, &member, request, verified, existing.as_ref(), secrets).await?;
    state.forget(member.org);
    let connected = ConnectedView {
        integration: view(&state, member.org, provider, Some(saved)).await?,
        warnings,
    };
    let mut response = Json(connected).into_response();
    if has_former_names {
        response
            .headers_mut()
            .insert(DEPRECATION, HeaderValue::from_static(FORMER_NAMES_SINCE));
    }
    Ok(response)
}

/// Asks the provider about the credential. `may_be_unverified` allows one that cannot be checked.
async fn verify(state: &AdminState, request: &ConnectRequest, may_be_unverified: bool) -> Answer<VerifiedCredential> {
    match ask(state, &request.credential).await {
        Ok(answer) => VerifiedCredential::of(answer, state.now())
            .map_err(|refused| refusal(request.provider, &request.credential, &refused).and_nothing_was_stored()),
        Err(_) if may_be_unverified => Ok(VerifiedCredential::unchecked()),
        Err(error) => Err(unreachable(request.provider, &error, state.providers.http.now())
            .and_nothing_was_stored()
            .and_detail("?unverified=true stores the credential without a check.")),
    }
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

/// The row that was read is the row that the save replaces: another version is refused.
async fn changes(
    state: &AdminState,
    request: &ConnectRequest,
    verified: &VerifiedCredential,
    existing: Option<&StoredCredential>,
) -> Answer<Changes> {
    let opened = match existing {
        Some(row) => credentials::open(state, row.clone()).await?,
        None => None,
    };
    let before = opened.and_then(|opened| opened.credential.ok());
    let account = verified.account.as_ref().map(|account| account.id.as_str());
    Ok(changes::of_fields(before.as_ref(), Some(&request.credential))
        .value("account", existing.and_then(|row| row.account_id.as_deref()), account)
        .value("state", changes::state_of(existing), verified.state()))
}

/// The former fingerprint is kept when the provider names no account, so that a later reconnect can
/// still be compared with it.
async fn save(
    state: &AdminState,
    member: &Member,
    request: ConnectRequest,
    verified: VerifiedCredential,
    existing: Option<&StoredCredential>,
    secrets: Option<SecretsChange>,
) -> Answer<StoredCredential> {
    let provider = request.provider;
    let changes = changes(state, &request, &verified, existing).await?;
    let is_new_secret = changes.values().iter().any(|change| change.secret.is_some());
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
            .map(|account| fingerprint_to_keep(state, existing, provider, member.org, &account.id))
            .or_else(|| existing.and_then(|row| row.account_fingerprint.clone())),
        missing: verified.missing,
        verified_at: verified.verified_at,
        account_id: verified.account.as_ref().map(|account| account.id.clone()),
        account_name: verified.account.and_then(|account| account.name),
        last_four: request.last_four,
        // The fields that the body leaves out are those of the version that was read.
        expects: existing
            .filter(|row| row.is_active)
            .map_or(Expects::Anything, |row| Expects::Version(row.version)),
    };
    let audit = state.audit(member, "connect", "credential", provider, changes);
    Ok(state
        .store
        .save_integration(IntegrationChange {
            credential: new,
            refresh_at: None,
            is_new_secret,
            secrets,
            audit,
        })
        .await?)
}
