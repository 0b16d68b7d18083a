//! Google's consent: `GET …/google_calendar/authorize` says where to go,
//! `GET …/google_calendar/callback` is where Google sends people back to.
//!
//! **Invariant:** a consent counts once, within ten minutes, and only for the person or the browser
//! that began it. Without that rule, a person who sends a prepared link could connect their own
//! calendar to another organisation.

use super::{
    account::{fingerprint_to_keep, is_same_account},
    changes,
    check::{VerifiedCredential, unreachable},
    view::{AccountView, IntegrationView, view},
};
use crate::{
    admin::{
        Admin,
        api::session::is_own_path,
        state::{AdminState, Answer},
        web::{
            auth::{Connector, address_of, member_of},
            page::Params,
            problem::{Code, Problem},
            respond::RequestId,
            token::{Member, Role},
            view::Time,
        },
    },
    domain::{Provider, Timestamp},
    oauth::{ExchangeError, Exchanged},
    provider::Credential,
    store::{
        audit::{Changes, SecretChange},
        credentials::{Expects, NewCredential, StoredCredential},
        grants::{Consent, IntegrationChange},
    },
    vault::Purpose,
};
use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use serde::Serialize;
use std::net::IpAddr;
use uuid::Uuid;

const PROVIDER: Provider = Provider::GoogleCalendar;
const COOKIE: &str = "hookswitch_consent";

#[derive(Serialize, utoipa::ToSchema)]
pub struct Authorize {
    /// Where to send the person.
    url: String,
    expires_at: Time,
}

/// Only an owner begins one, and only they, or their browser, can finish it.
pub async fn authorize(State(state): Admin, Connector(member): Connector, uri: Uri) -> Answer<Response> {
    let mut params = Params::of(&uri)?;
    let may_replace = params.take_flag("replace_account")?;
    let return_to = params.take("return_to");
    params.finish()?;
    if let Some(page) = &return_to
        && !is_page_of_ours(&state, page)
    {
        return Err(Problem::field(
            Code::InvalidQuery,
            "return_to",
            "expected a path of this host such as /integrations, or a page of an origin in HOOKSWITCH_ADMIN_ORIGINS",
        ));
    }
    let not_set_up = || {
        Problem::new(Code::NotServed).detail(
            "Google Calendar is not set up in this installation: its operator has to set HOOKSWITCH_GOOGLE_CLIENT_ID.",
        )
    };
    let begun = state
        .consents
        .begin(member.org, &member.subject, return_to, may_replace)
        .await?
        .ok_or_else(not_set_up)?;
    let is_https = state
        .providers
        .google
        .app()
        .is_some_and(|app| app.redirect_url.starts_with("https://"));
    let cookie = format!(
        "{COOKIE}={}; Path=/api/integrations/google_calendar; Max-Age=600; HttpOnly; SameSite=Lax{}",
        begun.browser,
        if is_https { "; Secure" } else { "" }
    );
    let cookie = HeaderValue::from_str(&cookie).map_err(|_| Problem::new(Code::Internal))?;
    let body = Json(Authorize {
        url: begun.url,
        expires_at: Time(begun.expires_at),
    });
    Ok(([(header::SET_COOKIE, cookie)], body).into_response())
}

/// A path of this host, or a page of an origin that may use this API.
fn is_page_of_ours(state: &AdminState, page: &str) -> bool {
    if page.starts_with('/') {
        return is_own_path(page);
    }
    let host_at = page.find("://").map_or(0, |at| at + 3);
    let path_at = page[host_at..].find('/').map(|at| host_at + at);
    path_at.is_some_and(|at| state.origins.contains(&page[..at]) && is_own_path(&page[at..]))
}

/// The same answer for a state that is forged, used, too old, or of another person.
fn not_ours() -> Problem {
    Problem::new(Code::ConsentInvalid).detail(
        "This consent was not begun here by you, was used already, or took longer than ten minutes. Begin again.",
    )
}

/// A consent that came to nothing, with its reason in a word for the page.
struct Failed {
    problem: Problem,
    reason: Option<&'static str>,
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self { problem, reason: None }
    }
}

impl Failed {
    fn because(reason: &'static str, problem: Problem) -> Self {
        Self {
            problem,
            reason: Some(reason),
        }
    }
}

/// What Google sends back.
struct SentBack {
    code: Option<String>,
    error: Option<String>,
}

