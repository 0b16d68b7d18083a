//! `/api/destinations`: where `http.post` may post to. Each is a credential of provider `http` with
//! signing secrets that we made.
//!
//! **Invariant:** a `whsec_` stands only in the answer that made it, and no URL is kept
//! that leads to a private address.

use crate::{
    action::http_post,
    admin::{
        Admin, AdminState,
        credentials::{self, Opened},
        plans,
        state::Answer,
        web::{
            auth::{Manager, Reader},
            body::{self, Id, NoFields},
            etag,
            page::{Listed, Page, Params},
            problem::{Code, Problem},
            token::Member,
            view::{Time, last_four},
        },
    },
    domain::{IntegrationState, OrgId, Outcome, Provider, SecretBytes},
    provider::{Credential, HttpCredential},
    store::{
        StoreError,
        audit::{Changes, SecretChange},
        credentials::{CredentialError, Expects, NewCredential, StoredCredential},
    },
    vault::Purpose,
};
use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/api/destinations", get(list).post(create))
        .route("/api/destinations/{name}", get(show).patch(patch).delete(delete))
        .route("/api/destinations/{name}/secrets", post(rotate))
        .route("/api/destinations/{name}/test", post(test))
}

/// Active destinations of one organisation.
const DESTINATIONS_MAX: usize = 50;
/// How long a test waits for its answer. A request to this API takes ten seconds at most.
const TEST_DEADLINE: Duration = Duration::from_secs(5);
/// Secrets that sign at the same time: the newest one and its predecessor.
const SECRETS_MAX: usize = 2;

