//! `/api/integrations`: credentials of providers. Held against the provider before they are kept, and never shown again.
//!
//! **Invariant:** a credential that the provider refuses is never stored, and no outage makes a stored one worse.

use super::{
    Admin,
    auth::{Manager, Reader},
    body::{self, Id, NoFields},
    credentials::{self, Opened},
    page::Params,
    plans,
    problem::{Code, Problem},
    state::{AdminState, Answer},
    token::Member,
    view::{Time, last_four},
};
use crate::{
    domain::{Fingerprint, OrgId, Provider, SecretBytes, Source, Timestamp},
    provider::{CallError, Credential, Refused, TwilioAuth, TwilioCredential, VapiCredential, Verified},
    source::{Plan, TwilioPlan},
    store::{
        credentials::{CredentialHealth, NewCredential, StoredCredential},
        grants::{Connection, SecretsChange},
    },
    vault::Purpose,
};
use axum::{
    Json,
    extract::{FromRequest, Request, State},
};
use http::{StatusCode, Uri};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time for asking the provider: below the deadline of the request, so that an outage is told as one.
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
    state: String,
    cause: Option<String>,
    /// The provider's words, or which key is missing.
    error: Option<String>,
    /// What a limited credential cannot do.
    missing: Option<String>,
    checked_at: Option<Time>,
    first_failed_at: Option<Time>,
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
            state: String::new(),
            cause: None,
            error: None,
            missing: None,
            checked_at: None,
            first_failed_at: None,
            last_used_at: None,
            last_verified_at: None,
            account: None,
            last_four: None,
            version: None,
        }
    }

    /// `undecryptable`: why the row does not open, found now and never stored.
    fn new(provider: Provider, row: Option<StoredCredential>, undecryptable: Option<String>) -> Self {
        let Some(row) = row else { return Self { state: "not_connected".to_owned(), ..Self::absent(provider) } };
        let id = Some(row.id.to_string());
        if !row.is_active {
            return Self { id, state: "not_connected".to_owned(), ..Self::absent(provider) };
        }
        let health = row.health;
        let (state, cause, error) = match undecryptable {
            Some(words) => ("undecryptable".to_owned(), Some("undecryptable".to_owned()), Some(words)),
            None => (health.state, health.cause, health.error),
        };
        Self {
            id,
            provider,
            connected: matches!(state.as_str(), "connected" | "limited" | "failing"),
            state,
            cause,
            error,
            missing: health.missing,
            checked_at: health.checked_at.map(Time),
            first_failed_at: health.first_failed_at.map(Time),
            last_used_at: row.last_used_at.map(Time),
            last_verified_at: row.last_verified_at.map(Time),
            account: row.account_id.map(|id| AccountView { id, name: row.account_name }),
            last_four: row.last_four,
            version: Some(row.version),
        }
    }

    fn opened(opened: Opened) -> Self {
        Self::new(opened.row.provider, Some(opened.row), opened.credential.err().map(|undecryptable| undecryptable.words))
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
        let row = rows.iter().position(|row| row.provider == provider && row.name.is_empty()).map(|at| rows.swap_remove(at));
        integrations.push(view(&state, provider, row).await?);
    }
    Ok(Json(Status { integrations }))
}

async fn view(state: &AdminState, provider: Provider, row: Option<StoredCredential>) -> Answer<IntegrationView> {
    let Some(row) = row else { return Ok(IntegrationView::new(provider, None, None)) };
    Ok(match credentials::open(state, row.clone()).await? {
        Some(opened) => IntegrationView::opened(opened),
        None => IntegrationView::new(provider, Some(row), None),
    })
}

/// The providers whose credentials can be given in this version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Served {
    Vapi,
    Twilio,
}

impl Served {
    fn find(text: &str) -> Answer<Self> {
        match text.parse::<Provider>() {
            Ok(Provider::Vapi) => Ok(Self::Vapi),
            Ok(Provider::Twilio) => Ok(Self::Twilio),
            Ok(Provider::Http) => Err(Problem::new(Code::NotFound).detail("Destinations of http.post stand under /api/destinations.")),
            Ok(_) => Err(Problem::new(Code::NotServed).detail("vapi and twilio can be connected in this version.")),
            Err(_) => Err(Problem::not_found()),
        }
    }

