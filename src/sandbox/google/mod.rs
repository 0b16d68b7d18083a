//! Google's stand-in: consent, tokens and a calendar.
//!
//! It is as strict as the real one. It refuses an unregistered redirect, a verifier that does not
//! fit its challenge, a used code, and a token that has ended or was replaced. The person at the
//! consent page is the account that `login_hint` names, or the first account. The hint `deny`
//! stands for a person who refuses.

mod calendar;
mod consent;
mod token;

use super::{Call, GoogleAccount, GoogleOauthClient, Reply, SandboxState, form, lock};
use crate::domain::Timestamp;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};

/// Life of an access token, and of a code.
const TOKEN_SECONDS: u64 = 3599;
const CODE_LIFE: Duration = Duration::from_mins(10);
/// Codes, tokens and events that are kept, of each kind.
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

/// The state of the stand-in.
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

    /// The address of an account.
    fn email_of(&self, id: &str) -> Option<String> {
        let found = self.accounts.iter().find(|account| account.id == id)?;
        Some(found.email.clone())
    }

    pub(super) const fn set_rotating(&mut self, rotates: bool) {
        self.rotates = rotates;
    }

    pub(super) const fn refreshes(&self) -> u64 {
        self.refreshes
    }

    /// Revokes all grants of an account.
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

/// 24 random characters.
fn random() -> String {
    let mut bytes = [0; 18];
    // Without randomness the texts still differ, because the id counts up.
    let _ = getrandom::fill(&mut bytes);
    format!("{}{}", URL_SAFE_NO_PAD.encode(bytes), uuid::Uuid::now_v7().simple())
}

pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let path = call.parts.uri.path();
    match (&call.parts.method, path) {
        (&Method::GET, "/o/oauth2/v2/auth") => consent::answer(state, call),
        (&Method::POST, "/token") => token::answer(state, call),
        (&Method::POST, "/revoke") => revoke(state, call),
        _ => calendar::answer(state, call),
    }
}

/// Ends a grant, named by one of its tokens.
fn revoke(state: &SandboxState, call: &Call<'_>) -> Reply {
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
