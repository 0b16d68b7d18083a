//! Google's stand-in: consent, tokens and a calendar.
//!
//! It is as strict as the real one: a redirect that is not registered, a verifier that does not fit
//! its challenge, a code that was used, and a token that has ended or was replaced are refused. The
//! person at the consent page is `login_hint`, or the first account that is known; who is to say no
//! is `deny`.

use super::{Call, GoogleAccount, GoogleOauthClient, Reply, SandboxState, description, form, lock};
use crate::domain::{Provider, Timestamp};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, time::Duration};

/// Life of an access token, and of a code.
const TOKEN_SECONDS: u64 = 3599;
const CODE_LIFE: Duration = Duration::from_mins(10);
/// Things of each kind that are kept.
const KEPT_MAX: usize = 10_000;

#[derive(Clone)]
struct Code {
    client_id: String,
    redirect_uri: String,
    challenge: String,
    scope: String,
    account: String,
    is_offline: bool,
    expires_at: Timestamp,
}

#[derive(Clone)]
struct Token {
    account: String,
    scope: String,
    /// The grant that it belongs to: its refresh token.
    grant: String,
    expires_at: Timestamp,
}

#[derive(Clone)]
struct Grant {
    client_id: String,
    account: String,
    scope: String,
}

/// Everything that Google knows.
#[derive(Default)]
pub(super) struct Google {
    clients: Vec<GoogleOauthClient>,
    accounts: Vec<GoogleAccount>,
    codes: HashMap<String, Code>,
    /// Codes that were used, with the grant that they gave: a second use ends it.
    used: HashMap<String, String>,
    grants: HashMap<String, Grant>,
    tokens: HashMap<String, Token>,
    /// By account, calendar and id.
    events: HashMap<(String, String, String), Value>,
    rotates: bool,
    refreshes: u64,
}

impl Google {
    pub(super) fn register(&mut self, clients: Vec<GoogleOauthClient>, accounts: Vec<GoogleAccount>) {
        for client in clients {
            self.clients.retain(|known| known.client_id != client.client_id);
            self.clients.push(client);
        }
        for account in accounts {
            self.accounts.retain(|known| known.id != account.id);
            self.accounts.push(account);
        }
    }

    pub(super) const fn set_rotating(&mut self, rotates: bool) {
        self.rotates = rotates;
    }

    pub(super) const fn refreshes(&self) -> u64 {
        self.refreshes
    }

    /// Takes everything back that an account granted.
    pub(super) fn revoke_account(&mut self, account: &str) {
        self.grants.retain(|_, grant| grant.account != account);
        self.tokens.retain(|_, token| token.account != account);
    }

    pub(super) fn grants(&self) -> usize {
        self.grants.len()
    }

    pub(super) fn events(&self) -> Vec<Value> {
        self.events.values().cloned().collect()
    }

    fn revoke(&mut self, grant: &str) -> bool {
        self.tokens.retain(|_, token| token.grant != grant);
        self.grants.remove(grant).is_some()
    }

    fn issue(&mut self, grant: &str, now: Timestamp) -> Option<(String, Grant)> {
        let found = self.grants.get(grant)?.clone();
        let access = format!("ya29.{}", random());
        if self.tokens.len() >= KEPT_MAX {
            self.tokens.retain(|_, token| token.expires_at > now);
        }
        let token = Token {
            account: found.account.clone(),
            scope: found.scope.clone(),
            grant: grant.to_owned(),
            expires_at: now + Duration::from_secs(TOKEN_SECONDS),
        };
        self.tokens.insert(access.clone(), token);
        Some((access, found))
    }
}

/// 24 characters that nobody guesses.
fn random() -> String {
    let mut bytes = [0; 18];
    // A stand-in without randomness still gives different ones: the id counts up.
    let _ = getrandom::fill(&mut bytes);
    format!("{}{}", URL_SAFE_NO_PAD.encode(bytes), uuid::Uuid::now_v7().simple())
}

pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let path = call.parts.uri.path();
    match (&call.parts.method, path) {
        (&Method::GET, "/o/oauth2/v2/auth") => consent(state, call),
        (&Method::POST, "/token") => token(state, call),
        (&Method::POST, "/revoke") => {
            let form = form::parse(call.body);
            let token = form::get(&form, "token").unwrap_or_default();
            let mut google = lock(&state.0.google);
            let grant = google
                .tokens
                .get(token)
                .map_or_else(|| token.to_owned(), |access| access.grant.clone());
            if google.revoke(&grant) {
                Reply::json(200, &json!({}))
            } else {
                oauth_error(400, "invalid_token", "Token expired or revoked")
            }
        }
        _ => calendar(state, call),
    }
}

/// The page where a person consents: this one does at once, and sends them back.
fn consent(state: &SandboxState, call: &Call<'_>) -> Reply {
    let query = call.query();
    let get = |name: &str| form::get(&query, name).unwrap_or_default().to_owned();
    let mut google = lock(&state.0.google);
    let Some(client) = google
        .clients
        .iter()
        .find(|client| client.client_id == get("client_id"))
        .cloned()
    else {
        return Reply::json(
            401,
            &json!({"error": "invalid_client", "error_description": "The OAuth client was not found."}),
        );
    };
    let redirect_uri = get("redirect_uri");
    if !client.redirect_urls.contains(&redirect_uri) {
        return Reply::json(
            400,
            &json!({"error": "redirect_uri_mismatch", "error_description": "The redirect URI in the request does not \
                match the ones authorized."}),
        );
    }
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    let back = |query: &str| Reply::redirect(&format!("{redirect_uri}{separator}state={}&{query}", get("state")));
    if get("response_type") != "code" || get("scope").is_empty() {
        return back("error=invalid_request");
    }
    if get("code_challenge_method") != "S256" || get("code_challenge").len() != 43 {
        return back("error=invalid_request");
    }
    let account = match form::get(&query, "login_hint") {
        Some("deny") => return back("error=access_denied"),
        Some(hint) => google
            .accounts
            .iter()
            .find(|account| account.id == hint || account.email == hint)
            .cloned(),
        None => google.accounts.first().cloned(),
    };
    let Some(account) = account else {
        return back("error=access_denied");
    };
    // Boxes can be left unticked: the rest is granted.
    let scope: Vec<String> = get("scope")
        .split(' ')
        .filter(|scope| !account.unticked.iter().any(|unticked| scope.ends_with(unticked)))
        .map(str::to_owned)
        .collect();
    let code = format!("4/{}", random());
    let now = state.now();
    if google.codes.len() >= KEPT_MAX {
        google.codes.retain(|_, code| code.expires_at > now);
    }
    google.codes.insert(
        code.clone(),
        Code {
            client_id: client.client_id,
            redirect_uri: redirect_uri.clone(),
            challenge: get("code_challenge"),
            scope: scope.join(" "),
            account: account.id,
            // Without the page a later consent gives no refresh token.
            is_offline: get("access_type") == "offline" && get("prompt") == "consent",
            expires_at: now + CODE_LIFE,
        },
    );
    back(&format!(
        "code={}&scope={}",
        code.replace('/', "%2F"),
        scope.join("+").replace(':', "%3A").replace('/', "%2F")
    ))
}