    const fn provider(self) -> Provider {
        match self {
            Self::Vapi => Provider::Vapi,
            Self::Twilio => Provider::Twilio,
        }
    }

    const fn source(self) -> Source {
        match self {
            Self::Vapi => Source::Vapi,
            Self::Twilio => Source::Twilio,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VapiWish {
    api_key: SecretString,
    webhook_secret: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TwilioWish {
    account_sid: String,
    auth_token: Option<SecretString>,
    api_key_sid: Option<String>,
    api_key_secret: Option<SecretString>,
    phone_number: Option<String>,
}

/// What a person wants to connect.
struct Wish {
    served: Served,
    credential: Credential,
    /// What signs this provider's webhooks, with every plan that it can sign by.
    signing: Option<(SecretString, Vec<Plan>)>,
    last_four: Option<String>,
}

fn secret_bytes(secret: &SecretString) -> SecretBytes {
    SecretBytes::from(secret.expose_secret().to_owned())
}

impl Wish {
    async fn read(served: Served, request: Request) -> Answer<Self> {
        let wish = match served {
            Served::Vapi => {
                let body::Json(wish) = body::Json::<VapiWish>::from_request(request, &()).await?;
                Self {
                    served,
                    last_four: last_four(wish.api_key.expose_secret()),
                    credential: Credential::Vapi(VapiCredential { api_key: secret_bytes(&wish.api_key) }),
                    signing: wish.webhook_secret.map(|secret| (secret, plans::of_vapi())),
                }
            }
            Served::Twilio => {
                let body::Json(wish) = body::Json::<TwilioWish>::from_request(request, &()).await?;
                let (auth, shown, signing) = match (wish.auth_token, wish.api_key_sid, wish.api_key_secret) {
                    (Some(token), None, None) => {
                        let (auth, shown) = (TwilioAuth::AuthToken(secret_bytes(&token)), last_four(token.expose_secret()));
                        (auth, shown, Some((token, vec![Plan::Twilio(TwilioPlan::AuthToken)])))
                    }
                    (None, Some(sid), Some(secret)) => (TwilioAuth::ApiKey { sid, secret: secret_bytes(&secret) }, last_four(secret.expose_secret()), None),
                    _ => return Err(Problem::field(Code::InvalidField, "auth_token", "expected auth_token, or api_key_sid with api_key_secret, and not both")),
                };
                let credential = Credential::Twilio(TwilioCredential { account_sid: wish.account_sid, auth, phone_number: wish.phone_number });
                Self { served, credential, signing, last_four: shown }
            }
        };
        wish.credential.check().map_err(|error| Problem::field(Code::InvalidField, error.field, error.problem))?;
        Ok(wish)
    }
}

/// What the provider says of a credential.
async fn ask(state: &AdminState, credential: &Credential) -> Result<Verified, CallError> {
    match credential {
        Credential::Vapi(vapi) => state.providers.vapi.verify(vapi, VERIFY_MAX).await,
        Credential::Twilio(twilio) => state.providers.twilio.verify(twilio, VERIFY_MAX).await,
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
        let account = |account: Option<crate::provider::Account>| account.map(|account| AccountView { id: account.id, name: account.name });
        match verified {
            Verified::Good { account: found } => Ok(Self { account: account(found), missing: None, verified_at: Some(now) }),
            Verified::Limited { account: found, missing } => Ok(Self { account: account(found), missing: Some(missing), verified_at: Some(now) }),
            Verified::Refused(refused) => Err(refused),
        }
    }

    const fn state(&self) -> &'static str {
        if self.missing.is_some() { "limited" } else { "connected" }
    }
}

/// Asks the provider, then stores. Nothing is stored of what it refuses; what it cannot be asked about only with `?unverified=true`.
pub async fn connect(State(state): Admin, Manager(member): Manager, Id(provider): Id<String>, uri: Uri, request: Request) -> Answer<Json<IntegrationView>> {
    let served = Served::find(&provider)?;
    let mut params = Params::of(&uri)?;
    let (may_be_unverified, may_replace) = (params.take_flag("unverified")?, params.take_flag("replace_account")?);
    params.finish()?;
    let wish = Wish::read(served, request).await?;
    let now = state.now();
    let mut good = match ask(&state, &wish.credential).await {
        Ok(verified) => Good::of(verified, now).map_err(|refused| Problem::from_refused(&refused))?,
        Err(_) if may_be_unverified => Good { account: None, missing: None, verified_at: None },
        Err(error) => return Err(Problem::unreachable(&error)),
    };
    let existing = state.store.find_credential(member.org, served.provider(), "").await?;
    if good.account.is_none() {
        good.account = match &wish.credential {
            Credential::Twilio(twilio) => Some(AccountView { id: twilio.account_sid.clone(), name: None }),
            // Vapi names no account: what was known stays known.
            _ => existing.as_ref().and_then(|row| Some(AccountView { id: row.account_id.clone()?, name: row.account_name.clone() })),
        };
    }
    // By its fingerprint: of an erased credential nothing else is left.
    let before = existing.and_then(|row| row.account_fingerprint).map(|fingerprint| Fingerprint(fingerprint.into()));
    let differs = before
        .zip(good.account.as_ref())
        .is_some_and(|(before, account)| !state.vault.is_fingerprint_of(&before, member.org, fingerprinted(served.provider(), &account.id).as_bytes()));
    if differs && !may_replace {
        return Err(Problem::new(Code::AccountDiffers)
            .detail("This credential opens another account than the one that was connected. Repeat with ?replace_account=true to change the account."));
    }
    let secrets = signing(&state, &member, &wish, differs).await?;
    let saved = save(&state, &member, wish, good, secrets).await?;
    state.forget(member.org);
    Ok(Json(IntegrationView::new(served.provider(), Some(saved), None)))
}

/// What becomes of the signing secrets with this credential.
async fn signing(state: &AdminState, member: &Member, wish: &Wish, account_differs: bool) -> Answer<Option<SecretsChange>> {
    let source = wish.served.source();
    let Some((secret, plans)) = &wish.signing else {
        // The former account's auth token vouches for nothing of this one.
        let is_stale = account_differs && wish.served == Served::Twilio;
        return Ok(is_stale.then(|| erased(state, member, source)));
    };
    let mut secrets = Vec::with_capacity(plans.len());
    for plan in plans {
        secrets.push(plans::seal(state, member.org, None, source, plan, secret).await.map_err(|problem| match wish.served {
            Served::Twilio => renamed(problem, "auth_token"),
            Served::Vapi => renamed(problem, "webhook_secret"),
        })?);
    }
    let audit = state.audit(member, "rotate", "secret", source, &["secret", "plan"]);
    Ok(Some(SecretsChange { source, secrets, others_not_after: Some(state.now() + OVERLAP), audit }))
}

fn erased(state: &AdminState, member: &Member, source: Source) -> SecretsChange {
    SecretsChange { source, secrets: Vec::new(), others_not_after: None, audit: state.audit(member, "erase", "secret", source, &["secret"]) }
}

fn renamed(mut problem: Problem, field: &str) -> Problem {
    problem.errors.iter_mut().for_each(|error| field.clone_into(&mut error.field));
    problem
}

async fn save(state: &AdminState, member: &Member, wish: Wish, good: Good, secrets: Option<SecretsChange>) -> Answer<StoredCredential> {
    let provider = wish.served.provider();
    let stored = wish.credential.to_stored();
    let sealed = state.vault.seal(member.org, Purpose::Credential(provider), stored.expose_secret()).await?;
    let new = NewCredential {
        org: member.org,
        provider,
        name: String::new(),
        sealed,
        state: good.state().to_owned(),
        account_fingerprint: good.account.as_ref().map(|account| fingerprint(state, member.org, provider, &account.id)),
        missing: good.missing,
        verified_at: good.verified_at,
        account_id: good.account.as_ref().map(|account| account.id.clone()),
        account_name: good.account.and_then(|account| account.name),
        last_four: wish.last_four,
    };
    let audit = state.audit(member, "connect", "credential", provider, &["credential"]);
    Ok(state.store.connect(Connection { credential: new, refresh_at: None, secrets, audit }).await?)
}

fn fingerprint(state: &AdminState, org: OrgId, provider: Provider, account: &str) -> String {
    state.vault.fingerprint(org, fingerprinted(provider, account).as_bytes()).0.into()
}

fn fingerprinted(provider: Provider, account: &str) -> String {
    format!("account:{provider}:{account}")
}

#[derive(Serialize)]
pub struct Tested {
    provider: Provider,
    /// `connected` or `limited`: what it would be stored as.
    state: &'static str,
    missing: Option<String>,
    account: Option<AccountView>,
}

/// Asks the provider and stores nothing.
pub async fn test(State(state): Admin, _: Manager, Id(provider): Id<String>, request: Request) -> Answer<Json<Tested>> {
    let served = Served::find(&provider)?;
    let wish = Wish::read(served, request).await?;
    let verified = ask(&state, &wish.credential).await.map_err(|error| Problem::unreachable(&error))?;
    let good = Good::of(verified, state.now()).map_err(|refused| Problem::from_refused(&refused))?;
    Ok(Json(Tested { provider: served.provider(), state: good.state(), missing: good.missing, account: good.account }))
}

/// Asks the provider about what is stored, and keeps what it says. An outage changes nothing.
pub async fn verify(State(state): Admin, Manager(member): Manager, Id(provider): Id<String>, _: NoFields) -> Answer<Json<IntegrationView>> {
    let provider = Served::find(&provider)?.provider();
    let not_connected = || Problem::new(Code::NotConnected).detail("There is nothing to verify: connect it first.");
    let opened = credentials::find(&state, member.org, provider, "").await?.ok_or_else(not_connected)?;
    let Ok(credential) = &opened.credential else { return Ok(Json(IntegrationView::opened(opened))) };
    let verified = ask(&state, credential).await.map_err(|error| Problem::unreachable(&error))?;
    let now = state.now();
    let row = opened.row;
    let was_failing = matches!(row.health.state.as_str(), "failing" | "needs_reconnecting");
    match Good::of(verified, now) {
        // What was parked waits for a newer version: the same secret under the next one lets it go on (rule 6).
        Ok(good) if was_failing && row.sealed.is_some() => resume(&state, &member, row, good).await?,
        Ok(good) => {
            let health = CredentialHealth { state: good.state().to_owned(), missing: good.missing, checked_at: Some(now), ..CredentialHealth::default() };
            state.store.record_credential_health(member.org, row.id, row.version, health, Some(now)).await?;
        }
        Err(refused) => {
            let health = CredentialHealth {
                state: "needs_reconnecting".to_owned(),
                cause: Some("credential_refused".to_owned()),
                error: Some(words(&refused)),
                missing: None,
                checked_at: Some(now),
                first_failed_at: row.health.first_failed_at.or(Some(now)),
            };
            state.store.record_credential_health(member.org, row.id, row.version, health, None).await?;
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
        state: good.state().to_owned(),
        missing: good.missing,
        account_id: row.account_id,
        account_name: row.account_name,
        account_fingerprint: row.account_fingerprint,
        last_four: row.last_four,
        verified_at: good.verified_at,
    };
    state.store.save_credential(new, state.audit(member, "update", "credential", row.provider, &["state"])).await?;
    Ok(())
}

/// Erases the ciphertext of the credential and of the signing secrets that came with it. The row stays, so that a reconnect keeps its id. A second time is as good.
pub async fn erase(State(state): Admin, Manager(member): Manager, Id(provider): Id<String>) -> Answer<StatusCode> {
    let served = Served::find(&provider)?;
    let secrets = erased(&state, &member, served.source());
    let audit = state.audit(&member, "erase", "credential", served.provider(), &["credential"]);
    state.store.disconnect(member.org, served.provider(), "", Some(secrets), audit).await?;
    state.forget(member.org);
    Ok(StatusCode::NO_CONTENT)
}
