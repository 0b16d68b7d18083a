//! `/api/integrations`: credentials of providers. Held against the provider before they are kept,
//! and never shown again.
//!
//! **Invariant:** a credential that the provider refuses is never stored, and no outage makes a
//! stored one worse.

mod consent;
mod forms;
mod wish;

use crate::{
    admin::{
        Admin, AdminState,
        credentials::{self, Opened},
        plans,
        state::Answer,
        web::{
            auth::{Manager, Reader},
            body::{Id, NoFields},
            page::Params,
            problem::{Code, Problem},
            token::Member,
            view::Time,
        },
    },
    domain::{Fingerprint, IntegrationState, OrgId, Provider, Source, Timestamp},
    oauth::{NotFresh, Want},
    provider::{CallError, Credential, Refused, Verified, google::Granted},
    store::{
        credentials::{CredentialHealth, NewCredential, StoredCredential},
        grants::{IntegrationChange, SecretsChange},
    },
    vault::Purpose,
};
use axum::{
    Json, Router,
    extract::{Request, State},
    routing::{get, post},
};
use http::{StatusCode, Uri};
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use wish::Wish;

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/providers", get(forms::list))
        .route("/api/integrations/status", get(status))
        .route("/api/integrations/google_calendar/authorize", get(consent::authorize))
        .route("/api/integrations/google_calendar/callback", get(consent::callback))
        .route("/api/integrations/{provider}", post(connect).delete(erase))
        .route("/api/integrations/{provider}/test", post(test))
        .route("/api/integrations/{provider}/verify", post(verify))
}

/// Time for asking the provider: below the deadline of the request, so that an outage is told as
/// one.
const VERIFY_MAX: Duration = Duration::from_secs(8);
/// How long a signing secret stays valid after another took its place.
const OVERLAP: Duration = Duration::from_hours(24);

#[derive(Serialize)]
pub struct AccountView {
    id: String,
    name: Option<String>,
}

#[derive(Serialize)]
pub struct IntegrationView {
    /// Stays the same through reconnects; `null` before the first.
    id: Option<String>,
    provider: Provider,
    /// It works, or may work again by itself: `connected`, `limited` or `failing`.
    connected: bool,
    state: IntegrationState,
    cause: Option<String>,
    /// The provider's words, or which key is missing.
    error: Option<String>,
    /// What a limited credential cannot do.
    missing: Option<String>,
    checked_at: Option<Time>,
    first_failed_at: Option<Time>,
    /// When it is tried again by itself, while it is `failing`.
    next_try_at: Option<Time>,
    last_used_at: Option<Time>,
    /// `null` for one that was saved while the provider could not be reached.
    last_verified_at: Option<Time>,
    account: Option<AccountView>,
    last_four: Option<String>,
    version: Option<i64>,
}

impl IntegrationView {
    const fn absent(provider: Provider) -> Self {
        Self {
            id: None,
            provider,
            connected: false,
            state: IntegrationState::NotConnected,
            cause: None,
            error: None,
            missing: None,
            checked_at: None,
            first_failed_at: None,
            next_try_at: None,
            last_used_at: None,
            last_verified_at: None,
            account: None,
            last_four: None,
            version: None,
        }
    }

    /// `undecryptable`: why the row does not open, found now and never stored.
    fn new(provider: Provider, row: Option<StoredCredential>, undecryptable: Option<String>) -> Self {
        let Some(row) = row else {
            return Self::absent(provider);
        };
        let id = Some(row.id.to_string());
        if !row.is_active {
            return Self {
                id,
                ..Self::absent(provider)
            };
        }
        let health = row.health;
        let (state, cause, error) = match undecryptable {
            Some(words) => (
                IntegrationState::Undecryptable,
                Some("undecryptable".to_owned()),
                Some(words),
            ),
            None => (health.state, health.cause, health.error),
        };
        Self {
            id,
            provider,
            connected: state.is_connected(),
            next_try_at: row.refresh_at.filter(|_| state == IntegrationState::Failing).map(Time),
            state,
            cause,
            error,
            missing: health.missing,
            checked_at: health.checked_at.map(Time),
            first_failed_at: health.first_failed_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
            last_verified_at: row.last_verified_at.map(Time),
            account: row.account_id.map(|id| AccountView {
                id,
                name: row.account_name,
            }),
            last_four: row.last_four,
            version: Some(row.version),
        }
    }