#[derive(Serialize, utoipa::ToSchema)]
pub struct DestinationView {
    name: String,
    /// `null` where the row cannot be decrypted.
    url: Option<String>,
    state: IntegrationState,
    cause: Option<String>,
    error: Option<CredentialError>,
    /// How many secrets sign each post: two while one is rotated.
    secrets: usize,
    last_four: Option<String>,
    last_used_at: Option<Time>,
    version: i64,
    etag: String,
    created_at: Time,
    /// The secret that was made for this request, for the only time.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

impl DestinationView {
    fn new(state: &AdminState, opened: Opened, secret: Option<String>) -> Self {
        let etag = tag(state, &opened.row);
        let row = opened.row;
        let (url, secrets, state, error) = match opened.credential {
            // No post has gone to this destination yet, so it is not known whether its address
            // answers.
            Ok(Credential::Http(http)) if row.last_used_at.is_none() => (
                Some(http.url),
                http.secrets.len(),
                IntegrationState::Unverified,
                row.health.error,
            ),
            Ok(Credential::Http(http)) => (Some(http.url), http.secrets.len(), row.health.state, row.health.error),
            Ok(_) => (None, 0, row.health.state, row.health.error),
            Err(undecryptable) => (
                None,
                0,
                IntegrationState::Undecryptable,
                Some(CredentialError::in_words(undecryptable.words)),
            ),
        };
        Self {
            name: row.name,
            url,
            state,
            cause: row.health.cause,
            error,
            secrets,
            last_four: row.last_four,
            last_used_at: row.last_used_at.map(Time),
            version: row.version,
            etag,
            created_at: Time(row.created_at),
            secret,
        }
    }
}

fn tag(state: &AdminState, row: &StoredCredential) -> String {
    etag::tag(&state.vault, row.org, "destination", &row.name, row.version)
}

async fn active(state: &AdminState, member: &Member) -> Answer<Vec<StoredCredential>> {
    let mut rows = state.store.list_credentials(member.org).await?;
    rows.retain(|row| row.provider == Provider::Http && row.is_active);
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

pub async fn list(State(state): Admin, Reader(member): Reader, uri: Uri) -> Answer<Json<Listed<DestinationView>>> {
    let mut params = Params::of(&uri)?;
    let page = Page::<String>::take(
        &mut params,
        &state.vault,
        Some(member.org),
        "destinations",
        String::new(),
    )?;
    params.finish()?;
    let rows = active(&state, &member)
        .await?
        .into_iter()
        .filter(|row| page.after.as_ref().is_none_or(|after| row.name > *after));
    let mut shown = Vec::new();
    for row in rows.take(page.count() as usize) {
        if let Some(opened) = credentials::open(&state, row).await? {
            shown.push(DestinationView::new(&state, opened, None));
        }
    }
    Ok(Json(page.answer(
        &state.vault,
        shown,
        |view| view.name.clone(),
        |view| view,
    )))
}

pub async fn show(State(state): Admin, Reader(member): Reader, Id(name): Id<String>) -> Answer<impl IntoResponse> {
    let opened = credentials::find(&state, member.org, Provider::Http, &name)
        .await?
        .ok_or(Problem::not_found())?;
    let view = DestinationView::new(&state, opened, None);
    Ok(etag::tagged(view, |view| &view.etag))
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDestination {
    name: String,
    url: String,
}

pub async fn create(
    State(state): Admin,
    Manager(member): Manager,
    body::Json(new): body::Json<NewDestination>,
) -> Answer<impl IntoResponse> {
    let made = make_secret()?;
    let credential = HttpCredential {
        name: new.name,
        url: new.url,
        secrets: vec![SecretBytes::from(made.clone())],
    };
    let credential = check(credential)?;
    let Credential::Http(http) = &credential else {
        return Err(Problem::new(Code::Internal));
    };
    check_address(&state, &http.url).await?;
    let others = active(&state, &member).await?;
    if others.iter().any(|row| row.name == http.name) {
        return Err(taken());
    }
    if others.len() >= DESTINATIONS_MAX {
        return Err(Problem::new(Code::LimitReached).detail(format!(
            "An organisation has {DESTINATIONS_MAX} destinations at most; delete one first."
        )));
    }
    let name = http.name.clone();
    let change = Change {
        verb: "connect",
        expects: Expects::Nothing,
        last_four: last_four(&made),
        changes: moved(None, Some(&http.url)).secret("secret", Some(SecretChange::Set)),
    };
    let opened = save(&state, &member, &name, credential, change).await?;
    let tag = tag(&state, &opened.row);
    let location = HeaderValue::from_str(&format!("/api/destinations/{name}"));
    Ok((
        StatusCode::CREATED,
        [
            (header::ETAG, etag::header_value(&tag)),
            (header::LOCATION, location.expect("a name is visible ASCII")),
        ],
        Json(DestinationView::new(&state, opened, Some(made))),
    ))
}

fn taken() -> Problem {
    Problem::field(Code::Conflict, "name", "there is a destination of this name already")
}

/// Refuses a URL that leads to an address that posts may not go to.
async fn check_address(state: &AdminState, url: &str) -> Answer<()> {
    state
        .providers
        .http
        .check_destination_resolved(url)
        .await
        .map_err(|error| Problem::field(Code::AddressNotAllowed, "url", error.to_string()))
}

fn check(http: HttpCredential) -> Answer<Credential> {
    let credential = Credential::Http(http);
    match credential.check() {
        Ok(()) => Ok(credential),
        Err(error) => Err(Problem::field(Code::InvalidField, error.field, error.problem)),
    }
}

/// The destination that a save changes, and the state that it must find there.
struct Change {
    verb: &'static str,
    expects: Expects,
    last_four: Option<String>,
    changes: Changes,
}

/// A URL can hold a token, so the audit shows its host alone.
fn moved(before: Option<&str>, after: Option<&str>) -> Changes {
    let host = |url: Option<&str>| {
        let url = url.and_then(|url| url.parse::<Uri>().ok());
        url.and_then(|url| url.host().map(str::to_owned))
    };
    let fate = SecretChange::between(before.is_some(), after.is_some()).filter(|_| before != after);
    Changes::default()
        .value("host", host(before), host(after))
        .secret("url", fate)
}

async fn save(
    state: &AdminState,
    member: &Member,
    name: &str,
    credential: Credential,
    change: Change,
) -> Answer<Opened> {
    let stored = credential.to_stored();
    let new = NewCredential {
        org: member.org,
        provider: Provider::Http,
        name: name.to_owned(),
        sealed: state
            .vault
            .seal(member.org, Purpose::Credential(Provider::Http), stored.expose_secret())
            .await?,
        state: IntegrationState::Connected,
        missing: None,
        account_id: None,
        account_name: None,
        account_fingerprint: None,
        last_four: change.last_four,
        verified_at: None,
        expects: change.expects,
    };
    let audit = state.audit(
        member,
        change.verb,
        "credential",
        format_args!("http:{name}"),
        change.changes,
    );
    let row = match state.store.save_credential(new, audit).await {
        Err(StoreError::Stale { .. }) if change.expects == Expects::Nothing => return Err(taken()),
        saved => saved?,
    };
    state.forget(member.org);
    Ok(Opened {
        row,
        credential: Ok(credential),
    })
}

/// The destination that a request changes, where its `If-Match` allows that.
async fn find_current(state: &AdminState, org: OrgId, name: &str, headers: &HeaderMap) -> Answer<Opened> {
    let opened = credentials::find(state, org, Provider::Http, name)
        .await?
        .ok_or(Problem::not_found())?;
    etag::check(headers, &tag(state, &opened.row))?;
    Ok(opened)
}

fn opened_http(opened: Opened) -> Answer<(StoredCredential, HttpCredential)> {
    match opened.usable()? {
        (row, Credential::Http(http)) => Ok((row, http)),
        _ => Err(Problem::new(Code::Internal)),
    }
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationChanges {
    url: String,
}

/// Moves a destination to another URL. Name and secrets stay, so that the receiver that moved
/// verifies as before; actions that were parked for it are due.
pub async fn patch(
    State(state): Admin,
    Manager(member): Manager,
    Id(name): Id<String>,
    headers: HeaderMap,
    body::Json(changes): body::Json<DestinationChanges>,
) -> Answer<impl IntoResponse> {
    let opened = find_current(&state, member.org, &name, &headers).await?;
    let (row, mut http) = opened_http(opened)?;
    let changed = moved(Some(&http.url), Some(&changes.url));
    http.url = changes.url;
    let credential = check(http)?;
    let Credential::Http(http) = &credential else {
        return Err(Problem::new(Code::Internal));
    };
    check_address(&state, &http.url).await?;
    let change = Change {
        verb: "update",
        expects: Expects::Version(row.version),
        last_four: row.last_four,
        changes: changed,
    };
    let opened = save(&state, &member, &name, credential, change).await?;
    let view = DestinationView::new(&state, opened, None);
    Ok(etag::tagged(view, |view| &view.etag))
}

/// Makes a secret that signs beside the former one. Receivers take either, so they can be changed
/// one by one; the next rotation lets the former one go.
pub async fn rotate(
    State(state): Admin,
    Manager(member): Manager,
    Id(name): Id<String>,
    headers: HeaderMap,
    _: NoFields,
) -> Answer<impl IntoResponse> {
    let opened = find_current(&state, member.org, &name, &headers).await?;
    let (row, mut http) = opened_http(opened)?;
    let made = make_secret()?;
    let change = Change {
        verb: "rotate",
        expects: Expects::Version(row.version),
        last_four: last_four(&made),
        changes: Changes::default().secret("secret", Some(SecretChange::Changed)),
    };
    http.secrets.insert(0, SecretBytes::from(made.clone()));
    http.secrets.truncate(SECRETS_MAX);
    let credential = check(http)?;
    let opened = save(&state, &member, &name, credential, change).await?;
    Ok((
        StatusCode::CREATED,
        etag::tagged(DestinationView::new(&state, opened, Some(made)), |view| &view.etag),
    ))
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct DestinationTestView {
    /// It answered with 2xx.
    is_accepted: bool,
    /// Why not, as an action would have it.
    cause: Option<&'static str>,
    http_status: Option<u16>,
    /// Its words, or ours where it gave no answer.
    detail: Option<String>,
    took_ms: u64,
}

/// Posts once, signed as an action's post is. The state of the destination stays: its actions alone
/// decide it.
pub async fn test(
    State(state): Admin,
    Manager(member): Manager,
    Id(name): Id<String>,
    _: NoFields,
) -> Answer<Json<DestinationTestView>> {
    let opened = credentials::find(&state, member.org, Provider::Http, &name)
        .await?
        .ok_or(Problem::not_found())?;
    let (_, credential) = opened.usable()?;
    let begun = Instant::now();
    let to = (member.org, &credential);
    let (outcome, detail) = http_post::send_test(&state.providers, to, state.now(), TEST_DEADLINE).await;
    let took = begun.elapsed();
    let cause = match &outcome {
        Outcome::Succeeded { .. } => None,
        failed => Some(failed.cause().as_str()),
    };
    let changes = Changes::default()
        .value("http_status", (), detail.http_status)
        .value("cause", (), cause);
    let audit = state.audit(&member, "test", "credential", format_args!("http:{name}"), changes);
    state.store.record_audit(audit).await?;
    Ok(Json(DestinationTestView {
        is_accepted: cause.is_none(),
        cause,
        http_status: detail.http_status,
        detail: Some(String::from(detail.text)).filter(|text| !text.is_empty()),
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    }))
}

fn make_secret() -> Answer<String> {
    Ok(format!("whsec_{}", STANDARD.encode(plans::random_bytes()?)))
}

/// Erases URL and secrets, and parks the actions that wait for them. The row stays; to delete it a
/// second time is 204 as well.
pub async fn delete(
    State(state): Admin,
    Manager(member): Manager,
    Id(name): Id<String>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let row = state
        .store
        .find_credential(member.org, Provider::Http, &name)
        .await?
        .ok_or(Problem::not_found())?;
    let version = etag::checked(&headers, &tag(&state, &row), row.version)?;
    let expects = version.map_or(Expects::Anything, Expects::Version);
    let audit = state.audit(
        &member,
        "erase",
        "credential",
        format_args!("http:{name}"),
        Changes::default()
            .secret("url", Some(SecretChange::Cleared))
            .secret("secret", Some(SecretChange::Cleared)),
    );
    state
        .store
        .erase_credential(member.org, Provider::Http, &name, expects, audit)
        .await?;
    state.forget(member.org);
    Ok(StatusCode::NO_CONTENT)
}
