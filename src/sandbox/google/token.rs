//! The token endpoint: a code or a refresh token becomes an access token.

use super::{Code, Google, Grant, TOKEN_SECONDS, oauth_error, random};
use crate::{
    domain::Timestamp,
    sandbox::{Call, Reply, SandboxState, form, lock},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

type Form = Vec<(String, String)>;

/// `POST /token`.
pub(super) fn answer(state: &SandboxState, call: &Call<'_>) -> Reply {
    let form = form::parse(call.body);
    let now = state.now();
    let mut google = lock(&state.0.google);
    let is_client = google.clients.iter().any(|client| {
        client.client_id == get(&form, "client_id") && client.client_secret == get(&form, "client_secret")
    });
    if !is_client {
        return oauth_error(401, "invalid_client", "The provided client secret is invalid.");
    }
    match get(&form, "grant_type") {
        "authorization_code" => exchange(&mut google, &form, now),
        "refresh_token" => refresh(&mut google, &form, now),
        _ => oauth_error(400, "unsupported_grant_type", "Invalid grant_type"),
    }
}

fn get<'f>(form: &'f Form, name: &str) -> &'f str {
    form::get(form, name).unwrap_or_default()
}

fn bad_request() -> Reply {
    oauth_error(400, "invalid_grant", "Bad Request")
}

/// A code becomes a grant with its first access token.
fn exchange(google: &mut Google, form: &Form, now: Timestamp) -> Reply {
    let code = get(form, "code");
    if let Some(grant) = google.used.remove(code) {
        // RFC 6749, 4.1.2: the second use of a code revokes its grant.
        google.revoke(&grant);
        return bad_request();
    }
    let known = google.codes.get(code).cloned();
    let Some(known) = known.filter(|known| known.expires_at > now && known.client_id == get(form, "client_id")) else {
        return bad_request();
    };
    if known.redirect_uri != get(form, "redirect_uri") {
        return oauth_error(400, "redirect_uri_mismatch", "Bad Request");
    }
    if URL_SAFE_NO_PAD.encode(Sha256::digest(get(form, "code_verifier").as_bytes())) != known.challenge {
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
        return bad_request();
    };
    let mut body = token_body(&access, &known.scope);
    if known.is_offline {
        body["refresh_token"] = grant.into();
    }
    if known.scope.split(' ').any(|scope| scope == "openid") {
        let email = known.scope.split(' ').any(|scope| scope == "email");
        let email = email.then(|| google.email_of(&known.account)).flatten();
        body["id_token"] = id_token(&known, email, now).into();
    }
    Reply::json(200, &body)
}

/// A refresh token becomes an access token.
fn refresh(google: &mut Google, form: &Form, now: Timestamp) -> Reply {
    let old = get(form, "refresh_token");
    let known = google.grants.get(old).cloned();
    let Some(known) = known.filter(|grant| grant.client_id == get(form, "client_id")) else {
        return oauth_error(400, "invalid_grant", "Token has been expired or revoked.");
    };
    google.refreshes += 1;
    // Google itself does not rotate refresh tokens. Other providers do, and a former token is then
    // invalid.
    let grant = if google.rotates {
        google.revoke(old);
        let new = format!("1//{}", random());
        google.grants.insert(new.clone(), known);
        new
    } else {
        old.to_owned()
    };
    let Some((access, found)) = google.issue(&grant, now) else {
        return bad_request();
    };
    let mut body = token_body(&access, &found.scope);
    if grant != old {
        body["refresh_token"] = grant.into();
    }
    Reply::json(200, &body)
}

fn token_body(access: &str, scope: &str) -> Value {
    json!({"access_token": access, "expires_in": TOKEN_SECONDS, "scope": scope, "token_type": "Bearer"})
}

/// A token that names the account. Its signature is a dummy, because the receiver gets the token
/// from Google directly and does not check it.
fn id_token(code: &Code, email: Option<String>, now: Timestamp) -> String {
    let mut claims = json!({
        "iss": "https://accounts.google.com",
        "aud": code.client_id,
        "sub": code.account,
        "exp": now.as_seconds() + 3600,
    });
    if let Some(email) = email {
        claims["email"] = email.into();
    }
    format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#),
        URL_SAFE_NO_PAD.encode(claims.to_string()),
        "c2lnbmF0dXJl"
    )
}