fn token(state: &SandboxState, call: &Call<'_>) -> Reply {
    let form = form::parse(call.body);
    let get = |name: &str| form::get(&form, name).unwrap_or_default();
    let now = state.now();
    let mut google = lock(&state.0.google);
    let is_client = google
        .clients
        .iter()
        .any(|client| client.client_id == get("client_id") && client.client_secret == get("client_secret"));
    if !is_client {
        return oauth_error(401, "invalid_client", "The provided client secret is invalid.");
    }
    match get("grant_type") {
        "authorization_code" => {
            let code = get("code");
            if let Some(grant) = google.used.remove(code) {
                // RFC 6749, 4.1.2: a code that is used twice ends what it gave.
                google.revoke(&grant);
                return oauth_error(400, "invalid_grant", "Bad Request");
            }
            let Some(known) = google
                .codes
                .get(code)
                .cloned()
                .filter(|known| known.expires_at > now && known.client_id == get("client_id"))
            else {
                return oauth_error(400, "invalid_grant", "Bad Request");
            };
            if known.redirect_uri != get("redirect_uri") {
                return oauth_error(400, "redirect_uri_mismatch", "Bad Request");
            }
            if URL_SAFE_NO_PAD.encode(Sha256::digest(get("code_verifier").as_bytes())) != known.challenge {
                return oauth_error(400, "invalid_grant", "Invalid code verifier.");
            }
            google.codes.remove(code);
            let grant = format!("1//{}", random());
            google.used.insert(code.to_owned(), grant.clone());
            google.grants.insert(
                grant.clone(),
                Grant {
                    client_id: known.client_id.clone(),
                    account: known.account.clone(),
                    scope: known.scope.clone(),
                },
            );
            let Some((access, _)) = google.issue(&grant, now) else {
                return oauth_error(400, "invalid_grant", "Bad Request");
            };
            let mut body = json!({"access_token": access, "expires_in": TOKEN_SECONDS, "scope": known.scope, "token_type": "Bearer"});
            if known.is_offline {
                body["refresh_token"] = grant.into();
            }
            if known.scope.split(' ').any(|scope| scope == "openid") {
                let claims = json!({
                    "iss": "https://accounts.google.com",
                    "aud": known.client_id,
                    "sub": known.account,
                    "exp": now.as_seconds() + 3600,
                });
                body["id_token"] = format!(
                    "{}.{}.{}",
                    URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#),
                    URL_SAFE_NO_PAD.encode(claims.to_string()),
                    "c2lnbmF0dXJl"
                )
                .into();
            }
            Reply::json(200, &body)
        }
        "refresh_token" => {
            let old = get("refresh_token").to_owned();
            let known = google
                .grants
                .get(&old)
                .cloned()
                .filter(|grant| grant.client_id == get("client_id"));
            let Some(known) = known else {
                return oauth_error(400, "invalid_grant", "Token has been expired or revoked.");
            };
            google.refreshes += 1;
            // Google itself does not rotate; others do, and their former tokens are worth nothing.
            let grant = if google.rotates {
                google.revoke(&old);
                let new = format!("1//{}", random());
                google.grants.insert(new.clone(), known.clone());
                new
            } else {
                old.clone()
            };
            let Some((access, found)) = google.issue(&grant, now) else {
                return oauth_error(400, "invalid_grant", "Bad Request");
            };
            let mut body = json!({"access_token": access, "expires_in": TOKEN_SECONDS, "scope": found.scope, "token_type": "Bearer"});
            if grant != old {
                body["refresh_token"] = grant.into();
            }
            Reply::json(200, &body)
        }
        _ => oauth_error(400, "unsupported_grant_type", "Invalid grant_type"),
    }
}