    fn opened(opened: Opened) -> Self {
        Self::new(
            opened.row.provider,
            Some(opened.row),
            opened.credential.err().map(|undecryptable| undecryptable.words),
        )
    }
}

#[derive(Serialize)]
pub struct Status {
    integrations: Vec<IntegrationView>,
}

/// Always all five providers, in one order.
pub async fn status(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Status>> {
    Params::of(&uri)?.finish()?;
    let mut rows = state.store.list_credentials(member.org).await?;
    let mut integrations = Vec::with_capacity(Provider::INTEGRATIONS.len());
    for provider in Provider::INTEGRATIONS {
        let row = rows
            .iter()
            .position(|row| row.provider == provider && row.name.is_empty())
            .map(|at| rows.swap_remove(at));
        integrations.push(view(&state, provider, row).await?);
    }
    Ok(Json(Status { integrations }))
}

async fn view(state: &AdminState, provider: Provider, row: Option<StoredCredential>) -> Answer<IntegrationView> {
    let Some(row) = row else {
        return Ok(IntegrationView::new(provider, None, None));
    };
    Ok(match credentials::open(state, row.clone()).await? {
        Some(opened) => IntegrationView::opened(opened),
        None => IntegrationView::new(provider, Some(row), None),
    })
}

/// One of the five. Destinations are credentials, too, and stand elsewhere.
fn integration(text: &str) -> Answer<Provider> {
    match text.parse::<Provider>() {
        Ok(Provider::Http) => {
            Err(Problem::new(Code::NotFound).detail("Destinations of http.post stand under /api/destinations."))
        }
        Ok(provider) => Ok(provider),
        Err(_) => Err(Problem::not_found()),
    }
}

/// What the provider says of a credential.
async fn ask(state: &AdminState, credential: &Credential) -> Result<Verified, CallError> {
    match credential {
        Credential::Vapi(vapi) => state.providers.vapi.verify(vapi, VERIFY_MAX).await,
        Credential::Twilio(twilio) => state.providers.twilio.verify(twilio, VERIFY_MAX).await,
        Credential::Resend(resend) => state.providers.resend.verify(resend, VERIFY_MAX).await,
        Credential::ElevenLabs(elevenlabs) => state.providers.elevenlabs.verify(elevenlabs, VERIFY_MAX).await,
        Credential::Google(google) => match state.providers.google.probe(google, state.now(), VERIFY_MAX).await {
            Ok(()) => Ok(match Granted::read(&google.scope).missing() {
                None => Verified::Good { account: None },
                Some(missing) => Verified::Limited {
                    account: None,
                    missing: missing.to_owned(),
                },
            }),
            Err(CallError::Refused(refused)) if refused.http_status == 401 => Ok(Verified::Refused(refused)),
            Err(error) => Err(error),
        },
        Credential::Http(_) => Ok(Verified::Good { account: None }),
    }
}

/// A good answer, taken apart.
struct Good {
    account: Option<AccountView>,
    missing: Option<String>,
    verified_at: Option<Timestamp>,
}

impl Good {
    fn of(verified: Verified, now: Timestamp) -> Result<Self, Refused> {
        let account = |account: Option<crate::provider::Account>| {
            account.map(|account| AccountView {
                id: account.id,
                name: account.name,
            })
        };
        match verified {
            Verified::Good { account: found } => Ok(Self {
                account: account(found),
                missing: None,
                verified_at: Some(now),
            }),
            Verified::Limited {
                account: found,
                missing,
            } => Ok(Self {
                account: account(found),
                missing: Some(missing),
                verified_at: Some(now),
            }),
            Verified::Refused(refused) => Err(refused),
        }
    }

    const fn state(&self) -> IntegrationState {
        if self.missing.is_some() {
            IntegrationState::Limited
        } else {
            IntegrationState::Connected
        }
    }
}

/// Asks the provider, then stores. Nothing is stored of what it refuses; what it cannot be asked
/// about only with `?unverified=true`.
pub async fn connect(
    State(state): Admin,
    Manager(member): Manager,
    Id(provider): Id<String>,
    uri: Uri,
    request: Request,
) -> Answer<Json<IntegrationView>> {
    let provider = integration(&provider)?;
    let mut params = Params::of(&uri)?;
    let (may_be_unverified, may_replace) = (params.take_flag("unverified")?, params.take_flag("replace_account")?);
    params.finish()?;
    let wish = Wish::read(provider, request).await?;
    let now = state.now();
    let mut good = match ask(&state, &wish.credential).await {
        Ok(verified) => Good::of(verified, now).map_err(|refused| Problem::from_refused(&refused))?,
        Err(_) if may_be_unverified => Good {
            account: None,
            missing: None,
            verified_at: None,
        },
        Err(error) => return Err(Problem::unreachable(&error)),
    };
    let existing = state.store.find_credential(member.org, provider, "").await?;
    let is_same = match (&good.account, &wish.credential) {
        (Some(account), _) => is_same_account(&state, existing.as_ref(), provider, member.org, &account.id),
        (None, Credential::Twilio(twilio)) => {
            let is_same = is_same_account(&state, existing.as_ref(), provider, member.org, &twilio.account_sid);
            good.account = Some(AccountView {
                id: twilio.account_sid.clone(),
                name: None,
            });
            is_same
        }
        // The provider names no account: what was known stays known.
        (None, _) => {
            good.account = existing.as_ref().and_then(|row| {
                Some(AccountView {
                    id: row.account_id.clone()?,
                    name: row.account_name.clone(),
                })
            });
            true
        }
    };
    if !is_same && !may_replace {
        return Err(Problem::new(Code::AccountDiffers).detail(
            "This credential opens another account than the one that was connected. Repeat with \
                ?replace_account=true to change the account.",
        ));
    }
    let secrets = signing(&state, &member, &wish, !is_same).await?;
    // Of an account that nobody names now the fingerprint stays, so that it is known again.
    let known = existing.and_then(|row| row.account_fingerprint);
    let saved = save(&state, &member, wish, good, known, secrets).await?;
    state.forget(member.org);
    Ok(Json(IntegrationView::new(provider, Some(saved), None)))
}

/// By its fingerprint: of an erased credential nothing else is left. What was never named is no
/// other one.
fn is_same_account(
    state: &AdminState,
    existing: Option<&StoredCredential>,
    provider: Provider,
    org: OrgId,
    account: &str,
) -> bool {
    let before = existing
        .and_then(|row| row.account_fingerprint.clone())
        .map(|fingerprint| Fingerprint(fingerprint.into()));
    before.is_none_or(|before| {
        state
            .vault
            .is_fingerprint_of(&before, org, fingerprinted(provider, account).as_bytes())
    })
}

/// What becomes of the signing secrets with this credential.
async fn signing(
    state: &AdminState,
    member: &Member,
    wish: &Wish,
    account_differs: bool,
) -> Answer<Option<SecretsChange>> {
    let Some(source) = wish::source_of(wish.provider) else {
        return Ok(None);
    };
    if wish.signing.is_empty() {
        // The former account's auth token vouches for nothing of this one.
        let is_stale = account_differs && wish.provider == Provider::Twilio;
        return Ok(is_stale.then(|| erased(state, member, source)));
    }
    let mut secrets = Vec::new();
    for signed in &wish.signing {
        for plan in &signed.plans {
            let sealed = plans::seal(state, member.org, None, source, plan, &signed.secret).await;
            secrets.push(sealed.map_err(|problem| renamed(problem, signed.field))?);
        }
    }
    let audit = state.audit(member, "rotate", "secret", source, &["secret", "plan"]);
    // Another account's secrets vouch for nothing of this one: they end at once.
    let others_not_after = (!account_differs).then(|| state.now() + OVERLAP);
    Ok(Some(SecretsChange {
        source,
        secrets,
        others_not_after,
        audit,
    }))
}

fn erased(state: &AdminState, member: &Member, source: Source) -> SecretsChange {
    SecretsChange {
        source,
        secrets: Vec::new(),
        others_not_after: None,
        audit: state.audit(member, "erase", "secret", source, &["secret"]),
    }
}

fn renamed(mut problem: Problem, field: &str) -> Problem {
    problem
        .errors
        .iter_mut()
        .for_each(|error| field.clone_into(&mut error.field));
    problem
}

async fn save(
    state: &AdminState,
    member: &Member,
    wish: Wish,
    good: Good,
    known: Option<String>,
    secrets: Option<SecretsChange>,
) -> Answer<StoredCredential> {
    let provider = wish.provider;
    let stored = wish.credential.to_stored();
    let sealed = state
        .vault
        .seal(member.org, Purpose::Credential(provider), stored.expose_secret())
        .await?;
    let new = NewCredential {
        org: member.org,
        provider,
        name: String::new(),
        sealed,
        state: good.state(),
        account_fingerprint: good
            .account
            .as_ref()
            .map(|account| fingerprint(state, member.org, provider, &account.id))
            .or(known),
        missing: good.missing,
        verified_at: good.verified_at,
        account_id: good.account.as_ref().map(|account| account.id.clone()),
        account_name: good.account.and_then(|account| account.name),
        last_four: wish.last_four,
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

fn fingerprint(state: &AdminState, org: OrgId, provider: Provider, account: &str) -> String {
    state
        .vault
        .fingerprint(org, fingerprinted(provider, account).as_bytes())
        .0
        .into()
}

fn fingerprinted(provider: Provider, account: &str) -> String {
    format!("account:{provider}:{account}")
}

#[derive(Serialize)]
pub struct Tested {
    provider: Provider,
    /// `connected` or `limited`: what it would be stored as.
    state: IntegrationState,
    missing: Option<String>,
    account: Option<AccountView>,
}

/// Asks the provider and stores nothing.
pub async fn test(State(state): Admin, _: Manager, Id(provider): Id<String>, request: Request) -> Answer<Json<Tested>> {
    let provider = integration(&provider)?;
    let wish = Wish::read(provider, request).await?;
    let verified = ask(&state, &wish.credential)
        .await
        .map_err(|error| Problem::unreachable(&error))?;
    let good = Good::of(verified, state.now()).map_err(|refused| Problem::from_refused(&refused))?;
    Ok(Json(Tested {
        provider,
        state: good.state(),
        missing: good.missing,
        account: good.account,
    }))
}

/// Asks the provider about what is stored, and keeps what it says. An outage changes nothing.
pub async fn verify(
    State(state): Admin,
    Manager(member): Manager,
    Id(provider): Id<String>,
    _: NoFields,
) -> Answer<Json<IntegrationView>> {
    let provider = integration(&provider)?;
    let not_connected = || Problem::new(Code::NotConnected).detail("There is nothing to verify: connect it first.");
    let mut opened = credentials::find(&state, member.org, provider, "")
        .await?
        .ok_or_else(not_connected)?;
    if let Ok(Credential::Google(_)) = &opened.credential {
        // A grant is good if it gives a new token: an access token that still works says nothing
        // about it.
        match state
            .refresher
            .ensure(member.org, Want::NewerThan(opened.row.version))
            .await
        {
            Ok(_) | Err(NotFresh::NeedsReconnecting { .. } | NotFresh::Later { .. }) => {}
            Err(NotFresh::NotConnected) => return Err(not_connected()),
            Err(NotFresh::Undecryptable { .. }) => return Err(Problem::new(Code::Undecryptable)),
            Err(NotFresh::Unavailable) => return Err(Problem::new(Code::DatabaseUnavailable)),
        }
        state.forget(member.org);
        opened = credentials::find(&state, member.org, provider, "")
            .await?
            .ok_or_else(not_connected)?;
        if opened.row.health.state.is_failing() {
            return Ok(Json(IntegrationView::opened(opened)));
        }
    }
    let Ok(credential) = &opened.credential else {
        return Ok(Json(IntegrationView::opened(opened)));
    };
    let verified = ask(&state, credential)
        .await
        .map_err(|error| Problem::unreachable(&error))?;
    let now = state.now();
    let row = opened.row;
    let was_failing = row.health.state.is_failing();
    match Good::of(verified, now) {
        // What was parked waits for a newer version: the same secret under the next one lets it go
        // on (invariant 6).
        Ok(good) if was_failing && row.sealed.is_some() => resume(&state, &member, row, good).await?,
        Ok(good) => {
            let checked = good.state();
            let health = CredentialHealth {
                missing: good.missing,
                checked_at: Some(now),
                ..CredentialHealth::of(checked)
            };
            state
                .store
                .record_credential_health(member.org, row.id, row.version, health, Some(now))
                .await?;
        }
        Err(refused) => {
            let health = CredentialHealth {
                state: IntegrationState::NeedsReconnecting,
                cause: Some("credential_refused".to_owned()),
                error: Some(words(&refused)),
                missing: None,
                checked_at: Some(now),
                first_failed_at: row.health.first_failed_at.or(Some(now)),
            };
            state
                .store
                .record_credential_health(member.org, row.id, row.version, health, None)
                .await?;
        }
    }
    state.forget(member.org);
    let row = state.store.find_credential(member.org, provider, "").await?;
    Ok(Json(view(&state, provider, row).await?))
}

fn words(refused: &Refused) -> String {
    match &refused.code {
        Some(code) => format!("{} (HTTP {}, code {code})", refused.message, refused.http_status),
        None => format!("{} (HTTP {})", refused.message, refused.http_status),
    }
}

async fn resume(state: &AdminState, member: &Member, row: StoredCredential, good: Good) -> Answer<()> {
    let Some(sealed) = row.sealed else { return Ok(()) };
    let new = NewCredential {
        org: member.org,
        provider: row.provider,
        name: row.name,
        sealed,
        state: good.state(),
        missing: good.missing,
        account_id: row.account_id,
        account_name: row.account_name,
        account_fingerprint: row.account_fingerprint,
        last_four: row.last_four,
        verified_at: good.verified_at,
    };
    let audit = state.audit(member, "update", "credential", row.provider, &["state"]);
    state
        .store
        .save_integration(IntegrationChange {
            credential: new,
            refresh_at: row.refresh_at,
            secrets: None,
            audit,
        })
        .await?;
    Ok(())
}

/// Revokes at the provider where that exists, then erases the ciphertext of the credential and of
/// the signing secrets that came with it. The row stays, so that a reconnect keeps its id. A second
/// time is as good.
pub async fn erase(State(state): Admin, Manager(member): Manager, Id(provider): Id<String>) -> Answer<StatusCode> {
    let provider = integration(&provider)?;
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
    let secrets = wish::source_of(provider).map(|source| erased(&state, &member, source));
    let audit = state.audit(&member, "erase", "credential", provider, &fields);
    state
        .store
        .erase_integration(member.org, provider, "", secrets, audit)
        .await?;
    state.forget(member.org);
    Ok(StatusCode::NO_CONTENT)
}