/// Where Google sends people back to.
pub async fn callback(State(state): Admin, request: Request) -> Answer<Response> {
    let (parts, _) = request.into_parts();
    let mut params = Params::of(&parts.uri)?;
    let shown = params.take("state");
    let back = SentBack {
        code: params.take("code"),
        error: params.take("error"),
    };
    // Google adds parameters of its own (scope, authuser, prompt, hd): none of them is read.
    let (id, return_to) = shown
        .as_deref()
        .and_then(|shown| state.consents.read_state(shown))
        .ok_or_else(not_ours)?;
    let outcome = take_and_finish(&state, &parts, id, back).await;
    let Some(page) = return_to else {
        return outcome
            .map(|view| Json(view).into_response())
            .map_err(|failed| failed.problem);
    };
    // A person in a browser reads a page, not JSON: the page learns the result from parameters.
    let result = outcome.map_or_else(
        |failed| failed_parameters(&failed, &parts),
        |_| "connected=google_calendar".to_owned(),
    );
    let to = with_parameter(&page, &result);
    let to = HeaderValue::from_str(&to).map_err(|_| Problem::new(Code::Internal))?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response())
}

/// All of them are words of ours.
fn failed_parameters(failed: &Failed, parts: &Parts) -> String {
    let mut text = format!("error={}", failed.problem.code.as_str());
    if let Some(reason) = failed.reason {
        text.push_str("&reason=");
        text.push_str(reason);
    }
    if let Some(RequestId(id)) = parts.extensions.get::<RequestId>() {
        text.push_str("&request_id=");
        text.push_str(id);
    }
    text
}

async fn take_and_finish(
    state: &AdminState,
    parts: &Parts,
    id: Uuid,
    back: SentBack,
) -> Result<IntegrationView, Failed> {
    let has_token = parts.headers.contains_key(header::AUTHORIZATION);
    let bearer = if has_token {
        Some(member_of(parts, &[Role::Owner])?)
    } else {
        None
    };
    if bearer.is_none() && !cookie_of(&parts.headers).is_some_and(|shown| state.consents.is_browser_of(id, shown)) {
        return Err(not_ours().into());
    }
    let taken = state.consents.take(id).await.map_err(Problem::from)?;
    let consent = taken.ok_or_else(not_ours)?;
    if let Some(member) = &bearer
        && (member.org != consent.org || member.subject != consent.subject)
    {
        return Err(not_ours().into());
    }
    match (back.code, back.error) {
        (Some(code), None) => finish(state, &consent, address_of(parts, state), &code).await,
        (_, Some(error)) if error == "access_denied" => Err(Failed::because(
            "denied",
            Problem::new(Code::ConsentRefused)
                .detail("The consent was not given on Google's page. Nothing was changed."),
        )),
        _ => Err(Failed::because(
            "code_refused",
            Problem::new(Code::ConsentRefused)
                .detail("Google sent back neither a code nor a reason that is known. Nothing was changed."),
        )),
    }
}

/// Adds a parameter to the query of a path, in front of its fragment.
fn with_parameter(path: &str, parameter: &str) -> String {
    let (path, fragment) = match path.split_once('#') {
        Some((path, fragment)) => (path, format!("#{fragment}")),
        None => (path, String::new()),
    };
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}{parameter}{fragment}")
}

fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

async fn finish(
    state: &AdminState,
    consent: &Consent,
    address: Option<IpAddr>,
    code: &str,
) -> Result<IntegrationView, Failed> {
    let exchanged = state
        .consents
        .exchange(consent, code)
        .await
        .map_err(|error| exchange_problem(error, state.providers.http.now()))?;
    let found = state.store.find_credential(consent.org, PROVIDER, "").await;
    let existing = found.map_err(Problem::from)?;
    let is_same = is_same_account(state, existing.as_ref(), PROVIDER, consent.org, &exchanged.account);
    if !is_same && !consent.may_replace {
        state.consents.revoke_token(&exchanged.credential.refresh_token).await;
        return Err(Problem::new(Code::AccountDiffers)
            .detail(
                "This is another Google account than the one that was connected. Begin again with \
                ?replace_account=true to change the account.",
            )
            .into());
    }
    let saved = save(state, (consent, address), exchanged, existing.as_ref()).await?;
    state.forget(consent.org);
    // One of the same account stays: to revoke it could end the new one too.
    if !is_same && let Some(former) = existing.and_then(|row| row.sealed) {
        state.consents.revoke(consent.org, &former).await;
    }
    Ok(view(state, consent.org, PROVIDER, Some(saved)).await?)
}