fn calendar(state: &SandboxState, call: &Call<'_>) -> Reply {
    let now = state.now();
    let mut google = lock(&state.0.google);
    let shown = call.header(AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    let Some(token) = google.tokens.get(shown).cloned().filter(|token| token.expires_at > now) else {
        return error(401, "authError", "Invalid Credentials");
    };
    let may = |suffixes: &[&str]| {
        token
            .scope
            .split(' ')
            .any(|scope| suffixes.iter().any(|suffix| scope.ends_with(suffix)))
    };
    let forbidden = || {
        error(
            403,
            "insufficientPermissions",
            "Request had insufficient authentication scopes.",
        )
    };
    let path = call.parts.uri.path().strip_prefix("/calendar/v3").unwrap_or_default();
    let described = description::of(Provider::GoogleCalendar).expect("Google Calendar is described");
    let check = |operation: &'static str, body: &Value| {
        let mut faults = described.check_query(operation, &call.query());
        if !body.is_null() {
            faults.extend(described.check_body(operation, body));
        }
        state.note(call, operation, &faults);
        (!faults.is_empty()).then(|| error(400, "invalid", &faults.join("; ")))
    };
    let body: Value = serde_json::from_slice(call.body).unwrap_or(Value::Null);
    if path == "/freeBusy" && call.parts.method == Method::POST {
        if !may(&["/calendar.freebusy", "/calendar", "/calendar.readonly"]) {
            return forbidden();
        }
        if let Some(refused) = check("calendar.freebusy.query", &body) {
            return refused;
        }
        let items = body["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|item| item["id"].as_str());
        let calendars: serde_json::Map<String, Value> = items
            .map(|id| {
                // One that cannot be read is no error: a 200 without busy times.
                let errors = json!({"errors": [{"domain": "global", "reason": "notFound"}], "busy": []});
                (
                    id.to_owned(),
                    if id == "primary" { json!({"busy": []}) } else { errors },
                )
            })
            .collect();
        return Reply::json(
            200,
            &json!({
                "kind": "calendar#freeBusy",
                "timeMin": body["timeMin"],
                "timeMax": body["timeMax"],
                "calendars": calendars,
            }),
        );
    }
    let mut parts = path.strip_prefix("/calendars/").unwrap_or_default().split('/');
    let (Some(calendar_id), Some("events"), id, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return error(404, "notFound", "Not Found");
    };
    if !may(&["/calendar.events.owned", "/calendar.events", "/calendar"]) {
        return forbidden();
    }
    let calendar_id = calendar_id.replace("%40", "@");
    if calendar_id != "primary"
        && !google
            .accounts
            .iter()
            .any(|account| account.id == token.account && account.calendars.contains(&calendar_id))
    {
        return error(404, "notFound", "Not Found");
    }
    let key = |id: &str| (token.account.clone(), calendar_id.clone(), id.to_owned());
    match (&call.parts.method, id) {
        (&Method::POST, None) => {
            if let Some(refused) = check("calendar.events.insert", &body) {
                return refused;
            }
            let id = body["id"]
                .as_str()
                .map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned);
            if !(5..=1024).contains(&id.len())
                || !id
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'v').contains(&byte))
            {
                return error(400, "invalid", "Invalid resource id value.");
            }
            if body["start"]["dateTime"].is_null() || body["end"]["dateTime"].is_null() {
                return error(400, "required", "Missing end time.");
            }
            if google.events.contains_key(&key(&id)) {
                return error(409, "duplicate", "The requested identifier already exists.");
            }
            let mut event = body.clone();
            event["id"] = id.as_str().into();
            event["kind"] = "calendar#event".into();
            event["status"] = "confirmed".into();
            if google.events.len() < KEPT_MAX {
                google.events.insert(key(&id), event.clone());
            }
            Reply::json(200, &event)
        }
        (&Method::GET, Some(id)) => {
            if let Some(refused) = check("calendar.events.get", &Value::Null) {
                return refused;
            }
            google
                .events
                .get(&key(id))
                .map_or_else(|| error(404, "notFound", "Not Found"), |event| Reply::json(200, event))
        }
        (&Method::DELETE, Some(id)) => match google.events.get_mut(&key(id)) {
            None => error(404, "notFound", "Not Found"),
            Some(event) if event["status"] == "cancelled" => error(410, "deleted", "Resource has been deleted"),
            Some(event) => {
                event["status"] = "cancelled".into();
                Reply::json(204, &Value::Null)
            }
        },
        (&Method::GET, None) => {
            if let Some(refused) = check("calendar.events.list", &Value::Null) {
                return refused;
            }
            let items: Vec<&Value> = google
                .events
                .iter()
                .filter(|((account, calendar, _), _)| *account == token.account && *calendar == calendar_id)
                .map(|(_, event)| event)
                .collect();
            Reply::json(
                200,
                &json!({"kind": "calendar#events", "summary": "Sandbox", "timeZone": "UTC", "items": items}),
            )
        }
        _ => error(405, "httpMethodNotAllowed", "Method not allowed"),
    }
}

fn oauth_error(status: u16, code: &str, description: &str) -> Reply {
    Reply::json(status, &json!({"error": code, "error_description": description}))
}

fn error(status: u16, reason: &str, message: &str) -> Reply {
    let errors = json!([{"domain": "global", "reason": reason, "message": message}]);
    Reply::json(
        status,
        &json!({"error": {"code": status, "message": message, "errors": errors}}),
    )
}

/// The body of an error that a fault asked for: the calendar's form, which the token endpoint's
/// readers take for no reason.
pub(super) fn error_body(status: u16) -> Value {
    let reason = match status {
        401 => "authError",
        403 | 429 => "rateLimitExceeded",
        404 => "notFound",
        500.. => "backendError",
        _ => "invalid",
    };
    json!({"error": {"code": status, "message": reason, "errors": [{"domain": "global", "reason": reason, "message": reason}]}})
}
