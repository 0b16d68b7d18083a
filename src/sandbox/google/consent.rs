//! The page where a person consents: this one consents at once, and sends the person back.

use super::{CODE_LIFE, Code, Google, KEPT_MAX, random};
use crate::sandbox::{Call, GoogleAccount, Reply, SandboxState, form, lock};
use serde_json::json;

/// `GET /o/oauth2/v2/auth`.
pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let query = call.query();
    let get = |name: &str| form::get(&query, name).unwrap_or_default();
    let mut google = lock(&state.0.google);
    let redirect_uri = get("redirect_uri");
    let is_registered = match google
        .clients
        .iter()
        .find(|client| client.client_id == get("client_id"))
    {
        Some(client) => client.redirect_urls.iter().any(|url| url == redirect_uri),
        None => return unknown_client(),
    };
    if !is_registered {
        return redirect_mismatch();
    }
    let separator = if redirect_uri.contains('?') { '&' } else { '?' };
    let back = |query: &str| Reply::redirect(&format!("{redirect_uri}{separator}state={}&{query}", get("state")));
    let has_challenge = get("code_challenge_method") == "S256" && get("code_challenge").len() == 43;
    if get("response_type") != "code" || get("scope").is_empty() || !has_challenge {
        return back("error=invalid_request");
    }
    let Some(account) = consenting_account(&google, form::get(&query, "login_hint")) else {
        return back("error=access_denied");
    };
    let scope = granted_scope(&account, get("scope"));
    let code = format!("4/{}", random());
    let now = state.now();
    if google.codes.len() >= KEPT_MAX {
        google.codes.retain(|_, code| code.expires_at > now);
    }
    google.codes.insert(
        code.clone(),
        Code {
            client_id: get("client_id").to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            challenge: get("code_challenge").to_owned(),
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

/// The account of the person at the page; `None` when that person refuses, or no account fits.
fn consenting_account(google: &Google, login_hint: Option<&str>) -> Option<GoogleAccount> {
    match login_hint {
        Some("deny") => None,
        Some(hint) => google
            .accounts
            .iter()
            .find(|account| account.id == hint || account.email == hint)
            .cloned(),
        None => google.accounts.first().cloned(),
    }
}

/// The scopes that were asked for, without the boxes that the person left unticked.
fn granted_scope<'s>(account: &GoogleAccount, asked: &'s str) -> Vec<&'s str> {
    asked
        .split(' ')
        .filter(|scope| !account.unticked.iter().any(|unticked| scope.ends_with(unticked)))
        .collect()
}

fn unknown_client() -> Reply {
    Reply::json(
        401,
        &json!({"error": "invalid_client", "error_description": "The OAuth client was not found."}),
    )
}

fn redirect_mismatch() -> Reply {
    let description = "The redirect URI in the request does not match the ones authorized.";
    Reply::json(
        400,
        &json!({"error": "redirect_uri_mismatch", "error_description": description}),
    )
}