fn exchange_problem(error: ExchangeError, now: Timestamp) -> Failed {
    let refused = |words: String| Problem::new(Code::ConsentRefused).detail(words);
    match error {
        ExchangeError::Refused { words } => Failed::because(
            "code_refused",
            refused(format!("Google refuses the code: {words}. Begin again.")),
        ),
        ExchangeError::ClientRefused { words } => {
            tracing::warn!(
                "Google refuses this installation: {words}; check HOOKSWITCH_GOOGLE_CLIENT_ID, _CLIENT_SECRET and \
                 _REDIRECT_URL"
            );
            Failed::because(
                "client_refused",
                refused(format!(
                    "Google refuses this installation: {words}. Its operator has to mend it."
                )),
            )
        }
        ExchangeError::NoScopes { words } => Failed::because("scopes_missing", refused(words.to_owned())),
        ExchangeError::Unusable { words } => refused(words.to_owned()).into(),
        ExchangeError::Unreachable(error) => unreachable(PROVIDER, &error, now).into(),
        ExchangeError::Vault(error) => Problem::from(error).into(),
    }
}

fn changes_of(existing: Option<&StoredCredential>, new: &NewCredential) -> Changes {
    let was_set = existing.is_some_and(|row| row.is_active);
    Changes::default()
        .secret("consent", SecretChange::between(was_set, true))
        .value(
            "account",
            existing.and_then(|row| row.account_id.as_deref()),
            new.account_id.as_deref(),
        )
        .value("state", changes::state_of(existing), new.state)
}

async fn save(
    state: &AdminState,
    (consent, address): (&Consent, Option<IpAddr>),
    exchanged: Exchanged,
    existing: Option<&StoredCredential>,
) -> Answer<StoredCredential> {
    let member = Member {
        org: consent.org,
        subject: consent.subject.clone(),
        role: Role::Owner,
        address,
    };
    let verified = VerifiedCredential {
        account: Some(AccountView {
            id: exchanged.account,
            name: exchanged.account_name,
        }),
        missing: exchanged.missing.map(str::to_owned),
        verified_at: Some(state.now()),
    };
    let refresh_at = state.refresher.refresh_at(exchanged.credential.expires_at);
    let stored = Credential::Google(exchanged.credential).to_stored();
    let new = NewCredential {
        org: consent.org,
        provider: PROVIDER,
        name: String::new(),
        sealed: state
            .vault
            .seal(consent.org, Purpose::Credential(PROVIDER), stored.expose_secret())
            .await?,
        state: verified.state(),
        account_fingerprint: verified
            .account
            .as_ref()
            .map(|account| fingerprint_to_keep(state, existing, PROVIDER, consent.org, &account.id)),
        account_id: verified.account.as_ref().map(|account| account.id.clone()),
        account_name: verified.account.and_then(|account| account.name),
        missing: verified.missing,
        verified_at: verified.verified_at,
        last_four: None,
        expects: Expects::Anything,
    };
    let audit = state.audit(&member, "connect", "credential", PROVIDER, changes_of(existing, &new));
    let change = IntegrationChange {
        credential: new,
        refresh_at: Some(refresh_at),
        is_new_secret: true,
        secrets: None,
        audit,
    };
    Ok(state.store.save_integration(change).await?)
}

#[cfg(test)]
mod tests {
    use super::{is_own_path, with_parameter};

    #[test]
    fn a_parameter_stands_in_front_of_the_fragment() {
        for (path, expected) in [
            ("/", "/?a=1"),
            ("/x?tab=2", "/x?tab=2&a=1"),
            ("/integrations#Providers", "/integrations?a=1#Providers"),
            ("/x?tab=2#y?z", "/x?tab=2&a=1#y?z"),
            ("/#", "/?a=1#"),
        ] {
            assert_eq!(with_parameter(path, "a=1"), expected);
        }
    }

    #[test]
    fn people_are_sent_to_paths_of_this_host_only() {
        for good in ["/", "/integrations?tab=1#x", "/a/b"] {
            assert!(is_own_path(good), "{good}");
        }
        for bad in [
            "",
            "integrations",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nSet-Cookie: x",
            "/ a",
            "javascript:alert(1)",
            "/é",
        ] {
            assert!(!is_own_path(bad), "{bad:?}");
        }
    }
}
